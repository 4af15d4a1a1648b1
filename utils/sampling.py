"""Balanced sampling: training rows drawn anew each epoch, every class as often as any other."""

from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class BalancedRows:
    """As many rows as `rows` has, drawn with replacement, each class with equal probability.

    Rows are in order of length, so that a row's place tells its length in every epoch and length groups stay right.

    Args:
        rows: tokenized training rows with `input_ids`.
        labels: of the rows, int.
        seed: with the epoch's number it decides the draw, so a run that goes on draws what it would have drawn.
    """

    def __init__(self, rows: Dataset, labels: np.ndarray, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.lengths = np.array([len(ids) for ids in rows["input_ids"]])
        self.members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.draw(0)

    def draw(self, epoch: int) -> None:
        """Draw the rows of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        counts = np.bincount(rng.integers(len(self.members), size=len(self.rows)), minlength=len(self.members))
        drawn = np.concatenate([rng.choice(own, n) for own, n in zip(self.members, counts, strict=True)])
        self.drawn = drawn[np.argsort(self.lengths[drawn], kind="stable")].tolist()

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self.rows[self.drawn[place]]


class RedrawEachEpoch(TrainerCallback):
    """Calls `BalancedRows.draw` at the beginning of each epoch."""

    def __init__(self, rows: BalancedRows) -> None:
        self.rows = rows

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.rows.draw(int(state.epoch or 0))
