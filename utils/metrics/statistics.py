"""Numbers with confidence intervals.

Every metric is a function of the sums of a few numbers a row (a mean: value and 1; BLEU: n-gram counts and lengths).
So one matrix of bootstrap counts, `weights @ statistic`, gives the 95 % interval of every metric at once, and the same
matrix on two systems gives the interval of their difference. A statistic is a float array [rows, columns].

    python -m utils.metrics --task qa --input_file predictions.jsonl
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from scipy.sparse import csr_array, hstack

from utils.arguments import UserError

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
CLASS_METRICS = ("macro_f1", "weighted_f1", "macro_precision", "macro_recall", "weighted_precision", "matthews")


def text_statistics(
    predictions: Sequence[str], references: Sequence[str], use_stemmer: bool = False
) -> dict[str, np.ndarray]:
    """Row statistics of generated texts; an empty prediction scores 0.

    Args:
        predictions, references: one text a row.
        use_stemmer: Porter stemming in ROUGE. Off by default, as in the published MTS-Dialog scores.

    Returns:
        rouge1, rouge2, rougeL, rougeLsum: F1 (Lin 2004), mean over rows; rougeLsum takes a line as a sentence.
        bleu: corpus BLEU in 0..1 (Papineni et al. 2002): sacrebleu's default (13a, exp smoothing) / 100.
        length_ratio: words of all predictions / words of all references, split at white space.
        repetition: share of a prediction's 4-grams of words and marks that it had before, mean over rows.
    """
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer)
    line_scorer = RougeScorer(["rougeLsum"], use_stemmer)
    bleu = BLEU(effective_order=True)  # changes no count, only silences the warning about single sentences
    rouge_rows, bleu_rows = [], []
    for prediction, reference in zip(predictions, references, strict=True):
        scores = scorer.score(reference, prediction)
        # Without a line break ROUGE-Lsum is ROUGE-L: do not fill a second LCS table, half of the time.
        lines = "\n" in prediction or "\n" in reference
        scores["rougeLsum"] = line_scorer.score(reference, prediction)["rougeLsum"] if lines else scores["rougeL"]
        rouge_rows.append([scores[name].fmeasure for name in ROUGE_TYPES])
        counts = bleu.sentence_score(prediction, [reference])
        bleu_rows.append([*counts.counts, *counts.totals, counts.sys_len, counts.ref_len])
    rouge = np.array(rouge_rows, dtype=float)
    lengths = [(len(p.split()), len(r.split())) for p, r in zip(predictions, references, strict=True)]
    return {
        **{name: _mean(rouge[:, i]) for i, name in enumerate(ROUGE_TYPES)},
        "bleu": np.array(bleu_rows, dtype=float),
        "length_ratio": np.array(lengths, dtype=float),
        "repetition": _mean([_repetition(prediction) for prediction in predictions]),
    }


def loss_statistics(nll: Sequence[float], tokens: Sequence[int]) -> dict[str, np.ndarray]:
    """Mean token loss (nats) and perplexity, its exponential, from each row's summed loss and number of tokens."""
    statistic = np.column_stack([nll, tokens]).astype(float)
    return {"loss": statistic, "perplexity": statistic}


def accuracy_statistics(correct: Sequence[bool], name: str = "accuracy") -> dict[str, np.ndarray]:
    """Share of rows that are right, under any name that `reduce_sums` does not treat otherwise."""
    return {name: _mean(correct)}


def classification_statistics(
    predictions: Sequence[Any],
    references: Sequence[Any],
    labels: Sequence[Any],
    groups: dict[str, Sequence] | None = None,
) -> dict[str, Any]:
    """accuracy, F1, precision, recall and Matthews' correlation, from true positives, predicted and true rows of each
    class: sparse arrays [rows, 3 x classes], since thousands of classes are allowed.

    A macro mean is over those of `labels` that occur in references or predictions, as scikit-learn's
    `f1_score(references, predictions, average="macro", labels=<those>)`; in a resample, over those that occur in it,
    since a class that was not drawn says nothing. A prediction outside `labels` is wrong and is no class of its own.
    The weighted recall is the accuracy. matthews: R_K of Gorodkin 2004, as scikit-learn's `matthews_corrcoef`.

    Args:
        predictions, references: one label a row.
        labels: the known ones.
        groups: name -> some of the labels: adds `<name>_macro_f1`, the mean over these alone, where one occurs.

    Raises:
        UserError: for a reference outside `labels`.
    """
    unknown = sorted(map(str, set(references) - set(labels)))
    if unknown:
        raise UserError(f"{len(unknown)} labels are not among the {len(labels)} known ones: {unknown[:5]}.")
    seen = {*references, *predictions}
    kept = [label for label in labels if label in seen]
    true, predicted = _one_hot(references, kept), _one_hot(predictions, kept)
    statistic = hstack([true * predicted, predicted, true], format="csr")
    correct = [p == r for p, r in zip(predictions, references, strict=True)]
    statistics = accuracy_statistics(correct) | dict.fromkeys(CLASS_METRICS, statistic)
    for name, members in (groups or {}).items():
        columns = [i for i, label in enumerate(kept) if label in set(members)]
        if columns:
            own = [i + block * len(kept) for block in range(3) for i in columns]
            statistics[f"{name}_macro_f1"] = statistic[:, own]
    return statistics


def reduce_sums(name: str, sums: np.ndarray) -> np.ndarray:
    """Turn a statistic's sums over rows [..., columns] into the metric [...]; the name's end says which one.

    bleu: correct 1-4-grams, all 1-4-grams, length, reference length. chrf: for n of 1 to 6 the prediction's, the
    reference's and the common n-grams of characters. `CLASS_METRICS`: true positives, predicted and true rows, a
    column a class each. perplexity: exp of a ratio. ece: correct - confidence, a column a bin, and rows. All others:
    the ratio of the two columns, NaN where the second is 0.
    """
    sums = np.asarray(sums, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if name.endswith("bleu"):
            correct, total, length, reference_length = sums[..., :4], sums[..., 4:8], sums[..., 8], sums[..., 9]
            missed = correct == 0
            # NIST smoothing: the first order without a match counts 1/2 match, the next 1/4, ...
            precision = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), correct) / total
            brevity = np.exp(np.minimum(0, 1 - reference_length / length))
            defined = correct.any(axis=-1) & total.all(axis=-1)
            return np.where(defined, brevity * np.exp(np.log(precision).mean(axis=-1)), 0.0)
        if name.endswith("chrf"):
            predicted, of_reference, common = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
            defined = (predicted > 0) & (of_reference > 0)  # texts may be shorter than n
            precision, recall = (
                np.where(defined, common / total, 0).sum(axis=-1) / defined.sum(axis=-1)
                for total in (predicted, of_reference)
            )
            return np.where(precision + recall > 0, 5 * precision * recall / (4 * precision + recall), 0.0)  # beta 2
        if name.endswith(CLASS_METRICS):
            return _reduce_classes(name, *np.split(sums, 3, axis=-1))
        if name.endswith("ece"):
            return np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]
        ratio = np.where(sums[..., 1] == 0, np.nan, sums[..., 0] / sums[..., 1])
        return np.exp(ratio) if name.endswith("perplexity") else ratio


def four_grams(text: str) -> Counter:
    """Count the runs of four words or marks of a text; marks too, since "!!!!!!!!" is a loop."""
    tokens = re.findall(r"\w+|[^\w\s]", text.lower())
    return Counter(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))


def _mean(values: Sequence[float]) -> np.ndarray:
    return np.column_stack([np.asarray(values, dtype=float), np.ones(len(values))])


def _one_hot(values: Sequence[Any], labels: Sequence[Any]) -> csr_array:
    """[rows, labels], a row of zeros for a value that is none of the labels."""
    index = {label: i for i, label in enumerate(labels)}
    cells = [(row, index[value]) for row, value in enumerate(values) if value in index]
    rows, columns = zip(*cells, strict=True) if cells else ((), ())
    return csr_array((np.ones(len(cells), np.float32), (rows, columns)), shape=(len(values), len(labels)))


def _reduce_classes(name: str, hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    if name.endswith("matthews"):
        n, right = true.sum(axis=-1), hits.sum(axis=-1)
        spread = (n**2 - (predicted**2).sum(axis=-1)) * (n**2 - (true**2).sum(axis=-1))
        return np.where(spread > 0, (right * n - (predicted * true).sum(axis=-1)) / np.sqrt(spread), 0.0)
    of = {"precision": predicted, "recall": true, "f1": (predicted + true) / 2}[name.rsplit("_", 1)[-1]]
    scores = np.where(hits > 0, hits / of, 0.0)
    importance = true if "weighted" in name else predicted + true > 0
    return (scores * importance).sum(axis=-1) / importance.sum(axis=-1)


def _repetition(text: str) -> float:
    grams = four_grams(text)
    return 1 - len(grams) / grams.total() if grams else 0.0
