"""A process in the middle, which serves on one session the main stub of another, changes nothing and adds no round
trip: every test asks the server directly and through the relay."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import pytest
import witnesses
from byhand import Peer
from hypothesis import given, settings
from interop.values import VALUES, same
from services import Notebook
from test_properties import values
from witnesses import NOTHING_HELD

from capnweb_py import (
    LimitExceeded,
    Limits,
    ReadableStream,
    RemoteError,
    RpcPromise,
    RpcSession,
    RpcStub,
    RpcTarget,
    SessionOptions,
    WritableStream,
    deserialize,
    memory_pair,
    serialize,
)


class Counter(witnesses.Counter):
    def __init__(self) -> None:
        super().__init__()
        self.gone = anyio.Event()

    def itself(self) -> Counter:
        return self

    def dispose(self) -> None:
        super().dispose()
        self.gone.set()


class Api(RpcTarget):
    def __init__(self) -> None:
        self.counters: list[Counter] = []
        self.written: list[Any] = []
        self.order: list[Any] = []
        self.sources_closed = 0

    @property
    def settings(self) -> dict[str, Any]:
        return {"depth": [1, {"name": "x"}]}

    def echo(self, value: Any) -> Any:
        return value

    def note(self, value: Any) -> None:
        self.order.append(value)

    def make(self) -> Counter:
        self.counters.append(Counter())
        return self.counters[-1]

    async def make_later(self) -> Counter:
        await anyio.lowlevel.checkpoint()
        return self.make()

    def is_mine(self, stub: Any) -> bool:
        return any(stub == counter for counter in self.counters)

    def refuse(self) -> None:
        error = ValueError("no")
        error.code = 7  # type: ignore[attr-defined]
        error.__cause__ = KeyError("why")
        raise error

    def refuse_all(self) -> None:
        raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])

    async def call_me(self, callback: Any, times: int) -> list[Any]:
        return [await callback(i) for i in range(times)]

    async def total(self, chunks: Any) -> int:
        return sum([len(chunk) async for chunk in chunks])

    async def count(self, to: int) -> AsyncIterator[int]:
        return self._count(to)

    async def _count(self, to: int) -> AsyncIterator[int]:
        try:
            for i in range(to):
                yield i
        finally:
            self.sources_closed += 1

    def notebook(self) -> WritableStream:
        return WritableStream(Notebook(self.written))


class Way(NamedTuple):
    """A way to the server: its object, the client's stub of it, and all sessions on the way."""

    server: Api
    api: RpcStub
    sessions: tuple[RpcSession, ...]

    async def settled(self) -> None:
        """Wait until nothing is on its way any more, and assert that nothing is held."""
        gc.collect()
        while any(session.stats() != NOTHING_HELD for session in self.sessions):
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def direct() -> AsyncIterator[Way]:
    server = Api()
    async with memory_pair(None, server) as (client, other):
        yield Way(server, client.remote_main, (client, other))


@asynccontextmanager
async def relayed() -> AsyncIterator[Way]:
    server = Api()
    async with (
        memory_pair(None, server) as (upstream, other),
        memory_pair(None, upstream.remote_main) as (client, relay),
    ):
        yield Way(server, client.remote_main, (client, relay, upstream, other))


@pytest.fixture(params=[direct, relayed], ids=["direct", "relayed"])
async def way(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Way]:
    async with request.param() as way:
        yield way


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", VALUES)
async def test_every_value_comes_back_as_it_was_sent(way: Way, name: str) -> None:
    assert same(await way.api.echo(VALUES[name]()), VALUES[name]())


async def test_properties_and_chains(way: Way) -> None:
    counter = way.api.make()
    counter.increment(2)
    assert await counter.itself().increment(3) == 5
    assert await counter.value == 5
    assert await way.api.settings.depth[1].name == "x"
    assert await way.api.echo([counter.increment(), {"again": counter.increment()}]) == [6, {"again": 7}]
    del counter
    await way.settled()


async def test_calls_arrive_in_the_order_in_which_they_were_made(way: Way) -> None:
    for i in range(50):
        way.api.note(i)
    await way.api.note("last")
    assert way.server.order == [*range(50), "last"]


async def test_errors(way: Way) -> None:
    with pytest.raises(ValueError, match="no") as caught:
        await way.api.refuse()
    error = caught.value
    assert isinstance(error, RemoteError)
    assert (error.message, error.props["code"]) == ("no", 7)
    assert isinstance(error.__cause__, KeyError)
    assert error.stack is None
    with pytest.raises(RemoteError, match="no"):
        await way.api.refuse().anything.at_all()


async def test_groups_of_errors(way: Way) -> None:
    with pytest.raises(RemoteError) as caught:
        await way.api.refuse_all()
    assert caught.value.name == "AggregateError"
    one, two = caught.value.props["errors"]
    assert isinstance(one, ValueError)
    assert isinstance(two, TypeError)


async def test_maps(way: Way) -> None:
    counter = way.api.make()
    names = way.api.echo([{"by": 1}, {"by": 2}]).map(
        lambda item: {"was": item, "count": counter.increment(item.by), "depths": way.api.settings.depth[0]}
    )
    assert await names == [
        {"was": {"by": 1}, "count": 1, "depths": 1},
        {"was": {"by": 2}, "count": 3, "depths": 1},
    ]
    nested = way.api.echo([[1, 2], [3]]).map(lambda row: row.map(lambda number: counter.increment(number)))
    assert await nested[0] == [4, 6]
    with pytest.raises(TypeError, match="no_such_place is not a function"):
        await way.api.echo([1]).map(lambda _: way.api.no_such_place().at_all())
    for each in (counter, names, nested):
        each.dispose()
    del each
    await way.settled()


async def test_callbacks(way: Way) -> None:
    async def slow(i: int) -> int:
        await anyio.lowlevel.checkpoint()
        return i * 2

    assert await way.api.call_me(slow, 5) == [0, 2, 4, 6, 8]
    assert await way.api.call_me(lambda i: {"i": i}, 2) == [{"i": 0}, {"i": 1}]
    await way.settled()


async def test_a_failing_callback(way: Way) -> None:
    def fail(i: int) -> None:
        raise LookupError("nothing here")

    with pytest.raises(LookupError, match="nothing here"):
        await way.api.call_me(fail, 1)


async def test_a_stub_that_comes_back_is_the_original(way: Way) -> None:
    counter = await way.api.make()
    assert await way.api.is_mine(counter)
    assert await way.api.is_mine(way.api.make())
    mine = Counter()
    assert await way.api.echo(mine) == mine
    del counter
    await way.settled()


async def test_letting_go_reaches_the_server(way: Way) -> None:
    counter = await way.api.make()
    await counter.increment()
    (original,) = way.server.counters
    assert not original.disposed
    counter.dispose()
    await original.gone.wait()
    await way.settled()


async def test_letting_go_does_not_wait_for_the_garbage_collector(way: Way) -> None:
    gc.disable()
    try:
        counter = await way.api.make_later()
        assert await counter.increment() == 1
        (original,) = way.server.counters
        del counter
        await original.gone.wait()
    finally:
        gc.enable()


async def test_letting_go_of_a_callback_reaches_the_client(way: Way) -> None:
    mine = Counter()
    await way.api.echo({"stub": mine})
    gc.collect()
    await mine.gone.wait()
    await way.settled()


async def test_a_promise_of_the_client(way: Way) -> None:
    async def later() -> Counter:
        await anyio.lowlevel.checkpoint()
        return Counter()

    assert await way.api.echo(RpcPromise(later())).increment(4) == 4
    await way.settled()


async def test_streams_to_the_server(way: Way) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(20_000)

    assert await way.api.total(chunks()) == 800_000
    await way.settled()


async def test_streams_from_the_server(way: Way) -> None:
    stream = await way.api.count(300)
    assert isinstance(stream, ReadableStream)
    assert [item async for item in stream] == list(range(300))
    assert way.server.sources_closed == 1
    del stream
    await way.settled()


async def test_a_stream_that_is_let_go_of_ends_at_its_source(way: Way) -> None:
    stream = await way.api.count(1_000_000)
    async for item in stream:
        if item == 3:
            break
    await stream.aclose()
    del stream
    while not way.server.sources_closed:
        await anyio.lowlevel.checkpoint()
    await way.settled()


async def test_streams_that_the_client_writes(way: Way) -> None:
    stream = await way.api.notebook()
    await stream.write({"n": [1]})
    await stream.write(b"\x00")
    await stream.aclose()
    assert way.server.written == [{"n": [1]}, b"\x00", "closed"]
    del stream
    await way.settled()


async def test_an_aborted_stream(way: Way) -> None:
    stream = await way.api.notebook()
    await stream.write(1)
    while not way.server.written:
        await anyio.lowlevel.checkpoint()
    await stream.abort(ValueError("enough"))
    while len(way.server.written) < 2:
        await anyio.lowlevel.checkpoint()
    assert way.server.written == [1, "aborted: enough"]
    del stream
    await way.settled()


async def test_a_stream_there_and_back(way: Way) -> None:
    async def chunks() -> AsyncIterator[Any]:
        yield 1
        yield {"stub": Counter()}

    items = [item async for item in await way.api.echo(chunks())]
    assert items[0] == 1
    assert await items[1]["stub"].increment() == 1
    del items
    await way.settled()


async def test_the_client_learns_of_the_servers_end() -> None:
    async with relayed() as way:
        counter = await way.api.make()
        broken: list[BaseException] = []
        counter.on_broken(broken.append)
        *_, upstream, _ = way.sessions
        upstream.close()
        with pytest.raises(RemoteError, match="the session was closed") as caught:
            await counter.increment()
        assert caught.value.name == "CallNotSent"
        assert not way.sessions[0].closed


async def test_the_relay_keeps_its_own_limits() -> None:
    deep: Any = []
    for _ in range(30):
        deep = [deep]
    async with memory_pair(None, Api()) as (upstream, _):
        options = SessionOptions(limits=Limits(max_depth=20))
        async with memory_pair(None, upstream.remote_main, options=options) as (client, _):
            with pytest.raises((LimitExceeded, TypeError)):
                await client.remote_main.echo(deep)


@given(values)
@settings(max_examples=50)
def test_generated_values_are_written_again_as_they_came(value: Any) -> None:
    """What a relay has read, it writes as it was."""
    written = serialize(value)
    assert serialize(deserialize(written)) == written


class Path:
    """Sessions in a row, without a loop: the client's, those of relays, and the server's.

    Args:
        relays: how many relays there are.
        main: the server's object.
    """

    def __init__(self, relays: int, main: Any) -> None:
        self._links: list[tuple[Peer, Peer]] = []
        for _ in range(relays + 1):
            server = Peer(main)
            client = Peer()
            self._links.insert(0, (client, server))
            main = client.main
        self.api = self._links[0][0].main

    def flights(self) -> int:
        """Carry messages until there are no more. Returns how often something was under way, all links together."""
        count = 0
        while True:
            moved = [
                (receiver, messages)
                for one, other in self._links
                for sender, receiver in ((one, other), (other, one))
                if (messages := sender.session.messages_to_send())
            ]
            if not moved:
                return count
            count += 1
            for receiver, messages in moved:
                for data, binary in messages:
                    receiver.session.receive(data, binary)


@pytest.mark.parametrize("relays", [0, 1, 3])
def test_a_chain_of_calls_crosses_every_link_once_each_way(relays: int) -> None:
    path = Path(relays, Api())
    counter = path.api.make()
    numbers = path.api.echo([3, 4]).map(lambda number: counter.increment(number))
    answer = path.api.echo([counter.increment(), counter.itself().increment(), path.api.settings.depth, numbers])
    answer._hook.pull()
    # One flight over every link there, one back; the last tells the server what was let go of.
    assert path.flights() - 2 * (relays + 1) in (0, 1)
    assert answer._hook.pull().value == [8, 9, [1, {"name": "x"}], [3, 7]]
