"""Middleware around every request (token, body size, headers, metrics, a log without texts), and the socket."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import logging
import socket
import time
import traceback
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from utils.arguments import UserError
from utils.serving.batching import Metrics

logger = logging.getLogger("app")

DISCLAIMER = "Not a medical device. Answers may be wrong; for research and teaching only."
# Headers of every response
HEADERS = {
    "X-Notice": DISCLAIMER,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# The page runs its own files alone: no script of another site, and none that a text could bring along
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'self'"
POLICY += "; form-action 'none'"
# Swagger UI has a script and styles within its HTML
DOCS_POLICY = "default-src 'self' data: 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'none'"
OPEN = ("/live", "/ready", "/health")  # need no token: probes have none


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return False


class Guard:
    """ASGI middleware: checks token and body size, adds headers, counts and logs.

    The log has route, status and time of each request, never its content. An unexpected exception becomes a status
    500, and the log says where it was raised.

    Args:
        app: the application.
        metrics: metrics of the application.
        routes: paths with separate metrics; all others count as `page`.
        token: expected in `Authorization: Bearer`, or as the password of `Authorization: Basic`, which browsers send;
            None allows every request.
        max_bytes: maximum size of a request body.
        seconds: maximum time until a request body is there.
        root_path: path under which a proxy publishes the application, whether or not the proxy removes it.
        allowed_hosts: host names by which clients may call; None or "*" allows all.
        frame_ancestors: origins whose pages may show the page in a frame.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        routes: tuple[str, ...],
        token: str | None,
        max_bytes: int,
        seconds: float,
        root_path: str = "",
        allowed_hosts: Sequence[str] | None = None,
        frame_ancestors: Sequence[str] = (),
    ) -> None:
        self.app, self.metrics, self.routes = app, metrics, routes
        self.max_bytes, self.seconds = max_bytes, seconds
        self.token = None if token is None else token.encode()
        self.root_path = root_path
        self.added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        self.framed_by = " ".join(frame_ancestors) or "'none'"
        self.hosts = (
            None if allowed_hosts is None or "*" in allowed_hosts else {name.lower() for name in allowed_hosts}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # the app has no web sockets
            return await send({"type": "websocket.close", "code": 1008})
        start, status, received, whole = time.perf_counter(), 0, 0, False
        headers = dict(scope["headers"])
        path = scope["path"]
        if self.root_path:  # Starlette expects both
            path = path.removeprefix(self.root_path) if f"{path}/".startswith(f"{self.root_path}/") else path
            scope = {**scope, "root_path": self.root_path, "path": self.root_path + path}

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                policy = f"{DOCS_POLICY if path == '/docs' else POLICY}; frame-ancestors {self.framed_by}"
                added = [*self.added, (b"content-security-policy", policy.encode())]
                kept = {name for name, _ in message["headers"]} & {b"cache-control"}
                message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in kept)]
            await send(message)

        async def receive_on() -> Message:
            nonlocal received, whole
            if whole:  # what comes next is that the client leaves
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), start + self.seconds - time.perf_counter())
            except asyncio.TimeoutError:
                raise HTTPException(408, f"the body was not there within {self.seconds:g} s") from None
            whole = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, f"the body is larger than {self.max_bytes} bytes")
            return message

        try:
            length = headers.get(b"content-length", b"0")
            host = headers.get(b"host", b"").decode("latin-1").lower()
            host = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
            probed = path in OPEN and self.token is not None and _is_address(host)  # a probe calls by address
            if self.hosts is not None and host not in self.hosts and not probed:
                advice = "start app.py with --allowed_hosts and this name"
                advice += ", or with the variable APP_TOKEN" if self.token is None else ""
                await _refuse(send_on, 400, f"the Host header names another machine than `allowed_hosts`: {advice}")
            elif not self._may_enter(path, headers.get(b"authorization", b"")):
                # one header per scheme: if both share a header, Chromium does not ask for a password
                challenges = (b"Bearer", b'Basic realm="password: the token", charset="UTF-8"')
                challenge = [(b"www-authenticate", value) for value in challenges]
                await _refuse(send_on, 401, "a valid token is required: send Authorization: Bearer TOKEN", challenge)
            elif length.isdigit() and int(length) > self.max_bytes:
                await _refuse(send_on, 413, f"the body is larger than {self.max_bytes} bytes")
            else:
                await self.app(scope, receive_on, send_on)
        except Exception as error:
            log_defect(error)
            if not status:
                await _refuse(send_on, 500, "internal error")
        finally:
            seconds = time.perf_counter() - start
            route = path if path in self.routes else "page"
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            if route != "page":
                logger.info("%s %s %d %.0f ms", scope["method"], route, status, 1000 * seconds)

    def _may_enter(self, path: str, authorization: bytes) -> bool:
        if self.token is None or path in OPEN:
            return True
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() == b"basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(given, self.token)


def log_defect(error: BaseException) -> None:
    """Log the type of an exception and where it was raised, not its message: that may contain user input."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("%s at %s:%s in %s", type(error).__name__, last.filename, last.lineno, last.name)


async def _refuse(send: Send, status: int, detail: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# ----- The socket


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket. Clients that connect before the models are loaded wait.

    Raises:
        UserError: the port is in use, or the address does not belong to this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such address"
        raise UserError(f"cannot listen on `host` {host}, `port` {port} ({reason}): choose another one.") from error
