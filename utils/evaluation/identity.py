"""Which run a file of results is of: its weights, the code and the machine."""

import hashlib
import os
import platform
import re
from pathlib import Path

import torch

from utils.run import code_commit


def run_identity(output_dir: Path, device: torch.device) -> dict[str, str | None]:
    """Return what all values of one `all_results.json` have in common.

    Args:
        output_dir: folder of the run, with the trained weights.
        device: where the model is.

    Returns:
        `run_id`: the first 12 digits of a sha256 of the weights, so a reader can tell whether results are of the
        weights at hand, and equal runs have equal results. `commit`: of the code that evaluates (`train_commit` is
        that of the training). `machine`: the processor, its usable cores and the GPU; no name of the computer.
    """
    return {"run_id": weights_id(output_dir), "commit": code_commit(), "machine": machine(device)}


def weights_id(output_dir: Path) -> str:
    """Return the first 12 digits of a sha256 of the safetensors files in `output_dir`, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(Path(output_dir).glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]


def machine(device: torch.device) -> str:
    """Return the processor, its usable cores and, if the model is on one, the GPU, such as `AMD EPYC, 2 cores`."""
    name = platform.processor() or platform.machine()
    if (cpu := Path("/proc/cpuinfo")).exists() and (m := re.search(r"model name\s*:\s*(.+)", cpu.read_text())):
        name = m[1].strip()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{name}, {cores} core{'s' if cores > 1 else ''}{gpu}"
