"""The client of the echo, as a program: `python -m benchmarks.echo.client URL measure '{"sequential": 5000, ...}'`.

One line {"workload", "count", "seconds"} for each workload that is about calls: messages there and back, one at a time
or as many in flight as the workload has. No tables, no codec, no result to find a caller for.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Final

import anyio
from websockets.asyncio.client import ClientConnection, connect

from ..ours.server import say

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


async def run(*arguments: str) -> None:
    """Run the workloads of the plan, each its number of times, and an eighth of that before to warm up."""
    url, _mode, plan = arguments
    async with connect(url, compression=None) as connection:
        for name, count in json.loads(plan).items():
            await there_and_back(connection, WIDTHS[name], max(1, min(count // 8, 500)))
            start = time.perf_counter()
            await there_and_back(connection, WIDTHS[name], count)
            say({"workload": name, "count": count, "seconds": time.perf_counter() - start})


if __name__ == "__main__":
    anyio.run(run, *sys.argv[1:])
