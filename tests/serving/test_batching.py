"""Requests -> batches: nothing is lost, mixed up or answered twice, and the queue has an end."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from prometheus_client import generate_latest

from utils.serving.batching import Batcher, Busy, is_device_fault, make_metrics


class Doubler:
    """Doubles numbers, notes its batches, and holds every batch until it is let go."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.seconds = seconds
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, rows: list[int], deliver: Callable[[int, int], None]) -> None:
        self.batches.append(rows)
        assert self.may_go.wait(10)
        time.sleep(self.seconds)
        if 13 in rows:
            raise ValueError("thirteen")
        for i, row in enumerate(rows):
            deliver(i, 2 * row)


def held(doubler: Doubler, **limits) -> Batcher:
    """A batcher whose worker holds its first batch, [0], so that what is submitted next waits together."""
    doubler.may_go.clear()
    batcher = Batcher("qa", doubler, make_metrics(), batch_wait_ms=0, **limits)
    batcher.submit([0])
    while not doubler.batches:
        time.sleep(0.001)
    return batcher


def test_every_request_gets_its_own_results_in_order():
    doubler = Doubler(0.001)
    batcher = Batcher("qa", doubler, make_metrics(), batch_size=8, queue_size=1000)
    with ThreadPoolExecutor(16) as pool:
        futures = list(pool.map(lambda n: batcher.submit([n, n + 1000][: 1 + n % 2]), range(300)))
    for n, future in enumerate(futures):
        expected = [2 * n, 2 * (n + 1000)][: 1 + n % 2]
        assert n == 13 and future.exception(10) or future.result(10) == expected
    batcher.close()


def test_what_waits_is_answered_together_up_to_the_size_of_a_batch():
    doubler = Doubler()
    batcher = held(doubler, batch_size=4)
    futures = [batcher.submit([n]) for n in range(1, 11)]
    doubler.may_go.set()
    assert [f.result(10) for f in futures] == [[2 * n] for n in range(1, 11)]
    assert doubler.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    batcher.close()


def test_an_incomplete_batch_waits_for_more():
    doubler = Doubler()
    batcher = Batcher("qa", doubler, make_metrics(), batch_wait_ms=500)
    first = batcher.submit([1])
    time.sleep(0.05)
    second = batcher.submit([2])
    assert first.result(10) == [2] and second.result(10) == [4] and doubler.batches == [[1, 2]]
    batcher.close()


def test_a_full_queue_refuses_and_says_when_to_come_again():
    doubler = Doubler()
    batcher = held(doubler, queue_size=2, batch_size=1)
    waiting = [batcher.submit([n]) for n in (1, 2)]
    batcher.batch_seconds = 1.6
    with pytest.raises(Busy) as full:
        batcher.submit([3])
    assert full.value.retry_after == 4  # two batches of 1.6 s
    doubler.may_go.set()
    assert [f.result(10) for f in waiting] == [[2], [4]]
    assert batcher.submit([3]).result(10) == [6]
    batcher.close()


def test_a_request_that_fails_fails_alone():
    doubler = Doubler()
    batcher = held(doubler)
    good, bad, other = batcher.submit([1, 2]), batcher.submit([13]), batcher.submit([3])
    doubler.may_go.set()
    assert good.result(10) == [2, 4] and other.result(10) == [6]
    with pytest.raises(ValueError, match="thirteen"):
        bad.result(10)
    assert batcher.submit([5]).result(10) == [10] and batcher.state() == "ok"
    batcher.close()


def test_a_request_returns_with_its_own_last_row_while_others_go_on():
    may_end = threading.Event()

    def answer(rows, deliver):
        for i in reversed(range(len(rows))):  # in any order
            if rows[i] == 1:
                assert may_end.wait(10)
            deliver(i, 10 * rows[i])

    doubler = Doubler()
    batcher = held(doubler)
    batcher.answer = answer
    slow, quick = batcher.submit([1]), batcher.submit([2, 3])
    doubler.may_go.set()
    assert quick.result(10) == [20, 30] and not slow.done()
    may_end.set()
    assert slow.result(10) == [10]
    batcher.close()


def test_a_batch_of_one_that_fails_is_not_asked_again():
    doubler = Doubler()
    batcher = Batcher("qa", doubler, make_metrics())
    with pytest.raises(ValueError, match="thirteen"):
        batcher.submit([13]).result(10)
    assert doubler.batches == [[13]]
    batcher.close()


def test_a_request_whose_rows_were_left_out_is_told_so():
    batcher = Batcher("qa", lambda rows, deliver: None, make_metrics())
    with pytest.raises(TimeoutError):
        batcher.submit([1]).result(10)
    assert batcher.submit([]).result(10) == []
    batcher.close()


def test_a_request_that_nobody_waits_for_costs_nothing():
    doubler = Doubler()
    batcher = held(doubler)
    gone, kept = batcher.submit([1]), batcher.submit([2])
    assert gone.cancel()
    doubler.may_go.set()
    assert kept.result(10) == [4] and doubler.batches == [[0], [2]]
    batcher.close()


def test_closing_finishes_what_waits_and_takes_nothing_new():
    doubler = Doubler(0.01)
    batcher = Batcher("qa", doubler, make_metrics(), batch_size=2)
    futures = [batcher.submit([n]) for n in range(20, 30)]
    batcher.close()
    assert [f.result(0) for f in futures] == [[2 * n] for n in range(20, 30)]
    with pytest.raises(Busy):
        batcher.submit([1])
    assert batcher.state() != "ok"


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: an illegal memory access"), torch.AcceleratorError("x")])
def test_a_device_that_has_failed_is_asked_no_more_and_named_and_too_little_memory_is_none(error):
    asked = []

    def fail(rows, deliver):
        asked.append(rows)
        raise error

    batcher = Batcher("qa", fail, make_metrics())
    with pytest.raises(type(error)):
        batcher.submit([1]).result(10)
    assert batcher.state() == "the device has failed" and len(asked) == 1
    batcher.close()
    assert is_device_fault(error) and not is_device_fault(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_device_fault(RuntimeError("shapes differ")) and not is_device_fault(ValueError("CUDA error"))


def test_several_threads_work_at_the_same_time():
    doubler = Doubler()
    doubler.may_go.clear()
    batcher = Batcher("qa", doubler, make_metrics(), batch_size=1, threads=3, batch_wait_ms=0)
    futures = [batcher.submit([n]) for n in range(3)]
    until = time.time() + 10
    while len(doubler.batches) < 3 and time.time() < until:
        time.sleep(0.001)
    assert len(doubler.batches) == 3
    doubler.may_go.set()
    assert [f.result(10) for f in futures] == [[0], [2], [4]]
    batcher.close()


def test_the_metrics_count_batches_and_what_waits():
    doubler, metrics = Doubler(), make_metrics()
    doubler.may_go.clear()
    batcher = Batcher("qa", doubler, metrics, batch_wait_ms=0)
    batcher.submit([0])
    while not doubler.batches:
        time.sleep(0.001)
    futures = [batcher.submit([n, n]) for n in (1, 2, 3)]
    assert b'app_queue_length{task="qa"} 3.0' in generate_latest(metrics.registry)
    doubler.may_go.set()
    assert [f.result(10) for f in futures] == [[2, 2], [4, 4], [6, 6]]
    text = generate_latest(metrics.registry).decode()
    assert 'app_queue_length{task="qa"} 0.0' in text
    assert 'app_batch_rows_sum{task="qa"} 7.0' in text and 'app_batch_rows_count{task="qa"} 2.0' in text
    batcher.close()
