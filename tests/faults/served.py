"""A server process of the app, and clients that write to its socket what no HTTP library would."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT


class Server(NamedTuple):
    """`app.py` in a process of its own, and the seconds of its `time_limit`."""

    process: subprocess.Popen
    port: int
    seconds: float

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def send(self, data: bytes) -> "Answer":
        """Send raw bytes, and read one answer."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):  # an early refusal closes the connection while we send
                connection.sendall(data)
            return read_answer(connection)

    def post(self, path: str, body: object) -> "Answer":
        """Post JSON, or bytes as they are."""
        return self.send(request(path, body if isinstance(body, bytes) else json.dumps(body).encode()))

    def memory(self) -> float:
        """Return the resident size of the process in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Answer(NamedTuple):
    """Status and content of an answer; status 0 if the connection was closed without one."""

    status: int
    content: bytes

    @property
    def json(self) -> object:
        return json.loads(self.content.decode("utf-8"))


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    """Return the head of a request without its empty line."""
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *lines]
    ).encode()


def request(path: str, body: bytes, *lines: str) -> bytes:
    return head(path, f"Content-Length: {len(body)}", *lines) + b"\r\n\r\n" + body


def read_answer(connection: socket.socket) -> Answer:
    """Read one answer; what follows it is lost."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(65536)):
                return Answer(0, data)
            data += more
        top, _, content = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in top.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 1 << 40))
        while len(content) < length and (more := connection.recv(65536)):
            content += more
        return Answer(int(top.split()[1]), content)
    return Answer(0, data)


@contextlib.contextmanager
def start_server(models: list[str], seconds: float) -> Iterator[Server]:
    """Start the app with these models, and wait until it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [word for model in models for word in ("--model", model)]
    argv = [sys.executable, "app.py", *words, "--port", str(port), "--time_limit", str(seconds)]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
    server = Server(process, port, seconds)
    try:
        until = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < until
            with contextlib.suppress(ConnectionError):
                if server.send(head("/health", method="GET") + b"\r\n\r\n").status == 200:
                    break
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(60)
