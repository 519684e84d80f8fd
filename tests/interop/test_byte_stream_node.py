"""npm capnweb over byte streams, on each of its four encoding levels, in both framings, and in every role: a worker
process of ours, the parent of one, and a client of a TCP server.

The JavaScript side is bytestream.mjs, whose transports are what npm capnweb calls custom encodings.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import pytest
from anyio.abc import SocketAttribute
from cborcodecs import ClonableCbor, PlainCbor

from capnweb_py import Codec, RemoteError, SessionClosed, SessionStats, open_process_session, serve_streams
from capnweb_py.transports.framing import FramingName

from .api import World
from .node import HERE, run_client
from .test_node_client import ERRORS, Reports
from .values import VALUES, same


@attrs.frozen
class Way:
    """How one encoding level of npm capnweb's is spoken here."""

    level: str
    codec: str | Codec
    framing: FramingName

    @property
    def arguments(self) -> dict[str, Any]:
        return {"codec": self.codec, "framing": self.framing}

    @property
    def values(self) -> list[str]:
        """The values that can be sent: UTF-8 has no lone surrogates, and all but JSON is CBOR here."""
        return [name for name in VALUES if self.level == "string" or "surrogate" not in name]


WAYS: Final = {
    "json lines": Way("string", "json", "newline"),
    "json": Way("string", "json", "length"),
    "jsonCompatible": Way("jsonCompatible", PlainCbor(), "length"),
    "jsonCompatibleWithBytes": Way("jsonCompatibleWithBytes", "cbor", "length"),
    "structuredClonable": Way("structuredClonable", ClonableCbor(), "length"),
}

# Each on one event loop, the next on the other.
WAYS_AND_LOOPS: Final = list(zip(WAYS, ["asyncio", "trio", "asyncio", "trio", "asyncio"], strict=True))

# Those rules of scenarios.mjs that are about a session, not about WebSocket.
SCENARIOS: Final = (
    *(f"error: {kind}" for kind in ERRORS),
    "errors as values",
    "options object",
    "nested stubs in arguments",
    "nested stubs in results",
    "stub sent back home",
    "original object comes home",
    "callback sent back home",
    "promises in results",
    "three parties",
    "introducer hangs up",
    "the client's own main object",
    "calls back and forth",
    "chain in one round trip",
    "promises of this side as arguments",
    "failure spreads along the pipeline",
    "many calls at once",
    "calls arrive in order",
    "order holds before and after a promise resolves",
    "disposed of exactly once",
    "an unsendable result fails its call alone",
    "what is not reachable",
    "a lost client disposes of what it held",
)

PAYLOAD: Final = bytes((index * 167) >> 3 & 255 for index in range(300_000))
NOTHING_LEFT: Final = SessionStats(imports=1, exports=1)
SETTLING_TRIPS: Final = 200


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


# ---- a Node client of our TCP server


async def served(node: str, way: Way, names: Sequence[str]) -> Reports:
    """What a Node client reports of each scenario."""
    world = World()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with serve_streams(listener, world.new_main, **way.arguments) as server:
        world.server = server
        url = f"tcp://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        return await run_client(node, url, names, f"--level={way.level}", f"--framing={way.framing}")


@pytest.mark.parametrize(("name", "backend"), WAYS_AND_LOOPS)
def test_scenarios_against_our_server(node: str, name: str, backend: str) -> None:
    way = WAYS[name]
    names = [*SCENARIOS, *(f"value: {name}" for name in way.values)]
    reports = anyio.run(served, node, way, names, backend=backend)
    assert list(reports) == names
    assert {name: report["detail"] for name, report in reports.items() if not report["ok"]} == {}


# ---- a Node worker of ours


@pytest.mark.anyio
async def test_a_node_worker(node: str, way: Way) -> None:
    command = [node, "stdio.mjs", way.level, way.framing]
    with anyio.fail_after(60):
        async with open_process_session(command, cwd=HERE, **way.arguments) as session:
            api = session.remote_main
            for name in way.values:
                assert same(await api.value(name), VALUES[name]()), name
                assert await api.check(name, VALUES[name]()) is True, name
                assert same(await api.echo(VALUES[name]()), VALUES[name]()), name
            assert await api.call(lambda number: number + 1, 41) == 42
            assert await api.counter("chained", 5).increment(2) == 7
            with pytest.raises(RemoteError) as caught:
                await api.fail("cause")
            assert isinstance(caught.value.__cause__, TypeError)
            assert await api.echo(PAYLOAD) == PAYLOAD
            frames = [frame for frame in await api.forms(1) if frame[2] > 1000]
            assert [frame[:2] for frame in frames[-2:]] == [
                [direction, "text" if way.level == "string" else "binary"] for direction in ("in", "out")
            ]
            raw = way.level in ("jsonCompatibleWithBytes", "structuredClonable")
            assert all((size < len(PAYLOAD) + 1000) == raw for _, _, size in frames[-2:])
            del caught
            for _ in range(SETTLING_TRIPS):
                gc.collect()
                remote = SessionStats(**await api.stats(1))
                if session.stats() == remote == NOTHING_LEFT:
                    break
            assert session.stats() == NOTHING_LEFT
            assert remote == NOTHING_LEFT


@pytest.mark.anyio
async def test_a_node_worker_that_is_killed(node: str) -> None:
    with anyio.fail_after(60):
        async with open_process_session(
            [node, "stdio.mjs", "string", "newline"], cwd=HERE, framing="newline"
        ) as session:
            assert await session.remote_main.square(3) == 9
            os.kill(int(repr(session).strip("<>").split()[-1]), 9)
            with pytest.raises(SessionClosed, match="the process was ended by signal 9: "):
                await session.remote_main.forever()


# ---- our worker of a Node process

WORKER: Final = """
    import sys
    import anyio
    from capnweb_py import stdio_session
    from interop.api import Api, World
    from interop.test_byte_stream_node import WAYS

    async def main(way):
        async with stdio_session(Api(World(), 0), **WAYS[way].arguments) as session:
            await session.wait_closed()
            assert session.stats().exports == 0

    anyio.run(main, sys.argv[2], backend=sys.argv[1])
"""


@pytest.mark.parametrize(("name", "backend"), WAYS_AND_LOOPS)
def test_our_worker(node: str, name: str, backend: str) -> None:
    way = WAYS[name]
    program = "\n".join(line[4:] for line in WORKER.splitlines())
    command = [node, "stdio.mjs", way.level, way.framing, sys.executable, "-c", program, backend, name]
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests), *sys.path])}

    async def run() -> Any:
        with anyio.fail_after(60):
            return await anyio.run_process(command, cwd=HERE, env=environment, stderr=None)

    report = json.loads(anyio.run(run).stdout)
    assert report == {"values": len(way.values), "imports": 1, "exports": 1, "exit": 0}
