"""Keeping a WebSocket connection alive with pings, and dropping one whose peer is gone.

`websockets` can do the first by itself. A peer that has answered no ping will not answer a close frame either, though,
and it would wait for that, too, for as long as any closing may take.

Over trio a task does it. Over asyncio it is a timer: a task for each connection would take 1.5 KiB, where all of an
idle session takes 9.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from typing import Any, Final

import anyio
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import OPEN

__all__ = ["Pinging", "Pings", "keep_alive"]

# What the peer is told, should it be there after all.
_REASON: Final = "keepalive ping timeout"

# How long, in seconds, telling it may take.
_LAST_WORD: Final = 0.2

# A ping carries this many random bytes, which its answer repeats.
_PAYLOAD_SIZE: Final = 4

# How many pings are sent before other things have their turn again: thousands are due at once after a pause.
_AT_ONCE: Final = 32


class Pinging:
    """How often the connections of one server, or that of a client, are pinged, in the running loop of asyncio.

    Args:
        interval: seconds between an answer and the next ping.
        timeout: seconds that an answer may take; None for any number.
    """

    __slots__ = ("_context", "_due", "_loop", "interval", "timeout")

    def __init__(self, interval: float, timeout: float | None) -> None:
        self.interval = interval
        self.timeout = timeout
        self._loop = asyncio.get_running_loop()
        # One for the timers of all connections: each would make a copy for itself.
        self._context = contextvars.copy_context()
        # What is to be called soon, a few in each turn of the loop.
        self._due: list[Callable[[], object]] = []

    def later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Call a function after some time."""
        return self._loop.call_later(seconds, callback, context=self._context)

    def soon(self, callback: Callable[[], object]) -> None:
        """Call a function when those have been called that are due already."""
        if not self._due:
            self._loop.call_soon(self._call_some, context=self._context)
        self._due.append(callback)

    def _call_some(self) -> None:
        for callback in self._due[:_AT_ONCE]:
            callback()
        del self._due[:_AT_ONCE]
        if self._due:
            self._loop.call_soon(self._call_some, context=self._context)


class Pings:
    """The pings of one connection over asyncio, from `start` to `stop`. It is dropped if an answer does not come.

    Args:
        connection: of `websockets`.
        pinging: how often it is pinged.
    """

    __slots__ = ("_awaited", "_connection", "_pinging", "_timer")

    def __init__(self, connection: Any, pinging: Pinging) -> None:
        self._connection = connection
        self._pinging = pinging
        # What the answer must repeat, while there is one to come.
        self._awaited: bytes | None = None
        # Of what happens next by itself, or is about to. None while nothing does.
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Ping, after the interval."""
        self._timer = self._pinging.later(self._pinging.interval, self._become_due)

    def stop(self) -> None:
        """Ping no more, and wait for no answer."""
        self._awaited = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def answered(self, payload: bytes) -> None:
        """A pong has come."""
        if payload == self._awaited:
            self.stop()
            self.start()

    def writing_resumed(self) -> None:
        """The socket has taken what was written."""
        if self._awaited is not None and self._timer is None:
            self._expect()

    def _become_due(self) -> None:
        self._pinging.soon(self._ping)

    def _ping(self) -> None:
        stopped, self._timer = self._timer is None, None
        if stopped or self._connection.protocol.state is not OPEN:
            return
        self._awaited = os.urandom(_PAYLOAD_SIZE)
        self._connection.protocol.send_ping(self._awaited)
        self._connection.send_data()
        # A ping that waits behind other data is not with the peer yet.
        if not self._connection.paused:
            self._expect()

    def _expect(self) -> None:
        if self._pinging.timeout is not None:
            self._timer = self._pinging.later(self._pinging.timeout, self._drop)

    def _drop(self) -> None:
        self.stop()
        self._connection.protocol.fail(CloseCode.INTERNAL_ERROR, _REASON)
        self._connection.send_data()
        self._connection.transport.abort()


async def keep_alive(connection: Any, interval: float, timeout: float | None) -> None:  # noqa: ASYNC109 - of the answer
    """Ping a connection over trio until it ends, or is dropped because an answer did not come.

    Args:
        connection: of `websockets`.
        interval: seconds between an answer and the next ping.
        timeout: seconds that an answer may take; None for any number.
    """
    try:
        while await _answers(connection, interval, timeout):
            pass
    except ConnectionClosed:
        return
    await _drop(connection)


async def _answers(connection: Any, interval: float, timeout: float | None) -> bool:  # noqa: ASYNC109
    """Ping once, after the interval. Returns whether the answer came in time."""
    await anyio.sleep(interval)
    answer = await connection.ping()
    with anyio.move_on_after(timeout) as patience:
        await answer.wait()
    return not patience.cancelled_caught


async def _drop(connection: Any) -> None:
    import trio

    connection.protocol.fail(CloseCode.INTERNAL_ERROR, _REASON)
    with anyio.move_on_after(_LAST_WORD):  # a message may be on its way, which the peer does not take
        await connection.send_data()
    await trio.aclose_forcefully(connection.stream)
