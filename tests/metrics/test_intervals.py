"""Intervals and tests hold what they promise, stay in the range of the metric, and are silent on few clusters."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t
from sklearn.metrics import f1_score

from utils.metrics.intervals import (
    MIN_CLUSTERS,
    cluster_sums,
    evaluate_statistics,
    mcnemar,
    paired_difference,
    sign_flip_test,
    t_interval,
)
from utils.metrics.statistics import (
    accuracy_statistics,
    classification_statistics,
    loss_statistics,
    metric_range,
    text_statistics,
)

TEXTS = ["back pain for two days", "no fever", "the left knee", "pain and fever", "a cough at night"]


def draws(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60),
    st.lists(st.floats(0, 1), min_size=60, max_size=60),
)
def test_an_interval_holds_its_value_inside_the_range_or_there_is_none(rows, scores):
    references, predictions, clusters = zip(*rows, strict=True)
    statistics = classification_statistics(predictions, references, range(4))
    statistics |= accuracy_statistics(scores[: len(rows)], "rougeL")
    statistics |= loss_statistics(np.array(scores[: len(rows)]) * 9, np.ones(len(rows)))
    found = evaluate_statistics(statistics, clusters)
    for name in statistics:
        low, high = metric_range(name)
        if name == "perplexity":
            low = 1.0
        if len(set(clusters)) < MIN_CLUSTERS:
            assert found[f"{name}_ci95"] is None
        elif interval := found[f"{name}_ci95"]:
            assert low - 1e-9 <= interval[0] <= found[name] <= interval[1] <= high + 1e-9


@pytest.mark.parametrize(("rows", "clusters"), [(1, 1), (20, 1), (200, MIN_CLUSTERS - 1)])
def test_few_clusters_have_values_but_no_interval_and_no_p_value(rows, clusters):
    right, ids = accuracy_statistics(np.ones(rows)), np.arange(rows) % clusters
    wrong = accuracy_statistics(np.zeros(rows))
    result = evaluate_statistics(right, ids) | paired_difference(right, wrong, ids, "delta")
    assert result["accuracy"] == result["delta_accuracy"] == 1
    assert result["accuracy_ci95"] is result["delta_accuracy_ci95"] is result["delta_accuracy_p"] is None
    assert mcnemar(right["accuracy"][:, 0], wrong["accuracy"][:, 0], ids) is None


def test_one_huge_cluster_does_not_count_as_many():
    ids = np.concatenate([np.zeros(1000, int), np.arange(1, 30)])
    assert cluster_sums(np.ones((1029, 2)), ids)[2] < 1.1
    assert evaluate_statistics(accuracy_statistics(draws(1029) < 0.5), ids)["accuracy_ci95"] is None


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_rows_alike_at_the_end_of_the_range_leave_room(value):
    low, high = evaluate_statistics(accuracy_statistics(np.full(40, value)), range(40))["accuracy_ci95"]
    wilson = binomtest(round(40 * value), 40).proportion_ci(method="wilson")
    assert high - low == pytest.approx(wilson.high - wilson.low, rel=0.1) and value in (low, high)


def test_the_interval_of_a_mean_is_students_where_no_limit_is_near():
    values = np.random.default_rng(0).normal(50, 3, 25)
    found = evaluate_statistics(accuracy_statistics(values, "points"), range(25), "test")
    assert list(found) == ["test_points", "test_points_ci95"]
    expected = t.interval(0.95, 24, values.mean(), values.std(ddof=1) / 5)
    assert found["test_points_ci95"] == pytest.approx(expected)
    assert json.loads(json.dumps(found)) == found


def test_copies_of_a_row_in_its_cluster_add_nothing():
    values, ids = draws(40), np.arange(40)
    once = evaluate_statistics(accuracy_statistics(values, "rougeL"), ids)
    copied = evaluate_statistics(accuracy_statistics(np.repeat(values, 5), "rougeL"), np.repeat(ids, 5) + 7)
    assert copied["rougeL_ci95"] == pytest.approx(once["rougeL_ci95"])


def test_leaving_out_a_cluster_is_computing_the_metric_without_its_rows():
    rng = np.random.default_rng(3)
    references, predictions, ids = rng.integers(4, size=60), rng.integers(4, size=60), np.arange(60) % 15
    statistics = classification_statistics(predictions, references, range(4))
    without = [f1_score(references[ids != i], predictions[ids != i], average="macro") for i in range(15)]
    value = f1_score(references, predictions, average="macro")
    found = evaluate_statistics(statistics, ids)
    assert found["macro_f1_ci95"] == pytest.approx(t_interval(value, np.array(without), 15, (0, 1)), abs=1e-6)


def test_thousands_of_clusters_give_nearly_the_interval_of_all():
    right = draws(20_000) < 0.8
    low, high = evaluate_statistics(accuracy_statistics(right), range(20_000))["accuracy_ci95"]
    half = 1.96 * math.sqrt(0.8 * 0.2 / 20_000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_perplexity_takes_over_the_interval_of_the_loss():
    found = evaluate_statistics(loss_statistics(draws(30) * 80 + 10, np.full(30, 20)), range(30))
    assert found["perplexity_ci95"] == pytest.approx(np.exp(found["loss_ci95"]))


def test_rows_without_a_denominator_do_not_count():
    tokens = np.array([0] * 30 + [10] * 5)
    assert evaluate_statistics(loss_statistics(tokens * 0.3, tokens), range(35))["loss_ci95"] is None
    nothing = {"compression": np.array([[5.0, 0.0]] * 30), "novel_4gram": np.zeros((30, 2))}
    result = evaluate_statistics(nothing, range(30)) | paired_difference(nothing, nothing, range(30), "d")
    for name in nothing:
        assert not math.isfinite(result[name]) and result[f"{name}_ci95"] is None
        assert math.isnan(result[f"d_{name}"]) and result[f"d_{name}_ci95"] is None and result[f"d_{name}_p"] is None


def test_a_count_that_was_never_seen_has_no_interval_without_width():
    found = evaluate_statistics({"hallucinated_drugs": np.column_stack([np.zeros(30), np.ones(30)])}, range(30))
    assert found == {"hallucinated_drugs": 0.0, "hallucinated_drugs_ci95": None}
    assert evaluate_statistics(accuracy_statistics(np.zeros(30)), range(30))["accuracy_ci95"][1] > 0.05


def test_a_system_does_not_differ_from_itself():
    statistics = text_statistics(TEXTS * 6, TEXTS[::-1] * 6)
    result = paired_difference(statistics, dict(statistics), range(30), "gain")
    for name in statistics:
        assert result[f"gain_{name}"] == 0 and result[f"gain_{name}_ci95"] == [0, 0] and result[f"gain_{name}_p"] == 1


def test_the_paired_difference_is_significant_where_unpaired_intervals_overlap():
    hardness, noise = np.random.default_rng(3).normal(size=(2, 200))
    a, b = accuracy_statistics(hardness + 0.1 + 0.1 * noise, "points"), accuracy_statistics(hardness, "points")
    low_a = evaluate_statistics(a, range(200))["points_ci95"][0]
    assert low_a < evaluate_statistics(b, range(200))["points_ci95"][1]
    gain, loss = paired_difference(a, b, range(200)), paired_difference(b, a, range(200))
    assert gain["points_p"] == loss["points_p"] < 1e-6 and gain["points_ci95"][0] > 0
    assert loss["points_ci95"] == pytest.approx([-bound for bound in reversed(gain["points_ci95"])])
    assert all(type(gain[key]) is float for key in ("points", "points_p"))


@settings(max_examples=60, deadline=None)
@given(st.integers(MIN_CLUSTERS, 40), st.integers(1, 4), st.floats(-0.4, 0.4), st.integers(0, 10**6))
def test_p_is_below_5_percent_where_the_interval_excludes_0(clusters, rows, gain, seed):
    rng, ids = np.random.default_rng(seed), np.repeat(np.arange(clusters), rows)
    a, b = (accuracy_statistics(rng.random(len(ids)) < 0.5 + shift) for shift in (gain, 0))
    found = paired_difference(a, b, ids)
    low, high = found["accuracy_ci95"]
    if abs(found["accuracy_p"] - 0.05) > 1e-6:
        assert (found["accuracy_p"] < 0.05) == (low > 0 or high < 0)


# ----- The exact test


def test_with_a_row_per_cluster_the_exact_test_is_mcnemars():
    a = [True] * 10 + [False] * 2 + [True] * 50 + [False] * 8
    b = [False] * 10 + [True] * 2 + [True] * 50 + [False] * 8
    assert mcnemar(a, b, range(70)) == pytest.approx(binomtest(2, 12).pvalue)
    assert mcnemar(a, b, range(70)) == mcnemar(b, a, range(70)) and mcnemar(a, a, range(70)) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-6, 6), max_size=10))
def test_the_exact_test_counts_all_flips_of_clusters(differences):
    n = len(differences)
    flips = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    sums = np.abs(flips @ np.array(differences, dtype=int)) if n else np.zeros(1)
    assert sign_flip_test(differences) == pytest.approx((sums >= abs(sum(differences))).mean())
    assert sign_flip_test(differences) == pytest.approx(sign_flip_test([-d for d in differences]))


def test_rows_that_move_together_are_not_more_evidence():
    a = np.repeat(draws(12, 1) < 0.75, 30)
    b = np.repeat(draws(12, 2) < 0.25, 30)
    ids = np.repeat(np.arange(12), 30)
    assert mcnemar(a, b, ids) == pytest.approx(mcnemar(a[::30], b[::30], range(12)))
    assert mcnemar(a, b, range(360)) < 1e-3 < mcnemar(a, b, ids)


def test_under_a_clustered_null_the_exact_test_rejects_as_rarely_as_it_says():
    rng, p_values = np.random.default_rng(5), []
    for _ in range(400):
        p = np.clip(rng.normal(0.5, 0.3, (2, 20)), 0, 1).repeat(8, axis=1)
        right = rng.random((2, 160)) < p
        p_values.append(mcnemar(*right, np.repeat(np.arange(20), 8)))
    assert np.mean(np.array(p_values) < 0.05) < 0.08
