"""Several labels a text: sets, thresholds and probabilities are what scikit-learn and simulation say."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import f1_score, label_ranking_average_precision_score, log_loss, precision_score, recall_score

from utils.evaluation.ensemble import fit_linear, linear_scores
from utils.evaluation.label_analysis import label_error_patterns, probability_statistics
from utils.evaluation.multilabel import calibrate, fit_calibration, label_probabilities
from utils.evaluation.probe import fit_label_probes
from utils.metrics.intervals import evaluate_statistics
from utils.metrics.multilabel import (
    FEW_POSITIVES,
    best_threshold,
    f1_thresholds,
    multi_label_baselines,
    multi_label_statistics,
    ranking_statistics,
)

SETS = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=n, max_size=n)
)


def values(statistics: dict) -> dict[str, float]:
    found = evaluate_statistics(statistics, range(next(iter(statistics.values())).shape[0]))
    return {key: value for key, value in found.items() if not key.endswith("_ci95")}


@settings(max_examples=60, deadline=None)
@given(true=SETS, seed=st.integers(0, 1000))
def test_metrics_of_sets_are_those_of_scikit_learn(true, seed):
    true = np.array(true)
    rng = np.random.default_rng(seed)
    predicted, scores = rng.random(true.shape) < 0.4, rng.integers(0, 4, true.shape) / 4  # with ties
    found = values(multi_label_statistics(predicted, true) | ranking_statistics(scores, true))
    seen = np.flatnonzero(predicted.any(axis=0) | true.any(axis=0))
    for average, of in itertools.product(("micro", "macro"), (f1_score, precision_score, recall_score)):
        if len(seen):
            expected = of(true[:, seen], predicted[:, seen], average=average, zero_division=0)
            assert np.nan_to_num(found[f"{average}_{of.__name__.split('_')[0]}"]) == pytest.approx(expected)
    assert found["samples_f1"] == pytest.approx(f1_score(true, predicted, average="samples", zero_division=1))
    expected = label_ranking_average_precision_score(true, scores)
    assert found["label_ranking_average_precision"] == pytest.approx(expected)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=25).filter(
        lambda pairs: any(true for _, true in pairs)
    )
)
def test_no_threshold_has_a_higher_f1_than_the_best(pairs):
    scores, true = (np.array(values) for values in zip(*pairs, strict=True))
    best = f1_score(true, scores >= best_threshold(scores.astype(float), true))
    assert best == pytest.approx(max(f1_score(true, scores >= limit) for limit in range(-3, 4)))


def test_a_rare_label_shares_the_threshold_of_all_labels():
    rng = np.random.default_rng(0)
    true = rng.random((400, 3)) < [0.4, 0.2, 0.0]
    true[: FEW_POSITIVES - 1, 2] = True
    scores = true + rng.normal(size=true.shape)
    found = f1_thresholds(scores, true)
    assert found[2] == best_threshold(scores.ravel(), true.ravel())
    assert found[1] == best_threshold(scores[:, 1], true[:, 1]) != found[2]


def test_probabilities_are_calibrated_label_by_label_and_rare_labels_are_left_alone():
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=3, size=(6000, 3))
    true = rng.random(logits.shape) < expit(logits * [0.4, 1.0, 2.0] + [-2.0, 0.0, 1.0])
    known, new = slice(0, 3000), slice(3000, None)
    fitted = {"calibration": fit_calibration(logits[known], true[known])}
    assert fitted["calibration"]["scale"] == pytest.approx([0.4, 1.0, 2.0], rel=0.15)
    before = values(probability_statistics(expit(logits[new]), true[new]))
    after = values(probability_statistics(label_probabilities(logits[new], fitted), true[new]))
    assert after["ece"] < 0.02 < before["ece"] and after["loss"] < before["loss"]
    few = fit_calibration(logits[:3], np.zeros((3, 3), dtype=bool))
    assert all(abs(np.log(scale)) < 1.5 for scale in few["scale"])


def test_calibration_errors_and_losses_are_means_over_labels():
    rng = np.random.default_rng(2)
    probabilities = rng.random((300, 4))
    true = rng.random((300, 4)) < probabilities**2
    found = values(probability_statistics(probabilities, true))
    alone = [values(probability_statistics(probabilities[:, [i]], true[:, [i]])) for i in range(4)]
    for name in ("loss", "brier", "ece"):
        assert found[name] == pytest.approx(np.mean([own[name] for own in alone]))
    assert found["loss"] == pytest.approx(np.mean([log_loss(true[:, i], probabilities[:, i]) for i in range(4)]))
    inside = (probabilities[:, 0] * 15).astype(int)
    gaps = [abs((true[inside == i, 0] - probabilities[inside == i, 0]).sum()) for i in range(15)]
    assert alone[0]["ece"] == pytest.approx(sum(gaps) / 300)


def toy(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Texts with two words of each of their labels; label 3 is on no text and label 4 on every one."""
    rng = np.random.default_rng(seed)
    words = [["heart", "valve"], ["kidney", "stone"], ["pollen", "hives"]]
    labels = np.zeros((n, 5), dtype=np.uint8)
    labels[:, :3], labels[:, 4] = rng.random((n, 3)) < [0.5, 0.3, 0.2], 1
    texts = [" ".join([*(w for i, own in enumerate(words) if row[i] for w in own), "pain", "fever"]) for row in labels]
    return texts, labels


def test_linear_models_learn_each_label_and_cope_with_those_of_no_and_all_rows():
    (texts, labels), (known, known_labels), (new, expected) = toy(200, 0), toy(80, 1), toy(80, 2)
    scores = linear_scores(fit_linear(texts, labels, 5, 0), new)
    assert ((scores > 0) == expected).all()
    train, validation = {"text": texts, "label": labels}, {"text": known, "label": known_labels}
    found = multi_label_baselines(train, validation, new, 0)
    assert (found["tfidf_svm"] == expected).all() and (found["tfidf_logistic"] == expected).all()
    assert (found["best_constant"] == found["best_constant"][0]).all() and found["best_constant"][0, 4]
    micro = {
        size: f1_score(
            labels,
            np.tile(np.isin(range(5), np.argsort(-labels.sum(axis=0, dtype=int))[:size]), (200, 1)),
            average="micro",
        )
        for size in range(1, 6)
    }
    assert found["best_constant"][0].sum() == max(micro, key=micro.get)
    rng = np.random.default_rng(3)
    features = labels + rng.normal(scale=0.1, size=labels.shape)
    odds = fit_label_probes(features, labels, features, 5)
    assert ((odds > 0) == labels).mean() > 0.99


def test_an_ensemble_takes_the_scores_that_help_and_no_others():
    rng = np.random.default_rng(4)
    true = rng.random((1500, 3)) < 0.3
    outputs = {"logits": 2.0 * true - 1 + rng.normal(size=true.shape), "linear_scores": rng.normal(size=true.shape)}
    weight = {}
    for name, scores in (("noise", outputs["linear_scores"]), ("help", 2.0 * true - 1 + rng.normal(size=true.shape))):
        fitted = calibrate(outputs | {"linear_scores": scores}, true, {"ensemble": {"method": "linear"}})
        weight[name] = fitted["ensemble"]["linear"]
    assert weight["noise"] < 0.1 < 0.7 < weight["help"]


def test_error_patterns_name_rows_with_wrong_sets_alone():
    true = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]], dtype=bool)
    predicted = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]], dtype=bool)
    found = label_error_patterns(predicted, true, np.array([90, 90, 3]), [True] * 4, [False] * 4)
    assert found == {
        "no_label": [2], "missed_label": [1, 2], "extra_label": [3], "rare_label": [2], "cut_text": [1, 2, 3],
        "conflicting_text": [],
    }  # fmt: skip
