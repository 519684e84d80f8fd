"""Sessions that do nothing: many of them, what one takes, and what keeps it alive."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections import deque
from contextlib import AsyncExitStack
from types import CodeType
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from rawpeer import RawPeer, raw_client, raw_server
from websockets.protocol import OPEN

from capnweb_py import RpcStub, RpcTarget, connect, serve
from capnweb_py.transports.keepalive import Pinging, Pings

pytestmark = pytest.mark.anyio


class Api(RpcTarget):
    def add(self, a: int, b: int) -> int:
        return a + b

    async def add_later(self, a: int, b: int) -> int:
        await anyio.lowlevel.checkpoint()
        return a + b


async def test_each_of_many_idle_sessions_answers() -> None:
    count = 200

    async def call(api: RpcStub, number: int) -> None:
        assert await api.add(number, 1) == number + 1
        assert await api.add_later(number, 2) == number + 2

    async with serve(Api) as server:
        async with AsyncExitStack() as sessions:
            apis = [await sessions.enter_async_context(connect(server.url)) for _ in range(count)]
            for _ in range(2):
                async with anyio.create_task_group() as tasks:
                    for number, api in enumerate(apis):
                        tasks.start_soon(call, api, number)
            assert len(server.sessions) == count
        with anyio.fail_after(60):
            while server.sessions:
                await anyio.lowlevel.checkpoint()


def own_parts(thing: object, others: list[Any]) -> list[Any]:
    """All that is reachable from something by references, and not one of the others, or reachable by way of them."""
    known = {id(other) for other in others}
    found, left = [], [thing]
    while left:
        part = left.pop()
        if id(part) not in known:
            known.add(id(part))
            found.append(part)
            left += gc.get_referents(part)
    return found


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_idle_session_of_a_server_takes_one_task_and_little_memory(anyio_backend: str) -> None:
    async def called(peer: RawPeer) -> None:
        for number, method in enumerate(["add", "add_later"], 1):
            await peer.say(f'["push",["pipeline",0,["{method}"],[1,2]]]', f'["pull",{number}]')
            assert await peer.text() == f'["resolve",{number},3]'
            await peer.say(f'["release",{number},1]')

    async with serve(Api) as server, raw_client(server.url) as first:
        await called(first)
        tasks, sessions, others = len(asyncio.all_tasks()), set(server.sessions), gc.get_objects()
        async with raw_client(server.url) as second:
            await called(second)
            await anyio.wait_all_tasks_blocked()
            assert len(asyncio.all_tasks()) == tasks + 1
            (session,) = set(server.sessions) - sessions
            parts = own_parts(session, others)
            assert sum(isinstance(part, asyncio.Task) for part in parts) == 1
            # An empty one takes more than half a kibibyte.
            assert not any(isinstance(part, deque) for part in parts)
            # The code that a coroutine runs is everybody's.
            assert sum(sys.getsizeof(part) for part in parts if not isinstance(part, CodeType)) < 12 * 1024


async def test_a_message_may_be_interrupted_by_pings() -> None:
    async with serve(Api) as server, raw_client(server.url) as peer:
        await peer.ping(b"before")
        assert await peer.pong() == b"before"
        await peer.say_in_parts('["push",["pipeline",0,', '["add"],', "[1,2]]]")
        await peer.ping(b"after")
        assert [await peer.pong() for _ in range(3)] == [b"", b"", b"after"]
        await peer.say('["pull",1]')
        assert await peer.text() == '["resolve",1,3]'


async def test_a_pong_that_repeats_something_else_is_no_answer() -> None:
    async def answer_wrongly(peer: RawPeer) -> None:
        await peer.pong_unasked(b"wrong")
        codes.append((await peer.close_frame()).code)

    codes: list[int] = []
    async with (
        raw_server(answer_wrongly) as url,
        connect(url, ping_interval=0.01, ping_timeout=0.01) as api,
    ):
        broken = anyio.Event()
        api.on_broken(lambda _error: broken.set())
        await broken.wait()
    assert codes == [1011]


class Connection:
    """As much of a connection of `websockets` over asyncio as its pings need."""

    def __init__(self) -> None:
        self.protocol = self.transport = self
        self.state: Any = OPEN
        self.paused = False
        self.pinged: list[bytes] = []
        self.dropped = anyio.Event()

    def send_ping(self, payload: bytes) -> None:
        self.pinged.append(payload)

    def send_data(self) -> None:
        """Nothing comes of it."""

    def fail(self, code: int, reason: str) -> None:
        assert (code, reason) == (1011, "keepalive ping timeout")

    def abort(self) -> None:
        self.dropped.set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_time_for_an_answer_begins_when_the_ping_is_not_held_up_any_more(anyio_backend: str) -> None:
    connection = Connection()
    connection.paused = True
    pings = Pings(connection, Pinging(0.001, 0.001))
    pings.writing_resumed()  # nothing is awaited
    pings.start()
    await anyio.sleep(0.02)
    assert len(connection.pinged) == 1
    assert not connection.dropped.is_set()
    connection.paused = False
    pings.writing_resumed()
    await connection.dropped.wait()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_other_things_have_their_turn_while_many_pings_are_due(anyio_backend: str) -> None:
    count = 500
    connections = [Connection() for _ in range(count)]
    pinging = Pinging(0.001, None)
    every = [Pings(connection, pinging) for connection in connections]
    for pings in every:
        pings.start()
    time.sleep(0.01)  # noqa: ASYNC251 - what holds up the loop until all of them are due
    turns = 0
    while not connections[-1].pinged:
        turns += 1
        await anyio.lowlevel.checkpoint()
        if turns == 4:
            every[-2].stop()
    assert turns > 10
    assert [len(connection.pinged) for connection in connections] == [*[1] * (count - 2), 0, 1]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_answer_is_waited_for_without_end_if_no_time_is_given(anyio_backend: str) -> None:
    connection = Connection()
    pings = Pings(connection, Pinging(0.001, None))
    pings.start()
    await anyio.sleep(0.02)
    assert len(connection.pinged) == 1
    pings.answered(connection.pinged[0])
    await anyio.sleep(0.02)
    assert len(connection.pinged) == 2
    assert not connection.dropped.is_set()
    pings.stop()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nothing_is_pinged_that_is_closing_or_has_been_told_to_stop(anyio_backend: str) -> None:
    closing, stopped = Connection(), Connection()
    closing.state = None
    pinging = Pinging(0.001, 0.001)
    for connection in (closing, stopped):
        pings = Pings(connection, pinging)
        pings.start()
    pings.stop()
    await anyio.sleep(0.02)
    assert not closing.pinged
    assert not stopped.pinged
