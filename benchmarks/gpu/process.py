"""A process per case: what one way leaves in memory, or breaks, never reaches the next."""

import multiprocessing
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


def serve(connection: Connection) -> None:
    """Load the libraries, wait for `(measure, arguments)`, and send each `(key, values)` when it is measured; None is
    the end. A case that fails sends its error."""
    from benchmarks.gpu.cases import MEASURES  # here, since bitsandbytes opens the GPU when it is imported

    measure, arguments = connection.recv()
    try:
        for row in MEASURES[measure](**arguments):
            connection.send(row)
    except Exception as error:
        traceback.print_exc()
        connection.send(("", {"error": f"{type(error).__name__}: {error}"[:500]}))
    connection.send(None)


def start() -> tuple[BaseProcess, Connection]:
    """Start a process that waits for a case. It is spawned: a forked process cannot use the GPU."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # else this end would keep the pipe open after the process dies
    return process, ours


def receive(connection: Connection, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a case sends, at most for `seconds`; a process that dies or takes longer yields an error."""
    end = time.monotonic() + seconds
    while True:
        if not connection.poll(max(0.0, end - time.monotonic())):
            yield "", {"error": f"stopped after {seconds:.0f} s"}
            return
        try:
            row = connection.recv()
        except (EOFError, ConnectionResetError):
            yield "", {"error": "its process ended"}
            return
        if row is None:
            return
        yield row
