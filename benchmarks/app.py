"""Load test of the REST API: many clients and one client, with and without dynamic batching, against the bare model.

    python -m benchmarks.app
    python -m benchmarks.app --model outputs/quickstart-classification --requests 10000 --clients 64

The server and the clients are separate processes on the same machine. The texts are the definitions of the quickstart.
Needs `make quickstart-classification`. Writes results/app.json.
"""

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
import transformers

from utils.arguments import UserError, parse_recipe, user_errors
from utils.inference import Predictor
from utils.json_files import write_json

ROOT = Path(__file__).parents[1]
ROUNDS = 3  # alternating; the median is reported
SINGLE = 300  # requests per round of sequential measurements


@dataclass
class LoadArguments:
    """Settings of the load test."""

    model: str = field(default="outputs/quickstart-classification", metadata={"help": "`output_dir` of a classifier."})
    texts: str = field(
        default="quickstart/data/hpo_organ_systems.jsonl", metadata={"help": "jsonl with the column `text`."}
    )
    requests: int = field(default=10_000, metadata={"help": "Number of requests of the long run."})
    clients: int = field(default=64, metadata={"help": "Number of concurrent clients."})
    note: str = field(default="", metadata={"help": "Note for the result file, such as other load on the machine."})


@contextlib.contextmanager
def running_app(model: str, **limits: Any) -> Iterator[tuple[int, int]]:
    """Start app.py, and yield its port and process id once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = [text for key, value in limits.items() for text in (f"--{key}", str(value))]
    argv = [sys.executable, "app.py", "--model", model, "--port", str(port), *flags]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                asyncio.run(one_request(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"))
                break
            time.sleep(0.2)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def request_of(text: str) -> bytes:
    body = json.dumps({"text": text}).encode()
    head = (
        f"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send a request, read the response, return its status."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def one_request(port: int, request: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await exchange(reader, writer, request)
    finally:
        writer.close()


async def load(port: int, requests: list[bytes], clients: int) -> tuple[Counter, list[float], float]:
    """Send all requests over `clients` open connections; returns statuses, milliseconds per request, total seconds."""
    waiting, statuses, milliseconds = iter(requests), Counter(), []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            start = time.perf_counter()
            try:
                statuses[await exchange(reader, writer, request)] += 1
            except (OSError, EOFError):
                statuses["lost"] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            milliseconds.append(1000 * (time.perf_counter() - start))
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return statuses, milliseconds, time.perf_counter() - start


def memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def long_run(port: int, pid: int, requests: list[bytes], clients: int) -> dict[str, Any]:
    """Send all requests with `clients` clients, after a tenth of them as warm-up. Memory is read after each tenth."""
    asyncio.run(load(port, requests[: len(requests) // 10], clients))
    statuses, milliseconds, seconds, memory = Counter(), [], 0.0, [memory_mb(pid)]
    for part in np.array_split(np.arange(len(requests)), 10):
        found = asyncio.run(load(port, [requests[i] for i in part], clients))
        statuses, milliseconds, seconds = statuses + found[0], milliseconds + found[1], seconds + found[2]
        memory.append(memory_mb(pid))
    p50, p95 = np.percentile(milliseconds, [50, 95]).tolist()
    return {
        "crowd_requests": len(requests),
        "crowd_statuses": {str(status): n for status, n in statuses.items()},
        "crowd_requests_per_second": len(requests) / seconds,
        "crowd_p50_ms": p50,
        "crowd_p95_ms": p95,
        "crowd_memory_mb": memory,
    }


def bare(predictor: Predictor, texts: list[str]) -> list[float]:
    """Return the milliseconds per text without a server, one text at a time."""
    found = []
    for text in texts:
        start = time.perf_counter()
        predictor([text])
        found.append(1000 * (time.perf_counter() - start))
    return found


def main(args: LoadArguments) -> None:
    if not Path(args.texts).is_file():
        raise UserError(f"`texts` {args.texts} does not exist: run `make quickstart-classification` first.")
    rows = [json.loads(line)["text"] for line in Path(args.texts).read_text(encoding="utf-8").splitlines()]
    texts = [rows[i % len(rows)] for i in range(args.requests)]
    requests = [request_of(text) for text in texts]
    results: dict[str, Any] = {}
    predictor = Predictor.from_pretrained(args.model)
    bare(predictor, texts[:20])
    rounds: dict[str, list[float]] = {name: [] for name in ("bare", "alone", "alone_rate", "crowd", "unbatched")}
    one_by_one = running_app(args.model, batch_size=1, queue_size=10_000)
    with running_app(args.model) as (port, pid), one_by_one as (single_port, _):
        for port_of in (port, single_port):
            asyncio.run(load(port_of, requests[: 2 * args.clients], args.clients))
        for _ in range(ROUNDS):
            rounds["bare"].append(np.percentile(bare(predictor, texts[:SINGLE]), 95).item())
            _, milliseconds, seconds = asyncio.run(load(port, requests[:SINGLE], 1))
            rounds["alone"].append(np.percentile(milliseconds, 95).item())
            rounds["alone_rate"].append(SINGLE / seconds)
            _, _, seconds = asyncio.run(load(port, requests[: 4 * SINGLE], args.clients))
            rounds["crowd"].append(4 * SINGLE / seconds)
            _, _, seconds = asyncio.run(load(single_port, requests[:SINGLE], args.clients))
            rounds["unbatched"].append(SINGLE / seconds)
        median = {name: float(np.median(values)) for name, values in rounds.items()}
        results |= {
            "bare_p95_ms": median["bare"],
            "alone_p95_ms": median["alone"],
            "alone_over_bare_p95": float(np.median(np.divide(rounds["alone"], rounds["bare"]))),
            "alone_requests_per_second": median["alone_rate"],
            "batched_requests_per_second": median["crowd"],
            "unbatched_requests_per_second": median["unbatched"],
            "batched_over_unbatched": float(np.median(np.divide(rounds["crowd"], rounds["unbatched"]))),
            "batched_over_one_at_a_time": float(np.median(np.divide(rounds["crowd"], rounds["alone_rate"]))),
        }
        results |= long_run(port, pid, requests, args.clients)
    results |= {
        "clients": args.clients,
        "threads": torch.get_num_threads(),
        "processors": joblib.cpu_count(),
        "load_average_before": LOAD,
        "note": args.note,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "command": "python -m benchmarks.app",
    }
    write_json(ROOT / "benchmarks/results/app.json", results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    LOAD = os.getloadavg()
    with user_errors():
        main(*parse_recipe((LoadArguments,), description=__doc__)[:1])
