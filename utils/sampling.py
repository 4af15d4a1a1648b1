"""Order the training rows: grouped by length, balanced over classes, or shortest first."""

from collections.abc import Iterator, Sequence

import numpy as np
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import Trainer
from trl import SFTConfig

from utils.arguments import UserError

GROUPED_BATCHES = 50  # batches sorted together, as in transformers: little padding, still random
# Slices of similar target length, each sorted by source length. On definitions and names (32 and 8 tokens on average)
# rows are padded to 40 and 10 tokens; sorted by total length, to 37 and 15; in random order, to 106 and 18.
TARGET_SLICES = 5


class EpochSampler(Sampler[int]):
    """Yield row numbers in an order determined by the seed and the epoch, so that a resumed run sees the same order
    (transformers' `train_sampling_strategy: group_by_length` draws a new one).

    Args:
        lengths: tokens of each row.
        batch_size: rows per batch, over all processes.
        seed: seed of the order.
        grouped: sort by length within `GROUPED_BATCHES` batches and shuffle the batches, for less padding.
        labels: class of each row; draws rows with replacement, each class with equal probability. None takes every row
            once.
        target_lengths: tokens of each row's target in an encoder-decoder, which is padded separately.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        grouped: bool,
        labels: np.ndarray | None = None,
        target_lengths: Sequence[int] | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.target_lengths = None if target_lengths is None else np.asarray(target_lengths)
        self.batch_size, self.seed, self.grouped, self.epoch = batch_size, seed, grouped, 0
        self.members = None if labels is None else [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def set_epoch(self, epoch: int) -> None:
        """Called by `Trainer` at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        rows = rng.permutation(len(self))
        if self.members:
            drawn = np.bincount(rng.integers(len(self.members), size=len(self)), minlength=len(self.members))
            rows = rng.permutation(
                np.concatenate([rng.choice(own, n) for own, n in zip(self.members, drawn, strict=True)])
            )
        if self.grouped:
            rows = self._group(rows, rng)
        return iter(rows.tolist())

    def _group(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        batches = []
        for start in range(0, len(rows), GROUPED_BATCHES * self.batch_size):
            group = rows[start : start + GROUPED_BATCHES * self.batch_size]
            slices = [group]
            if self.target_lengths is not None:
                by_target = group[np.argsort(-self.target_lengths[group], kind="stable")]
                slices = np.array_split(by_target, TARGET_SLICES)
            group = np.concatenate([own[np.argsort(-self.lengths[own], kind="stable")] for own in slices])
            batches += [group[i : i + self.batch_size] for i in range(0, len(group), self.batch_size)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]  # a short one shifts the rest
        order = rng.permutation(len(whole))
        return np.concatenate([*(whole[i] for i in order), *rest])


def set_train_order(
    trainer: Trainer,
    rows: Dataset,
    labels: np.ndarray | None = None,
    target_lengths: Sequence[int] | None = None,
) -> None:
    """Make `trainer` draw its rows with `EpochSampler` if rows are grouped by length or classes are balanced.

    Args:
        trainer: its `train_sampling_strategy` enables grouping.
        rows: its training rows, with `input_ids`.
        labels, target_lengths: as for `EpochSampler`.
    """
    strategy = trainer.args.train_sampling_strategy
    if labels is not None and strategy not in ("random", "group_by_length"):
        raise UserError(
            f"`train_sampling_strategy` is {strategy}, but `class_imbalance: balanced_sampling` draws the rows: set "
            "random or group_by_length."
        )
    grouped = strategy == "group_by_length"
    if grouped or labels is not None:
        lengths = [len(ids) for ids in rows["input_ids"]]
        batch_size = trainer.args.train_batch_size * trainer.args.world_size
        seed = trainer.args.seed if trainer.args.data_seed is None else trainer.args.data_seed
        sampler = EpochSampler(lengths, batch_size, seed, grouped, labels, target_lengths)
        # Private: Trainer takes no sampler, and overriding `get_train_dataloader` would duplicate its DataLoader setup
        trainer._get_train_sampler = lambda train_dataset=None: sampler  # type: ignore[method-assign]


def shortest_first(train: Dataset, args: SFTConfig) -> Dataset:
    """Sort tokenized rows by length for curriculum training, which needs sequential sampling."""
    needed = {"train_sampling_strategy": "sequential", "packing": False, "shuffle_dataset": False}
    for key, value in needed.items():
        if (found := getattr(args, key)) != value:
            wanted = f"`{key}: {str(value).lower()}`"
            raise UserError(f"`{key}` is {found}, but `curriculum` needs ordered rows: set {wanted}.")
    lengths = [len(ids) for ids in train["input_ids"]]
    return train.select(sorted(range(len(train)), key=lengths.__getitem__))
