"""The values that other libraries give for the same predictions, to compare with ours.

lm-evaluation-harness computes `bleu` and `chrf` with sacrebleu and `rouge` with rouge-score, and `f1` and `mcc` with
scikit-learn.
"""

from collections.abc import Sequence

import numpy as np
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_score, recall_score

from utils.metrics.statistics import ROUGE_TYPES


def scikit_learn_values(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return scikit-learn's metrics with its defaults, under our names after `sklearn_`.

    Without `labels` it averages over all labels in references or predictions, as ours do.
    """
    found = {
        "accuracy": accuracy_score(references, predictions),
        "matthews": matthews_corrcoef(references, predictions),
    }
    for average in ("macro", "weighted"):
        options = {"average": average, "zero_division": 0}
        found[f"{average}_f1"] = f1_score(references, predictions, **options)
        found[f"{average}_precision"] = precision_score(references, predictions, **options)
    found["macro_recall"] = recall_score(references, predictions, average="macro", zero_division=0)
    return {f"sklearn_{name}": float(value) for name, value in found.items()}


def multi_label_values(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return scikit-learn's metrics of sets of labels, bool [rows, labels], under our names after `sklearn_`."""
    found = {"accuracy": accuracy_score(true, predicted)}
    for average in ("micro", "macro", "weighted"):
        found[f"{average}_f1"] = f1_score(true, predicted, average=average, zero_division=0)
    for average in ("micro", "macro"):
        found[f"{average}_precision"] = precision_score(true, predicted, average=average, zero_division=0)
        found[f"{average}_recall"] = recall_score(true, predicted, average=average, zero_division=0)
    found["samples_f1"] = f1_score(true, predicted, average="samples", zero_division=1)
    return {f"sklearn_{name}": float(value) for name, value in found.items()}


def text_values(predictions: Sequence[str], references: Sequence[str], use_stemmer: bool) -> dict[str, float]:
    """Return rouge-score's mean F1, as `rouge_score_<type>`, and sacrebleu's corpus scores from 0 to 100, as
    `sacrebleu_bleu` and `sacrebleu_chrf`, with their default tokenizers. Ours divide sacrebleu's by 100, and take
    other tokenizers where the texts are not in a to z."""
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer)
    scores = [scorer.score(reference, text) for text, reference in zip(predictions, references, strict=True)]
    found = {f"rouge_score_{name}": float(np.mean([row[name].fmeasure for row in scores])) for name in ROUGE_TYPES}
    found["sacrebleu_bleu"] = sacrebleu.corpus_bleu(list(predictions), [list(references)]).score
    found["sacrebleu_chrf"] = sacrebleu.corpus_chrf(list(predictions), [list(references)]).score
    return found
