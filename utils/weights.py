"""Whether files have all weights of a model: what is missing, libraries draw at random, and go on with a warning."""

import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from utils.arguments import UserError

# transformers' report lists what `check_weights` refuses, and the heads that are meant to be new
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: "LOAD REPORT" not in record.getMessage())


def check_weights(key: str, name: str, model: nn.Module, found: Mapping[str, Any], new: Iterable[str] = ()) -> None:
    """Raise a UserError if files lack weights of a model, or have them in other sizes. Sines of positions may be
    missing, as in the published files of PEGASUS: they are computed.

    Args:
        key: which named the model, such as `model_name_or_path`.
        name, model: what was loaded.
        found: from `from_pretrained(..., ignore_mismatched_sizes=True, output_loading_info=True)`.
        new: modules that may be missing, such as heads.
    """
    keys = {*found["missing_keys"], *(weight for weight, *_ in found["mismatched_keys"])}
    keys -= {f"{own}.weight" for own, module in model.named_modules() if "Sinusoidal" in type(module).__name__}
    lacking = sorted(weight for weight in keys if not any(f".{module}." in f".{weight}" for module in new))
    if lacking:
        instead = "set `pooling: mean`" if ".pooler." in lacking[0] else "choose a model of this kind"
        raise UserError(
            f"`{key}` {name} lacks {len(lacking)} of the model's weights, or has them in other sizes, such as "
            f"`{lacking[0]}`; they would be random: {instead}, or copy its files again."
        )


def load_adapter(model: PreTrainedModel, folder: Path, is_trainable: bool = False) -> PeftModel:
    """Put the adapter in a folder beside the weights of a model; raise a UserError if it lacks some of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(model, folder, is_trainable=is_trainable)
        except UserWarning as error:
            example = str(error).partition("['")[2].partition("'")[0]
            raise UserError(f"`{folder}` lacks weights of its adapter, such as `{example}`: copy it again.") from error
