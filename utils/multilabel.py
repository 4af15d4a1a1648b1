"""Several labels a text: whether the data has them, how they are encoded, and the loss that learns them."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Features
from numpy.typing import ArrayLike
from torch import nn
from transformers import PreTrainedModel

from utils.arguments import DataArguments, UserError
from utils.data.keys import fold
from utils.data.label_lists import has_label_lists
from utils.losses import check_smoothing

logger = logging.getLogger(__name__)

SINGLE_LABEL, MULTI_LABEL = "single_label_classification", "multi_label_classification"  # as transformers names them
PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL)
# What Python, numpy and R print for a list, and JSON where other rows have one label
LIST_TEXT = re.compile(r"\[(.*[,'\"].*)?\]|\{.*[,'\"].*\}|c?\(\s*['\"].*\)", re.DOTALL)
SEPARATORS = (";", "|", ",", "/", "+")
# Of one label a text alone: key -> what stands in its place
SINGLE_LABEL_KEYS = {
    "max_risk": "each label has a threshold of its own",
    "top_k": "texts get the labels above their thresholds",
    "extra_metrics": "these metrics compare one label a text",
}


def find_problem_type(problem_type: str | None, args: DataArguments, column: str, given: Mapping[str, Any]) -> str:
    """Return the problem type that is given or, if none is, what the label column holds.

    Args:
        problem_type: one of `PROBLEM_TYPES`, or None.
        args: source of the rows.
        column: the column of the labels.
        given: every key that is set, with its value.

    Raises:
        UserError: a key has no meaning for several labels a text.
    """
    if problem_type is None and has_label_lists(args, column):
        problem_type = MULTI_LABEL
        logger.info("`%s` has lists, so each text can have several labels (`problem_type: %s`)", column, MULTI_LABEL)
    if problem_type != MULTI_LABEL:
        return SINGLE_LABEL
    refused = {key: instead for key, instead in SINGLE_LABEL_KEYS.items() if given.get(key) is not None}
    allowed = {"class_imbalance": ("none", "focal"), "ensemble": ("none", "linear")}
    for key, values in allowed.items():
        if given.get(key, "none") not in values:
            refused[key] = f"with several labels it can be {' or '.join(values)}"
    for key, instead in refused.items():
        raise UserError(f"`{key}` is {given[key]}, but `{column}` has several labels a text: {instead}: delete it.")
    return MULTI_LABEL


def check_names(names: Sequence[str], column: str, problem_type: str | None) -> dict[str, int]:
    """Look for labels that may be several in one text, unless the recipe says that texts have one.

    Args:
        names: the labels.
        column: their column.
        problem_type: as given.

    Returns:
        `data_joined_labels`, how many labels are made of others, such as `a;b` beside `a` and `b`, which is also
        logged; empty if there are none.

    Raises:
        UserError: a label is the text of a list.
    """
    if problem_type == SINGLE_LABEL:
        return {}
    if lists := [name for name in names if LIST_TEXT.fullmatch(name.strip())]:
        raise UserError(
            f"`{column}` has {len(lists)} labels that look like lists, such as `{lists[0]}`: write lists (in csv in "
            f'JSON, ["a", "b"]), or set `problem_type: {SINGLE_LABEL}`.'
        )
    joined = set[str]()
    for separator in SEPARATORS:
        parts = {name: [fold(part) for part in name.split(separator)] for name in names}
        rows = Counter(part for own in parts.values() for part in set(own))
        joined |= {name for name, own in parts.items() if len(own) > 1 and all(rows[p] > 1 and p for p in own)}
    if joined:
        logger.warning(
            "`%s`: %d of %d labels are made of others, such as `%s`, and count as classes of their own: if texts have "
            "several labels, write lists",
            column, len(joined), len(names), min(joined),
        )  # fmt: skip
    return {"data_joined_labels": len(joined)} if joined else {}


def prepare_labels(model: PreTrainedModel, task: dict[str, Any], class_counts: np.ndarray, n_rows: int) -> None:
    """Set what several labels a text need, before training.

    Plain transformers takes a sigmoid. Weights in float32 predict without autocast, since one of many thresholds may
    be near. The new head starts at the shares of the labels (Lin et al. 2017, section 3.3): where it started at one
    half, MiniLM drove all texts to one state first, and needed 750 steps for the loss that it now has after 30.

    Args:
        model: a classifier with a new head.
        task: the content of `task.json`, with `heads`.
        class_counts: training rows of each label.
        n_rows: training rows.
    """
    model.config.problem_type = "multi_label_classification"
    if model.dtype == torch.float32:
        task["autocast"] = None
    modules = [module for head in task["heads"] for module in model.get_submodule(head).modules()]
    layer = [module for module in modules if isinstance(module, nn.Linear)][-1]
    if layer.bias is not None:
        share = torch.as_tensor((class_counts + 1) / (n_rows + 2))
        with torch.no_grad():
            layer.bias.copy_(torch.logit(share))


def class_names(features: Features, column: str) -> list[str]:
    """Return the names of the classes of a column of labels, or of lists of labels."""
    feature = features[column]
    return getattr(feature, "feature", feature).names


def label_array(labels: Sequence[Any], n_classes: int) -> np.ndarray:
    """Return the labels of rows: int [rows], or for lists of labels uint8 [rows, n_classes], 1 where a row has one."""
    if not any(isinstance(own, list) for own in labels):
        return np.array(labels)
    array = np.zeros((len(labels), n_classes), dtype=np.uint8)
    for row, own in enumerate(labels):
        array[row, own] = 1
    return array


def count_classes(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the rows of each class, int [n_classes], from a `label_array`."""
    return np.bincount(labels, minlength=n_classes) if labels.ndim == 1 else labels.sum(axis=0, dtype=int)


def multi_label_loss(
    class_counts: ArrayLike, how: str, focal_gamma: float = 2.0, label_smoothing: float = 0.0
) -> Callable[..., torch.Tensor]:
    """Return a loss for `Trainer(compute_loss_func=...)`: binary cross-entropy, the mean over all labels of the rows
    of the full optimizer step, of which `num_items_in_batch` counts each label.

    Args:
        class_counts: not needed; as for `utils.losses.classification_loss`.
        how: `focal` multiplies it by (1 - p)^gamma, where p is the probability of what is true of the label (Lin et
            al. 2017); `none` does not.
        focal_gamma: focusing parameter; 0 is binary cross-entropy.
        label_smoothing: targets are half of it away from 0 and 1.
    """
    gamma = focal_gamma if how == "focal" else 0.0
    check_smoothing(label_smoothing, gamma)

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor:
        targets = labels.float() * (1 - label_smoothing) + label_smoothing / 2
        losses = nn.functional.binary_cross_entropy_with_logits(outputs.logits.float(), targets, reduction="none")
        if gamma:
            losses = (1 - torch.exp(-losses)) ** gamma * losses
        return losses.sum() / (losses.numel() if num_items_in_batch is None else num_items_in_batch)

    return loss
