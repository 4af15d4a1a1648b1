"""Calibration and abstention of a classifier.

`fit_temperature` and `abstention_threshold` are fitted on different validation rows; the other functions measure on
test rows.
Confidence is the probability of the predicted class. A row is correct if the predicted class is its label.
"""

import logging
import math
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
from scipy import special
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from utils.metrics.intervals import Clusters, evaluate_statistics
from utils.metrics.statistics import accuracy_statistics

logger = logging.getLogger(__name__)
TEMPERATURES = (0.05, 20.0)  # limits of the fit
BINS = 15  # as in Guo et al. 2017


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the softmax of logits [rows, classes] divided by the temperature, float64 [rows, classes]."""
    return special.softmax(np.asarray(logits, dtype=float) / temperature, axis=-1)


def fit_temperature(logits: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Return the temperature with the lowest negative log-likelihood (Guo et al. 2017, On Calibration of Modern Neural
    Networks).

    A temperature above 1 means that the model was overconfident. It changes no prediction. It lies between 0.05, the
    result if all rows are correct, and 20, the result if the logits do not predict the labels. It is 1 if no
    temperature is better than 1 (constant logits).

    Args:
        logits: float [rows, classes].
        labels: class index of each row.
    """
    logits, rows = np.asarray(logits, dtype=float), np.arange(len(labels))

    def nll(log_temperature: float) -> float:
        return -special.log_softmax(logits / math.exp(log_temperature), axis=-1)[rows, labels].mean()

    found = minimize_scalar(nll, bounds=np.log(TEMPERATURES), method="bounded")
    return math.exp(found.x) if found.fun < nll(0.0) else 1.0


def find_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return `fit_temperature`, or 1 where rows that are all right, or all wrong, cannot tell how sure to be: the fit
    would end at its limit, and say 100 % of each text (or nothing at all) because a handful of rows happened to be so.
    """
    right = logits.argmax(axis=1) == labels
    if right.any() and not right.all():
        return fit_temperature(logits, labels)
    logger.warning(
        "temperature: the %d validation rows that fit it are all %s, so probabilities stay as the model gives "
        "them. More validation rows tell how far to trust them.",
        len(labels),
        "right" if right.all() else "wrong",
    )
    return 1.0


def calibration_rows(clusters: Clusters, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide the validation rows, so that those of the abstention threshold fitted nothing else.

    Args:
        clusters: id of the cluster of each row.
        seed: seed of the division.

    Returns:
        indices of the rows of one half of the clusters, for ensemble and temperature; and of one row from each other
        cluster, for the threshold: its bound is that of independent rows. A single
        cluster fits, and gives a row.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(clusters))
    _, first, index = np.unique(np.asarray(clusters)[order], return_index=True, return_inverse=True)
    if len(first) == 1:
        return np.sort(order), order[first]
    fits = np.isin(np.arange(len(first)), rng.permutation(len(first))[: len(first) // 2])
    return np.sort(order[fits[index]]), np.sort(order[first[~fits]])


def calibration_statistics(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Return row statistics (see `utils.metrics.statistics`) of the calibration.

    Args:
        probabilities: float [rows, classes].
        labels: class index of each row.

    Returns:
        loss: negative log-likelihood of the label in nats, at most 36 per row, as in scikit-learn's `log_loss`; mean
            over rows.
        brier: squared distance to the one-hot label, summed over classes, 0 to 2 (Brier 1950); mean over rows.
        ece: expected calibration error, 0 to 1: the gap between accuracy and confidence in 15 bins of equal width,
            weighted by their rows (Guo et al. 2017). Columns: correct - confidence in the bin of the row, 0 in the
            others; the last is 1. Chance raises the value, by about 0.04 with 400 rows.
    """
    confidence, correct, bin_of_row = _binned(probabilities, labels, BINS)
    rows, ones = np.arange(len(labels)), np.ones(len(labels))
    nll = -np.log(np.maximum(probabilities[rows, labels], np.finfo(float).eps))
    squared = ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)
    ece = np.column_stack([np.zeros((len(rows), BINS)), ones])
    ece[rows, bin_of_row] = correct - confidence
    return {"loss": np.column_stack([nll, ones]), "brier": np.column_stack([squared, ones]), "ece": ece}


def reliability_bins(
    probabilities: np.ndarray, labels: Sequence[int] | np.ndarray, clusters: Clusters, bins: int = BINS
) -> list[dict[str, Any]]:
    """Return the points of a reliability diagram: bins of equal width over confidence, without empty bins.

    Args:
        probabilities: float [rows, classes].
        labels: class index of each row.
        clusters: id of the cluster of each row.
        bins: number of bins.

    Returns:
        one dict per bin: its limits `low` (exclusive) and `high` (inclusive), number of `rows`, mean `confidence`,
        `accuracy` and its interval `accuracy_ci95`, None with too few clusters.
    """
    confidence, correct, bin_of_row = _binned(probabilities, labels, bins)
    result = []
    for i in np.unique(bin_of_row).tolist():
        inside = bin_of_row == i
        found = evaluate_statistics(accuracy_statistics(correct[inside]), np.asarray(clusters)[inside])
        result.append(
            {
                "low": i / bins,
                "high": (i + 1) / bins,
                "rows": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                **found,
            }
        )
    return result


def risk_coverage(
    confidence: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray, points: int = 200
) -> list[dict[str, float]]:
    """Return the risk-coverage curve (El-Yaniv and Wiener 2010): the risk of answering only the most confident rows.

    Args:
        confidence, correct: one value per row; rows with equal confidence are answered together.
        points: maximum number of points.

    Returns:
        dicts by increasing `coverage` (share of rows answered, 1 in the last): `risk` (share of wrong answers among
        them) and `threshold` (their lowest confidence).
    """
    thresholds, rows, errors = _answered(confidence, correct)
    kept = np.linspace(0, len(rows) - 1, min(points, len(rows)), dtype=int)
    return [
        {"coverage": float(c), "risk": float(r), "threshold": float(t)}
        for c, r, t in zip((rows / len(confidence))[kept], (errors / rows)[kept], thresholds[kept], strict=True)
    ]


def area_under_risk_coverage(confidence: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray) -> float:
    """Return the AURC, the mean risk over the coverages 1/n, 2/n, ..., 1 (Geifman et al. 2019); lower is better.

    Rows with equal confidence enter with the expected value over their orders, so a constant confidence gives the
    error rate.
    """
    _, rows, errors = _answered(confidence, correct)
    answered = np.arange(1, len(confidence) + 1)
    return float((np.interp(answered, [0, *rows], [0, *errors]) / answered).mean())


def abstention_threshold(
    confidence: Sequence[float] | np.ndarray,
    correct: Sequence[bool] | np.ndarray,
    max_risk: float,
    delta: float = 0.05,
) -> float | None:
    """Return the lowest confidence found from which the share of wrong answers is at most `max_risk`.

    This is selection with guaranteed risk (Geifman and El-Yaniv 2017, Selective Classification for Deep Neural
    Networks, algorithm 1): a binary search over the confidences of the rows, each tested with the exact binomial bound
    at delta / number of trials. With probability 1 - delta, the share of wrong answers among new rows from the same
    source, answered where `confidence >= threshold`, is at most `max_risk`. The guarantee assumes that this share does
    not rise with the threshold, that the rows are independent, and that they neither trained nor selected the model:
    rows that selected the best checkpoint look better than new ones.

    Args:
        confidence, correct: of validation rows; those with equal confidence are answered together.
        max_risk: highest share of wrong answers among the answers, between 0 and 1.
        delta: accepted probability that the true share is higher.

    Returns:
        None if no confidence passes the test, which may be for lack of rows.
    """
    thresholds, rows, errors = _answered(confidence, correct)
    delta_per_trial = delta / max(len(confidence).bit_length(), 1)  # ceil(log2(n + 1)): most trials for n confidences
    # Fewer rows could not pass even without errors: start after them, or the search ends among them
    low, high = int(((1 - max_risk) ** rows > delta_per_trial).sum()), len(rows)
    threshold = None
    while low < high:
        middle = (low + high) // 2
        # The Clopper-Pearson upper bound is at most max_risk
        if binom.cdf(errors[middle], rows[middle], max_risk) <= delta_per_trial:
            threshold, low = float(thresholds[middle]), middle + 1
        else:
            high = middle
    return threshold


def least_rows(max_risk: float, delta: float = 0.05) -> int:
    """Return how many rows `abstention_threshold` needs at least, none of them wrong."""
    # By the bits of the number, on which the bound of each trial depends: a search row by row may take forever
    bounds = (max(2 ** (b - 1), math.ceil(math.log(delta / b) / math.log1p(-max_risk))) for b in count(1))
    return next(rows for bits, rows in enumerate(bounds, start=1) if rows.bit_length() == bits)


def abstention_statistics(
    confidence: np.ndarray, correct: np.ndarray, threshold: float | None
) -> dict[str, np.ndarray]:
    """Return row statistics of a model that abstains below a threshold.

    Args:
        confidence: float [rows].
        correct: bool [rows].
        threshold: from `abstention_threshold`; with None the model always abstains.

    Returns:
        coverage: share of the rows that it answers.
        selective_risk: share of wrong answers among these; left out if there are none.
    """
    answered = confidence >= (np.inf if threshold is None else threshold)
    statistics = {"coverage": np.column_stack([answered, np.ones(len(answered))]).astype(float)}
    if answered.any():
        statistics["selective_risk"] = np.column_stack([answered & ~correct, answered]).astype(float)
    return statistics


def calibration_curves(
    probabilities: np.ndarray, uncalibrated: np.ndarray, labels: np.ndarray, temperature: float, clusters: Clusters
) -> dict[str, Any]:
    """Return the data of the plots of calibration and abstention.

    Args:
        probabilities, uncalibrated: with and without the temperature, float [rows, classes].
        labels: int [rows].
        temperature: from `fit_temperature`.
        clusters: id of the cluster of each row.

    Returns:
        `temperature`; `reliability` and `reliability_uncalibrated`, from `reliability_bins`; `risk_coverage`.
    """
    return {
        "temperature": temperature,
        "reliability": reliability_bins(probabilities, labels, clusters),
        "reliability_uncalibrated": reliability_bins(uncalibrated, labels, clusters),
        "risk_coverage": risk_coverage(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels),
    }


def _binned(
    probabilities: np.ndarray, labels: Sequence[int] | np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return confidence, correctness and bin of each row; a bin includes its upper limit but not its lower one."""
    confidence = probabilities.max(axis=1)
    inner_edges = np.arange(1, bins) / bins
    return confidence, probabilities.argmax(axis=1) == labels, np.searchsorted(inner_edges, confidence)


def _answered(
    confidence: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct confidences in descending order, and how many rows, and wrong rows, have at least each."""
    thresholds, index = np.unique(confidence, return_inverse=True)
    rows, wrong = np.bincount(index), np.bincount(index, weights=~np.asarray(correct, dtype=bool))
    return thresholds[::-1], rows[::-1].cumsum(), wrong[::-1].cumsum()
