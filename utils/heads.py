"""The heads of classifiers: which modules they are, how they pool, and at which rate they learn."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainingArguments

from utils.modeling import AutoClass, class_config, load_config, not_loaded

if TYPE_CHECKING:
    from trl import ModelConfig  # takes a second, and serving needs none

logger = logging.getLogger(__name__)

POOLING = "classifier_pooling"  # of a configuration: how a classifier pools, where the architecture has a choice


def head_names(
    args: "ModelConfig", auto_class: AutoClass, labels: list[str], trust_remote_code: bool = False
) -> list[str]:
    """Return the modules on top of the base model that have weights, such as `classifier`. They are newly initialized,
    so they are trained in full and never quantized (bitsandbytes would: peft#1720). Reads a model on the meta device,
    which allocates no memory."""
    config = load_config(args, trust_remote_code, **class_config(labels))
    try:
        with torch.device("meta"):
            model = auto_class.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise not_loaded(str(args.model_name_or_path), error) from error
    own = {child: module for child, module in model.named_children() if child != model.base_model_prefix}
    return [child for child, module in own.items() if any(True for _ in module.parameters())]


def renew_outputs(
    model: PreTrainedModel, args: "ModelConfig", labels: list[str], heads: list[str], code: bool
) -> None:
    """Start the last layer anew if the base model classifies into other classes, or of these in another order: where
    there are as many, transformers would keep it, and each output would answer for a class that it never saw."""
    config = load_config(args, code)
    own = [str(name) for _, name in sorted((config.id2label or {}).items())]
    if own == labels or not any("Classification" in name for name in config.architectures or ()):
        return
    logger.warning(
        "`model_name_or_path` %s is a classifier of %d classes, which are not the %d of this data in their order: its "
        "last layer starts anew.",
        args.model_name_or_path,
        len(own),
        len(labels),
    )
    for module in (module for head in heads for module in model.get_submodule(head).modules()):
        if isinstance(module, nn.Linear) and module.out_features == len(labels):
            nn.init.normal_(module.weight, std=getattr(config, "initializer_range", 0.02))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def prepare_classifier(
    model: PreTrainedModel, heads: list[str], pooling: str, dropout: float | None = None
) -> PreTrainedModel:
    """Apply the settings that a configuration cannot express, for training and serving alike, and return the model.

    Args:
        model: a loaded classifier.
        heads: from `head_names`; cast to float32 for stable training whatever the base model's `dtype`.
        pooling: "mean" feeds the heads the mean of the last hidden states over the tokens instead of the first token's
            state, as sentence encoders such as MiniLM were trained.
        dropout: overrides the model's own probability.
    """
    for head in heads:
        model.get_submodule(head).float()
    for module in model.modules():
        if dropout is not None and isinstance(module, nn.Dropout):
            module.p = dropout
    if pooling == "mean" and pools_by_config(model):  # so that the saved model does it without us
        for owner in (model.config, model):  # EuroBERT keeps a copy
            if hasattr(owner, POOLING):
                setattr(owner, POOLING, "mean")
    elif pooling == "mean":
        if isinstance(getattr(model.base_model, "pooler", None), nn.Module):
            model.base_model.register_module("pooler", None)  # it reads the first token and would get no gradient
        model.base_model.register_forward_hook(_pool_mean, with_kwargs=True)
    return model


def pools_by_config(model: nn.Module) -> bool:
    """Return whether the configuration of a classifier says how it pools (ModernBERT, EuroBERT)."""
    return hasattr(model.config, POOLING)


def _pool_mean(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
    """Put the mean over the tokens where heads read: pooled output (BERT), and any position, of which DistilBERT and
    RoBERTa read the first, and GPT-2 and Llama the last."""
    hidden = output.last_hidden_state
    mask = kwargs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    output.last_hidden_state = mean.unsqueeze(1).expand_as(hidden)
    if "pooler_output" in output or hasattr(module, "pooler"):
        output.pooler_output = mean
    return output


def get_optimizer(
    model: nn.Module, args: TrainingArguments, heads: Sequence[str], head_learning_rate: float | None
) -> tuple[type, dict[str, Any]]:
    """Return the recipe's optimizer for `Trainer(optimizer_cls_and_kwargs=...)`, with `head_learning_rate` for the
    heads if given. As in `Trainer`, biases and norms have no weight decay."""
    optimizer, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, cast(PreTrainedModel, model))
    if head_learning_rate is None:
        return optimizer, kwargs
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_head = any(part in heads for part in name.split("."))
            groups.setdefault((is_head, parameter.ndim > 1), []).append(parameter)
    rates = {True: head_learning_rate, False: args.learning_rate}
    params = [
        {"params": own, "weight_decay": args.weight_decay * decays, "lr": rates[is_head]}
        for (is_head, decays), own in groups.items()
    ]
    return optimizer, kwargs | {"params": params}
