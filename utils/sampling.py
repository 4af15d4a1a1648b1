"""The order of the training rows: in groups of like length, and every class as often as any other if wanted."""

from collections.abc import Iterator, Sequence

import numpy as np
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments

from utils.arguments import UserError

GROUPED_BATCHES = 50  # batches that are sorted together: as in transformers, little padding and still random
# Of pairs: slices of like target length, each sorted by the source's. On definitions and names (32 and 8 tokens) a row
# is padded to 40 and 10 tokens; sorted by the sum to 37 and 15; in random order to 106 and 18.
TARGET_SLICES = 5


class EpochSampler(Sampler[int]):
    """Row numbers in an order that the seed and the epoch's number decide, so that a run that goes on takes the order
    that it would have taken (`train_sampling_strategy: group_by_length` of transformers draws another one).

    Args:
        lengths: tokens of each row.
        batch_size: rows of one batch of all processes.
        seed: of the order.
        grouped: sort by length within `GROUPED_BATCHES` batches, then shuffle the batches: less padding.
        labels: class of each row: draws rows with replacement, each class with equal probability; None takes every
            row once.
        target_lengths: tokens of what an encoder-decoder has to write for each row, which is padded by itself.
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
        """`Trainer` calls this at the beginning of each epoch."""
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
        rest = [batch for batch in batches if len(batch) < self.batch_size]  # a short batch would shift all others
        order = rng.permutation(len(whole))
        return np.concatenate([*(whole[i] for i in order), *rest])


def set_train_order(
    trainer: Trainer,
    rows: Dataset,
    labels: np.ndarray | None = None,
    target_lengths: Sequence[int] | None = None,
) -> None:
    """Make `trainer` take its rows as `EpochSampler` says, if it is to group them by length or to balance classes.

    Args:
        trainer: its `train_sampling_strategy` says whether to group.
        rows: its training rows, with `input_ids`.
        labels, target_lengths: as for `EpochSampler`.
    """
    grouped = trainer.args.train_sampling_strategy == "group_by_length"
    if grouped or labels is not None:
        lengths = [len(ids) for ids in rows["input_ids"]]
        batch_size = trainer.args.train_batch_size * trainer.args.world_size
        sampler = EpochSampler(lengths, batch_size, trainer.args.seed, grouped, labels, target_lengths)
        # Private: Trainer takes no sampler, and `get_train_dataloader` would have to repeat its DataLoader to set one
        trainer._get_train_sampler = lambda train_dataset=None: sampler


def shortest_first(train: Dataset, args: TrainingArguments) -> Dataset:
    """Sort tokenized rows by length; the trainer has to take them in this order."""
    if args.train_sampling_strategy != "sequential" or args.packing:
        raise UserError(
            f"`curriculum` needs rows in order: `train_sampling_strategy` is {args.train_sampling_strategy} and "
            f"`packing` is {args.packing}, write `train_sampling_strategy: sequential` and `packing: false`."
        )
    lengths = [len(ids) for ids in train["input_ids"]]
    return train.select(sorted(range(len(train)), key=lengths.__getitem__))
