"""The weights of an ensemble are those that validation supports, and its linear model is the one of scikit-learn."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import log_softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from utils.evaluation.encoders import add_linear_scores
from utils.evaluation.ensemble import ensemble_logits, fit_ensemble, fit_linear, linear_scores

WORDS = [["heart", "valve", "angina"], ["kidney", "stone", "bladder"], ["pollen", "hives", "mite"]]


def toy(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=n, p=[0.6, 0.3, 0.1])
    texts = [" ".join([*rng.choice(WORDS[label], 2), *rng.choice(["pain", "fever", "rash"], 3)]) for label in labels]
    return texts, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_linear_model_is_the_svm_on_tfidf(classes):
    texts, labels = toy(300, 0)
    rows = labels < classes
    texts, labels = [text for text, row in zip(texts, rows, strict=True) if row], labels[rows]
    new, _ = toy(50, 1)
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    model = LinearSVC(class_weight="balanced", random_state=0).fit(vectorizer.fit_transform(texts), labels)
    expected = model.decision_function(vectorizer.transform(new))
    scores = linear_scores(fit_linear(texts, labels, classes, 0), new)
    scores = scores[:, 1] - scores[:, 0] if classes == 2 else scores
    assert scores == pytest.approx(expected, abs=5e-3)  # coefficients in float16, solvers stop at 1e-4


def test_a_class_without_rows_is_never_predicted():
    texts, labels = toy(200, 0)
    scores = linear_scores(fit_linear(texts, labels * 2, 6, 0), toy(100, 1)[0] + [""])
    assert set(scores.argmax(axis=1)) == {0, 2, 4}


def test_no_word_of_a_text_is_in_the_arrays():
    arrays = fit_linear(
        ["heart murmur of Mister Unmistakable", "kidney stone", "kidney pain"], np.array([0, 1, 1]), 2, 0
    )
    assert set(arrays) == {"idf", "coefficients", "intercept"}
    assert all(array.dtype.kind == "f" for array in arrays.values())


def test_thousands_of_classes_get_fewer_features():
    texts = [f"note {i}" for i in range(3000)]
    assert fit_linear(texts, np.arange(3000), 3000, 0)["coefficients"].size <= 2**27


def mixed(outputs: dict, log_prior: np.ndarray | list, prior: float, linear: float = 0.0) -> np.ndarray:
    return ensemble_logits(outputs, {"log_prior": log_prior, "ensemble": {"prior": prior, "linear": linear}})


def test_without_weights_an_ensemble_is_the_logits():
    logits, scores = np.random.default_rng(0).normal(size=(2, 5, 3))
    assert np.array_equal(mixed({"logits": logits, "linear_scores": scores}, [0.0, -1.0, -2.0], 0.0, 0.0), logits)


def test_the_logits_of_an_ensemble_are_the_weighted_sum_of_its_parts():
    outputs = {"logits": np.array([[1.0, 2.0]]), "linear_scores": np.array([[10.0, 20.0]])}
    assert mixed(outputs, [-1.0, -2.0], 0.5, 3.0).tolist() == [[1 - 0.5 + 30, 2 - 1 + 60]]
    assert mixed({"logits": outputs["logits"]}, [-1.0, -2.0], 0.5, 3.0).tolist() == [[0.5, 1.0]]


def test_the_prior_that_was_taken_out_of_the_logits_is_put_back():
    rng = np.random.default_rng(1)
    log_prior = np.log([0.7, 0.25, 0.05])
    labels = rng.choice(3, size=4000, p=np.exp(log_prior))
    evidence = rng.normal(size=(4000, 3))
    evidence[np.arange(4000), labels] += 1.0  # log-likelihoods of unit normals, up to a constant
    weights = fit_ensemble("prior", {"logits": 2.5 * evidence}, log_prior, labels)
    assert weights["prior"] / 2.5 == pytest.approx(1.0, abs=0.12) and weights["linear"] == 0


def test_a_linear_model_that_knows_nothing_gets_no_weight_and_one_that_knows_all_gets_much():
    rng = np.random.default_rng(2)
    labels = rng.integers(3, size=2000)
    logits, noise = rng.normal(size=(2, 2000, 3))
    logits[np.arange(2000), labels] += 1.5
    outputs = {"logits": logits, "linear_scores": noise}
    assert fit_ensemble("linear", outputs, np.zeros(3), labels)["linear"] < 0.1
    known = 0.3 * rng.normal(size=(2000, 3))
    known[np.arange(2000), labels] += 1.0
    outputs = {"logits": logits, "linear_scores": known}
    weights = fit_ensemble("linear", outputs, np.zeros(3), labels)
    right = mixed(outputs, np.zeros(3), weights["prior"], weights["linear"]).argmax(axis=1) == labels
    assert weights["linear"] > 5 and right.mean() > (known.argmax(axis=1) == labels).mean()


def test_the_weights_make_validation_likelier_than_any_nearby():
    rng = np.random.default_rng(3)
    labels = rng.integers(3, size=500)
    logits, scores = rng.normal(size=(2, 500, 3))
    for values in (logits, scores):
        values[np.arange(500), labels] += 1.0
    log_prior = np.log([0.5, 0.3, 0.2])
    outputs = {"logits": logits, "linear_scores": scores}
    weights = fit_ensemble("linear", outputs, log_prior, labels)

    def nll(prior: float, linear: float) -> float:
        found, scales = mixed(outputs, log_prior, prior, linear), np.linspace(0.5, 2, 61)
        return min(-log_softmax(scale * found, axis=1)[np.arange(500), labels].mean() for scale in scales)

    best = nll(weights["prior"], weights["linear"])
    for prior, linear in ((0.2, 0.0), (-0.2, 0.0), (0.0, 0.2), (0.0, -0.2)):
        assert best <= nll(weights["prior"] + prior, weights["linear"] + linear) + 1e-4


@pytest.mark.parametrize("how", ["none", "prior", "linear"])
def test_a_recipes_ensemble_fits_what_it_asks_for(how):
    (texts, labels), (new, new_labels) = toy(300, 0), toy(100, 1)
    outputs = {"logits": np.random.default_rng(2).normal(size=(100, 3))}
    log_prior = [-0.5, -1.2, -2.3]
    if how == "linear":
        outputs["linear_scores"] = linear_scores(fit_linear(texts, labels, 3, 0), new)
        assert outputs["linear_scores"].shape == (100, 3)
    weights = fit_ensemble(how, outputs, log_prior, new_labels)
    assert set(weights) == {"method", "prior", "linear"} and weights["method"] == how
    assert weights["linear"] > 1 if how == "linear" else weights["linear"] == 0
    assert (weights["prior"] == 0) == (how == "none")


def test_a_linear_model_joins_the_tuned_encoder_alone_and_is_saved_for_serving(tmp_path):
    (texts, labels), (new, _) = toy(300, 0), toy(100, 1)
    rows = {"train": {"text": texts, "label": labels}, "validation": {"text": new[:40]}, "test": {"text": new[40:]}}
    outputs = {name: {"logits": np.zeros((1, 3))} for name in ("validation", "test", "base_test")}
    add_linear_scores(outputs, rows, 3, 0, tmp_path)
    saved = load_file(tmp_path / "linear.safetensors")
    for split in ("validation", "test"):
        assert np.array_equal(outputs[split]["linear_scores"], linear_scores(saved, rows[split]["text"]))
    assert set(outputs["base_test"]) == {"logits"}
    only = {"validation": {"logits": np.zeros((1, 3))}}  # a run with `evaluate_test: false`, of another process
    add_linear_scores(only, rows, 3, 0, None)
    assert np.array_equal(only["validation"]["linear_scores"], outputs["validation"]["linear_scores"])
