"""Balanced draws: every class as often, another draw each epoch, the same again with the same seed."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from utils.sampling import BalancedRows, RedrawEachEpoch

LABELS = np.array([0] * 900 + [1] * 90 + [2] * 10)


@pytest.fixture
def rows():
    lengths = np.random.default_rng(0).integers(1, 30, size=len(LABELS))
    return Dataset.from_dict({"input_ids": [[1] * n for n in lengths], "labels": LABELS, "place": range(len(LABELS))})


def test_every_class_is_drawn_as_often_as_any_other(rows):
    balanced = BalancedRows(rows, LABELS, seed=1)
    assert len(balanced) == 1000
    counts = np.bincount([balanced[i]["labels"] for i in range(1000)])
    assert counts == pytest.approx([333, 333, 333], abs=60)  # four standard deviations


def test_each_epoch_has_a_draw_of_its_own_and_the_same_one_again(rows):
    balanced = BalancedRows(rows, LABELS, seed=1)
    first = list(balanced.drawn)
    RedrawEachEpoch(balanced).on_epoch_begin(None, SimpleNamespace(epoch=1.0), None)
    assert balanced.drawn != first
    balanced.draw(0)
    assert balanced.drawn == first
    assert BalancedRows(rows, LABELS, seed=2).drawn != first


def test_a_place_has_about_the_same_length_in_every_epoch(rows):
    balanced = BalancedRows(rows, LABELS, seed=1)
    lengths = [len(balanced[i]["input_ids"]) for i in range(1000)]
    assert lengths == sorted(lengths)
    balanced.draw(1)
    again = [len(balanced[i]["input_ids"]) for i in range(1000)]
    assert np.abs(np.subtract(lengths, again)).mean() < 2  # 10 if the places were shuffled
