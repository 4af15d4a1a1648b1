"""Losses and class weights for imbalanced classes."""

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import nn

from utils.arguments import UserError

EFFECTIVE_NUMBER_BETA = 0.999  # Cui et al. 2019 use 0.9 to 0.9999; 0.999 is close to 1/n below 300 rows
CLASS_IMBALANCE = (
    "none", "inverse_frequency", "class_balanced", "focal", "logit_adjustment", "balanced_sampling",
)  # fmt: skip


def class_weights(class_counts: ArrayLike, how: str) -> torch.Tensor | None:
    """Return the weight of each class, float32 [classes], scaled so that training rows have weight 1 on average.

    Args:
        class_counts: training rows of each class; a class without rows is treated as having one.
        how: `inverse_frequency`: 1 / n. `class_balanced`: 1 / effective number, (1 - b) / (1 - b^n) with b =
            `EFFECTIVE_NUMBER_BETA` (Cui et al. 2019). Any other: None.
    """
    counts = torch.tensor(class_counts, dtype=torch.float64)
    if how == "inverse_frequency":
        weights = 1 / counts.clamp(min=1)
    elif how == "class_balanced":
        weights = (1 - EFFECTIVE_NUMBER_BETA) / (1 - EFFECTIVE_NUMBER_BETA ** counts.clamp(min=1))
    else:
        return None
    return (weights * counts.sum() / (weights * counts).sum()).float()


def focal_loss(
    logits: torch.Tensor, labels: torch.Tensor, gamma: float, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Return each row's focal loss, (1 - p)^gamma * -log p, where p is the probability of the true class (Lin et al.
    2017).

    Args:
        logits: float [rows, classes].
        labels: int [rows].
        gamma: focusing parameter; 0 is cross-entropy, and higher values down-weight easy rows.
        weight: weight of each class, float [classes].

    Returns:
        float [rows].
    """
    nll = nn.functional.cross_entropy(logits, labels, reduction="none")
    loss = nll if gamma == 0 else (1 - torch.exp(-nll)) ** gamma * nll
    return loss if weight is None else loss * weight[labels]


def check_smoothing(label_smoothing: float, gamma: float) -> None:
    """Raise a UserError for label smoothing with a focal loss: both answer to how sure the model is of a row, and
    there is no agreed formula for the two together."""
    if label_smoothing and gamma:
        raise UserError(
            f"`label_smoothing_factor` is {label_smoothing} with a focal loss: set `label_smoothing_factor: 0`, or "
            "`focal_gamma: 0` for cross-entropy."
        )


def classification_loss(
    class_counts: ArrayLike, how: str, focal_gamma: float = 2.0, tau: float = 1.0, label_smoothing: float = 0.0
) -> Callable[..., torch.Tensor]:
    """Return a loss for `Trainer(compute_loss_func=...)`.

    The sum over rows is divided by the rows of the full optimizer step, `num_items_in_batch`, so that loss and
    gradient do not depend on gradient accumulation or the number of processes; the models' own loss does
    (transformers#47688).

    Args:
        class_counts: training rows of each class.
        how: one of `CLASS_IMBALANCE`. `logit_adjustment` trains on logits + tau * log(class share), so that plain
            logits rank classes as if all were equally frequent (Menon et al. 2021). `balanced_sampling` and `none` use
            plain cross-entropy.
        focal_gamma: focusing parameter of the focal loss.
        tau: strength of the logit adjustment; 0 disables it.
        label_smoothing: probability mass of a row's target that is spread evenly over the classes (Szegedy et al.
            2016), as in torch's `cross_entropy`; not with a focal loss.
    """
    weight = class_weights(class_counts, how)
    counts = torch.tensor(class_counts, dtype=torch.float32).clamp(min=1)
    offset = tau * (counts / counts.sum()).log() if how == "logit_adjustment" else None
    gamma = focal_gamma if how == "focal" else 0.0
    check_smoothing(label_smoothing, gamma)

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor:
        logits = outputs.logits.float()
        if offset is not None:
            logits = logits + offset.to(logits.device)
        of_class = None if weight is None else weight.to(logits.device)
        if gamma:
            rows = focal_loss(logits, labels, gamma, of_class)
        else:
            rows = nn.functional.cross_entropy(
                logits, labels, of_class, reduction="none", label_smoothing=label_smoothing
            )
        return rows.sum() / (len(rows) if num_items_in_batch is None else num_items_in_batch)

    return loss
