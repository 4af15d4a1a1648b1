"""Where a classifier is wrong: by class, by pair of classes, by length of the text and by number of training rows.

Nothing here holds text of a data row: what comes out are the names of the classes and numbers.
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import binomtest, pearsonr, spearmanr

from utils.data.labels import frequency_groups
from utils.data.splits import near_duplicate_clusters
from utils.evaluation.error_analysis import length_bins
from utils.json_files import json_text
from utils.metrics.intervals import INTERVAL

CONFIDENT = 0.9
PAIRS = 20
ERROR_ADVICE = {
    "confident": "Review the labels of these rows first; if they are right, set `max_risk` to a risk you can bear.",
    "second_choice": "Show the two likeliest classes and let a person choose, or abstain with `max_risk`.",
    "rare_class": "Collect rows of these classes, merge them into others, or set `class_imbalance`.",
    "cut_text": "Set `long_texts: head_tail` or `chunks`, or raise `max_length`.",
    "conflicting_text": "Have an expert settle which label is right: no model can learn both from the same text.",
    "other": "Read these rows beside the most confused classes; more training rows near that border help.",
}


def analyse_classes(
    references: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    class_counts: np.ndarray,
    words: Sequence[int],
    weights: np.ndarray,
) -> dict[str, Any]:
    """What `analysis.json` says about the classes of the test rows.

    Args:
        references, predictions: int [rows], places in `labels`.
        probabilities: [rows, classes].
        labels: names of the classes, in the data set's order.
        class_counts: training rows of each class, int [classes].
        words: number of words of each text.
        weights: bootstrap counts [resamples, rows] from `resampling_weights`.

    Returns:
        labels: as given.
        classes: one dict a class, with precision None where it is never predicted, recall None where it has no rows,
            F1 and its percentile bootstrap interval `f1_ci95` None where both hold.
        confusion: [true, predicted, rows] of each cell that is not empty.
        confused_pairs: the most frequent errors, with their share of the true class's rows and the mean probability
            (`confidence`) of the wrong class.
        length: error rate in up to 8 bins of about as many rows, by words, both ends included, with Wilson's interval;
            Spearman's correlation of words and being wrong, over rows.
        training: Spearman's and Pearson's correlation of a class's training rows and its error rate (1 - recall), over
            the classes with test rows.
        A correlation and its p are None where one side is constant.
    """
    n, wrong = len(labels), references != predictions
    train_rows = class_counts
    support, predicted = np.bincount(references, minlength=n), np.bincount(predictions, minlength=n)
    hits = np.bincount(references[~wrong], minlength=n)
    with np.errstate(invalid="ignore"):
        precision, recall, f1 = hits / predicted, hits / support, 2 * hits / (predicted + support)
    intervals = _f1_intervals(references, predictions, n, weights)
    classes = [
        {
            "label": labels[i],
            "train_rows": int(train_rows[i]),
            "support": int(support[i]),
            "precision": _finite(precision[i]),
            "recall": _finite(recall[i]),
            "f1": _finite(f1[i]),
            "f1_ci95": None if np.isnan(intervals[i, 0]) else intervals[i].tolist(),
        }
        for i in range(n)
    ]

    cells, cell_of_row, counts = np.unique(references * n + predictions, return_inverse=True, return_counts=True)
    confidence = np.bincount(cell_of_row, probabilities[np.arange(len(predictions)), predictions]) / counts
    confusion = [[int(cell // n), int(cell % n), int(rows)] for cell, rows in zip(cells, counts, strict=True)]
    order = [i for i in np.argsort(-counts, kind="stable") if confusion[i][0] != confusion[i][1]]
    pairs = [
        {
            "true": labels[confusion[i][0]],
            "predicted": labels[confusion[i][1]],
            "rows": confusion[i][2],
            "share_of_true": float(counts[i] / support[confusion[i][0]]),
            "confidence": float(confidence[i]),
        }
        for i in order[:PAIRS]
    ]

    tested = support > 0
    length, length_p = _correlation(spearmanr, words, wrong)
    ranks, ranks_p = _correlation(spearmanr, train_rows[tested], 1 - recall[tested])
    linear, _ = _correlation(pearsonr, train_rows[tested], 1 - recall[tested])
    return {
        "labels": list(labels),
        "classes": classes,
        "confusion": confusion,
        "confused_pairs": pairs,
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
    """Indices of the wrong rows that show each pattern of `ERROR_ADVICE`; what to do about it stands there.

    confident: the prediction has a probability of 0.9 or more. second_choice: the right class is the likeliest of the
    others; left out with two classes, where it always is. rare_class: the right class has fewer than 20 training rows.
    cut_text, conflicting_text: as `cut` and `conflicting` say. other: none of these.

    Args:
        references, predictions, probabilities, class_counts: as for `analyse_classes`.
        cut: whether the model saw only a part of the text.
        conflicting: whether the same text stands under several labels.
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
    """Texts that are equal once normalised and stand under several labels.

    Returns:
        conflicting_texts, conflicting_rows: how many such texts, and how many rows they have.
        accuracy_ceiling: what giving each text its most frequent label would reach on these rows.
        rows: for each row whether it is one of them.
    """
    same = near_duplicate_clusters(texts, threshold=1, seed=0)
    found: dict[int, Counter] = defaultdict(Counter)
    for text, label in zip(same, labels, strict=True):
        found[text][label] += 1
    rows = [len(found[text]) > 1 for text in same]
    return {
        "conflicting_texts": sum(len(counts) > 1 for counts in found.values()),
        "conflicting_rows": sum(rows),
        "accuracy_ceiling": sum(max(counts.values()) for counts in found.values()) / len(rows),
        "rows": rows,
    }


def class_files(analysis: dict[str, Any], report_text: str) -> dict[str, str]:
    """`analysis.json`, its classes as `per_class.csv`, and `report_text` as `classification_report.txt`."""
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


def _f1_intervals(references: np.ndarray, predictions: np.ndarray, n: int, weights: np.ndarray) -> np.ndarray:
    """Low and high end of each class's F1 [classes, 2]; NaN for a class without true or predicted rows.

    Resamples in which a class does not occur are left out of its interval.
    """
    rows = np.arange(len(references))
    right = rows[references == predictions]
    columns = np.concatenate([references[right], n + references, n + predictions])
    places = np.concatenate([right, rows, rows])
    counts = csr_array((np.ones(len(columns), np.float32), (places, columns)), shape=(len(rows), 2 * n))
    # in blocks, since the product copies the weights
    sums = np.concatenate([block @ counts for block in np.array_split(weights, 10)])
    hits, total = sums[:, :n], sums[:, n:]
    drawn = (total > 0).any(axis=0)
    with np.errstate(invalid="ignore"):
        f1 = 2 * hits[:, drawn] / total[:, drawn]
    intervals = np.full((n, 2), np.nan)
    intervals[drawn] = np.nanquantile(f1, INTERVAL, axis=0).T
    return intervals


def _error_rates(words: np.ndarray, wrong: np.ndarray) -> list[dict[str, Any]]:
    """The error rate of each group of like length, with its Wilson interval."""
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


def _correlation(function: Callable, x: Sequence[float], y: Sequence[float]) -> tuple[float | None, float | None]:
    """Correlation and its p; None where it is not defined."""
    pairs = np.column_stack([x, y]).astype(float)
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return None, None
    result = function(*pairs.T)
    return float(result.statistic), float(result.pvalue)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
