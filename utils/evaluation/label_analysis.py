"""What is known about each label, and the errors, of a classifier of texts with several labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from utils.evaluation.calibration import BINS
from utils.evaluation.class_analysis import frequency_groups
from utils.metrics.intervals import Clusters, evaluate_statistics
from utils.metrics.multilabel import multi_label_statistics

ERROR_ADVICE = {
    "no_label": "Have a person label these texts; more training rows like them help.",
    "missed_label": "See the table of labels for those with a low recall: collect more rows that have them.",
    "extra_label": "See the table of labels for those with a low precision. References may lack a label: have "
    "an expert check some.",
    "rare_label": "Collect more rows with these labels, or merge them into others.",
    "cut_text": "Set `long_texts` to `head_tail` or `chunks`, or raise `max_length`.",
    "conflicting_text": "Have an expert decide which labels are right: no model can learn two answers for one text.",
}


def probability_statistics(probabilities: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Return row statistics of the calibration, means over labels.

    Args:
        probabilities: float [rows, labels].
        true: bool [rows, labels].

    Returns:
        loss: binary cross-entropy in nats. brier: squared distance, 0 to 1. ece: expected calibration error of each
        label, the gap between its share and its mean probability in 15 bins of equal width, weighted by their rows;
        sparse, with a column for each label and bin, and the number of labels in the last.
    """
    rows, labels = true.shape
    ones, limit = np.ones(rows), np.finfo(float).eps
    nll = -np.log(np.clip(np.where(true, probabilities, 1 - probabilities), limit, 1)).mean(axis=1)
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    columns = np.column_stack([np.arange(labels) * BINS + bins, np.full(rows, labels * BINS)])
    gaps = np.column_stack([true - probabilities, np.full(rows, labels)])
    places = (np.repeat(np.arange(rows), labels + 1), columns.ravel())
    return {
        "loss": np.column_stack([nll, ones]),
        "brier": np.column_stack([((true - probabilities) ** 2).mean(axis=1), ones]),
        "ece": csr_array((gaps.ravel(), places), shape=(rows, labels * BINS + 1)),
    }


def analyse_labels(
    probabilities: np.ndarray,
    predicted: np.ndarray,
    true: np.ndarray,
    names: Sequence[str],
    class_counts: np.ndarray,
    clusters: Clusters,
) -> list[dict[str, Any]]:
    """Return for each label what `analysis.json` holds about it: training and test rows (`support`), precision (None
    if it is never predicted), recall (None without test rows), F1 (None if both hold) and its interval `f1_ci95`, and
    the calibration error `ece`."""
    found = []
    for i, name in enumerate(names):
        own = true[:, [i]]
        micro = evaluate_statistics(multi_label_statistics(predicted[:, [i]], own), clusters)
        ece = evaluate_statistics(probability_statistics(probabilities[:, [i]], own), clusters)["ece"]
        row = {"label": name, "train_rows": int(class_counts[i]), "support": int(true[:, i].sum())}
        values = {key: micro[f"micro_{key}"] for key in ("precision", "recall", "f1")}
        row |= {key: float(value) if np.isfinite(value) else None for key, value in values.items()}
        found.append(row | {"f1_ci95": micro["micro_f1_ci95"], "ece": ece})
    return found


def label_error_patterns(
    predicted: np.ndarray, true: np.ndarray, class_counts: np.ndarray, cut: Sequence[bool], conflicting: Sequence[bool]
) -> dict[str, list[int]]:
    """Return, for each pattern, the indices of the rows with a wrong set of labels that show it.

    - no_label: no label is predicted.
    - missed_label, extra_label: a label is missing, or wrong.
    - rare_label: a missing label has fewer than 20 training rows.
    - cut_text, conflicting_text: as `cut` and `conflicting` say.

    Args:
        predicted, true: bool [rows, labels].
        class_counts: training rows of each label, int [labels].
        cut: whether the model read only part of the text, per row.
        conflicting: whether the same text occurs with other labels, per row.
    """
    missed, rare = true & ~predicted, frequency_groups(class_counts.tolist())["few_shot"]
    shown = {
        "no_label": ~predicted.any(axis=1),
        "missed_label": missed.any(axis=1),
        "extra_label": (predicted & ~true).any(axis=1),
        "rare_label": missed[:, rare].any(axis=1),
        "cut_text": np.asarray(cut, dtype=bool),
        "conflicting_text": np.asarray(conflicting, dtype=bool),
    }
    wrong = (predicted != true).any(axis=1)
    return {name: np.flatnonzero(mask & wrong).tolist() for name, mask in shown.items()}


def chosen_labels(sets: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    """Return the names of the labels of each row, the most probable first, from arrays [rows, labels]."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    return [[names[i] for i in own if row[i]] for own, row in zip(order.tolist(), sets, strict=True)]
