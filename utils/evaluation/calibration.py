"""Whether a classifier's confidence can be believed, and from which confidence on.

Fit on validation rows, report on test rows: `fit_temperature` and `abstention_threshold` take the former, the others
the latter. Confidence is the probability of the predicted class; correct is whether that class is the label's.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest

TEMPERATURES = (0.05, 20.0)
BINS = 15  # as in Guo et al. 2017


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities, float64 [rows, classes], of logits [rows, classes] divided by the temperature."""
    return special.softmax(np.asarray(logits, dtype=float) / temperature, axis=-1)


def fit_temperature(logits: np.ndarray, labels: Sequence[int]) -> float:
    """The temperature of least negative log-likelihood (Guo et al. 2017, On Calibration of Modern Neural Networks).

    Above 1 the model was too sure. It changes no prediction. Within 0.05 and 20, where it ends if all rows are right
    or the labels follow no logit; 1 where no temperature is better (constant logits).

    Args:
        logits: float [rows, classes].
        labels: class index a row.
    """
    logits, rows = np.asarray(logits, dtype=float), np.arange(len(labels))

    def nll(log_temperature: float) -> float:
        return -special.log_softmax(logits / math.exp(log_temperature), axis=-1)[rows, labels].mean()

    found = minimize_scalar(nll, bounds=np.log(TEMPERATURES), method="bounded")
    return math.exp(found.x) if found.fun < nll(0.0) else 1.0


def calibration_statistics(probabilities: np.ndarray, labels: Sequence[int]) -> dict[str, np.ndarray]:
    """Row statistics for `utils.metrics`.

    Args:
        probabilities: float [rows, classes].
        labels: class index a row.

    Returns:
        loss: negative log-likelihood of the label in nats, mean over rows; at most 36, as in scikit-learn's log_loss.
        brier: squared distance to the one-hot label, summed over classes, mean over rows: 0..2 (Brier 1950).
        ece: expected calibration error, 0..1: the gap of accuracy and confidence in 15 bins of equal width, weighted
            by their rows (Guo et al. 2017). Columns: correct - confidence in the row's bin, 0 in the others; last 1.
            Chance adds to it, about 0.04 with 400 rows, and in resamples once more: its interval may lie above it.
    """
    confidence, correct, bin_of_row = _binned(probabilities, labels, BINS)
    rows, ones = np.arange(len(labels)), np.ones(len(labels))
    nll = -np.log(np.maximum(probabilities[rows, labels], np.finfo(float).eps))
    squared = ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)
    ece = np.column_stack([np.zeros((len(rows), BINS)), ones])
    ece[rows, bin_of_row] = correct - confidence
    return {"loss": np.column_stack([nll, ones]), "brier": np.column_stack([squared, ones]), "ece": ece}


def reliability_bins(probabilities: np.ndarray, labels: Sequence[int], bins: int = BINS) -> list[dict[str, Any]]:
    """The reliability diagram: rows in bins of equal width of their confidence, without the empty ones.

    Args:
        probabilities: float [rows, classes].
        labels: class index a row.

    Returns:
        one dict a bin: `low` (exclusive) and `high` of the bin, number of `rows`, mean `confidence`, `accuracy` and
        its 95 % Wilson interval `accuracy_ci95`.
    """
    confidence, correct, bin_of_row = _binned(probabilities, labels, bins)
    found = []
    for i in np.unique(bin_of_row).tolist():
        inside = bin_of_row == i
        hits, rows = int(correct[inside].sum()), int(inside.sum())
        found.append(
            {
                "low": i / bins,
                "high": (i + 1) / bins,
                "rows": rows,
                "confidence": float(confidence[inside].mean()),
                "accuracy": hits / rows,
                "accuracy_ci95": [float(x) for x in binomtest(hits, rows).proportion_ci(method="wilson")],
            }
        )
    return found


def risk_coverage(confidence: Sequence[float], correct: Sequence[bool], points: int = 200) -> list[dict[str, float]]:
    """What is gained by answering only the surest rows: El-Yaniv and Wiener 2010's risk-coverage curve.

    Returns:
        at most `points` dicts by rising `coverage` (share of rows answered), the last one 1: `risk` (share of wrong
        ones among them) and `threshold` (their lowest confidence). Rows of equal confidence are answered together.
    """
    thresholds, rows, errors = _answered(confidence, correct)
    kept = np.linspace(0, len(rows) - 1, min(points, len(rows)), dtype=int)
    return [
        {"coverage": float(c), "risk": float(r), "threshold": float(t)}
        for c, r, t in zip((rows / len(confidence))[kept], (errors / rows)[kept], thresholds[kept], strict=True)
    ]


def area_under_risk_coverage(confidence: Sequence[float], correct: Sequence[bool]) -> float:
    """AURC, the mean risk over the coverages 1/n, 2/n, ..., 1 (Geifman et al. 2019); lower is better.

    Rows of equal confidence count with the expected value over their orders; so a constant confidence gives the
    error rate.
    """
    _, rows, errors = _answered(confidence, correct)
    answered = np.arange(1, len(confidence) + 1)
    return float((np.interp(answered, [0, *rows], [0, *errors]) / answered).mean())


def abstention_threshold(
    confidence: Sequence[float], correct: Sequence[bool], max_risk: float, delta: float = 0.05
) -> float | None:
    """The lowest confidence found from which on answers are wrong at a rate of at most `max_risk`.

    Selection with guaranteed risk: Geifman and El-Yaniv 2017, Selective Classification for Deep Neural Networks,
    algorithm 1. A binary search over the rows' confidences, each tried with the exact binomial bound at delta / number
    of trials. With probability 1 - delta the share of wrong answers among new rows of the same source, answered where
    `confidence >= threshold`, is at most `max_risk`. This holds if that share does not rise with the threshold, and
    if the rows did not train or choose the model: rows that picked its best checkpoint look better than new ones.

    Args:
        confidence, correct: of validation rows; those of equal confidence are answered together.
        max_risk: highest share of wrong answers among those given, between 0 and 1.
        delta: how probable it may be that the true share is higher.

    Returns:
        None where no confidence passes, be it for too few rows.
    """
    thresholds, rows, errors = _answered(confidence, correct)
    delta_a_trial = delta / max(len(confidence).bit_length(), 1)  # ceil(log2(n + 1)): most trials for n confidences
    # Fewer rows would not pass without an error either: start behind them, or the search ends among them
    low, high = int(((1 - max_risk) ** rows > delta_a_trial).sum()), len(rows)
    found = None
    while low < high:
        middle = (low + high) // 2
        # The Clopper-Pearson upper bound is at most max_risk
        if binom.cdf(errors[middle], rows[middle], max_risk) <= delta_a_trial:
            found, low = float(thresholds[middle]), middle + 1
        else:
            high = middle
    return found


def _binned(probabilities: np.ndarray, labels: Sequence[int], bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, correct and bin of each row; a bin holds its upper edge, not the lower."""
    confidence = probabilities.max(axis=1)
    inner_edges = np.arange(1, bins) / bins
    return confidence, probabilities.argmax(axis=1) == labels, np.searchsorted(inner_edges, confidence)


def _answered(confidence: Sequence[float], correct: Sequence[bool]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct confidences, falling, and how many rows have at least that one, and how many of them are wrong."""
    thresholds, index = np.unique(confidence, return_inverse=True)
    rows, wrong = np.bincount(index), np.bincount(index, weights=~np.asarray(correct, dtype=bool))
    return thresholds[::-1], rows[::-1].cumsum(), wrong[::-1].cumsum()


def abstention_statistics(
    confidence: np.ndarray, correct: np.ndarray, threshold: float | None
) -> dict[str, np.ndarray]:
    """Row statistics of a model that abstains below `threshold` (None: always): `coverage`, the share of rows that it
    answers, and, where it answers any, `selective_risk`, the share of wrong ones among these."""
    answered = confidence >= (np.inf if threshold is None else threshold)
    statistics = {"coverage": np.column_stack([answered, np.ones(len(answered))]).astype(float)}
    if answered.any():
        statistics["selective_risk"] = np.column_stack([answered & ~correct, answered]).astype(float)
    return statistics


def calibration_curves(
    probabilities: np.ndarray, uncalibrated: np.ndarray, labels: np.ndarray, temperature: float
) -> dict[str, Any]:
    """What plots of calibration and abstention show: `temperature`, `reliability` after and `reliability_uncalibrated`
    before it (`reliability_bins`), `risk_coverage`.

    Args:
        probabilities, uncalibrated: after and before division by the temperature, float [rows, classes].
        labels: int [rows].
        temperature: from `fit_temperature`.
    """
    return {
        "temperature": temperature,
        "reliability": reliability_bins(probabilities, labels),
        "reliability_uncalibrated": reliability_bins(uncalibrated, labels),
        "risk_coverage": risk_coverage(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels),
    }
