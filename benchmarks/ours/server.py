"""The server of the benchmarks on capnweb_py, as a program: `python -m benchmarks.ours.server LOOP BUILD`.

What it prints and reads is in ../lines.py. The members of Api are those of ../node/server.mjs.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from capnweb_py import ReadableStream, RpcTarget, serve

from ..lines import report_cost, say
from .starting import start


class Api(RpcTarget):
    """What the clients call. There is one for each session."""

    def __init__(self) -> None:
        self._kept: list[object] = []

    def add(self, a: int, b: int) -> int:
        return a + b

    def echo(self, value: Any) -> Any:
        return value

    def next(self, _step: int) -> Api:
        return Api()

    async def callMe(self, callback: Callable[[int], Awaitable[int]], times: int) -> int:
        total = 0
        for i in range(times):
            total += await callback(i)
        return total

    def keep(self, callback: Callable[[int], Awaitable[int]]) -> int:
        self._kept.append(callback)
        return len(self._kept)

    async def sink(self, stream: ReadableStream[bytes]) -> int:
        return sum([len(chunk) async for chunk in stream])


async def run() -> None:
    """Serve until standard input is closed."""
    async with serve(Api, "127.0.0.1", 0) as server:
        say({"port": server.port})
        await report_cost()


if __name__ == "__main__":
    start(run, *sys.argv[1:])
