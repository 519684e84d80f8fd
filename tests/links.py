"""Two sessions on a simulated connection: latency, bandwidth and a clock of the test's own. Nothing here sleeps.

Time stands still until everything that can run has run; then it jumps to the next message's arrival.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio

from capnweb_py import RpcSession, SessionOptions
from capnweb_py.loops import Spawn, task_set


class _End:
    """The host of one of the two sessions."""

    def __init__(self, link: Link) -> None:
        self._link = link
        # Until when, in seconds, the wire is busy with what this end has sent.
        self.busy_until = 0.0

    def wake(self) -> None:
        """The link looks at both whenever nothing else runs."""

    hurry = send_now = rest = wake_from_anywhere = wake

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._link.spawn(run)

    def now(self) -> float:
        return self._link.now


class Link:
    """A connection between two sessions.

    Args:
        spawn: starts the sessions' tasks.
        round_trip: how long it takes a message there and its answer back, in seconds.
        bandwidth: bytes a second, each way.
    """

    def __init__(
        self, spawn: Spawn, main: Any, options: SessionOptions | None, round_trip: float, bandwidth: float
    ) -> None:
        self.spawn = spawn
        self.now = 0.0
        self._latency = round_trip / 2
        self._bandwidth = bandwidth
        self._numbers = count()
        # All messages so far, and who receives each.
        self.sent: list[tuple[RpcSession, list[Any]]] = []
        # What is to happen: when, in which order, and what.
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._ends = (_End(self), _End(self))
        self.client = RpcSession(self._ends[0], None, options, name="the server")
        self.server = RpcSession(self._ends[1], main, options, name="the client")

    async def pass_time(self, seconds: float) -> None:
        """Wait for some simulated time."""
        event = anyio.Event()
        self._at(self.now + seconds, event.set)
        await event.wait()

    async def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until a condition holds, or nothing happens any more."""
        while not until():
            await anyio.wait_all_tasks_blocked()
            self._send(self._ends[0], self.client, self.server)
            self._send(self._ends[1], self.server, self.client)
            if not self._events:
                return
            self.now, _, happen = heapq.heappop(self._events)
            happen()

    def _send(self, end: _End, source: RpcSession, destination: RpcSession) -> None:
        for data, binary in source.messages_to_send():
            end.busy_until = max(end.busy_until, self.now) + len(data) / self._bandwidth
            arrival = end.busy_until + self._latency
            self.sent.append((destination, json.loads(data)))
            self._at(arrival, lambda data=data, binary=binary: destination.receive(data, binary))

    def _at(self, time: float, happen: Callable[[], object]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), happen))


@asynccontextmanager
async def linked(
    main: Any, *, round_trip: float = 0.1, bandwidth: float = 10e6, options: SessionOptions | None = None
) -> AsyncIterator[Link]:
    """A link whose second session offers a main object, for as long as the context lasts."""
    async with task_set() as spawn:
        link = Link(spawn, main, options, round_trip, bandwidth)
        try:
            yield link
        finally:
            link.client.close()
            link.server.close()
