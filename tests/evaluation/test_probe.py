"""The linear probe on the frozen base model: the same numbers each time, whatever the new head is."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from utils.encoding import encode_texts
from utils.evaluation.probe import UNSEEN, fit_probe, probe_features
from utils.heads import prepare_classifier
from utils.logits import predict_logits

TEXTS = ["Patient has a cough.", "Patient has pain in the chest and a fever.", "Fever."] * 6
LABELS = np.array([0, 1, 2] * 6)


def features(folder, seed: int, pooling: str = "model", max_length: int = 32):
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    prepare_classifier(model, ["classifier"], pooling)
    ids, _ = encode_texts(AutoTokenizer.from_pretrained(folder), TEXTS, max_length, "chunks")

    def predict(model, rows, name):
        return predict_logits(model, rows, 0, max_length, 4)

    return probe_features(model, predict, ids, LABELS, ids, 3, seed=1)


@pytest.mark.parametrize("pooling", ["model", "mean"])
def test_a_new_head_changes_nothing(tiny_bert, pooling):
    first, second = (features(tiny_bert, seed, pooling) for seed in (1, 2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    found = [fit_probe(known, labels, new, 4) for known, labels, new in (first, second)]
    np.testing.assert_array_equal(*found)
    assert (found[0].argmax(axis=1) == LABELS).all() and np.exp(found[0]).sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert np.exp(found[0][:, 3]) == pytest.approx(UNSEEN)  # a class without training rows


@pytest.mark.parametrize("pooling", ["model", "mean"])
def test_features_are_the_mean_of_the_last_hidden_states(tiny_bert, pooling):
    _, _, new = features(tiny_bert, 0, pooling)
    encoder, tokenizer = AutoModel.from_pretrained(tiny_bert).eval(), AutoTokenizer.from_pretrained(tiny_bert)
    for row, text in zip(new[:3], TEXTS, strict=False):
        with torch.inference_mode():
            hidden = encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert row == pytest.approx(hidden.mean(dim=0).numpy(), abs=1e-5)


def test_the_sample_is_bounded_and_has_every_class(tiny_bert, monkeypatch):
    monkeypatch.setattr("utils.evaluation.probe.MOST_ROWS", 5)
    known, labels, new = features(tiny_bert, 0)
    assert len(known) == len(labels) == 5 and set(labels.tolist()) == {0, 1, 2} and len(new) == len(TEXTS)


def test_it_is_a_logistic_regression_on_standardized_features():
    rng = np.random.default_rng(0)
    known, labels, new = rng.normal(3, 2, (90, 5)), rng.integers(3, size=90), rng.normal(3, 2, (20, 5))
    mean, sd = known.mean(axis=0), known.std(axis=0)
    model = LogisticRegression(max_iter=500).fit((known - mean) / sd, labels)
    expected = model.predict_log_proba((new - mean) / sd)
    assert fit_probe(known, labels, new, 3) == pytest.approx(expected, abs=1e-6)
    assert (fit_probe(known, np.ones(90, int), new, 3).argmax(axis=1) == 1).all()
