"""Requests of many clients -> batches for a model, in a bounded queue, and the numbers that Prometheus reads."""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Busy(Exception):
    """The queue is full. `retry_after`: seconds until there is room, roughly."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full, try again in {retry_after} s")
        self.retry_after = retry_after


class Metrics(NamedTuple):
    """What `GET /metrics` shows, in a registry of its own, since a process may hold several applications (tests)."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    queue_length: Gauge
    batch_rows: Histogram


def make_metrics() -> Metrics:
    registry = CollectorRegistry()
    buckets = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
    return Metrics(
        registry,
        Counter("app_requests", "Requests answered.", ("route", "status"), registry=registry),
        Histogram("app_request_seconds", "Time to an answer.", ("route",), buckets=buckets, registry=registry),
        Gauge("app_queue_length", "Requests that wait for a model.", ("task",), registry=registry),
        Histogram(
            "app_batch_rows", "Rows that a model took at once.", ("task",), buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        ),
    )  # fmt: skip


# ----- Requests -> batches


class Batcher:
    """Requests of many threads -> batches for a model, which a thread of its own works on one after the other.

    A batch is what waits when the one before is done: a crowd is answered together, and one request alone at once,
    or after the `batch_wait_ms` that it is made to wait for others.

    Args:
        name: of the task, for the metrics.
        answer: rows -> as many results. A batch that fails is answered row by row, so that only the row at fault
            does.
        metrics: of the application.
        batch_size: from so many rows on a batch takes no further request.
        batch_wait_ms: how long an incomplete batch waits for more.
        queue_size: requests that may wait; one more is `Busy`.
        threads: that work at the same time; more than one only for a model that is elsewhere.
    """

    def __init__(
        self,
        name: str,
        answer: Callable[[list[Any]], Sequence[Any]],
        metrics: Metrics,
        batch_size: int = 32,
        batch_wait_ms: float = 0.0,
        queue_size: int = 256,
        threads: int = 1,
    ) -> None:
        self.answer, self.batch_size, self.batch_wait_ms = answer, batch_size, batch_wait_ms
        self.batch_rows = metrics.batch_rows.labels(name)
        self.batch_seconds = 0.0  # of the last batch
        self.closed = False
        self.queue: queue.Queue[tuple[list[Any], Future] | None] = queue.Queue(queue_size)
        metrics.queue_length.labels(name).set_function(self.queue.qsize)
        self.threads = [threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self.threads:
            thread.start()

    def submit(self, rows: list[Any]) -> Future:
        """Put rows in the queue; the future holds their results, in order. A future that is cancelled before its turn
        costs no time.

        Raises:
            Busy: the queue is full, or the application is shutting down.
        """
        future: Future = Future()
        try:
            if self.closed:
                raise queue.Full
            self.queue.put_nowait((rows, future))
        except queue.Full:
            batches = self.queue.qsize() / (self.batch_size * len(self.threads))
            raise Busy(max(1, math.ceil(batches * self.batch_seconds))) from None
        return future

    def state(self) -> str:
        """`ok`, or what is wrong."""
        return "ok" if all(thread.is_alive() for thread in self.threads) else "a worker has ended"

    def close(self) -> None:
        """Finish what is in the queue, end, and let go of the model: FastAPI's caches keep an application for good."""
        self.closed = True
        for _ in self.threads:
            self.queue.put(None)
        for thread in self.threads:
            thread.join()
        self.__dict__.pop("answer", None)

    def _work(self) -> None:
        last = False
        while not last:
            jobs, last = self._collect()
            jobs = [(rows, future) for rows, future in jobs if future.set_running_or_notify_cancel()]
            if not jobs:
                continue
            start = time.perf_counter()
            everything = [row for rows, _ in jobs for row in rows]
            self.batch_rows.observe(len(everything))
            try:
                results = list(self.answer(everything))
                for rows, future in jobs:
                    future.set_result(results[: len(rows)])
                    del results[: len(rows)]
            except Exception:
                for rows, future in jobs:
                    self._answer_alone(rows, future)
            self.batch_seconds = time.perf_counter() - start

    def _collect(self) -> tuple[list[tuple[list[Any], Future]], bool]:
        """The next requests, at least one, and whether they are the last."""
        job = self.queue.get()
        jobs, n_rows, until = [], 0, time.perf_counter() + self.batch_wait_ms / 1000
        while job is not None:
            jobs.append(job)
            n_rows += len(job[0])
            if n_rows >= self.batch_size:
                return jobs, False
            try:
                job = self.queue.get(timeout=max(0.0, until - time.perf_counter()))
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _answer_alone(self, rows: list[Any], future: Future) -> None:
        try:
            future.set_result([self.answer([row])[0] for row in rows])
        except Exception as error:
            future.set_exception(error)
