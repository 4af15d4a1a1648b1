"""The measurements of a process of the benchmark; importing this module loads every library that they use."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.batches import measure_batches
from benchmarks.gpu.encoders import measure_encoder
from benchmarks.gpu.generation import measure_generation
from benchmarks.gpu.training import Row, measure_training


def matmul_peak(size: int, dtype: torch.dtype = torch.bfloat16) -> float:
    """Return the FLOP/s of a product of two square matrices: the best of 20, since other work can only slow it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))  # zeros would be faster
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(5):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / 5)
    return 2 * size**3 / best


def measure_machine(folder: Path, tiny: bool) -> Iterator[Row]:
    """Measure the peak of bfloat16 matrix products, and the memory that CUDA takes beside PyTorch's."""
    peak = matmul_peak(256 if tiny else 8192)
    found: dict[str, Any] = {"matmul_tflops": peak / 1e12, "context_gb": 0.0}
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found |= {"gpu": torch.cuda.get_device_name(0), "gpu_memory_gb": total / 1e9, "cuda": torch.version.cuda}
        found["context_gb"] = (total - free - torch.cuda.memory_reserved()) / 1e9
    yield "", found


MEASURES: dict[str, Callable[..., Iterator[Row]]] = {
    "machine": measure_machine,
    "training": measure_training,
    "batches": measure_batches,
    "encoder": measure_encoder,
    "generation": measure_generation,
}
