"""The server of the benchmarks on capnweb_py, as a program: `python -m benchmarks.ours.server BACKEND`.

It prints {"port": ...} once it accepts connections, answers every line on its standard input with {"rss": bytes}
after collecting garbage, and ends when that input is closed. The members of Api are those of ../node/server.mjs.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio

from capnweb_py import ReadableStream, RpcTarget, serve

_STATM: Final = Path("/proc/self/statm")


class Api(RpcTarget):
    """What the clients call."""

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

    async def sink(self, stream: ReadableStream[bytes]) -> int:
        return sum([len(chunk) async for chunk in stream])


def resident_bytes() -> int | None:
    """The memory of this process that is resident, in bytes; None where the system has no /proc to tell."""
    if not _STATM.exists():
        return None
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def say(message: dict[str, Any]) -> None:
    """Print one line of JSON."""
    print(json.dumps(message), flush=True)


async def run() -> None:
    """Serve until standard input is closed."""
    async with serve(Api, "127.0.0.1", 0) as server:
        say({"port": server.port})
        while await anyio.to_thread.run_sync(sys.stdin.readline):
            gc.collect()
            say({"rss": resident_bytes()})


if __name__ == "__main__":
    anyio.run(run, backend=sys.argv[1])
