"""How much of what streams send may wait for the network, whatever their number: sources wait, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from byhand import Peer, by_hand
from rawpeer import raw_client

from capnweb_py import (
    Limits,
    RpcTarget,
    SessionClosed,
    SessionOptions,
    WritableStream,
    http_batch_response,
    memory_pair,
    open_session,
    serve,
)

pytestmark = pytest.mark.anyio

STREAMS = 20

# Of which three chunks of a thousand bytes fill it.
SMALL = SessionOptions(limits=Limits(max_unsent=3000))


class Sources(RpcTarget):
    """Gives streams of texts, each of which begins with the number of its stream and its own, and counts them."""

    def __init__(self, size: int = 1000, count: int = 10**9) -> None:
        self.size = size
        self.count = count
        # How many chunks were taken, by stream.
        self.taken: dict[int, int] = {}
        self.kept: list[WritableStream] = []

    async def chunks(self, number: int) -> AsyncIterator[str]:
        for position in range(self.count):
            self.taken[number] = position + 1
            yield f"{number} {position} ".ljust(self.size, "x")

    async def read(self, number: int) -> AsyncIterator[str]:
        return self.chunks(number)

    def echo(self, value: Any) -> Any:
        return value

    def keep(self, stream: WritableStream) -> None:
        self.kept.append(stream)


class Reader:
    """What a peer hears of many streams: it takes every chunk, and answers it."""

    def __init__(self) -> None:
        # The id of the next message that asks for an answer.
        self._next = 1
        self.chunks: dict[str, list[int]] = {}
        self.closed = 0

    def hear(self, message: list[Any]) -> list[Any] | None:
        """What to say to a message."""
        if message[0] not in ("pipe", "stream"):
            return None
        number, self._next = self._next, self._next + 1
        if message[0] == "pipe":
            return None
        _, _, (method,), arguments = message[1]
        if method == "close":
            self.closed += 1
        else:
            stream, position, _ = arguments[0].split(" ")
            self.chunks.setdefault(stream, []).append(int(position))
        return ["resolve", number, ["undefined"]]


def exchange(peer: Peer, reader: Reader) -> None:
    """Give a reader what the session says, and the session its answers."""
    answers = [reader.hear(message) for message in peer.hear()]
    for answer in answers:
        if answer is not None:
            peer.say(*answer)


async def ask_for_streams(peer: Peer, reader: Reader) -> None:
    """Have a reader ask for all streams, one after the other, while the network takes nothing."""
    peer.session.congested = True
    for number in range(1, STREAMS + 1):
        peer.say("push", ["pipeline", 0, ["read"], [number]])
        peer.say("pull", number)
        await anyio.wait_all_tasks_blocked()
        exchange(peer, reader)
    await anyio.wait_all_tasks_blocked()


async def test_sources_wait_while_the_network_takes_nothing() -> None:
    async with by_hand(Sources(), SMALL) as peer:
        await ask_for_streams(peer, Reader())
        assert sum(peer.session.local_main.taken.values()) == 3
        peer.hear()
        await anyio.wait_all_tasks_blocked()
        assert sum(peer.session.local_main.taken.values()) == 3


async def test_answers_and_acknowledgements_do_not_wait_with_sources() -> None:
    async with by_hand(Sources(), SMALL) as peer:
        reader = Reader()
        await ask_for_streams(peer, reader)
        assert sum(map(len, reader.chunks.values())) == 3  # which it has answered
        assert peer.call("echo", 7)[2] == 7
        assert not peer.session.closed


async def test_every_stream_has_its_turn_when_the_network_takes_more() -> None:
    reader = Reader()
    async with by_hand(Sources(), SMALL) as peer:
        await ask_for_streams(peer, reader)
        peer.session.congested = False
        for _ in range(2 * STREAMS):
            exchange(peer, reader)
            await anyio.wait_all_tasks_blocked()
        assert len(reader.chunks) == STREAMS
        assert not peer.session.closed


async def test_a_writer_of_a_stream_of_the_peer_waits_too_and_fails_with_the_session() -> None:
    async with by_hand(Sources(), SMALL) as peer:
        peer.say("push", ["pipeline", 0, ["keep"], [["writable", -1]]])
        (stream,) = peer.session.local_main.kept
        peer.hear()
        peer.session.congested = True
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                await stream.write("x" * 1000)
                written += 1

        async def write_in_vain() -> None:
            with pytest.raises(SessionClosed):
                await write()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_in_vain)
            await anyio.wait_all_tasks_blocked()
            peer.hear()
            await anyio.wait_all_tasks_blocked()
            assert written == 2
            peer.session.close()
            peer.hear()


async def test_both_sides_can_send_more_than_may_wait_at_a_time() -> None:
    async def total(stream: Any) -> int:
        return sum([len(chunk) async for chunk in stream])

    async with memory_pair(Sources(count=50), Sources(count=50), options=SMALL) as sessions:
        totals: list[int] = []

        async def read(main: Any, number: int) -> None:
            totals.append(await total(await main.read(number)))

        async with anyio.create_task_group() as tasks:
            for session in sessions:
                for number in range(5):
                    tasks.start_soon(read, session.remote_main, number)
    assert totals == [50_000] * 10


@pytest.mark.parametrize("way", ["memory", "websocket"])
async def test_a_stream_that_is_read_goes_on_beside_those_that_are_not(way: str) -> None:
    async with AsyncExitStack() as stack:
        if way == "memory":
            client, _ = await stack.enter_async_context(memory_pair(None, Sources(), options=SMALL))
        else:
            server = await stack.enter_async_context(serve(Sources, options=SMALL))
            client = await stack.enter_async_context(open_session(server.url))
        unread = [await client.remote_main.read(number) for number in range(5)]
        with anyio.fail_after(10):
            async with aclosing(aiter(await client.remote_main.read(5))) as chunks:
                for position in range(10):
                    assert (await anext(chunks)).startswith(f"5 {position} ")
        assert len(unread) == 5


async def test_a_batch_holds_more_than_may_wait_at_a_time() -> None:
    call = b'["stream",["pipeline",0,["read"],[1]]]'
    body = await http_batch_response(call, Sources(count=50), options=SMALL)
    assert body.count(b'"write"') == 50


async def test_a_client_that_reads_none_of_its_streams_fills_no_memory_and_gets_all_of_them_when_it_reads() -> None:
    streams, count, size = 300, 5, 50_000
    sources = Sources(size, count)
    options = SessionOptions(limits=Limits(max_unsent=1_000_000))
    async with serve(sources, options=options) as server, raw_client(server.url) as peer:
        for number in range(1, streams + 1):
            await peer.say(json.dumps(["push", ["pipeline", 0, ["read"], [number]]]), json.dumps(["pull", number]))
            if number % 10 == 0:
                await anyio.wait_all_tasks_blocked()
        for _ in range(20):
            await anyio.wait_all_tasks_blocked()
        # What fills the buffers of two sockets, and no more.
        assert sum(sources.taken.values()) * size < 40_000_000
        reader = Reader()
        with anyio.fail_after(60):
            while reader.closed < streams:
                answer = reader.hear(json.loads(await peer.text()))
                if answer is not None:
                    await peer.say(json.dumps(answer))
    assert reader.chunks == {str(number): list(range(count)) for number in range(1, streams + 1)}
