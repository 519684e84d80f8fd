"""The client of the benchmarks on capnweb_py, as a program: `python -m benchmarks.ours.client BACKEND URL MODE WHAT`.

    measure '{"sequential": 5000, ...}'   runs workloads, one line {"workload", "count", "seconds"} for each
    idle 400                 opens sessions, prints {"idle": 400}, and holds them until standard input is closed

The workloads are those of ../node/client.mjs, in the same order of calls.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import anyio

from capnweb_py import RpcStub, connect

from .server import say

MEBIBYTE: Final = bytes(1024 * 1024)
CHUNK: Final = 64 * 1024
RECORD: Final[dict[str, Any]] = {
    "id": 1,
    "name": "x" * 100,
    "tags": ["a", "b", "c"],
    "items": [{"i": i, "v": i * 1.5, "s": f"item{i}"} for i in range(20)],
}

Call = Callable[[int], Awaitable[Any]]
Gather = Callable[[list[Awaitable[Any]]], Awaitable[object]]


async def gather_on_asyncio(calls: list[Awaitable[Any]]) -> None:
    """Await all of them at once, as a program on asyncio would."""
    await asyncio.gather(*calls)


async def gather_on_trio(calls: list[Awaitable[Any]]) -> None:
    """Await all of them at once, as a program on trio would."""

    async def result(call: Awaitable[Any]) -> None:
        await call

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(result, call)


GATHER: Final[dict[str, Gather]] = {"asyncio": gather_on_asyncio, "trio": gather_on_trio}


async def in_flight(gather: Gather, width: int, count: int, call: Call) -> None:
    """Make `count` calls, `width` at once, then the next `width`."""
    for _ in range(0, count, width):
        await gather([call(i) for i in range(width)])


async def sequential(api: RpcStub, gather: Gather, count: int) -> None:
    """One call at a time."""
    for i in range(count):
        await api.add(i, 1)


async def concurrent(width: int, api: RpcStub, gather: Gather, count: int) -> None:
    """Many small calls at once."""
    await in_flight(gather, width, count, lambda i: api.add(i, 1))


async def pipeline3(api: RpcStub, gather: Gather, count: int) -> None:
    """Three calls, each on the result of the one before, in one round trip."""
    for _ in range(count):
        await api.next(0).next(0).add(1, 2)


async def record50(api: RpcStub, gather: Gather, count: int) -> None:
    """A record of about 1 KB there and back, 50 at once."""
    await in_flight(gather, 50, count, lambda _: api.echo(RECORD))


async def callback(api: RpcStub, gather: Gather, count: int) -> None:
    """The server calls a function of the client, one call at a time."""
    await api.callMe(lambda value: value, count)


async def echo_mebibyte(api: RpcStub, gather: Gather, count: int) -> None:
    """1 MiB of bytes there and back, one at a time."""
    for _ in range(count):
        await api.echo(MEBIBYTE)


async def chunks(count: int) -> AsyncIterator[bytes]:
    """Chunks of a stream, each in memory of its own, as Node's are."""
    for _ in range(count):
        yield bytes(CHUNK)


async def stream_mebibytes(api: RpcStub, gather: Gather, count: int) -> None:
    """A stream to the server, in chunks of 64 KiB."""
    await api.sink(chunks(count * len(MEBIBYTE) // CHUNK))


WORKLOADS: Final[dict[str, Callable[[RpcStub, Gather, int], Awaitable[None]]]] = {
    "sequential": sequential,
    "concurrent100": partial(concurrent, 100),
    "concurrent1000": partial(concurrent, 1000),
    "pipeline3": pipeline3,
    "record50": record50,
    "callback": callback,
    "echo1MiB": echo_mebibyte,
    "streamMiB": stream_mebibytes,
}


async def measure(url: str, gather: Gather, plan: dict[str, int]) -> None:
    """Run the workloads of a plan, each its number of times, and an eighth of that before to warm up."""
    async with connect(url) as api:
        for name, count in plan.items():
            run = WORKLOADS[name]
            await run(api, gather, max(1, min(count // 8, 500)))
            start = time.perf_counter()
            await run(api, gather, count)
            say({"workload": name, "count": count, "seconds": time.perf_counter() - start})


async def idle(url: str, count: int) -> None:
    """Hold sessions, each of which has made one call."""
    async with AsyncExitStack() as sessions:
        for i in range(count):
            api = await sessions.enter_async_context(connect(url))
            await api.add(i, 1)
        say({"idle": count})
        await anyio.to_thread.run_sync(sys.stdin.read)


async def run(*arguments: str) -> None:
    """Do what the command line says."""
    backend, url, mode, what = arguments
    if mode == "idle":
        await idle(url, int(what))
    else:
        await measure(url, GATHER[backend], json.loads(what))


if __name__ == "__main__":
    anyio.run(run, *sys.argv[1:], backend=sys.argv[1])
