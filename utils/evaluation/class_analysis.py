"""The errors of a classifier: by class, by pair of classes, by text length and by number of training rows.

The analyses contain class names and numbers, never texts of rows.
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import binomtest, pearsonr, spearmanr
from sklearn.metrics import classification_report

from utils.data.splits import near_duplicate_clusters
from utils.evaluation.error_analysis import length_bins
from utils.json_files import json_text
from utils.metrics.intervals import INTERVAL

CONFIDENT = 0.9  # probability from which an error counts as confident
PAIRS = 20  # most frequent confusions to list
ERROR_ADVICE = {
    "confident": "Review the labels of these rows first. If they are right, set `max_risk` to an error rate that you "
    "can accept.",
    "second_choice": "Show the two most likely classes and let a person choose, or abstain with `max_risk`.",
    "rare_class": "Collect more rows of these classes, merge them into other classes, or set `class_imbalance`.",
    "cut_text": "Set `long_texts` to `head_tail` or `chunks`, or raise `max_length`.",
    "conflicting_text": "Have an expert decide which label is right: no model can learn two labels of the same text.",
    "other": "Read these rows together with the most confused classes. More training rows near that border help.",
}


def frequency_groups(class_counts: list[int]) -> dict[str, list[int]]:
    """Group classes with over 100, 20 to 100, and under 20 training rows as `many_shot`, `medium_shot` and `few_shot`
    (Liu et al. 2019, Large-Scale Long-Tailed Recognition in an Open World)."""
    groups: dict[str, list[int]] = {"many_shot": [], "medium_shot": [], "few_shot": []}
    for number, count in enumerate(class_counts):
        groups["many_shot" if count > 100 else "medium_shot" if count >= 20 else "few_shot"].append(number)
    return groups


def analyse_classes(
    references: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    class_counts: np.ndarray,
    words: Sequence[int],
    weights: np.ndarray,
) -> dict[str, Any]:
    """Return what `analysis.json` holds about the classes on the test rows.

    Args:
        references, predictions: indices of classes, int [rows].
        probabilities: float [rows, classes].
        labels: names of the classes, in the order of the data set.
        class_counts: training rows of each class, int [classes].
        words: number of words of each text.
        weights: bootstrap counts [resamples, rows] from `resampling_weights`.

    Returns:
        labels: as given.
        classes: one dict per class with its training and test rows (`support`), precision (None if it is never
            predicted), recall (None without test rows), F1 and its percentile bootstrap interval `f1_ci95` (None if
            both hold).
        confusion: [true, predicted, rows] of each cell that is not empty.
        confused_pairs: the most frequent confusions, with their share of the rows of the true class and the mean
            probability (`confidence`) of the wrong class.
        length: error rate in up to 8 bins of about the same number of rows, with Wilson intervals; the limits of a bin
            are inclusive word counts. Spearman correlation of words and errors over rows.
        training: Spearman and Pearson correlation between the training rows and the error rate (1 - recall) of the
            classes with test rows.
        A correlation and its p-value are None if one side is constant.
    """
    n, wrong = len(labels), references != predictions
    support, predicted = np.bincount(references, minlength=n), np.bincount(predictions, minlength=n)
    hits = np.bincount(references[~wrong], minlength=n)
    with np.errstate(invalid="ignore"):
        precision, recall, f1 = hits / predicted, hits / support, 2 * hits / (predicted + support)
    intervals = _f1_intervals(references, predictions, n, weights)
    classes = [
        {
            "label": labels[i],
            "train_rows": int(class_counts[i]),
            "support": int(support[i]),
            "precision": _finite(precision[i]),
            "recall": _finite(recall[i]),
            "f1": _finite(f1[i]),
            "f1_ci95": None if np.isnan(intervals[i, 0]) else intervals[i].tolist(),
        }
        for i in range(n)
    ]

    tested = support > 0
    length, length_p = _correlation(spearmanr, words, wrong)
    ranks, ranks_p = _correlation(spearmanr, class_counts[tested], 1 - recall[tested])
    linear, _ = _correlation(pearsonr, class_counts[tested], 1 - recall[tested])
    return {
        "labels": list(labels),
        "classes": classes,
        **_confusions(references, predictions, probabilities, labels),
        "length": {"bins": _error_rates(np.asarray(words), wrong), "spearman": length, "spearman_p": length_p},
        "training": {"pearson": linear, "spearman": ranks, "spearman_p": ranks_p},
    }


def class_error_patterns(
    references: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray,
    class_counts: np.ndarray,
    cut: Sequence[bool],
    conflicting: Sequence[bool],
) -> dict[str, list[int]]:
    """Return, for each pattern of `ERROR_ADVICE`, the indices of the wrong rows that show it.

    - confident: the prediction has a probability of 0.9 or more.
    - second_choice: the right class is the most likely of the other classes. Left out with two classes, where it
      always is.
    - rare_class: the right class has fewer than 20 training rows.
    - cut_text, conflicting_text: as `cut` and `conflicting` say.
    - other: none of these.

    Args:
        references, predictions, probabilities, class_counts: as for `analyse_classes`.
        cut: whether the model read only part of the text, per row.
        conflicting: whether the same text occurs with several labels, per row.
    """
    rows, classes = np.arange(len(references)), probabilities.shape[1]
    rare = frequency_groups(class_counts.tolist())["few_shot"]
    others = probabilities.copy()
    others[rows, predictions] = -1
    shown = {
        "confident": probabilities[rows, predictions] >= CONFIDENT,
        "second_choice": others.argmax(axis=1) == references,
        "rare_class": np.isin(references, rare),
        "cut_text": np.asarray(cut, dtype=bool),
        "conflicting_text": np.asarray(conflicting, dtype=bool),
    }
    if classes == 2:
        del shown["second_choice"]
    shown["other"] = ~np.any(list(shown.values()), axis=0)
    return {name: np.flatnonzero(mask & (references != predictions)).tolist() for name, mask in shown.items()}


def label_conflicts(texts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
    """Find texts that are equal after normalization but have several labels.

    Returns:
        conflicting_texts, conflicting_rows: number of such texts, and of their rows.
        accuracy_ceiling: accuracy on all rows if each text got its most frequent label.
        rows: whether each row has such a text, a list of bools.
    """
    same = near_duplicate_clusters(texts, threshold=1, seed=0)
    labels_of: dict[int, Counter] = defaultdict(Counter)
    for text, label in zip(same, labels, strict=True):
        labels_of[text][label] += 1
    rows = [len(labels_of[text]) > 1 for text in same]
    return {
        "conflicting_texts": sum(len(counts) > 1 for counts in labels_of.values()),
        "conflicting_rows": sum(rows),
        "accuracy_ceiling": sum(max(counts.values()) for counts in labels_of.values()) / len(rows),
        "rows": rows,
    }


def class_report(references: np.ndarray, predictions: np.ndarray, labels: Sequence[str]) -> str:
    """Return scikit-learn's classification report of all classes, including those without test rows."""
    return classification_report(
        references, predictions, labels=range(len(labels)), target_names=labels, digits=3, zero_division=0
    )


def class_files(analysis: dict[str, Any], report_text: str) -> dict[str, str]:
    """Return `analysis.json`, its classes as `per_class.csv`, and the text of `class_report`, by file name."""
    columns = ["label", "train_rows", "support", "precision", "recall", "f1"]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow([*columns, "f1_low", "f1_high"])
    for row in analysis["classes"]:
        writer.writerow([*(row[column] for column in columns), *(row["f1_ci95"] or ("", ""))])
    return {
        "analysis.json": json_text(analysis),
        "per_class.csv": stream.getvalue(),
        "classification_report.txt": report_text,
    }


def _confusions(
    references: np.ndarray, predictions: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]
) -> dict[str, Any]:
    """Return `confusion` and `confused_pairs` of `analyse_classes`."""
    n, support = len(labels), np.bincount(references)
    cells, cell_of_row, counts = np.unique(references * n + predictions, return_inverse=True, return_counts=True)
    true, predicted = np.divmod(cells, n)
    confidence = np.bincount(cell_of_row, probabilities[np.arange(len(predictions)), predictions]) / counts
    wrong = [i for i in np.argsort(-counts, kind="stable") if true[i] != predicted[i]]
    pairs = [
        {
            "true": labels[true[i]],
            "predicted": labels[predicted[i]],
            "rows": int(counts[i]),
            "share_of_true": float(counts[i] / support[true[i]]),
            "confidence": float(confidence[i]),
        }
        for i in wrong[:PAIRS]
    ]
    return {"confusion": np.column_stack([true, predicted, counts]).tolist(), "confused_pairs": pairs}


def _f1_intervals(references: np.ndarray, predictions: np.ndarray, n: int, weights: np.ndarray) -> np.ndarray:
    """Return the interval limits of each class's F1 [classes, 2]; NaN for a class without true or predicted rows.

    The interval of a class ignores the resamples in which it does not occur.
    """
    rows = np.arange(len(references))
    right = rows[references == predictions]
    columns = np.concatenate([references[right], n + references, n + predictions])
    places = np.concatenate([right, rows, rows])
    counts = csr_array((np.ones(len(columns), np.float32), (places, columns)), shape=(len(rows), 2 * n))
    # in blocks, because the product copies the weights
    sums = np.concatenate([block @ counts for block in np.array_split(weights, 10)])
    hits, total = sums[:, :n], sums[:, n:]
    drawn = (total > 0).any(axis=0)
    with np.errstate(invalid="ignore"):
        f1 = 2 * hits[:, drawn] / total[:, drawn]
    intervals = np.full((n, 2), np.nan)
    intervals[drawn] = np.nanquantile(f1, INTERVAL, axis=0).T
    return intervals


def _error_rates(words: np.ndarray, wrong: np.ndarray) -> list[dict[str, Any]]:
    """Return the error rate in each bin of text length, with its Wilson interval."""
    result = []
    for inside in length_bins(words):
        errors, rows = int(wrong[inside].sum()), len(inside)
        result.append(
            {
                "low": int(words[inside].min()),
                "high": int(words[inside].max()),
                "rows": rows,
                "error_rate": errors / rows,
                "error_rate_ci95": list(binomtest(errors, rows).proportion_ci(method="wilson")),
            }
        )
    return result


def _correlation(
    function: Callable, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray
) -> tuple[float | None, float | None]:
    """Return a correlation and its p-value; None if it is undefined."""
    pairs = np.column_stack([x, y]).astype(float)
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return None, None
    result = function(*pairs.T)
    return float(result.statistic), float(result.pvalue)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
