"""Dynamic batching of requests behind a bounded queue, and the Prometheus metrics."""

import math
import queue
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Busy(Exception):
    """The queue is full. `retry_after`: rough number of seconds until there is room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full, try again in {retry_after} s")
        self.retry_after = retry_after


def is_device_fault(error: BaseException) -> bool:
    """Return whether an error means that the accelerator answers no more, so that only a new process helps. Too little
    memory is none: the next batch may be smaller."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    known = re.search(r"\b(CUDA|HIP|cuBLAS|CUBLAS|cuDNN) error\b", str(error))
    return isinstance(error, torch.AcceleratorError) or (isinstance(error, RuntimeError) and known is not None)


class Metrics(NamedTuple):
    """Metrics of `GET /metrics`, in a separate registry because tests run several applications in one process."""

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
        Counter("app_requests", "Requests, by route and status.", ("route", "status"), registry=registry),
        Histogram("app_request_seconds", "Seconds per request.", ("route",), buckets=buckets, registry=registry),
        Gauge("app_queue_length", "Requests waiting for a model.", ("task",), registry=registry),
        Histogram(
            "app_batch_rows", "Rows per batch.", ("task",), buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        ),
    )  # fmt: skip


# ----- Batching


class Batcher:
    """Collect requests of many threads into batches, which worker threads run.

    A batch consists of the requests that wait when the previous one is done. Under load requests are therefore
    answered together, while a single request starts immediately, or after `batch_wait_ms`.

    Args:
        name: name of the task, for the metrics.
        answer: takes a list of rows and a function that takes the index of a row and its result, and calls it for each
            row as soon as its result is known. A request returns when its rows are done, even if others go on. If
            `answer` raises an exception for a batch, every request of the batch without a result is answered alone,
            so that only faulty requests fail.
        metrics: metrics of the application.
        batch_size: a batch with this many rows or more takes no further request.
        batch_wait_ms: milliseconds that an incomplete batch waits for more requests.
        queue_size: maximum number of waiting requests; one more raises `Busy`.
        threads: number of worker threads; more than one only makes sense if another server hosts the model.
    """

    def __init__(
        self,
        name: str,
        answer: Callable[[list[Any], Callable[[int, Any], None]], None],
        metrics: Metrics,
        batch_size: int = 32,
        batch_wait_ms: float = 0.0,
        queue_size: int = 256,
        threads: int = 1,
    ) -> None:
        self.answer, self.batch_size, self.batch_wait_ms = answer, batch_size, batch_wait_ms
        self.batch_rows = metrics.batch_rows.labels(name)
        self.batch_seconds = 0.0  # duration of the last batch
        self.closed = False
        self.has_failed = False
        self.queue: queue.Queue[tuple[list[Any], Future] | None] = queue.Queue(queue_size)
        metrics.queue_length.labels(name).set_function(self.queue.qsize)
        self.threads = [threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self.threads:
            thread.start()

    def submit(self, rows: list[Any]) -> Future:
        """Put a request into the queue.

        Args:
            rows: rows of one request; they stay in one batch.

        Returns:
            A future of their results, in order. Cancelling it before its batch starts costs no model time.

        Raises:
            Busy: the queue is full or the application is shutting down.
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
        """Return `ok` or the problem, which only a new process mends."""
        if self.has_failed:
            return "the device has failed"
        return "ok" if all(thread.is_alive() for thread in self.threads) else "a worker thread has stopped"

    def close(self) -> None:
        """Answer the queued requests, stop, and release the model: FastAPI's caches never release an application."""
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
            self.batch_rows.observe(sum(len(rows) for rows, _ in jobs))
            try:
                self._answer(jobs)
            except Exception as error:
                self.has_failed |= is_device_fault(error)
                waiting = [job for job in jobs if not job[1].done()]
                for job in waiting:
                    if len(jobs) == 1 or self.has_failed:  # it was alone already
                        job[1].set_exception(error)
                    else:
                        self._answer_alone(job)
            self.batch_seconds = time.perf_counter() - start

    def _answer(self, jobs: list[tuple[list[Any], Future]]) -> None:
        """Answer the rows of all jobs at once, and complete each job with its last row."""
        places = [(job, place) for job, (rows, _) in enumerate(jobs) for place in range(len(rows))]
        results: list[dict[int, Any]] = [{} for _ in jobs]

        def deliver(row: int, result: Any) -> None:
            job, place = places[row]
            results[job][place] = result
            rows, future = jobs[job]
            if len(results[job]) == len(rows):
                future.set_result([results[job][place] for place in range(len(rows))])

        if places:
            self.answer([row for rows, _ in jobs for row in rows], deliver)
        for rows, future in jobs:
            if not rows:
                future.set_result([])
            elif not future.done():  # its client had left before its turn
                future.set_exception(TimeoutError("nobody waits for this answer"))

    def _collect(self) -> tuple[list[tuple[list[Any], Future]], bool]:
        """Return the requests of the next batch, and whether to stop after it."""
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

    def _answer_alone(self, job: tuple[list[Any], Future]) -> None:
        try:
            self._answer([job])
        except Exception as error:
            self.has_failed |= is_device_fault(error)
            if not job[1].done():
                job[1].set_exception(error)
