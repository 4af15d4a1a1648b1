import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from utils.evaluation import calibration
from utils.metrics.intervals import evaluate_statistics
from utils.metrics.statistics import reduce_sums


def value(statistics: dict[str, np.ndarray], name: str) -> float:
    return float(reduce_sums(name, statistics[name].sum(axis=0)))


def sample(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (probabilities.cumsum(axis=1) < rng.random((len(probabilities), 1))).sum(axis=1)


def random_logits(n_rows: int, n_classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax at the temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(n_rows, n_classes))
    return logits, sample(calibration.softmax(logits, temperature), rng)


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return value(calibration.calibration_statistics(calibration.softmax(logits, temperature), labels), "loss")


def test_softmax_is_stable_and_float64():
    half_up = calibration.softmax(np.array([[0.0, math.log(4)]], dtype=np.float32), temperature=2)
    assert half_up.dtype == np.float64
    assert half_up[0] == pytest.approx([1 / 3, 2 / 3])
    assert calibration.softmax([[1e30, -1e30, 1e30]]).tolist() == [[0.5, 0, 0.5]]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_drew_the_labels_is_found_and_changes_no_prediction(temperature):
    logits, labels = random_logits(20_000, 5, temperature)
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    assert nll(logits, labels, found) <= min(nll(logits, labels, t) for t in (1, 0.98 * found, 1.02 * found))
    assert (calibration.softmax(logits, found).argmax(axis=1) == logits.argmax(axis=1)).all()
    assert calibration.fit_temperature(3 * logits, labels) == pytest.approx(3 * found, rel=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_a_fitted_temperature_is_never_worse_on_its_rows(seed):
    logits, labels = random_logits(1 + seed, 3, 2.0, seed)
    assert nll(logits, labels, calibration.fit_temperature(logits, labels)) <= nll(logits, labels, 1) + 1e-12


@pytest.mark.parametrize(
    ("logits", "labels", "temperature"),
    [
        ([[2.0, 1.0]], [0], 0.05),  # all right: the lower end
        ([[2.0, 1.0]], [1], 20),  # all wrong: the upper one
        (np.zeros((4, 3)), [0, 1, 2, 2], 1),  # nothing to scale
        ([[7.0], [7.0]], [0, 0], 1),  # one class
        ([[1e30, 0], [1e30, 0]], [0, 1], 20),
        ([[1e30, 0], [0, 1e30]], [0, 1], 1),  # no loss at any temperature
    ],
)
def test_a_degenerate_fit_ends_within_the_bounds(logits, labels, temperature):
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature, rel=1e-3)


@pytest.mark.parametrize(("labels", "said"), [([0, 0, 0], "right"), ([1, 1, 1], "wrong"), ([0, 0, 1], None)])
def test_rows_that_are_all_right_or_all_wrong_leave_the_temperature_at_1(labels, said, caplog):
    logits = np.array([[2.0, 1.0], [1.5, 0.0], [4.0, 1.0]])
    found = calibration.find_temperature(logits, np.array(labels))
    assert found == (1.0 if said else calibration.fit_temperature(logits, labels))
    assert (f"the 3 validation rows that fit it are all {said}" in caplog.text) == bool(said)


def test_statistics_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0]])
    statistics = calibration.calibration_statistics(probabilities, [0, 2, 1])
    brier = [0.09 + 0.04 + 0.01, 0.04 + 0.64 + 1, 0.49 + 0.49]
    assert statistics["brier"][:, 0] == pytest.approx(brier)
    assert value(statistics, "brier") == pytest.approx(sum(brier) / 3)
    assert statistics["loss"][:, 0] == pytest.approx([-math.log(0.7), 36.04, -math.log(0.3)], abs=0.01)
    assert statistics["ece"].shape == (3, 16)
    assert statistics["ece"][:, 10] == pytest.approx([0.3, 0, -0.7])  # 0.667 to 0.733
    assert statistics["ece"][:, 11] == pytest.approx([0, -0.8, 0])
    assert value(statistics, "ece") == pytest.approx((0.4 + 0.8) / 3)


def test_loss_and_brier_equal_scikit_learn():
    logits, labels = random_logits(200, 4, 1.5)
    probabilities = calibration.softmax(logits)
    statistics = calibration.calibration_statistics(probabilities, labels)
    assert value(statistics, "loss") == pytest.approx(log_loss(labels, probabilities, labels=range(4)))
    brier = brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert value(statistics, "brier") == pytest.approx(brier)
    worst = calibration.calibration_statistics(np.array([[1.0, 0.0]]), [1])
    assert value(worst, "brier") == 2 and value(worst, "ece") == 1


def test_ece_is_small_if_calibrated_and_the_gap_if_too_sure():
    logits, labels = random_logits(50_000, 5, 1.0)
    assert value(calibration.calibration_statistics(calibration.softmax(logits), labels), "ece") < 0.01
    correct = np.arange(1000) < 700
    too_sure = calibration.calibration_statistics(np.tile([0.9, 0.1], (1000, 1)), np.where(correct, 0, 1))
    assert value(too_sure, "ece") == pytest.approx(0.2)


def test_ece_is_not_smaller_than_the_gap_of_all_rows_and_temperature_lowers_it():
    logits, labels = random_logits(5000, 5, 3.0)
    before = calibration.softmax(logits)
    after = calibration.softmax(logits, calibration.fit_temperature(logits, labels))
    gap = abs(before.max(axis=1).mean() - (before.argmax(axis=1) == labels).mean())
    ece = [value(calibration.calibration_statistics(p, labels), "ece") for p in (before, after)]
    assert ece[0] >= gap > 0.1
    assert ece[1] < 0.03


def test_the_intervals_take_the_statistics():
    logits, labels = random_logits(400, 3, 3.0)
    statistics = calibration.calibration_statistics(calibration.softmax(logits), labels)
    results = evaluate_statistics(statistics, range(400), "test")
    assert list(results) == [f"test_{name}{end}" for name in ("loss", "brier", "ece") for end in ("", "_ci95")]
    for name in statistics:
        low, high = results[f"test_{name}_ci95"]
        assert 0 < low < results[f"test_{name}"] < high
    drawn = np.random.default_rng(0).integers(400, size=400)
    repeated = calibration.calibration_statistics(calibration.softmax(logits)[drawn], labels[drawn])
    assert reduce_sums("ece", statistics["ece"][drawn].sum(axis=0)) == pytest.approx(value(repeated, "ece"))


def test_reliability_bins_hold_every_row_and_give_the_ece():
    logits, labels = random_logits(500, 4, 2.0)
    probabilities = calibration.softmax(logits)
    bins = calibration.reliability_bins(probabilities, labels, range(500))
    assert sum(b["rows"] for b in bins) == 500
    assert all(b["low"] < b["confidence"] <= b["high"] for b in bins)
    ece = sum(b["rows"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / 500
    assert ece == pytest.approx(value(calibration.calibration_statistics(probabilities, labels), "ece"))
    assert json.loads(json.dumps(bins)) == bins


def test_reliability_bins_equal_scikit_learn_where_the_prediction_is_always_one_class():
    rng = np.random.default_rng(1)
    positive = np.concatenate([rng.uniform(0.5, 1, 300), [0.6, 0.8, 1.0]])  # the last three are edges of bins
    labels = (rng.random(303) < positive).astype(int)
    bins = calibration.reliability_bins(np.column_stack([1 - positive, positive]), labels, range(303), bins=10)
    accuracy, confidence = calibration_curve(labels, positive, n_bins=10)
    assert [b["accuracy"] for b in bins] == pytest.approx(accuracy)
    assert [b["confidence"] for b in bins] == pytest.approx(confidence)


def test_reliability_intervals_are_of_clusters():
    probabilities, labels = np.array([[0.9, 0.1]] * 80), [0, 0, 0, 1] * 20
    (found,) = calibration.reliability_bins(probabilities, labels, range(80))
    assert found["rows"] == 80 and found["accuracy"] == 0.75
    assert [found["low"], found["high"]] == pytest.approx([13 / 15, 14 / 15])
    wilson = binomtest(60, 80).proportion_ci(method="wilson")
    assert found["accuracy_ci95"] == pytest.approx([wilson.low, wilson.high], abs=0.005)
    (few,) = calibration.reliability_bins(probabilities, labels, np.arange(80) % 4)
    assert few["accuracy"] == 0.75 and few["accuracy_ci95"] is None


def test_risk_and_coverage_by_hand_with_ties_together():
    curve = calibration.risk_coverage([0.5, 0.9, 0.7, 0.7], [False, True, False, True])
    assert curve == [
        {"coverage": 0.25, "risk": 0.0, "threshold": 0.9},
        {"coverage": 0.75, "risk": pytest.approx(1 / 3), "threshold": 0.7},
        {"coverage": 1.0, "risk": 0.5, "threshold": 0.5},
    ]


@pytest.mark.parametrize("n_rows", [1, 2, 199, 200, 201, 5000])
def test_risk_at_full_coverage_is_the_error_rate_and_points_are_bounded(n_rows):
    rng = np.random.default_rng(n_rows)
    confidence, correct = rng.random(n_rows), rng.random(n_rows) < 0.8
    curve = calibration.risk_coverage(confidence, correct)
    assert len(curve) == min(n_rows, 200)
    assert len({point["coverage"] for point in curve}) == len(curve)
    assert curve[0]["threshold"] == confidence.max() and curve[0]["coverage"] == 1 / n_rows
    assert curve[-1] == {"coverage": 1.0, "risk": pytest.approx(1 - correct.mean()), "threshold": confidence.min()}
    for point in curve[:: max(1, len(curve) // 7)]:
        answered = confidence >= point["threshold"]
        assert point["coverage"] == pytest.approx(answered.mean())
        assert point["risk"] == pytest.approx(1 - correct[answered].mean())
    assert json.loads(json.dumps(curve)) == curve


def test_area_under_risk_coverage_orders_the_rankings():
    correct = np.random.default_rng(0).random(1000) < 0.7
    noise = np.random.default_rng(1).random(1000)
    perfect, random, worst = (calibration.area_under_risk_coverage(c, correct) for c in (correct, noise, ~correct))
    assert perfect < random < worst
    assert random == pytest.approx(1 - correct.mean(), abs=0.05)
    by_hand = (0 + 0 + 1 / 3 + 1 / 4) / 4
    assert calibration.area_under_risk_coverage([4, 3, 2, 1], [True, True, False, True]) == pytest.approx(by_hand)


def test_tied_rows_count_with_the_mean_over_their_orders():
    confidence = np.array([0.9, 0.7, 0.7, 0.7, 0.7, 0.2])
    correct = np.array([True, True, False, True, False, False])
    rng = np.random.default_rng(2)
    shuffled = [calibration.area_under_risk_coverage(confidence + 1e-6 * rng.random(6), correct) for _ in range(4000)]
    assert calibration.area_under_risk_coverage(confidence, correct) == pytest.approx(np.mean(shuffled), abs=0.005)
    assert calibration.area_under_risk_coverage(np.ones(6), correct) == pytest.approx(0.5)


def draws_of_abstention(n_draws: int, n_rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Confidence c uniform in 0..1, wrong with probability (1 - c) / 2: the risk from t on is (1 - t) / 4."""
    rng = np.random.default_rng(3)
    confidences = rng.random((n_draws, n_rows))
    return [(c, rng.random(n_rows) > (1 - c) / 2) for c in confidences]


@pytest.mark.parametrize("delta", [0.05, 0.5])
def test_the_true_risk_is_too_high_in_at_most_delta_of_all_draws(delta):
    draws = draws_of_abstention(300, 2000)
    thresholds = [calibration.abstention_threshold(*draw, max_risk=0.1, delta=delta) for draw in draws]
    found = np.array([t for t in thresholds if t is not None])
    assert len(found) > 0.9 * len(draws)
    assert ((1 - found) / 4 > 0.1).sum() <= (delta + 0.01) * len(draws)
    assert np.median(found) < 0.85  # of at best 0.6
    naive = [min(p["threshold"] for p in calibration.risk_coverage(*d) if p["risk"] <= 0.1) for d in draws]
    assert ((1 - np.array(naive)) / 4 > 0.1).mean() > 0.3  # what the bound is for


def test_the_threshold_passes_the_exact_bound_and_is_one_of_the_rows():
    for confidence, correct in draws_of_abstention(10, 2000):
        threshold = calibration.abstention_threshold(confidence, correct, 0.1)
        assert threshold in confidence
        answered = confidence >= threshold
        bound = binomtest(int((~correct[answered]).sum()), int(answered.sum()), 0.1, alternative="less")
        assert bound.proportion_ci(1 - 0.05 / 11).high <= 0.1
        assert calibration.abstention_threshold(confidence, correct, 0.13) < threshold


def test_more_rows_of_the_same_source_let_more_rows_be_answered():
    medians = []
    for n_rows in (300, 1000, 10_000):
        draws = draws_of_abstention(20, n_rows)
        medians.append(np.median([calibration.abstention_threshold(*draw, max_risk=0.1) or 1 for draw in draws]))
    assert medians[0] > medians[1] > medians[2] > 0.6
    assert medians[2] < 0.65


@pytest.mark.parametrize("n_rows", [0, 1, 2, 20, 64])
def test_too_few_rows_or_too_many_errors_give_no_threshold(n_rows):
    confidence = np.linspace(0, 1, n_rows)
    assert calibration.abstention_threshold(confidence, np.ones(n_rows, dtype=bool), 0.05) is None
    assert calibration.abstention_threshold(np.linspace(0, 1, 1000), np.zeros(1000, dtype=bool), 0.3) is None


def test_without_an_error_the_lowest_confidence_passes_as_soon_as_rows_suffice():
    needed = math.ceil(math.log(0.05 / 7) / math.log(1 - 0.05))  # 97 rows; 7 trials for 64 to 127 rows
    right = np.ones(needed, dtype=bool)
    assert calibration.abstention_threshold(np.linspace(0.3, 1, needed), right, 0.05) == 0.3
    assert calibration.abstention_threshold(np.linspace(0.3, 1, needed - 1), right[1:], 0.05) is None


def test_rows_of_equal_confidence_are_answered_together():
    confidence = np.repeat([0.9, 0.6], 200)
    correct = np.r_[np.ones(200), np.ones(150), np.zeros(50)].astype(bool)
    assert calibration.abstention_threshold(confidence, correct, 0.1) == 0.9
    assert calibration.abstention_threshold(confidence, correct, 0.2) == 0.6
    assert calibration.abstention_threshold(np.full(400, 0.9), correct, 0.1) is None


def test_abstention_answers_from_the_threshold_on_and_counts_the_wrong_ones_among_those():
    confidence, correct = np.array([0.9, 0.5, 0.4, 0.7]), np.array([True, False, False, True])
    found = calibration.abstention_statistics(confidence, correct, 0.5)
    assert found["coverage"].tolist() == [[1, 1], [1, 1], [0, 1], [1, 1]]
    assert found["selective_risk"].tolist() == [[0, 1], [1, 1], [0, 0], [0, 1]]
    assert value(found, "coverage") == 0.75 and value(found, "selective_risk") == pytest.approx(1 / 3)


@pytest.mark.parametrize("threshold", [None, 0.95])
def test_a_model_that_never_answers_has_no_selective_risk(threshold):
    found = calibration.abstention_statistics(np.array([0.9, 0.2]), np.array([True, False]), threshold)
    assert set(found) == {"coverage"} and value(found, "coverage") == 0


def test_curves_are_those_of_the_tempered_probabilities_beside_the_plain_ones():
    logits, labels = random_logits(300, 4, 2.0)
    after, before = calibration.softmax(logits, 2.0), calibration.softmax(logits)
    found = calibration.calibration_curves(after, before, labels, 2.0, range(300))
    right = after.argmax(axis=1) == labels
    assert found == {
        "temperature": 2.0,
        "reliability": calibration.reliability_bins(after, labels, range(300)),
        "reliability_uncalibrated": calibration.reliability_bins(before, labels, range(300)),
        "risk_coverage": calibration.risk_coverage(after.max(axis=1), right),
    }
    assert found["reliability"] != found["reliability_uncalibrated"]
    assert json.loads(json.dumps(found)) == found


# ----- Rows for the calibration


@pytest.mark.parametrize("seed", [0, 1])
def test_the_rows_of_the_threshold_fitted_nothing_and_are_one_of_each_cluster(seed):
    clusters = np.array([0] * 50 + [1] * 7 + list(range(2, 30)))
    fits, held = calibration.calibration_rows(clusters, seed)
    assert not set(clusters[fits]) & set(clusters[held]) and set(clusters[fits]) | set(clusters[held]) == set(
        range(30)
    )
    assert len(set(clusters[held])) == len(held) == 15 and len(set(clusters[fits])) == 15
    assert all(np.isin(np.flatnonzero(clusters == own), fits).all() for own in clusters[fits])
    again = calibration.calibration_rows(clusters, seed)
    np.testing.assert_array_equal(fits, again[0])
    np.testing.assert_array_equal(held, again[1])


def test_one_cluster_fits_and_gives_the_threshold_a_single_row():
    fits, held = calibration.calibration_rows([7] * 5, 0)
    assert fits.tolist() == [0, 1, 2, 3, 4] and len(held) == 1


def test_a_risk_that_is_promised_is_kept_where_rows_of_a_cluster_move_together():
    rng, broken = np.random.default_rng(0), 0
    for _ in range(200):
        right = np.repeat(rng.random(80) < 0.8, 10)  # whole clusters are right or wrong
        clusters = np.repeat(np.arange(80), 10)
        _, held = calibration.calibration_rows(clusters, 0)
        broken += calibration.abstention_threshold(np.ones(len(held)), right[held], 0.15) is not None
    assert broken / 200 <= 0.1  # a risk of 0.2 passes as at most 0.15
