"""Batch sizes: speed and memory of the recipe at full length, and the largest batch for each size of card."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from trl import SFTTrainer

from benchmarks.gpu.models import model_folder, question_rows
from benchmarks.gpu.training import (
    LENGTH,
    TINY_LENGTH,
    Row,
    free_memory,
    gpu_memory,
    recipe_trainer,
    train,
    useful_flops,
)

MOST_ROWS = 64  # largest batch that is tried


def measure_batches(
    folder: Path,
    tiny: bool,
    name: str,
    switches: dict[str, Any],
    batches: Sequence[int],
    limits_gb: Sequence[int] = (),
    context_gb: float = 0.0,
) -> Iterator[Row]:
    """Measure the recipe at 1,024 tokens per row and growing batches, and find the largest for each size of card.

    Args:
        batches: rows per batch, ascending; stops where memory ends.
        limits_gb: sizes of cards in GiB. The process is held to the size less `context_gb`, the memory that CUDA takes
            for itself; for the smallest size from the loading of the model on.
    """
    path = model_folder(name, folder, tiny)
    length = TINY_LENGTH if tiny else LENGTH
    rows = question_rows(MOST_ROWS, length, name == "phi2", full=True)
    free_memory()
    set_limit(limits_gb[0] if limits_gb else None, context_gb)
    try:
        trainer = recipe_trainer(name, path, rows, length, switches, steps=1)
        yield "loading", {"card_gb": limits_gb[0] if limits_gb else None, "fits": True, **gpu_memory()}
    except torch.OutOfMemoryError:
        trainer = None
        yield "loading", {"card_gb": limits_gb[0], "fits": False}
    if trainer is None:
        set_limit(None, context_gb)
        free_memory()
        trainer = recipe_trainer(name, path, rows, length, switches, steps=1)
    model = trainer.accelerator.unwrap_model(trainer.model)
    flops = useful_flops(model, trainer.train_dataset) / len(trainer.train_dataset)
    set_limit(None, context_gb)
    peaks = {}
    for batch in batches:
        seconds = try_batch(trainer, batch, steps=3)
        if seconds is None:
            yield f"batch {batch}", {"fits": False}
            break
        peaks[batch] = gpu_memory().get("peak_reserved_gb", 0.0)
        speed = {"tokens_per_second": length * batch / seconds, "tflops": flops * batch / seconds / 1e12}
        yield f"batch {batch}", {"batch": batch, **speed, **gpu_memory()}
    if limits_gb:
        (first, low), *_, (last, high) = peaks.items()
        slope = max((high - low) / (last - first), 1e-3)
    for limit in limits_gb:
        set_limit(limit, context_gb)
        room = (limit * 2**30 / 1e9 - context_gb - low) / slope
        yield f"card of {limit} GB", {"largest_batch": largest(trainer, max(1, int(first + room)))}
        set_limit(None, context_gb)


def largest(trainer: SFTTrainer, guess: int) -> int:
    """Return the largest batch that trains a step: from a guess upwards while it fits, else downwards."""
    most = len(trainer.train_dataset)
    batch = min(guess, most)
    if try_batch(trainer, batch, steps=1) is None:
        while batch > 1:
            batch -= 1
            if try_batch(trainer, batch, steps=1) is not None:
                return batch
        return 0
    while batch < most and try_batch(trainer, batch + 1, steps=1) is not None:
        batch += 1
    return batch


def set_limit(limit_gb: int | None, context_gb: float) -> None:
    """Hold PyTorch to a card of `limit_gb` GiB, of which CUDA takes `context_gb`; None lifts the limit."""
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        share = 1.0 if limit_gb is None else (limit_gb * 2**30 - context_gb * 1e9) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))


def try_batch(trainer: SFTTrainer, batch: int, steps: int) -> float | None:
    """Return the median seconds of a step with `batch` rows, or None if memory does not suffice."""
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = batch  # the trainer keeps a copy
    trainer.args.gradient_accumulation_steps = 1
    trainer.args.max_steps = steps
    found = None
    try:
        found = statistics.median(train(trainer))
    except torch.OutOfMemoryError:
        pass
    trainer.model.zero_grad(set_to_none=True)
    return found
