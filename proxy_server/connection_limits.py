"""Peers that are slow, and peers that are too many. uvicorn waits for a request without end, and takes any number of
connections; and whoever can reach the port can open one: the secret comes with the request.

A connection is closed whose request does not come: the head must be there some time after its first byte (or after the
connection was opened), and a body must move. What is not limited: an answer that takes long, in either direction; a
body that this side does not read; a body beside an answer that has begun; and a WebSocket, which pings look after.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import Enum, auto
from functools import partial
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final

import h11

from proxy_server.config import ConnectionLimits
from proxy_server.reason_phrases import ReasonedH11

__all__ = ["Connections", "LimitedH11"]

# How long, in seconds, a connection that is one too many may take to send something, be told so and go; and how many
# of those there may be. One more is closed without a word.
_REFUSAL_TIME: Final = 2.0
_MOST_REFUSED: Final = 1000

_REFUSAL: Final = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n"
    "Retry-After: 1\r\nConnection: close\r\n\r\n{text}"
)

_NO_HANDSHAKE: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 46\r\n"
    b"Connection: close\r\n\r\na WebSocket begins with a GET that has no body"
)


class Connections:
    """The connections of one server, counted."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._by_origin: Counter[str] = Counter()
        self._accepted = 0
        self._refused = 0

    def enter(self, origin: str) -> str | None:
        """Count a connection. Returns why it is one too many, if it is."""
        if self._accepted >= self.limits.max_connections:
            limit = f"max_connections = {self.limits.max_connections} connections"
        elif self._by_origin[origin] >= self.limits.max_connections_per_address:
            limit = f"max_connections_per_address = {self.limits.max_connections_per_address} connections of yours"
        else:
            self._accepted += 1
            self._by_origin[origin] += 1
            return None
        self._refused += 1
        return f"there are {limit} to this server already"

    def leave(self, origin: str, *, refused: bool) -> None:
        """A connection is closed."""
        if refused:
            self._refused -= 1
            return
        self._accepted -= 1
        self._by_origin[origin] -= 1
        if not self._by_origin[origin]:
            del self._by_origin[origin]

    @property
    def refuses_too_many(self) -> bool:
        """Whether there are so many to be told that there are too many that no more are told."""
        return self._refused > _MOST_REFUSED


class _Awaited(Enum):
    """What a connection waits for."""

    HEAD = auto()
    BODY = auto()
    # Of a body whose request has its answer.
    REST = auto()


class LimitedH11(ReasonedH11):
    """uvicorn's HTTP/1.1, with limits.

    Args:
        connections: where it is counted.
    """

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = connections
        self._limits = connections.limits
        self._origin = ""
        # Why the connection is one too many, and whether the peer has been told.
        self._refusal: str | None = None
        self._told = False
        self._awaited: _Awaited | None = _Awaited.HEAD
        # When it must have come. The timer may be earlier.
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        websocket_class: Any = self.ws_protocol_class
        self.ws_protocol_class = partial(websocket_class, on_lost=self._leave)  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._origin = _origin(self.client)
        self._refusal = self._connections.enter(self._origin)
        if self._refusal is None:
            self._wait(self._limits.head_timeout)
        elif self._connections.refuses_too_many:
            transport.abort()
        else:
            self._wait(_REFUSAL_TIME)

    def data_received(self, data: bytes) -> None:
        if self._refusal is None:
            super().data_received(data)
            self._look()
        elif not self._told:
            # Not before the request comes: an answer that is there sooner is none to some clients. What else comes is
            # read and ignored: closing with bytes unread would have TCP throw away the answer.
            self._told = True
            self.transport.write(_REFUSAL.format(length=len(self._refusal), text=self._refusal).encode())
            self.transport.write_eof()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._leave()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._awaited = None
        super().handle_websocket_upgrade(event)
        websocket: Any = self.transport.get_protocol()
        if not websocket.handshake_initiated:
            # One with a body, for example: `websockets` takes it for none, and uvicorn says nothing then.
            self.transport.write(_NO_HANDSHAKE)
            self.transport.close()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._connections.leave(self._origin, refused=self._refusal is not None)

    def _look(self) -> None:
        """Something has happened: see what the connection waits for now."""
        before, self._awaited = self._awaited, self._next_awaited()
        if self._awaited is _Awaited.BODY:
            self._wait(self._limits.body_timeout)
        elif self._awaited is not None and self._awaited is not before:
            self._wait(self._limits.head_timeout)

    def _next_awaited(self) -> _Awaited | None:
        if self.transport.get_protocol() is not self:
            return None
        if self.conn.their_state is h11.SEND_BODY:
            return _Awaited.REST if self.cycle.response_complete else _Awaited.BODY
        # Between two requests it is the time of uvicorn's own `timeout_keep_alive`.
        within_head = self.conn.their_state is h11.IDLE and (self.cycle is None or bool(self.conn.trailing_data[0]))
        return _Awaited.HEAD if within_head else None

    def _wait(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(self._deadline, self._expired)

    def _expired(self) -> None:
        self._timer = None
        if self._awaited is None:
            return
        if self._refusal is not None:
            self.transport.abort()
        elif self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._expired)
        elif self._own_turn:
            self._wait(self._limits.body_timeout)
        else:
            self.transport.close()

    @property
    def _own_turn(self) -> bool:
        """Whether it is this side that the peer waits for, or it has begun to answer."""
        if self.transport.get_write_buffer_size():
            return True
        if self._awaited is not _Awaited.BODY:
            return False
        return self.flow.read_paused or self.cycle.waiting_for_100_continue or self.cycle.response_started


def _origin(client: tuple[str, int] | None) -> str:
    """Whom a connection is counted for."""
    if client is None:
        return ""
    try:
        address = ip_address(client[0])
    except ValueError:
        return client[0]
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Network((address, 64), strict=False))
    return str(address)
