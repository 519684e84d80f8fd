"""The client of the echo, as a program: `python -m benchmarks.echo.client URL`.

What it reads and prints is in ../lines.py. Its workloads are those that are about small calls: messages there and back,
one at a time or as many in flight as the workload has. No tables, no codec, no result to find a caller for.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Final

import anyio
from websockets.asyncio.client import ClientConnection, connect

from ..lines import Found, obey, percentile99

MESSAGE: Final = '["stream",["pipeline",0,["add"],[1234,1]]]'

# How many messages are in flight.
WIDTHS: Final = {"sequential": 1, "concurrent100": 100, "concurrent1000": 1000}


async def there_and_back(connection: ClientConnection, width: int, count: int) -> None:
    """Send `width` messages, receive as many, until `count` have gone."""
    for _ in range(0, count, width):
        for _ in range(width):
            await connection.send(MESSAGE)
        for _ in range(width):
            await connection.recv()


async def latency(connection: ClientConnection, width: int, count: int) -> Found:
    """Always as many in flight: each is sent when another came back. Finds the 99th percentile, in seconds."""
    sent, taken = deque[float](), list[float]()
    for number in range(count + width):
        if number >= width:
            await connection.recv()
            taken.append(time.perf_counter() - sent.popleft())
        if number < count:
            sent.append(time.perf_counter())
            await connection.send(MESSAGE)
    return {"p99": percentile99(taken)}


async def run(url: str) -> None:
    """Run what standard input says, until it is closed."""
    async with connect(url, compression=None) as connection:

        async def run_workload(name: str, count: int) -> Found:
            if name == "p99 of 100":
                return await latency(connection, 100, count)
            await there_and_back(connection, WIDTHS[name], count)
            return {}

        await obey(run_workload)


if __name__ == "__main__":
    anyio.run(run, sys.argv[1])
