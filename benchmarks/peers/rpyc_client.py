"""The client on rpyc, as a program: `python -m benchmarks.peers.rpyc_client URL`. See ../lines.py and the server.

rpyc blocks: calls at once are its asynchronous ones, of which it then waits for each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import anyio
import orjson
import rpyc
from rpyc.core.stream import SocketStream

from ..lines import Found, obey
from ..records import MEBIBYTE, RECORD


def in_flight(width: int, count: int, begin: Callable[[int], Any]) -> list[Any]:
    """Make `count` calls, `width` at once, then the next `width`. Returns the last results."""
    results: list[Any] = []
    for _ in range(0, count, width):
        begun = [begin(i) for i in range(width)]
        results = [one.value for one in begun]
    return results


def run_workload(api: Any, name: str, count: int) -> None:
    """Run one workload."""
    if name == "sequential":
        for i in range(count):
            api.add(i, 1)
    elif name == "record50":
        echo = rpyc.async_(api.echo)
        for _ in range(0, count, 50):
            for text in in_flight(50, 50, lambda _: echo(orjson.dumps(RECORD))):
                orjson.loads(text)
    elif name == "echo1MiB":
        for _ in range(count):
            api.echo_bytes(MEBIBYTE)
    else:
        add = rpyc.async_(api.add)
        in_flight(int(name.removeprefix("concurrent")), count, lambda i: add(i, 1))


async def run(url: str) -> None:
    """Run what standard input says, until it is closed."""
    place = urlsplit(url)
    connection = rpyc.connect_stream(SocketStream.connect(place.hostname, place.port, nodelay=True))

    async def run_named(name: str, count: int) -> Found:
        run_workload(connection.root, name, count)
        return {}

    await obey(run_named)
    connection.close()


if __name__ == "__main__":
    anyio.run(run, sys.argv[1])
