"""How many tokens a model can read. Where each position has a learned row there are no more than rows; elsewhere
positions are relative, and a longer text is only longer than what the model was trained on."""

import logging
import re
from collections.abc import Mapping

import torch
from torch import nn
from transformers import AutoModel, AutoModelForSeq2SeqLM, PreTrainedConfig

from utils.arguments import UserError

logger = logging.getLogger(__name__)
POSITIONS = re.compile(r"position|pos_enc|wpe")  # in the name of a table with a row for each position


def position_limit(model: nn.Module, side: str = "") -> int | None:
    """Return the maximum number of tokens that a model can read; None means that no table limits it.

    Args:
        model: any model, also one on the meta device.
        side: `encoder` or `decoder`, for a model that has both.
    """
    limits = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and _is_table(name, side):
            # OPT and BART leave rows before the first position free; RoBERTa those up to its padding token
            plain_padding = module.padding_idx if type(module) is nn.Embedding else None
            free = getattr(module, "offset", 0 if plain_padding is None else plain_padding + 1)
            limits.append(module.num_embeddings - free)
    for name, table in model.named_buffers():  # GPT-J and CTRL: computed, not learned
        if table.ndim == 2 and len(table) > 1 and _is_table(name, side):
            limits.append(len(table))
    return min(limits, default=None)


def _is_table(name: str, side: str) -> bool:
    parts = name.split(".")
    return POSITIONS.search(parts[-1]) is not None and (not side or side in parts)


def empty_model(config: PreTrainedConfig, trust_remote_code: bool = False) -> nn.Module | None:
    """Return the model of a configuration on the meta device, without memory; None if its code cannot do that. Of one
    that reads images, too, the part for text."""
    auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModel
    config = config if config.is_encoder_decoder else config.get_text_config()
    try:
        with torch.device("meta"):
            return auto_class.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, RuntimeError):
        return None


def trained_length(config: PreTrainedConfig) -> int | None:
    """Return the length that a model was trained for, as its configuration says."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def check_positions(config: PreTrainedConfig, trust_remote_code: bool, lengths: Mapping[str, int | None]) -> None:
    """Check the lengths of a text and of what a causal model writes after it, before any work on the data.

    Args:
        config: of the model.
        trust_remote_code: run code from the model repository.
        lengths: key of the recipe -> tokens.

    Raises:
        UserError: all lengths together exceed the positions of the model.
    """
    keys, total = " + ".join(f"`{key}`" for key in lengths), sum(value or 0 for value in lengths.values())
    model = empty_model(config, trust_remote_code)
    limit = position_limit(model) if model else None
    if limit and total > limit:
        values = " + ".join(str(value) for value in lengths.values())
        raise UserError(
            f"{keys} is {values} = {total}: this model has {limit} positions, which both share: lower one."
        )
    warn_if_longer(config, total, keys)


def warn_if_longer(config: PreTrainedConfig, tokens: int, keys: str) -> None:
    """Warn if a text may be longer than those that the model was trained on."""
    trained = trained_length(config)
    if trained and tokens > trained:
        logger.warning("%s is %d: this model was trained on up to %d tokens", keys, tokens, trained)
