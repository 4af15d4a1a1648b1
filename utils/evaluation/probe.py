"""A linear probe: what the frozen base model knows about the classes without fine-tuning (Alain and Bengio 2016).

The base model of a classifier has no head for its classes. A new one would be random, and other numbers would come out
each time.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

MOST_ROWS = 10_000  # training rows to read: less than a third of an epoch's work, as nothing is trained
MOST_SCORES = 2**25  # rows x classes: 0.3 GB, of which the solver keeps a few
UNSEEN = 1e-9  # probability of a class without training rows


class MeanPooled(nn.Module):
    """The encoder of a classifier, which returns the means of its last hidden states over the tokens in the place of
    logits, so that `predict_logits` reads texts for both alike."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        classifier: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        self.config = classifier.config
        self.encoder: Any = classifier.get_encoder() if classifier.config.is_encoder_decoder else classifier.base_model

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return SimpleNamespace(logits=(hidden * mask).sum(dim=1) / mask.sum(dim=1))


def probe_features(
    model: Any,
    predict: Callable[..., np.ndarray],
    train: list[list[int]],
    labels: np.ndarray,
    test: list[list[int]],
    n_classes: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the features of up to `MOST_ROWS` training rows, each class among them, their labels, and the features of
    the test rows; features are float32 [rows, hidden size].

    Args:
        model: the base model, with any head.
        predict: `predict_logits` with all arguments but model, rows and name.
        train, test: token ids of each row.
        labels: classes of the training rows, int [rows], or with several a row 0 or 1, [rows, classes].
        n_classes: number of classes.
        seed: seed of the sample.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = labels[order]
    first = np.unique(shuffled, return_index=True)[1] if labels.ndim == 1 else np.unique(shuffled.argmax(axis=0))
    order = np.concatenate([order[first], np.delete(order, first)])
    chosen = order[: max(len(first), min(MOST_ROWS, MOST_SCORES // n_classes))]
    pooled = MeanPooled(model)
    known = predict(pooled, [train[i] for i in chosen], name="linear probe: training rows")
    return known, labels[chosen], predict(pooled, test, name="linear probe: test rows")


def fit_probe(known: np.ndarray, labels: np.ndarray, new: np.ndarray, n_classes: int) -> np.ndarray:
    """Fit a logistic regression and return its log-probabilities of new rows, float64 [new rows, n_classes].

    Args:
        known, labels, new: from `probe_features`.
        n_classes: number of classes, with those that have no training rows.
    """
    log_p = np.full((len(new), n_classes), np.log(UNSEEN))
    classes = np.unique(labels)
    if len(classes) == 1:
        log_p[:, classes] = 0.0
        return log_p
    scale = StandardScaler().fit(known)
    model = LogisticRegression(max_iter=500).fit(scale.transform(known), labels)
    log_p[:, model.classes_] = np.log(np.maximum(model.predict_proba(scale.transform(new)), UNSEEN))
    return log_p


def fit_label_probes(known: np.ndarray, labels: np.ndarray, new: np.ndarray, n_classes: int) -> np.ndarray:
    """Fit a logistic regression for each label and return its log-odds for new rows, float64 [new rows, n_classes].

    Args:
        known, new: from `probe_features`.
        labels: 0 or 1, [rows, n_classes].
        n_classes: number of labels, with those that no or all training rows have.
    """
    counts = labels.sum(axis=0, dtype=int)
    log_odds = np.tile(np.where(counts == 0, np.log(UNSEEN), -np.log(UNSEEN)), (len(new), 1))
    fitted = np.flatnonzero((counts > 0) & (counts < len(labels)))
    scale = StandardScaler().fit(known)
    model = OneVsRestClassifier(LogisticRegression(max_iter=500)).fit(scale.transform(known), labels[:, fitted])
    log_odds[:, fitted] = model.decision_function(scale.transform(new)).reshape(len(new), -1)
    return log_odds
