"""Metrics as sums over rows, so that confidence intervals are cheap.

Every metric is a function of column sums over rows (a mean: value and 1; BLEU: n-gram counts and lengths). So its
value without the rows of one cluster takes one subtraction, and these values give the 95 % interval of the metric and,
for two systems, of their difference (`utils.metrics.intervals`). A statistic is a float array [rows, columns].

    python -m utils.metrics --task qa --input_file predictions.jsonl
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sacrebleu.metrics import BLEU
from scipy.sparse import csr_array, hstack

from utils.arguments import UserError
from utils.overlap import Tokenizers, choose_tokenizers, rouge_scorer, split_lines
from utils.words import count_words, split_words

Labels = Sequence[Any] | np.ndarray

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
# smallest and largest value of a metric, by the end of its name
RANGES = {
    (0.0, 1.0): re.compile(
        r"(accuracy|accuracy_norm|f1|precision|recall|rouge(1|2|L|Lsum)|bleu|chrf|ece|coverage|risk|omission|finished"
        r"|hallucination|repetition|inconsistent|flip_rate|parse_failure|novel_[1-4]gram|_confident)$"
    ),
    (-1.0, 1.0): re.compile(r"(matthews|bertscore_(f1|precision|recall))$"),
    (0.0, 2.0): re.compile(r"brier$"),
    (0.0, math.inf): re.compile(
        r"(loss|length_ratio|compression|(hallucinated|omitted)_(drugs|findings|numbers)|negation_flips"
        r"|wrong_(person|laterality))$"
    ),
}
CLASS_METRICS = ("macro_f1", "weighted_f1", "macro_precision", "macro_recall", "weighted_precision", "matthews")


def text_statistics(
    predictions: Sequence[str],
    references: Sequence[str],
    use_stemmer: bool = False,
    tokenizers: Tokenizers | None = None,
) -> dict[str, np.ndarray]:
    """Compute row statistics of generated texts; an empty prediction scores 0.

    Args:
        predictions, references: one text per row.
        use_stemmer: use Porter stemming in ROUGE. Off by default, as in the published MTS-Dialog scores.
        tokenizers: what ROUGE and BLEU compare; by default chosen by the references, English as rouge-score does.

    Returns:
        rouge1, rouge2, rougeL, rougeLsum: F1 (Lin 2004), mean over rows; rougeLsum treats lines as sentences.
        bleu: corpus BLEU in 0..1 (Papineni et al. 2002), sacrebleu's (13a for English, exp smoothing) / 100.
        length_ratio: words of all predictions / words of all references, as `count_words` counts them.
        repetition: share of a prediction's 4-grams (words and punctuation) that occurred before in it, mean over rows.
    """
    tokenizers = tokenizers or choose_tokenizers(references)
    scorer = rouge_scorer(ROUGE_TYPES[:3], tokenizers, use_stemmer)
    line_scorer = rouge_scorer(ROUGE_TYPES[3:], tokenizers, use_stemmer)
    bleu = BLEU(
        tokenize=tokenizers.bleu, effective_order=True
    )  # counts are unchanged; silences a warning about sentence scores
    rouge_rows, bleu_rows = [], []
    for prediction, reference in zip(predictions, references, strict=True):
        scores = scorer.score(reference, prediction)
        # Without line breaks ROUGE-Lsum equals ROUGE-L, and skipping its LCS table halves the time
        lines = [split_lines(text, tokenizers) for text in (reference, prediction)]
        several = any("\n" in text for text in lines)
        scores["rougeLsum"] = line_scorer.score(*lines)["rougeLsum"] if several else scores["rougeL"]
        rouge_rows.append([scores[name].fmeasure for name in ROUGE_TYPES])
        counts = bleu.sentence_score(prediction, [reference])
        bleu_rows.append([*counts.counts, *counts.totals, counts.sys_len, counts.ref_len])
    rouge = np.array(rouge_rows, dtype=float)
    lengths = [(count_words(p), count_words(r)) for p, r in zip(predictions, references, strict=True)]
    return {
        **{name: _mean(rouge[:, i]) for i, name in enumerate(ROUGE_TYPES)},
        "bleu": np.array(bleu_rows, dtype=float),
        "length_ratio": np.array(lengths, dtype=float),
        "repetition": _mean([repetition(prediction) for prediction in predictions]),
    }


def loss_statistics(nll: ArrayLike, tokens: ArrayLike) -> dict[str, np.ndarray]:
    """Return mean token loss (nats) and perplexity, its exponential, from summed losses and token counts per row."""
    statistic = np.column_stack([np.asarray(nll), np.asarray(tokens)]).astype(float)
    return {"loss": statistic, "perplexity": statistic}


def accuracy_statistics(correct: ArrayLike, name: str = "accuracy") -> dict[str, np.ndarray]:
    """Return the share of correct rows, under any name that has no other meaning in `reduce_sums`."""
    return {name: _mean(correct)}


def classification_statistics(
    predictions: Labels,
    references: Labels,
    labels: Labels,
    groups: Mapping[str, Labels] | None = None,
) -> dict[str, Any]:
    """Return accuracy, F1, precision, recall and Matthews correlation, from the true positives, predicted and true
    rows of each class: sparse arrays [rows, 3 x classes], since there can be thousands of classes.

    A macro mean covers the `labels` that occur in references or predictions, as scikit-learn's `f1_score(references,
    predictions, average="macro", labels=<those>)`; without some rows, only those that occur in the
    others. A prediction outside `labels` is wrong and not a class of its own. Weighted
    recall equals accuracy. matthews: R_K of Gorodkin 2004, as scikit-learn's `matthews_corrcoef`.

    Args:
        predictions, references: one label per row.
        labels: the known labels.
        groups: name -> some of the labels; adds `<name>_macro_f1`, the mean over those that occur, if any.

    Raises:
        UserError: a reference is not in `labels`.
    """
    unknown = sorted(map(str, set(references) - set(labels)))
    if unknown:
        raise UserError(f"{len(unknown)} labels are not among the {len(labels)} known labels: {unknown[:5]}.")
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
    """Turn a statistic's sums over rows [..., columns] into the metric [...]; the suffix of the name selects the
    formula.

    bleu: correct 1-4-grams, all 1-4-grams, length, reference length. chrf: for n from 1 to 6, character n-grams of the
    prediction, of the reference, and common ones. `CLASS_METRICS`: true positives, predicted and true rows, with one
    column per class each. perplexity: exponential of a ratio. ece: correct - confidence, one column per bin, and rows.
    All others: the ratio of two columns, NaN if the second is 0.
    """
    sums = np.asarray(sums, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if name.endswith("bleu"):
            correct, total, length, reference_length = sums[..., :4], sums[..., 4:8], sums[..., 8], sums[..., 9]
            missed = correct == 0
            # NIST smoothing: the first order without a match counts as 1/2 match, the next as 1/4, ...
            precision = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), correct) / total
            brevity = np.exp(np.minimum(0, 1 - reference_length / length))
            defined = correct.any(axis=-1) & total.all(axis=-1)
            return np.where(defined, brevity * np.exp(np.log(precision).mean(axis=-1)), 0.0)
        if name.endswith("chrf"):
            predicted, of_reference, common = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
            defined = (predicted > 0) & (of_reference > 0)  # texts can be shorter than n
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


def metric_range(name: str) -> tuple[float, float]:
    """Return the smallest and largest value that a metric can have; infinite for one that is not known."""
    ranges = [limits for limits, names in reversed(RANGES.items()) if names.search(name)]
    return ranges[0] if ranges else (-math.inf, math.inf)


def four_grams(text: str) -> Counter:
    """Count the 4-grams of words and punctuation of a text; punctuation counts, since "!!!!!!!!" is a loop."""
    tokens = split_words(text.lower(), punctuation=True)
    return Counter(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))


def repetition(text: str) -> float:
    """Return the share of a text's `four_grams` that occurred before in it."""
    grams = four_grams(text)
    return 1 - len(grams) / grams.total() if grams else 0.0


def _mean(values: ArrayLike) -> np.ndarray:
    column = np.asarray(values, dtype=float)
    return np.column_stack([column, np.ones(len(column))])


def _one_hot(values: Labels, labels: Labels) -> csr_array:
    """Return a one-hot array [rows, labels]; values that are not among the labels give a row of zeros."""
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
