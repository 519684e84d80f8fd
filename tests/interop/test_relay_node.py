"""A relay between npm capnweb and a server: a Python process that serves the main stub of its session with that server.

A Node client runs its scenarios through a relay to our server, and we call a Node server through one. A scenario ends
with one entry in the tables of the client and of the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import pytest
from witnesses import NOTHING_HELD

from capnweb_py import RpcStub, memory_pair, open_session, serve

from .node import node_server, run_client
from .serving import serve_world
from .test_node_client import SCENARIOS

# Seconds that anything here may take; none needs as many.
DEADLINE: Final = 60

# What is about the two ends of one connection, and is not the same with a third between them.
BETWEEN_TWO: Final = (
    "three parties",
    "introducer hangs up",
    "the client's own main object",
    "calls back and forth",
)
RELAYED: Final = tuple(name for name in SCENARIOS if name not in BETWEEN_TWO)

Reports = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def reports(node: str) -> Reports:
    """What the Node client reports of each scenario. That a relay is the same on both loops is seen without Node."""

    async def run() -> Reports:
        async with (
            serve_world() as url,
            open_session(url) as upstream,
            serve(upstream.remote_main, "127.0.0.1", 0) as relay,
        ):
            return await run_client(node, relay.url, RELAYED, f"--monitor={url}")

    return anyio.run(run)


@pytest.mark.parametrize("scenario", RELAYED)
def test_scenario(reports: Reports, scenario: str) -> None:
    assert reports[scenario]["ok"], f"{reports[scenario]['detail']}\n{reports[scenario]['stats']}"


@asynccontextmanager
async def relayed(node: str) -> AsyncIterator[RpcStub]:
    """A Node server's main object, by way of a relay, which holds nothing at the end."""
    with anyio.fail_after(DEADLINE), node_server(node) as url:
        async with open_session(url) as upstream, memory_pair(None, upstream.remote_main) as (client, relay):
            yield client.remote_main
            sessions = (client, relay, upstream)
            while any(session.stats() != NOTHING_HELD for session in sessions):
                await client.remote_main.square(1)


@pytest.mark.anyio
async def test_a_node_server_behind_a_relay(node: str) -> None:
    async with relayed(node) as api:
        counter = api.counter("relayed", 5)
        assert await counter.increment(2) == 7
        assert await api.echo([1, {"a": b"\x01"}]) == [1, {"a": b"\x01"}]
        assert await api.echo([1, 2]).map(lambda n: {"n": n, "square": api.square(n)}) == [
            {"n": 1, "square": 1},
            {"n": 2, "square": 4},
        ]
        assert [n async for n in await api.numbers(100)] == list(range(100))
        assert await api.call(lambda by: by * 3, 5) == 15
        with pytest.raises(TypeError):
            await api.fail("type")
        del counter
