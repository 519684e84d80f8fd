"""Targets that several tests serve, and what a session holds when nothing of them is left."""

from __future__ import annotations

from typing import Final

import anyio.lowlevel

from capnweb_py import RpcTarget, SessionStats

# The tables of a session in which nothing but the main objects is referred to.
NOTHING_HELD: Final = SessionStats(imports=1, exports=1)


class Counter(RpcTarget):
    """Counts, and how often it was disposed of, too."""

    def __init__(self, count: int = 0) -> None:
        self._count = count
        self.disposed = 0

    def increment(self, by: int = 1) -> int:
        self._count += by
        return self._count

    @property
    def value(self) -> int:
        return self._count

    def dispose(self) -> None:
        self.disposed += 1


class Diary(RpcTarget):
    """Writes down what happens to it."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def plain(self) -> None:
        self.entries.append("plain")

    async def later(self) -> None:
        self.entries.append("later")
        await anyio.lowlevel.checkpoint()
        self.entries.append("later ends")

    def dispose(self) -> None:
        self.entries.append("disposed")
