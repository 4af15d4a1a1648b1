"""Connections to clients that do not send their request, or do not read their answer: uvicorn waits without end."""

import asyncio
import logging
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

logger = logging.getLogger("app")

MAX_CONNECTIONS = 500  # open at once; systems commonly allow a process 1,024 files


class Connection(H11Protocol):
    """An HTTP connection that is closed once its client has kept it waiting for too long: with the head of a request,
    with its body, or with reading an answer. Where too many are open, the one that has waited longest is closed.

    h11 rather than httptools, which sets no limit to the size of the headers.

    Args:
        config, server_state, app_state, _loop: from uvicorn.
        seconds: how long a client may take for each of the three.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        seconds: float,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # it is the transport of a socket
        self.state, self.since = self._state(), self.loop.time()
        self.timer = self.loop.call_later(self.seconds / 4, self._look)
        if len(self.connections) > MAX_CONNECTIONS:
            waiting = [other for other in self.connections if isinstance(other, Connection) and other._waits()]
            min(waiting, key=lambda other: other.since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self.since = self.loop.time()  # the client has read something since the last pause
        super().pause_writing()

    def _state(self) -> tuple[Any, ...]:
        """Return what changes whenever the client has done its part."""
        return self.cycle, self.conn.their_state, self.flow.write_paused, self.transport.is_closing()

    def _waits(self) -> bool:
        """Return whether it is the client's turn."""
        _, theirs, write_paused, closing = self._state()
        return theirs in (h11.IDLE, h11.SEND_BODY) or write_paused or closing

    def _look(self) -> None:
        state, now = self._state(), self.loop.time()
        if state != self.state:
            self.state, self.since = state, now
        elif self._waits() and now - self.since > self.seconds:
            logger.info("a connection is closed: its client took more than %g s", self.seconds)
            self.transport.abort()  # `close` would wait until the client has read the answer
            return
        self.timer = self.loop.call_later(self.seconds / 4, self._look)
