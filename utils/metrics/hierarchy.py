"""Row statistics of paths in a class tree, and baselines for models of the tree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.svm import LinearSVC

from utils.hierarchy import LabelTree
from utils.metrics.baselines import class_features, tfidf
from utils.metrics.statistics import accuracy_statistics, classification_statistics


def hierarchy_statistics(
    predictions: np.ndarray,
    references: np.ndarray,
    tree: LabelTree,
    log_p: np.ndarray | None = None,
    shown: np.ndarray | None = None,
) -> dict[str, Any]:
    """Compute row statistics of predicted paths.

    Args:
        predictions: node on each level, int [rows, depth]; levels may contradict each other.
        references: leaf, int [rows].
        tree: the labels.
        log_p: log-probabilities or other scores of all nodes, float [rows, nodes].
        shown: levels of the prediction that are shown, int [rows]; defaults to all. Affects only the hierarchical
            metrics.

    Returns:
        parent_accuracy, parent_macro_f1, child_accuracy, child_macro_f1: for two levels; with more, `level_1` and so
        on. path_accuracy: share of rows that are correct on all levels. inconsistent: share of rows whose nodes do not
        form a path. hierarchical_precision, hierarchical_recall, hierarchical_f1: nodes common to the predicted and
        the true path, relative to all predicted nodes, all true nodes, and both, without the root (Kiritchenko et al.
        2005). child_given_parent_accuracy: with `log_p`, share of rows whose leaf is the most likely one under the
        true parent, among rows whose true parent has several children; omitted if there are none.
    """
    true = tree.ancestors[references]
    right = predictions == true
    statistics: dict[str, Any] = {}
    for level, name in enumerate(tree.level_names):
        nodes = range(len(tree.levels[level]))
        found = classification_statistics(predictions[:, level].tolist(), true[:, level].tolist(), nodes)
        statistics |= {f"{name}_{metric}": found[metric] for metric in ("accuracy", "macro_f1")}
    statistics |= accuracy_statistics(right.all(axis=1), "path_accuracy")
    is_path = (tree.ancestors[predictions[:, -1]] == predictions).all(axis=1)
    statistics |= accuracy_statistics(~is_path, "inconsistent")

    shown = np.full(len(true), tree.depth) if shown is None else shown
    both = (right & (np.arange(tree.depth) < shown[:, None])).sum(axis=1)
    statistics |= {
        "hierarchical_precision": np.column_stack([both, shown]).astype(float),
        "hierarchical_recall": np.column_stack([both, np.full(len(true), tree.depth)]).astype(float),
        "hierarchical_f1": np.column_stack([2 * both, shown + tree.depth]).astype(float),
    }

    parent_of = np.array(tree.parents[-1])
    choice = np.bincount(parent_of)[true[:, -2]] > 1
    if log_p is not None and choice.any():
        under_parent = parent_of == true[:, -2:-1]
        likeliest = np.where(under_parent, log_p[:, tree.columns[-1]], -np.inf).argmax(axis=1)
        found = (likeliest == references) & choice
        statistics["child_given_parent_accuracy"] = np.column_stack([found, choice]).astype(float)
    return statistics


def hierarchical_baselines(
    texts: Sequence[str], labels: np.ndarray, new_texts: Sequence[str], tree: LabelTree, seed: int
) -> dict[str, np.ndarray]:
    """Predict paths without a neural network: linear models on TF-IDF of words and word pairs, with classes weighted
    by inverse frequency.

    Args:
        texts, labels: training rows; labels are leaves, int [rows].
        new_texts: texts to classify.
        tree: the labels.
        seed: seed of the solvers.

    Returns:
        node on each level, int [new rows, depth], of `majority`, the most frequent leaf; `tfidf_svm`, which predicts
        the leaf and derives its ancestors; and `tfidf_svm_per_node`, with one model for the first level and one for
        the children of each node, applied from the root down (local classifier per parent node, Silla and Freitas
        2011).
    """
    known, new = tfidf(texts, new_texts, class_features(len(np.unique(labels))))
    model = LinearSVC(class_weight="balanced", random_state=seed)
    flat = tree.ancestors[model.fit(known, labels).predict(new)]

    true, per_node = tree.ancestors[labels], np.zeros((len(new_texts), tree.depth), dtype=int)
    for level in range(tree.depth):
        above = (true[:, level - 1], per_node[:, level - 1]) if level else (np.zeros(len(true)), np.zeros(len(flat)))
        for node in np.unique(above[1]):
            train, rows = above[0] == node, above[1] == node
            children = true[train, level]
            if len(np.unique(children)) == 1:
                per_node[rows, level] = children[0]
            else:
                per_node[rows, level] = model.fit(known[train], children).predict(new[rows])
    majority = tree.ancestors[np.full(len(new_texts), np.bincount(labels).argmax())]
    return {"majority": majority, "tfidf_svm": flat, "tfidf_svm_per_node": per_node}
