"""Metrics of paths against numbers by hand, and linear models that follow the tree."""

import numpy as np
import pytest
from conftest import toy_notes
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.svm import LinearSVC

from utils.hierarchy import LabelTree
from utils.metrics.baselines import classification_baselines
from utils.metrics.hierarchy import hierarchical_baselines, hierarchy_statistics
from utils.metrics.intervals import evaluate_statistics
from utils.metrics.statistics import reduce_sums

# leaves 0 a1, 1 a2, 2 a3 under A; 3 B under B; 4 c1, 5 c2 under C
TREE = LabelTree.from_paths([("A", "a1"), ("A", "a2"), ("A", "a3"), ("B", "B"), ("C", "c1"), ("C", "c2")])
DEEP = LabelTree.from_paths([("A", "a", "x"), ("A", "a", "y"), ("A", "b", "z"), ("B", "c", "w")])


def values(statistics) -> dict[str, float]:
    return {name: float(reduce_sums(name, s.sum(axis=0))) for name, s in statistics.items()}


def test_the_metrics_of_four_rows_by_hand():
    true = np.array([0, 1, 3, 4])
    predicted = TREE.ancestors[[0, 2, 4, 5]]  # right; right parent; wrong; right parent
    found = values(hierarchy_statistics(predicted, true, TREE))
    assert found["parent_accuracy"] == 3 / 4 and found["child_accuracy"] == found["path_accuracy"] == 1 / 4
    # parents: A 1, B 0, C 2 of 3; leaves that occur: a1 1, a2, a3, B, c1, c2 0
    assert found["parent_macro_f1"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert found["child_macro_f1"] == pytest.approx(1 / 6)
    assert found["inconsistent"] == 0
    # nodes in common 2 + 1 + 0 + 1, of 8 predicted and 8 true ones
    assert found["hierarchical_precision"] == found["hierarchical_recall"] == found["hierarchical_f1"] == 4 / 8
    assert "child_given_parent_accuracy" not in found


def test_what_is_held_back_costs_recall_and_spares_precision():
    true, predicted = np.array([0, 1, 3, 4]), TREE.ancestors[[0, 2, 4, 5]]
    whole = hierarchy_statistics(predicted, true, TREE)
    found = hierarchy_statistics(predicted, true, TREE, shown=np.array([1, 1, 0, 2]))
    # nodes in common 1 + 1 + 0 + 1, of 4 shown and 8 true ones
    assert values(found)["hierarchical_precision"] == 3 / 4
    assert values(found)["hierarchical_recall"] == 3 / 8
    assert values(found)["hierarchical_f1"] == 2 * 3 / (4 + 8)
    assert values(found)["parent_accuracy"] == values(whole)["parent_accuracy"]


def test_three_levels():
    true, predicted = np.array([0, 1, 2, 3]), DEEP.ancestors[[0, 0, 0, 0]]
    found = values(hierarchy_statistics(predicted, true, DEEP))
    assert [found[f"level_{i}_accuracy"] for i in (1, 2, 3)] == [3 / 4, 2 / 4, 1 / 4]
    assert found["hierarchical_f1"] == (3 + 2 + 1 + 0) / 12


def test_the_macro_f1_of_each_level_is_scikit_learns():
    rng = np.random.default_rng(0)
    true, guesses = rng.integers(6, size=(2, 300))
    found = values(hierarchy_statistics(TREE.ancestors[guesses], true, TREE))
    for level, name in enumerate(("parent", "child")):
        expected = f1_score(TREE.ancestors[true, level], TREE.ancestors[guesses, level], average="macro")
        assert found[f"{name}_macro_f1"] == pytest.approx(expected)


def test_levels_predicted_apart_that_contradict_each_other_are_counted():
    predicted = np.array([[0, 0], [1, 0], [2, 3], [2, 5]])  # A a1, B a1, C B, C c2
    found = values(hierarchy_statistics(predicted, np.array([0, 0, 3, 5]), TREE))
    assert found["inconsistent"] == 2 / 4
    assert found["child_accuracy"] == 1 and found["parent_accuracy"] == found["path_accuracy"] == 2 / 4
    deep = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0]])  # the last two contradict on the second and the first level
    assert values(hierarchy_statistics(deep, np.array([0, 0, 0]), DEEP))["inconsistent"] == pytest.approx(2 / 3)


def test_the_leaf_under_the_true_parent_is_counted_where_there_is_a_choice():
    log_p = np.log([
        [0.3, 0.6, 0.1, 0.05, 0.2, 0.05, 0.6, 0.05, 0.05],  # true a2: the likeliest of A, though B is likelier
        [0.3, 0.6, 0.1, 0.05, 0.2, 0.05, 0.6, 0.05, 0.05],  # true a1: not the likeliest of A
        [0.9, 0.05, 0.05, 0.3, 0.3, 0.3, 0.05, 0.02, 0.03],  # true B: an only child says nothing
        [0.9, 0.05, 0.05, 0.3, 0.3, 0.3, 0.05, 0.02, 0.03],  # true c2
    ])  # fmt: skip
    true = np.array([1, 0, 3, 5])
    statistics = hierarchy_statistics(TREE.ancestors[[3, 3, 0, 0]], true, TREE, log_p)
    assert values(statistics)["child_given_parent_accuracy"] == pytest.approx(2 / 3)
    only = hierarchy_statistics(TREE.ancestors[[3]], np.array([3]), TREE, log_p[2:3])
    assert "child_given_parent_accuracy" not in only


def test_every_metric_gets_an_interval_around_its_value():
    rng = np.random.default_rng(1)
    true, log_p = rng.integers(6, size=200), np.log(rng.dirichlet(np.ones(9), size=200))
    guesses = np.where(rng.random(200) < 0.6, true, rng.integers(6, size=200))
    statistics = hierarchy_statistics(TREE.ancestors[guesses], true, TREE, log_p, rng.integers(3, size=200))
    found = evaluate_statistics(statistics, np.arange(200), "test")
    for name, value in values(statistics).items():
        low, high = found[f"test_{name}_ci95"]
        assert found[f"test_{name}"] == pytest.approx(value) and low <= value <= high
        assert low < high or name == "inconsistent"


# ----- Baselines

WARDS = LabelTree.from_paths([("organs", "cardiology"), ("organs", "urology"), ("allergy", "allergy")])


@pytest.fixture(scope="module")
def notes() -> tuple[list[str], np.ndarray]:
    rows = toy_notes()
    return [row["note"] for row in rows], np.array([WARDS.leaves.index(row["ward"]) for row in rows])


def test_the_flat_baseline_is_that_of_the_classifiers_with_its_ancestors(notes):
    texts, labels = notes
    found = hierarchical_baselines(texts[:100], labels[:100], texts[100:], WARDS, 0)["tfidf_svm"]
    expected = classification_baselines(texts[:100], labels[:100], texts[100:], 0)["tfidf_svm"]
    assert (found == WARDS.ancestors[expected]).all()


def test_a_model_a_node_goes_down_the_tree(notes):
    texts, labels = notes
    found = hierarchical_baselines(texts[:100], labels[:100], texts[100:], WARDS, 0)["tfidf_svm_per_node"]
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    known, new = vectorizer.fit_transform(texts[:100]), vectorizer.transform(texts[100:])
    model, true = LinearSVC(class_weight="balanced", random_state=0), WARDS.ancestors[labels]
    parent = model.fit(known, true[:100, 0]).predict(new)
    organs = true[:100, 0] == 1
    child = np.where(parent == 1, model.fit(known[organs], labels[:100][organs]).predict(new), 0)
    assert found.tolist() == np.column_stack([parent, child]).tolist()
    assert set(parent) == {0, 1} and (found == true[100:]).all(axis=1).mean() > 0.9


def test_a_deep_tree_with_leaves_that_training_lacks_and_one_root(notes):
    texts, labels = notes
    paths = [("organs", "cardiology"), ("organs", "urology"), ("organs", "none"), ("allergy", "allergy")]
    tree = LabelTree.from_paths([("all", *path) for path in paths])
    numbers = np.array([tree.leaves.index(WARDS.leaves[label]) for label in labels])
    found = hierarchical_baselines(texts[:100], numbers[:100], texts[100:], tree, 0)
    assert set(found.pop("majority")[:, 2]) == {np.bincount(numbers[:100]).argmax()}
    for paths in found.values():
        assert values(hierarchy_statistics(paths, numbers[100:], tree))["inconsistent"] == 0
        assert (paths[:, 2] == numbers[100:]).mean() > 0.9
