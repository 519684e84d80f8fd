"""How much of what one session's streams have sent waits for the network.

Flow control (flow.py) bounds each stream by itself, and a peer may have any number of them. So there is one bound for
all: past it no stream takes its next chunk from its source. Nothing else waits for it: both sides may send streams to
each other, and each must go on reading what the other says.
"""

from __future__ import annotations

import sys

import anyio

from .write_queue import Signal

__all__ = ["Outflow"]


class Outflow:
    """The chunks that one session has sent and the network has not taken.

    Args:
        limit: how many bytes of them there may be before sources wait.
    """

    __slots__ = ("_full_at", "_limit", "_line", "_room", "_sent", "_written")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Bytes of all chunks so far: that were sent, and of these, that the connection was given.
        self._sent = 0
        self._written = 0
        # How many were sent when sources begin to wait.
        self._full_at = limit
        self._room = Signal()
        # Who waits, in order: each takes a chunk before the next one looks. None until somebody waits, for an idle
        # session's sake.
        self._line: anyio.Lock | None = None

    @property
    def full(self) -> bool:
        """Whether sources have to wait."""
        return self._sent > self._full_at

    def send(self, size: int) -> None:
        """A chunk waits to be written."""
        self._sent += size

    def write(self, size: int) -> None:
        """A chunk was given to the connection."""
        self._written += size

    def taken(self) -> None:
        """The network has taken all that the connection was given."""
        self._full_at = self._written + self._limit
        if not self.full:
            self._room.fire()

    def end(self) -> None:
        """Nothing is sent any more: who waits goes on, and learns it."""
        self._limit = sys.maxsize
        self.taken()

    async def room(self) -> None:
        """Wait until the next chunk may be taken from its source."""
        if not self.full:
            return
        if self._line is None:
            self._line = anyio.Lock()
        async with self._line:
            while self.full:
                await self._room.wait()
