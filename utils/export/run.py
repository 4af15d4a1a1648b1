"""What an export starts from: a finished run, the model that it trained, and the test rows that prove the export."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from utils.arguments import UserError
from utils.evaluation.outputs import load_outputs
from utils.modeling import PACKS, all_finite
from utils.task import find_run, load_task

logger = logging.getLogger(__name__)
MAX_TEXTS = 200  # test rows that a model which writes texts answers twice; a classifier reads them all


def read_run(model: str) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the task of a finished run that can be exported.

    Raises:
        UserError: `model` is no finished run, an export, a run with damaged weights, or one with several labels a
            text.
    """
    folder = find_run(model)
    task = load_task(folder)
    if "export" in task:
        raise UserError(f"`model` {model} is an export: give the `output_dir` of the run that it was made of.")
    if "problem_type" in task:
        raise UserError(f"`model` {model} gives a text several labels, which no export has yet: use the run itself.")
    if not (folder / "all_results.json").exists():
        raise UserError(f"`model` {model} has no all_results.json, so its run did not finish: let it finish first.")
    weights = [*folder.glob("adapter_model*.safetensors"), *folder.glob("model*.safetensors")]
    if not weights:
        raise UserError(f"`model` {model} has no weights: give the `output_dir` of a finished run.")
    for path in weights:
        try:
            with safe_open(path, "pt"):  # checks the lengths that the header of the file gives
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"`model` {model}: {path.name} is damaged: copy or train it again.") from error
    return folder, task


def stored_rows(folder: Path, task: Mapping[str, Any], most: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the test rows that the run stored, as columns, and those of its training rows.

    Args:
        folder: the output folder of the run.
        task: the content of its `task.json`.
        most: number of rows, taken evenly; None takes all, or `MAX_TEXTS` where the model writes texts.

    Raises:
        UserError: the run stored no test rows; a repository on the Hub never has them.
    """
    if not (folder / "_private").is_dir():
        raise UserError(
            f"`model` {folder} has no `_private/` with the test rows that an export is verified on: give the "
            "`output_dir` on the machine that trained it."
        )
    rows = load_outputs(folder)["rows"]
    if "test" not in rows:
        raise UserError(f"`model` {folder} was trained with `evaluate_test: false`: an export needs test rows.")
    test, writes = rows["test"], "generation" in task
    count = len(test["cluster"])
    taken = min(count, most or (MAX_TEXTS if writes else count))
    places = np.unique(np.linspace(0, count - 1, taken).round().astype(int)).tolist()
    columns = {name: _take(values, places) for name, values in test.items()}
    return columns, rows.get("train", {})


def _take(values: Any, places: list[int]) -> Any:
    return values[places] if isinstance(values, np.ndarray) else [values[place] for place in places]


def in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """Let a model compute in float32 with the weights that it has; those of 4 bits stay as they are. Returns it.

    Raises:
        UserError: its weights are not finite.
    """
    if not all_finite(model):
        raise UserError("`model` has weights that are not finite: its training diverged; train it again.")
    packed = set()
    for module in model.modules():
        if hasattr(module, PACKS):  # on some CPUs an evaluation would round the scales of 4-bit weights
            setattr(module, PACKS, False)
        weight = getattr(module, "weight", None)
        if state := getattr(weight, "quant_state", None):
            state.dtype = module.compute_dtype = torch.float32  # type: ignore[assignment]
            packed.add(weight)
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter not in packed:
            parameter.data = parameter.data.float()
    return model


def check_room(folder: Path, needed: int) -> None:
    """Raise a UserError if the disk of a folder that is still to be made has less than `needed` bytes left."""
    parent = next(path for path in folder.absolute().parents if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UserError(
            f"`output_dir` {folder} needs {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB left: free some, "
            "or choose another disk."
        )


def count_weights(model: nn.Module) -> int:
    """Return the number of weights of a model; a 4-bit tensor packs two in a byte."""
    return sum(p.numel() * (2 if hasattr(p, "quant_state") else 1) for p in model.parameters())
