"""The errors of a classifier: by class, by pair of classes, by text length and by number of training rows.

The analyses contain class names and numbers, never texts of rows.
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import classification_report

from utils.data.near_duplicates import near_duplicate_clusters
from utils.evaluation.error_analysis import length_bins
from utils.json_files import json_text
from utils.metrics.intervals import Clusters, evaluate_statistics
from utils.metrics.statistics import accuracy_statistics

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
    clusters: Clusters,
) -> dict[str, Any]:
    """Return what `analysis.json` holds about the classes on the test rows.

    Args:
        references, predictions: indices of classes, int [rows].
        probabilities: float [rows, classes].
        labels: names of the classes, in the order of the data set.
        class_counts: training rows of each class, int [classes].
        words: number of words of each text.
        clusters: id of the cluster of each row.

    Returns:
        labels: as given.
        classes: one dict per class with its training and test rows (`support`), precision (None if it is never
            predicted), recall (None without test rows), F1 (None if both hold) and its interval `f1_ci95` (None with
            too few clusters).
        confusion: [true, predicted, rows] of each cell that is not empty.
        confused_pairs: the most frequent confusions, with their share of the rows of the true class and the mean
            probability (`confidence`) of the wrong class.
        length: error rate in up to 8 bins of about the same number of rows, with its interval; the limits of a bin are
            inclusive word counts. Spearman correlation of words and errors over rows.
        training: Spearman and Pearson correlation between the training rows and the error rate (1 - recall) of the
            classes with test rows.
        A correlation is None if one side is constant.
    """
    n, wrong = len(labels), references != predictions
    support, predicted = np.bincount(references, minlength=n), np.bincount(predictions, minlength=n)
    hits = np.bincount(references[~wrong], minlength=n)
    with np.errstate(invalid="ignore"):
        precision, recall, f1 = hits / predicted, hits / support, 2 * hits / (predicted + support)
    intervals = _f1_intervals(references, predictions, n, clusters)
    classes = [
        {
            "label": labels[i],
            "train_rows": int(class_counts[i]),
            "support": int(support[i]),
            "precision": _finite(precision[i]),
            "recall": _finite(recall[i]),
            "f1": _finite(f1[i]),
            "f1_ci95": intervals[i],
        }
        for i in range(n)
    ]

    tested = support > 0
    ranks, linear = (_correlation(of, class_counts[tested], 1 - recall[tested]) for of in (spearmanr, pearsonr))
    bins = _error_rates(np.asarray(words), wrong, clusters)
    return {
        "labels": list(labels),
        "classes": classes,
        **_confusions(references, predictions, probabilities, labels),
        "length": {"bins": bins, "spearman": _correlation(spearmanr, words, wrong)},
        "training": {"pearson": linear, "spearman": ranks},
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


def _f1_intervals(
    references: np.ndarray, predictions: np.ndarray, n: int, clusters: Clusters
) -> list[list[float] | None]:
    """Return the interval of each class's F1, from the clusters with rows that are or were predicted to be of it."""
    intervals, ids = [], np.asarray(clusters)
    for i in range(n):
        true, predicted = references == i, predictions == i
        inside = true | predicted
        counts = np.column_stack([2 * (true & predicted), true.astype(int) + predicted])[inside]
        found = evaluate_statistics({"f1": counts}, ids[inside]) if inside.any() else {"f1_ci95": None}
        intervals.append(found["f1_ci95"])
    return intervals


def _error_rates(words: np.ndarray, wrong: np.ndarray, clusters: Clusters) -> list[dict[str, Any]]:
    """Return the error rate in each bin of text length, with its interval."""
    result = []
    for inside in length_bins(words):
        found = evaluate_statistics(accuracy_statistics(wrong[inside]), np.asarray(clusters)[inside])
        span = {"low": int(words[inside].min()), "high": int(words[inside].max()), "rows": len(inside)}
        result.append(span | {"error_rate": found["accuracy"], "error_rate_ci95": found["accuracy_ci95"]})
    return result


def _correlation(function: Callable, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float | None:
    """Return a correlation; None if it is undefined. Its p-value would take the rows of a cluster as independent."""
    pairs = np.column_stack([x, y]).astype(float)
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return None
    return float(function(*pairs.T).statistic)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
