"""Metrics of texts with several labels, thresholds above which a text gets a label, and baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array, hstack
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC

from utils.metrics.baselines import class_features, tfidf
from utils.metrics.statistics import accuracy_statistics

FEW_POSITIVES = 10  # rows with a label; with fewer, its own best threshold is chance, and it gets that of all labels

NEVER = 1e6  # a score that no linear model gives


def label_sets(rows: Sequence[Sequence[str]], labels: Sequence[str]) -> np.ndarray:
    """Return rows of labels as bool [rows, labels]; other labels are ignored."""
    index = {label: i for i, label in enumerate(labels)}
    sets = np.zeros((len(rows), len(labels)), dtype=bool)
    for row, own in enumerate(rows):
        sets[row, [index[label] for label in own if label in index]] = True
    return sets


def multi_label_statistics(
    predicted: np.ndarray, true: np.ndarray, groups: dict[str, list[int]] | None = None
) -> dict[str, Any]:
    """Return row statistics (see `utils.metrics.statistics`) of sets of labels.

    Args:
        predicted, true: whether a row has a label, bool [rows, labels].
        groups: name -> some of the labels; adds `<name>_macro_f1`, the mean over those that occur, if any.

    Returns:
        accuracy: share of rows with exactly the right labels.
        micro_f1, micro_precision, micro_recall: over all pairs of a row and a label.
        macro_f1, macro_precision, macro_recall, weighted_f1: means over the labels that occur in either, as
        scikit-learn's with these as `labels` and `zero_division=0`.
        samples_f1: mean over rows of each row's F1; 1 where both sets are empty.
    """
    hits, either = predicted & true, predicted.sum(axis=1) + true.sum(axis=1)
    own, ones = hits.sum(axis=1), np.ones(len(true))
    kept = np.flatnonzero(predicted.any(axis=0) | true.any(axis=0))
    blocks = [csr_array(part[:, kept].astype(np.float32)) for part in (hits, predicted, true)]
    of_labels = hstack(blocks, format="csr")
    samples = np.divide(2 * own, either, out=ones.copy(), where=either > 0)
    statistics: dict[str, Any] = {
        "micro_f1": np.column_stack([2 * own, either]).astype(float),
        "macro_f1": of_labels,
        "weighted_f1": of_labels,
        "samples_f1": np.column_stack([samples, ones]),
        **accuracy_statistics((predicted == true).all(axis=1)),
        "micro_precision": np.column_stack([own, predicted.sum(axis=1)]).astype(float),
        "micro_recall": np.column_stack([own, true.sum(axis=1)]).astype(float),
        "macro_precision": of_labels,
        "macro_recall": of_labels,
    }
    for name, members in (groups or {}).items():
        places = np.flatnonzero(np.isin(kept, members))
        if len(places):
            columns = np.concatenate([places + block * len(kept) for block in range(3)])
            statistics[f"{name}_macro_f1"] = of_labels[:, columns]
    return statistics


def ranking_statistics(scores: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """Return label_ranking_average_precision: for each label of a row, the share of its labels among those with at
    least its score, mean over labels and rows; 1 for a row without or with all labels, as in scikit-learn.

    Args:
        scores: float [rows, labels].
        true: bool [rows, labels].
    """
    among_all = rankdata(-scores, method="max", axis=1)
    among_own = rankdata(np.where(true, -scores, np.inf), method="max", axis=1)
    labels = true.sum(axis=1)
    rows = np.where(true, among_own / among_all, 0).sum(axis=1) / np.maximum(labels, 1)
    is_trivial = (labels == 0) | (labels == true.shape[1])
    return accuracy_statistics(np.where(is_trivial, 1.0, rows), "label_ranking_average_precision")


def f1_thresholds(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return for each label the threshold with the highest F1, float [labels]; a row has a label if its score is at
    least the threshold. It lies between two scores.

    A label with fewer than `FEW_POSITIVES` rows gets the threshold with the highest micro F1 of all labels.

    Args:
        scores: of validation rows, float [rows, labels].
        true: bool [rows, labels].
    """
    shared = best_threshold(scores.ravel(), true.ravel())
    rows = true.sum(axis=0)
    return np.array(
        [best_threshold(scores[:, i], true[:, i]) if n >= FEW_POSITIVES else shared for i, n in enumerate(rows)]
    )


def best_threshold(scores: np.ndarray, true: np.ndarray) -> float:
    """Return the threshold with the highest F1, of several the highest, for scores [n] and bool [n]."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(true[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + max(int(true.sum()), 1))
    is_end = np.append(ranked[:-1] > ranked[1:], True)  # equal scores are on one side
    best = int(np.where(is_end, f1, -1).argmax())
    return float(ranked[best] if best + 1 == len(ranked) else (ranked[best] + ranked[best + 1]) / 2)


def multi_label_baselines(
    train: dict[str, Any], validation: dict[str, Any], texts: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """Predict sets of labels without a neural network.

    Args:
        train, validation: `text` and `label`, 0 or 1, [rows, labels].
        texts: texts to label.
        seed: seed of the solvers.

    Returns:
        sets, bool [texts, labels], of `best_constant`, the same labels for each text, the most frequent ones, as many
        as give the highest micro F1 on the training rows; and of linear models on `tfidf`, one for each label:
        `tfidf_svm` and `tfidf_logistic`. These have thresholds from `f1_thresholds`, as the fine-tuned model has.
    """
    labels, known_true = np.asarray(train["label"]), np.asarray(validation["label"], dtype=bool)
    counts, rows = labels.sum(axis=0, dtype=int), len(labels)
    order = np.argsort(-counts, kind="stable")
    f1 = 2 * np.cumsum(counts[order]) / (rows * np.arange(1, len(counts) + 1) + counts.sum())
    constant = np.isin(np.arange(len(counts)), order[: int(f1.argmax()) + 1])
    found = {"best_constant": np.tile(constant, (len(texts), 1))}
    own, others = tfidf(train["text"], [*validation["text"], *texts], class_features(len(counts)))
    models = {
        "tfidf_svm": LinearSVC(random_state=seed),
        "tfidf_logistic": LogisticRegression(solver="liblinear", C=10.0, random_state=seed),
    }
    seen = np.flatnonzero((counts > 0) & (counts < rows))  # a label of no or of all rows needs no model
    for name, model in models.items():
        scores = np.tile(np.where(counts == rows, NEVER, -NEVER), (others.shape[0], 1))
        margins = OneVsRestClassifier(model).fit(own, labels[:, seen]).decision_function(others)
        scores[:, seen] = margins.reshape(len(scores), -1)
        known, new = np.split(scores, [len(known_true)])
        found[name] = new >= f1_thresholds(known, known_true)
    return found
