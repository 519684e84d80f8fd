"""The client of the benchmarks on capnweb_py, as a program: `python -m benchmarks.ours.client LOOP BUILD URL`.

What it reads and prints is in ../lines.py. The workloads are those of ../node/client.mjs, in the same order of calls.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import anyio
import attrs

from capnweb_py import RpcPromise, RpcStub, connect, gather

from ..lines import Found, obey, percentile99
from ..records import MEBIBYTE, RECORD
from .starting import start

CHUNK: Final = 64 * 1024

# How many calls are in flight where a workload holds on to what it gets, and where its latency is measured.
WIDTH: Final = 100

Call = Callable[[int], RpcPromise]
RunAll = Callable[[list[Callable[[], RpcPromise]]], Awaitable[object]]


@attrs.define
class Client:
    """What the workloads work on.

    Attributes:
        url: of the server.
        api: its main object, over a session that is there from the start.
        run_all: makes calls, and awaits each in a task of its own, as a program would that knows nothing of `gather`.
        stack: closes the further sessions.
        sessions: their main objects.
        held: stubs that keep the server's targets alive.
    """

    url: str
    api: RpcStub
    run_all: RunAll
    stack: AsyncExitStack
    sessions: list[RpcStub] = attrs.field(factory=list)
    held: list[RpcStub] = attrs.field(factory=list)


async def in_flight(width: int, count: int, call: Call) -> None:
    """Make `count` calls, `width` at once, then the next `width`."""
    for _ in range(0, count, width):
        await gather(*[call(i) for i in range(width)])


async def sequential(client: Client, count: int) -> None:
    """One call at a time."""
    api = client.api
    for i in range(count):
        await api.add(i, 1)


async def concurrent(width: int, client: Client, count: int) -> None:
    """Many small calls at once."""
    api = client.api
    await in_flight(width, count, lambda i: api.add(i, 1))


async def in_tasks(width: int, client: Client, count: int) -> None:
    """The same, each awaited by a task of its own."""
    api = client.api
    for _ in range(0, count, width):
        await client.run_all([partial(api.add, i, 1) for i in range(width)])


async def pipeline3(client: Client, count: int) -> None:
    """Three calls, each on the result of the one before, in one round trip."""
    api = client.api
    for _ in range(count):
        await api.next(0).next(0).add(1, 2)


async def record50(client: Client, count: int) -> None:
    """A record of about 1 KB there and back, 50 at once."""
    api = client.api
    await in_flight(50, count, lambda _: api.echo(RECORD))


async def callback(client: Client, count: int) -> None:
    """The server calls a function of the client, one call at a time."""
    await client.api.callMe(lambda value: value, count)


async def echo_mebibyte(client: Client, count: int) -> None:
    """1 MiB of bytes there and back, one at a time."""
    for _ in range(count):
        await client.api.echo(MEBIBYTE)


async def chunks(count: int) -> AsyncIterator[bytes]:
    """Chunks of a stream, each in memory of its own, as Node's are."""
    for _ in range(count):
        yield bytes(CHUNK)


async def stream_mebibytes(client: Client, count: int) -> None:
    """A stream to the server, in chunks of 64 KiB."""
    await client.api.sink(chunks(count * len(MEBIBYTE) // CHUNK))


async def latency(client: Client, count: int) -> Found:
    """Small calls, always as many in flight: each begins when another ends. Finds the 99th percentile, in seconds."""
    api, taken = client.api, list[float]()

    async def one_after_another() -> None:
        for i in range(count // WIDTH):
            begun = time.perf_counter()
            await api.add(i, 1)
            taken.append(time.perf_counter() - begun)

    async with anyio.create_task_group() as tasks:
        for _ in range(WIDTH):
            tasks.start_soon(one_after_another)
    return {"p99": percentile99(taken)}


async def open_sessions(client: Client, count: int) -> None:
    """Further sessions, each of which makes one call, and is idle then."""
    for i in range(count):
        api = await client.stack.enter_async_context(connect(client.url))
        await api.add(i, 1)
        client.sessions.append(api)


async def call_sessions(client: Client, _count: int) -> Found:
    """One call on each of these sessions, one at a time. Finds how long the slowest took, in seconds."""
    taken = []
    for i, api in enumerate(client.sessions):
        begun = time.perf_counter()
        await api.add(i, 1)
        taken.append(time.perf_counter() - begun)
    return {"slowest": max(taken)}


async def hold_targets(client: Client, count: int) -> None:
    """The client holds as many targets of the server's."""
    for _ in range(0, count, WIDTH):
        client.held += await gather(*[client.api.next(i) for i in range(WIDTH)])


async def lend_callbacks(client: Client, count: int) -> None:
    """The server holds as many functions of the client's."""
    await in_flight(WIDTH, count, lambda i: client.api.keep(lambda value: value + i))


async def run_all_on_asyncio(calls: list[Callable[[], RpcPromise]]) -> None:
    """With `asyncio.gather`."""
    await asyncio.gather(*[call() for call in calls])


async def run_all_on_trio(calls: list[Callable[[], RpcPromise]]) -> None:
    """With a nursery."""

    async def result(call: Callable[[], RpcPromise]) -> None:
        await call()

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(result, call)


WORKLOADS: Final[dict[str, Callable[[Client, int], Awaitable[Found | None]]]] = {
    "sequential": sequential,
    "concurrent100": partial(concurrent, 100),
    "concurrent1000": partial(concurrent, 1000),
    "tasks100": partial(in_tasks, 100),
    "tasks1000": partial(in_tasks, 1000),
    "pipeline3": pipeline3,
    "record50": record50,
    "callback": callback,
    "echo1MiB": echo_mebibyte,
    "streamMiB": stream_mebibytes,
    "p99 of 100": latency,
    "open sessions": open_sessions,
    "call sessions": call_sessions,
    "hold targets": hold_targets,
    "lend callbacks": lend_callbacks,
}


async def run(loop: str, url: str) -> None:
    """Run what standard input says, until it is closed."""
    async with connect(url) as api, AsyncExitStack() as stack:
        client = Client(url, api, run_all_on_trio if loop == "trio" else run_all_on_asyncio, stack)

        async def run_workload(name: str, count: int) -> Found:
            return await WORKLOADS[name](client, count) or {}

        await obey(run_workload)


if __name__ == "__main__":
    loop, build, url = sys.argv[1:]
    start(run, loop, build, loop, url)
