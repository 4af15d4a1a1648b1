"""Training order: every row once, or every class as often; like lengths together; the same with the same seed."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from utils.arguments import UserError
from utils.sampling import EpochSampler, set_train_order, shortest_first

LABELS = np.array([0] * 900 + [1] * 90 + [2] * 10)
LENGTHS = np.random.default_rng(0).integers(1, 100, size=1000)


def padding(order: list[int], batch_size: int = 8, lengths: np.ndarray = LENGTHS) -> float:
    """Share of padding in batches that are as wide as their longest row."""
    batches = [lengths[order[i : i + batch_size]] for i in range(0, len(order), batch_size)]
    return 1 - sum(batch.sum() for batch in batches) / sum(batch.max() * len(batch) for batch in batches)


@pytest.mark.parametrize("grouped", [True, False])
def test_without_labels_every_row_comes_once(grouped):
    sampler = EpochSampler(LENGTHS, 8, seed=1, grouped=grouped)
    assert sorted(sampler) == list(range(1000)) and len(sampler) == 1000


def test_groups_of_like_length_need_little_padding_and_lengths_stay_mixed_over_time():
    order = list(EpochSampler(LENGTHS, 8, seed=1, grouped=True))
    assert padding(order) < 0.1 < 0.4 < padding(list(EpochSampler(LENGTHS, 8, seed=1, grouped=False)))
    halves = LENGTHS[order[:500]].mean(), LENGTHS[order[500:]].mean()
    assert abs(halves[0] - halves[1]) < 15


def test_pairs_are_grouped_by_both_lengths():
    targets = np.random.default_rng(1).integers(1, 100, size=1000)
    by_source = list(EpochSampler(LENGTHS, 8, seed=1, grouped=True))
    by_both = list(EpochSampler(LENGTHS, 8, seed=1, grouped=True, target_lengths=targets))
    assert sorted(by_both) == list(range(1000))
    assert padding(by_source) < padding(by_both) < 0.2  # a little more of one, much less of the other
    assert padding(by_both, lengths=targets) < 0.2 < 0.4 < padding(by_source, lengths=targets)


def test_a_short_batch_comes_last_so_that_no_batch_holds_two_groups():
    order = list(EpochSampler(LENGTHS[:403], 8, seed=1, grouped=True))
    assert sorted(order) == list(range(403))
    batches = [LENGTHS[order[i : i + 8]] for i in range(0, 403, 8)]
    assert max(batch.max() - batch.min() for batch in batches[:50]) <= 15


@pytest.mark.parametrize("grouped", [True, False])
def test_with_labels_every_class_comes_as_often_as_any_other(grouped):
    drawn = list(EpochSampler(LENGTHS, 8, seed=1, grouped=grouped, labels=LABELS))
    assert len(drawn) == 1000
    assert np.bincount(LABELS[drawn]) == pytest.approx([333, 333, 333], abs=60)  # four standard deviations


@pytest.mark.parametrize("labels", [None, LABELS])
def test_each_epoch_has_an_order_of_its_own_and_the_same_one_again(labels):
    sampler = EpochSampler(LENGTHS, 8, seed=1, grouped=True, labels=labels)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == first != second
    assert list(EpochSampler(LENGTHS, 8, seed=2, grouped=True, labels=labels)) != first


def trainer_of(strategy: str, data_seed: int | None = None) -> SimpleNamespace:
    args = SimpleNamespace(
        train_sampling_strategy=strategy, train_batch_size=4, world_size=2, seed=3, data_seed=data_seed
    )
    return SimpleNamespace(args=args)


ROWS = Dataset.from_dict({"input_ids": [[0] * n for n in LENGTHS]})


@pytest.mark.parametrize(
    ("strategy", "labels", "targets"),
    [("group_by_length", None, None), ("group_by_length", LABELS, None), ("random", LABELS, None),
     ("group_by_length", None, LENGTHS[::-1].tolist())],
)  # fmt: skip
def test_a_trainer_takes_its_rows_in_the_order_of_the_sampler_for_batches_of_all_processes(strategy, labels, targets):
    trainer = trainer_of(strategy)
    set_train_order(trainer, ROWS, labels, targets)
    expected = EpochSampler(LENGTHS, 8, 3, strategy == "group_by_length", labels, targets)
    assert list(trainer._get_train_sampler()) == list(trainer._get_train_sampler(ROWS)) == list(expected)


def test_the_seed_of_the_data_orders_the_rows_where_it_is_given():
    trainer = trainer_of("group_by_length", data_seed=5)
    set_train_order(trainer, ROWS)
    assert list(trainer._get_train_sampler()) == list(EpochSampler(LENGTHS, 8, 5, True))


@pytest.mark.parametrize("strategy", ["sequential", "batch_rebalance"])
def test_balanced_classes_are_drawn_in_an_order_of_their_own_so_another_is_refused(strategy):
    with pytest.raises(UserError, match=f"`train_sampling_strategy` is {strategy}.*`class_imbalance"):
        set_train_order(trainer_of(strategy), ROWS, labels=LABELS)


def test_a_curriculum_needs_rows_that_nothing_shuffles():
    rows = Dataset.from_dict({"input_ids": [[0] * 3, [0], [0] * 2]})
    args = SimpleNamespace(train_sampling_strategy="sequential", packing=False, shuffle_dataset=False)
    assert [len(ids) for ids in shortest_first(rows, args)["input_ids"]] == [1, 2, 3]
    for key, value in {"packing": True, "shuffle_dataset": True, "train_sampling_strategy": "random"}.items():
        with pytest.raises(UserError, match=f"`{key}` is {value}"):
            shortest_first(rows, SimpleNamespace(**vars(args) | {key: value}))


@pytest.mark.parametrize("strategy", ["random", "sequential"])
def test_a_trainer_keeps_its_own_order_where_neither_lengths_nor_classes_are_asked_for(strategy):
    trainer = trainer_of(strategy)
    set_train_order(trainer, ROWS, target_lengths=LENGTHS.tolist())
    assert vars(trainer).keys() == {"args"}
