"""Each way to weigh classes against its formula, and a loss that does not depend on how a batch is cut."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from utils.arguments import UserError
from utils.losses import CLASS_IMBALANCE, class_weights, classification_loss, focal_loss

COUNTS = [900, 90, 9, 1]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(64, 4, generator=generator)
    return logits, torch.randint(4, (64,), generator=generator)


def test_inverse_frequency_makes_every_class_weigh_the_same_in_total():
    weights = class_weights(COUNTS, "inverse_frequency")
    assert torch.allclose(weights * torch.tensor(COUNTS), torch.full((4,), 250.0))


def test_class_balanced_weights_are_those_of_the_effective_number():
    weights = class_weights(COUNTS, "class_balanced")
    effective = (1 - 0.999 ** np.array(COUNTS)) / (1 - 0.999)
    assert weights.numpy() / weights[0].item() == pytest.approx(effective[0] / effective, rel=1e-5)
    assert (weights * torch.tensor(COUNTS)).sum() / 1000 == pytest.approx(1)


@pytest.mark.parametrize("how", ["inverse_frequency", "class_balanced"])
def test_a_class_without_rows_has_a_finite_weight(how):
    assert class_weights([10, 0], how).isfinite().all()


def test_focal_loss_with_gamma_0_is_cross_entropy(batch):
    expected = cross_entropy(*batch, reduction="none")
    assert torch.allclose(focal_loss(*batch, gamma=0), expected, atol=1e-6)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = cross_entropy(*batch, weight=weight, reduction="none")
    assert torch.allclose(focal_loss(*batch, gamma=0, weight=weight), expected, atol=1e-6)


def test_focal_loss_is_its_formula_and_has_a_gradient_where_the_model_is_sure(batch):
    logits, labels = batch
    p = logits.softmax(-1)[torch.arange(64), labels]
    assert torch.allclose(focal_loss(logits, labels, 2.0), -((1 - p) ** 2) * p.log(), atol=1e-5)
    sure = torch.tensor([[80.0, 0.0]], requires_grad=True)
    focal_loss(sure, torch.tensor([0]), 2.0).sum().backward()
    assert sure.grad.isfinite().all()


def test_logit_adjustment_is_cross_entropy_on_logits_plus_the_log_prior(batch):
    logits, labels = batch
    loss = classification_loss(COUNTS, "logit_adjustment")(SimpleNamespace(logits=logits), labels)
    prior = torch.tensor(COUNTS) / 1000
    assert loss == pytest.approx(cross_entropy(logits + prior.log(), labels).item(), rel=1e-5)
    none = classification_loss(COUNTS, "logit_adjustment", tau=0.0)(SimpleNamespace(logits=logits), labels)
    assert none == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)


@pytest.mark.parametrize("how", CLASS_IMBALANCE)
def test_pieces_of_a_batch_add_up_to_the_batch(how, batch):
    logits, labels = batch
    loss = classification_loss(COUNTS, how)
    whole = loss(SimpleNamespace(logits=logits), labels, num_items_in_batch=64)
    parts = [slice(start, start + 16) for start in range(0, 64, 16)]
    pieces = sum(loss(SimpleNamespace(logits=logits[part]), labels[part], torch.tensor(64)) for part in parts)
    assert whole.item() == pytest.approx(pieces.item(), rel=1e-5)
    assert whole.item() == pytest.approx(loss(SimpleNamespace(logits=logits), labels).item(), rel=1e-5)


@pytest.mark.parametrize("how", [how for how in CLASS_IMBALANCE if how != "focal"])
def test_label_smoothing_is_that_of_torch(how, batch):
    logits, labels = batch
    loss = classification_loss(COUNTS, how, label_smoothing=0.2)(SimpleNamespace(logits=logits), labels)
    prior = (torch.tensor(COUNTS) / 1000).log() if how == "logit_adjustment" else torch.zeros(4)
    weight = class_weights(COUNTS, how)
    rows = cross_entropy(logits + prior, labels, weight, reduction="none", label_smoothing=0.2)
    assert loss.item() == pytest.approx(rows.mean().item(), rel=1e-5)
    plain = classification_loss(COUNTS, how)(SimpleNamespace(logits=logits), labels)
    assert loss.item() != pytest.approx(plain.item(), rel=1e-3)


def test_label_smoothing_is_not_mixed_with_a_focal_loss():
    with pytest.raises(UserError, match="`label_smoothing_factor` .*`focal_gamma"):
        classification_loss(COUNTS, "focal", 2.0, label_smoothing=0.1)
    classification_loss(COUNTS, "focal", 0.0, label_smoothing=0.1)  # is cross-entropy
