"""A peer whose messages take long does not keep other connections from having their turn, on both event loops."""

from __future__ import annotations

from typing import Final

import anyio
import anyio.lowlevel
import pytest
from anyio.streams.stapled import StapledObjectStream
from rawpeer import raw_client

from capnweb_py import RpcTarget, open_stream_session, serve
from capnweb_py.transports.framing import LengthFraming

pytestmark = pytest.mark.anyio

MAPS: Final = [
    '["push",["pipeline",0,["items"],[]]]',
    *['["stream",["remap",1,[],[],[["pipeline",0]]]]', '["stream",["pipeline",0,["note"],[]]]'] * 10,
]


class Turns(RpcTarget):
    """Notes how many turns of the loop there have been."""

    def __init__(self) -> None:
        self.now = 0
        self.noted: list[int] = []

    def items(self) -> list[int]:
        return list(range(5000))

    def note(self) -> None:
        self.noted.append(self.now)

    async def count(self) -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            self.now += 1


async def test_others_have_their_turn_between_the_messages_of_a_websocket() -> None:
    turns = Turns()
    async with serve(turns) as server, raw_client(server.url) as peer, anyio.create_task_group() as tasks:
        tasks.start_soon(turns.count)
        await peer.say(*MAPS)
        for _ in range(20):
            await peer.text()
        assert len(set(turns.noted)) > 5
        tasks.cancel_scope.cancel()


async def test_others_have_their_turn_between_the_messages_of_a_byte_stream() -> None:
    turns = Turns()
    to_session, from_peer = anyio.create_memory_object_stream[bytes](100)
    to_peer, from_session = anyio.create_memory_object_stream[bytes](100)
    framing = LengthFraming(1_000_000)
    data = framing.write([(text.encode(), False) for text in MAPS])
    other = StapledObjectStream(to_session, from_session)
    inner = StapledObjectStream(to_peer, from_peer)
    async with open_stream_session(inner, local_main=turns), anyio.create_task_group() as tasks:
        tasks.start_soon(turns.count)
        await other.send(data)
        for _ in range(20):
            while framing.next() is None:
                framing.feed(await other.receive())
        assert len(set(turns.noted)) > 5
        tasks.cancel_scope.cancel()
        await other.aclose()
