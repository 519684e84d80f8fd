"""Our client against an npm capnweb server on Node: what JavaScript serves, Python can use, and nothing is left behind.

A test's session ends with both sides holding their main objects alone: `Peer` checks it. The server writes down every
message, so that a test can count what crossed the wire.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlencode

import anyio
import attrs
import pytest

from capnweb_py import (
    UNDEFINED,
    BigInt,
    ProtocolError,
    RemoteError,
    RpcError,
    RpcPromise,
    RpcSession,
    RpcStub,
    RpcTarget,
    SessionClosed,
    SessionStats,
    WritableStream,
    connect,
    open_session,
)

from .random_use import RandomUser
from .values import VALUES, WEB_VALUES, described, same

pytestmark = pytest.mark.anyio

# Seconds that a test may take; none needs one.
DEADLINE: Final = 60
# How often both sides are asked what they still hold, before something is said to be left behind.
SETTLING_TRIPS: Final = 200
NOTHING_LEFT: Final = SessionStats(imports=1, exports=1)


@attrs.frozen
class Peer:
    """A session with the Node server, and a second one that asks about the first."""

    session: RpcSession
    monitor: RpcStub
    id: int

    @property
    def api(self) -> RpcStub:
        return self.session.remote_main

    async def messages(self) -> list[str]:
        """What the server received and sent on the session so far: "in:push", "out:resolve", ..."""
        frames: list[str] = await self.monitor.frames(self.id)
        return frames

    async def settle(self) -> None:
        """Let both sides let go of everything that nobody refers to."""
        for _ in range(SETTLING_TRIPS):
            gc.collect()
            remote = SessionStats(**await self.monitor.stats(self.id))
            if self.session.stats() == remote == NOTHING_LEFT:
                return
        assert self.session.stats() == NOTHING_LEFT
        assert remote == NOTHING_LEFT


@asynccontextmanager
async def node_peer(url: str, local_main: object = None) -> AsyncIterator[Peer]:
    """A `Peer`; once its block is through, nothing may be left on either side."""
    with anyio.fail_after(DEADLINE):
        async with open_session(url, local_main=local_main) as session, connect(url) as monitor:
            peer = Peer(session, monitor, await session.remote_main.id())
            yield peer
            await peer.settle()


def round_trips(messages: Sequence[str]) -> int:
    """How often the server began to receive after it had sent. Releases wait for nobody: they do not count."""
    directions = [message.split(":")[0] for message in messages if not message.endswith(":release")]
    return [*pairwise(["out", *directions])].count(("out", "in"))


class LocalSink:
    """A sink of this side, which notes how it ended. The second write fails, if it is told to."""

    def __init__(self, failing: bool = False) -> None:
        self.chunks: list[Any] = []
        self.end: Any = None
        self.ended = anyio.Event()
        self._failing = failing

    async def write(self, chunk: Any) -> None:
        if self._failing and self.chunks:
            raise TypeError("full")
        self.chunks.append(chunk)

    async def aclose(self) -> None:
        await self.abort("closed")

    async def abort(self, error: Any) -> None:
        self.end = error
        self.ended.set()


class LocalCounter(RpcTarget):
    """A target of this side, which counts how often it is disposed of."""

    def __init__(self) -> None:
        self._count = 10
        self.disposals = 0
        self.disposed = anyio.Event()

    def increment(self, by: int = 1) -> int:
        self._count += by
        return self._count

    @property
    def value(self) -> int:
        return self._count

    def dispose(self) -> None:
        self.disposals += 1
        self.disposed.set()


# ---- values


@pytest.mark.parametrize("name", VALUES)
async def test_a_value_is_the_same_in_both_directions(node_url: str, name: str) -> None:
    async with node_peer(node_url) as peer:
        assert same(await peer.api.value(name), VALUES[name]())
        assert await peer.api.check(name, VALUES[name]()) is True
        assert same(await peer.api.echo(VALUES[name]()), VALUES[name]())


@pytest.mark.parametrize("name", WEB_VALUES)
async def test_a_web_value_is_the_same_in_both_directions(node_url: str, name: str) -> None:
    async with node_peer(node_url) as peer:
        expected = await described(WEB_VALUES[name]())
        assert await described(await peer.api.web_value(name)) == expected
        assert await peer.api.check_web_value(name, WEB_VALUES[name]()) is True
        # Of the streams that Node 20 makes for it, npm capnweb there does not take those with a body on to the next.
        if getattr(WEB_VALUES[name](), "body", None) is None:
            assert await described(await peer.api.echo(WEB_VALUES[name]())) == expected


async def test_web_values_inside_others(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        names = ["blob", "plain_response", "url"]
        result = await peer.api.echo({"list": [WEB_VALUES[name]() for name in names]})
        for name, value in zip(names, result["list"], strict=True):
            assert await described(value) == await described(WEB_VALUES[name]())


async def test_a_body_that_fails(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        response = await peer.api.broken_response()
        with pytest.raises(RemoteError, match="out of paper") as caught:
            await response.text()
        assert caught.value.name == "RangeError"


async def test_a_body_that_nobody_reads_to_its_end(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        response = await peer.api.endless_response(f"endless {peer.id}")
        async for piece in response.body:
            assert len(piece) == 1000
            break
        await response.body.aclose()
        await peer.monitor.occurred(f"endless {peer.id}")


async def test_large_values(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        text = "é" * (2 << 20)
        assert await peer.api.echo(text) == text
        data = bytes(range(256)) * (3 << 12)
        assert await peer.api.echo(data) == data


async def test_keyword_arguments_travel_as_an_options_object(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        assert await peer.api.options(1, scale=2) == [1, 2]
        assert await peer.api.options(1) == [1, None]
        with pytest.raises(TypeError, match="scael"):
            await peer.api.options(1, scael=2)


async def test_errors_are_values_too(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        made = await peer.api.failure("cause")
        assert str(made) == "outer"
        assert isinstance(made.__cause__, TypeError)
        error = TypeError("too far")
        error.by = 12  # type: ignore[attr-defined]
        echoed = await peer.api.echo(error)
        assert isinstance(echoed, TypeError)
        assert (str(echoed), echoed.by) == ("too far", 12)  # type: ignore[attr-defined]


# ---- capabilities


async def test_targets_pass_by_reference(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        with await peer.api.counter("by reference", 5) as counter:
            assert await counter.increment(2) == 7
            assert await counter.soon(1) == 8
            assert await counter.value == 8


async def test_functions_pass_by_reference(node_url: str) -> None:
    async def later(value: str) -> list[str]:
        await anyio.lowlevel.checkpoint()
        return [value]

    async with node_peer(node_url) as peer:
        with await peer.api.adder(5) as adder:
            assert await adder(3) == 8
        assert await peer.api.call(lambda left, right: left * right, 6, 7) == 42
        assert await peer.api.call(later, "later") == ["later"]
        assert await peer.api.call(LocalCounter().increment, 5) == 15
        assert await peer.api.call(lambda: None) is None


async def test_stubs_nested_in_arguments(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        target = LocalCounter()
        answers = await peer.api.nested({"inner": {"callbacks": [lambda value: value * 2], "target": target}})
        assert answers == [6, 14, 14]
        assert await peer.api.each([lambda value: value + 1, lambda value: value + 2], 10) == [11, 12]
        await target.disposed.wait()
        assert target.disposals == 1


async def test_stubs_nested_in_results(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = await peer.monitor.disposals("in results")
        bundle = await peer.api.bundle("in results")
        assert await bundle["counters"][0].increment() == 2
        assert await bundle["counters"][1].increment() == 3
        assert await bundle["deep"]["adder"](1) == 101
        del bundle
        await peer.settle()
        assert await peer.monitor.disposals("in results") == before + 2


async def test_a_stub_sent_back_home_arrives_as_the_original(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        with await peer.api.counter("home", 1) as counter:
            assert await peer.api.bump(counter, 5) == 6
            assert await counter.value == 6
        assert "out:push" not in await peer.messages(), "the server called its own object through the client"


async def test_our_own_object_comes_back_as_itself(node_url: str) -> None:
    def callback(value: int) -> int:
        return value + 1

    async with node_peer(node_url) as peer:
        target = LocalCounter()
        [returned] = await peer.api.handback(target)
        [returned_function] = await peer.api.handback(callback)
        before = len(await peer.messages())
        assert await returned.increment() == 11
        assert await returned_function(1) == 2
        assert returned == target
        assert returned_function == callback
        assert len(await peer.messages()) == before, "a call of our own object crossed the wire"
        del returned, returned_function
        await target.disposed.wait()


async def test_a_promise_in_a_result_is_replaced_by_its_value(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        assert await peer.api.eventually(20, 22) == {"sum": 42, "later": [42]}


async def test_three_parties(node_url: str) -> None:
    async with node_peer(node_url) as peer, node_peer(node_url) as other:
        with await peer.api.counter("three parties", 1) as counter:
            assert await other.api.bump(counter, 2) == 3
            assert await counter.value == 3
        target = LocalCounter()
        await peer.api.keep("three parties", target)
        [proxy] = await other.api.kept("three parties")
        assert await proxy.increment(5) == 15
        assert await proxy.value == 15
        assert target.disposals == 0
        proxy.dispose()
        await peer.api.drop("three parties")
        await target.disposed.wait()
        assert target.disposals == 1


async def test_a_promise_for_another_session_is_passed_on(node_url: str) -> None:
    async with node_peer(node_url) as peer, node_peer(node_url) as other:
        assert await other.api.add(peer.api.square(3), 1) == 10
        with peer.api.tardy("passed on") as promise:
            assert await other.api.bump(promise, 4) == 4


async def test_the_server_calls_our_main_object(node_url: str) -> None:
    main = LocalCounter()
    async with node_peer(node_url, local_main=main) as peer:
        assert await peer.api.main(5) == 15
        assert await peer.api.main(1) == 16
        assert main.disposals == 0
    assert main.disposals == 1


async def test_calls_back_and_forth(node_url: str) -> None:
    async with node_peer(node_url) as peer:

        async def descend(depth: int) -> Any:
            return "bottom" if depth == 0 else await peer.api.call(descend, depth - 1)

        promises = [peer.api.call(descend, depth) for depth in (30, 20, 10)]
        assert [await promise for promise in promises] == ["bottom"] * 3
        del promises


# ---- pipelining


async def test_a_chain_takes_one_round_trip(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = len(await peer.messages())
        counter = peer.api.counter("chain", 1)
        total = await peer.api.add(counter.increment(1), counter.soon(10))
        messages = (await peer.messages())[before:]
        assert total == 14
        assert round_trips(messages) == 1
        assert messages.count("out:resolve") == 1
        del counter


async def test_property_paths_take_one_round_trip_each(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = len(await peer.messages())
        assert await peer.api.config.list[2].deep == "x"
        assert await peer.api.config.limits.depth == 3
        assert not await peer.api.config.limits.width
        assert await peer.api.bundle("paths").counters[1].value == 2
        assert await peer.api.add(peer.api.config.list[0], peer.api.config.limits.depth) == 13
        assert round_trips((await peer.messages())[before:]) == 5


async def test_pipelining_on_a_promise_that_takes_its_time(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        gate = anyio.Event()
        before = len(await peer.messages())
        counter = peer.api.after(gate.wait, "slow promise")
        promises = [counter.increment(1), counter.increment(2), counter.soon(3)]
        await peer.api.id()
        assert (await peer.messages())[before:].count("in:push") == 4, "the calls waited for the promise"
        gate.set()
        assert [await promise for promise in promises] == [1, 3, 6]
        del counter, promises


async def test_promises_of_this_side_as_arguments(node_url: str) -> None:
    async def later(value: int, gate: anyio.Event) -> int:
        await gate.wait()
        return value

    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise TypeError("not today")

    async with node_peer(node_url) as peer:
        gate = anyio.Event()
        waiting = peer.api.add(RpcPromise(later(9, gate)), 1)
        await peer.api.id()
        gate.set()
        assert await waiting == 10
        with pytest.raises(TypeError, match="not today"):
            await peer.api.echo([RpcPromise(fail())])
        del waiting


async def test_a_failure_spreads_along_the_pipeline(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        for method in ("fail", "fail_later"):
            failed = peer.api[method]("type")
            called = failed.some.method(1)
            for promise in (called.again(), called, peer.api.echo([failed]), failed.some.property, failed):
                with pytest.raises(TypeError, match="no such shape") as caught:
                    await promise
                assert isinstance(caught.value, RemoteError)
            del failed, called, promise, caught


async def test_what_nobody_awaits_is_not_pulled(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = len(await peer.messages())
        silent = peer.api.square(3)
        failing = peer.api.fail("type")
        assert await peer.api.square(4) == 16
        messages = (await peer.messages())[before:]
        assert messages.count("out:resolve") == 1
        assert messages.count("out:reject") == 0
        assert messages.count("in:push") == 2
        del silent, failing


async def test_a_call_that_is_awaited_at_once_takes_two_messages(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = len(await peer.messages())
        assert await peer.api.square(4) == 16
        assert (await peer.messages())[before:] == ["in:stream", "out:resolve"]


async def test_many_calls_at_once(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        promises = [peer.api.square(number) for number in range(500)]
        assert [await promise for promise in promises] == [number * number for number in range(500)]


# ---- maps


async def test_a_map_over_lists_single_values_and_nothing(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        target = LocalCounter()
        counter = RpcStub(target)
        for value, mapped in ((None, None), (UNDEFINED, UNDEFINED), (2, 12), ([1, 2], [13, 15]), ([], [])):
            assert await peer.api.echo(value).map(lambda i: counter.increment(i)) == mapped
        counter.dispose()
        await target.disposed.wait()


async def test_a_map_gives_results_of_any_shape(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        api = peer.api
        users = api.echo([{"id": 1, "name": "Ada", "tags": ["a"]}, {"id": 2, "name": "Grace", "tags": []}])
        assert await users.map(lambda user: user.name) == ["Ada", "Grace"]
        assert (await users.map(lambda user: user))[1] == {"id": 2, "name": "Grace", "tags": []}
        assert await users.map(lambda user: {"id": user.id, "square": api.square(user.id)}) == [
            {"id": 1, "square": 1},
            {"id": 2, "square": 4},
        ]
        assert await users.map(lambda user: (user.id, "constant", api.add(user.id, 1))) == [
            [1, "constant", 2],
            [2, "constant", 3],
        ]
        assert await users.map(lambda user: user.tags[0]) == ["a", UNDEFINED]
        assert await users.map(lambda user: [b"\xff", BigInt(10**30), user.id, None]) == [
            [b"\xff", 10**30, number, None] for number in (1, 2)
        ]
        assert await users.map(lambda user: api.options(user.id, scale=user.id)) == [[1, 1], [2, 2]]
        users.dispose()


async def test_a_map_makes_capabilities(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = await peer.monitor.disposals("map")
        outer = peer.api.counter("map")

        def callback(start: Any) -> dict[str, Any]:
            counter = peer.api.counter("map", start)
            value = counter.increment(3)
            outer.increment()
            return {"counter": counter, "value": value}

        results = await peer.api.echo([0, 1, 5]).map(callback)
        assert [result["value"] for result in results] == [3, 4, 8]
        assert [await result["counter"].value for result in results] == [3, 4, 8]
        assert await outer.value == 3
        assert await peer.monitor.disposals("map") == before
        del results
        outer.dispose()
        await peer.settle()
        assert await peer.monitor.disposals("map") == before + 4


async def test_maps_inside_maps(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        rows = peer.api.echo([[1, 2], [], [3]])
        assert await rows.map(lambda row: row.map(lambda cell: [peer.api.square(cell), row[0]])) == [
            [[1, 1], [4, 1]],
            [],
            [[9, 3]],
        ]
        assert await rows.map(
            lambda row: row.map(lambda cell: peer.api.echo([cell, cell]).map(lambda same: peer.api.add(same, cell)))
        ) == [[[2, 2], [4, 4]], [], [[6, 6]]]
        rows.dispose()


async def test_what_a_map_captures(node_url: str) -> None:
    async def later() -> int:
        await anyio.lowlevel.checkpoint()
        return 40

    async with node_peer(node_url) as peer, node_peer(node_url) as other:
        late, double, config = RpcPromise(later()), RpcStub(lambda number: number * 2), peer.api.config
        assert await peer.api.echo([1, 2]).map(
            lambda i: [
                double(i),
                other.api.square(i),
                peer.api.add(late, i),
                config.list[0],
                peer.api.add(config.limits.depth, i),
            ]
        ) == [[2, 1, 41, 10, 4], [4, 4, 42, 10, 5]]
        late.dispose()
        double.dispose()


async def test_a_captured_stub_comes_back_in_the_result(node_url: str) -> None:
    """One of ours: npm capnweb cannot give back an object of its own that a map has captured."""
    async with node_peer(node_url) as peer:
        target = LocalCounter()
        mine = RpcStub(target)
        results = await peer.api.echo([1, 2]).map(lambda i: [i, mine])
        assert [await result[1].increment(result[0]) for result in results] == [11, 13]
        assert results[0][1] == target
        del results
        mine.dispose()
        await target.disposed.wait()


async def test_maps_take_one_round_trip(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = len(await peer.messages())
        mapped = peer.api.echo([{"id": 1}, {"id": 2}]).map(lambda row: {"sum": peer.api.add(row.id, 1)})
        squares = mapped.map(lambda row: peer.api.square(row.sum))
        assert await peer.api.add(mapped[0].sum, mapped[1]["sum"]) == 5
        assert round_trips((await peer.messages())[before:]) == 1
        assert await squares == [4, 9]
        mapped.dispose()
        squares.dispose()


async def test_a_map_of_a_promise_that_takes_its_time(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        gate = anyio.Event()
        counter = peer.api.after(gate.wait, "slow map")
        mapped = counter.map(lambda it: [it.increment(1), it.increment(1)])
        gate.set()
        assert await mapped == [1, 2]
        counter.dispose()


async def test_an_error_of_one_item_fails_the_map(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        kinds = peer.api.echo(["type"])
        with pytest.raises(TypeError, match="no such shape"):
            await kinds.map(lambda kind: {"nested": [peer.api.fail(kind)]})
        with pytest.raises(TypeError):
            await kinds.map(lambda kind: kind.no_such_method())
        with pytest.raises(TypeError, match="no such shape"):
            await peer.api.fail("type").map(lambda item: peer.api.square(item))
        kinds.dispose()


async def test_a_map_over_a_large_list(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        result = await peer.api.echo(list(range(1000))).map(lambda i: {"i": i, "square": peer.api.square(i)})
        assert result == [{"i": i, "square": i * i} for i in range(1000)]


# ---- order


async def test_calls_arrive_in_the_order_in_which_they_were_made(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        with await peer.api.journal() as journal:
            calls = [journal.linger(tag) if tag % 2 else journal.mark(tag) for tag in range(60)]
            assert await journal.marks() == list(range(60))
            del calls


async def test_order_holds_before_and_after_a_promise_resolves(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        promise = peer.api.late_journal()
        early = [promise.linger(tag) if tag % 2 else promise.mark(tag) for tag in range(4)]
        with await promise as journal:
            late = [promise.linger(tag) if tag % 2 else journal.mark(tag) for tag in range(4, 8)]
            assert await journal.marks() == list(range(8))
        del promise, early, late


async def test_callbacks_begin_in_the_order_in_which_they_were_called(node_url: str) -> None:
    seen: list[int] = []

    async def listen(tag: int) -> None:
        seen.append(tag)
        await anyio.lowlevel.checkpoint()

    async with node_peer(node_url) as peer:
        await peer.api.burst(listen, 40)
        await peer.api.burst(seen.append, 40)
    assert seen == [*range(40), *range(40)]


async def test_calls_that_overlap_a_promise_to_ourselves_keep_their_order(node_url: str) -> None:
    """Calls on a promise of what turns out to be our own object go by way of the server; later ones do not overtake.

    The early ones are made when the server has been told to answer, and its answer has not arrived.
    """
    seen: list[int] = []
    answering = anyio.Event()
    calls: list[Any] = []

    async def call_early(promise: Any) -> None:
        await answering.wait()
        calls.extend(promise[0](tag) for tag in range(1, 5))

    async with node_peer(node_url) as peer:
        promise = peer.api.handback_after(answering.set, seen.append)
        calls.append(promise[0](0))  # from here on, calls on the promise travel
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_early, promise)
            [own] = await promise
            calls.extend(own(tag) for tag in range(5, 10))
        for call in calls:
            await call
        calls.clear()
        del promise, own, call
    assert seen == list(range(10))


# ---- lifetimes


async def test_dup_and_dispose(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = await peer.monitor.disposals("dup")
        counter = await peer.api.counter("dup")
        second = counter.dup()
        counter.dispose()
        assert await second.increment() == 1
        with pytest.raises(RpcError, match="disposed"):
            await counter.increment()
        assert await peer.monitor.disposals("dup") == before
        second.dispose()
        await peer.settle()
        assert await peer.monitor.disposals("dup") == before + 1


async def test_a_stub_is_released_when_python_collects_it(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = await peer.monitor.disposals("collected")
        counter = await peer.api.counter("collected")
        gone = weakref.ref(counter)
        assert await counter.increment() == 1
        del counter
        assert gone() is None
        await peer.settle()
        assert await peer.monitor.disposals("collected") == before + 1


async def test_a_stub_is_released_from_another_thread(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = await peer.monitor.disposals("thread")
        holder = [await peer.api.counter("thread")]
        await anyio.to_thread.run_sync(holder.clear)
        await peer.settle()
        assert await peer.monitor.disposals("thread") == before + 1


async def test_a_result_that_nobody_awaits_is_released(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        before = await peer.monitor.disposals("dropped")
        peer.api.counter("dropped")
        await peer.settle()
        assert await peer.monitor.disposals("dropped") == before + 1


async def test_a_target_is_disposed_of_exactly_once(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        target = LocalCounter()
        assert await peer.api.bump(target, 1) == 11
        await target.disposed.wait()
        await peer.settle()
        assert target.disposals == 1


async def test_what_the_server_keeps_lives_on(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        target = LocalCounter()
        await peer.api.keep("kept", target)
        await peer.api.id()
        assert target.disposals == 0
        await peer.api.drop("kept")
        await target.disposed.wait()
        assert target.disposals == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_use_leaves_nothing_behind(node_url: str, seed: int, anyio_backend_name: str) -> None:
    name = f"random use {seed} {anyio_backend_name}"
    async with node_peer(node_url) as peer, node_peer(node_url) as other:
        user = RandomUser(peer.api, other.api, name, seed)
        await user.use(600)
        await peer.settle()
        await other.settle()
        assert await peer.monitor.disposals(name) == user.counters_made
        assert user.tags_disposed == user.tags_made


async def test_a_call_that_is_given_up_is_released(node_url: str) -> None:
    async with node_peer(node_url) as peer, anyio.create_task_group() as tasks:

        async def wait() -> None:
            with peer.api.forever() as promise:
                await promise

        tasks.start_soon(wait)
        await peer.api.square(2)
        tasks.cancel_scope.cancel()
    # What is left on either side was looked at: nothing.


async def test_a_call_that_went_as_a_stream_is_given_up_without_a_word(node_url: str) -> None:
    async with node_peer(node_url) as peer, anyio.create_task_group() as tasks:
        answer = anyio.Event()

        async def answered() -> int:
            await answer.wait()
            return 1

        async def wait() -> None:
            with anyio.CancelScope() as scope:
                tasks.start_soon(give_up, scope)
                await peer.api.call(answered)

        async def give_up(scope: anyio.CancelScope) -> None:
            await peer.api.square(2)
            scope.cancel()
            await peer.api.square(3)
            answer.set()

        await wait()
        await answer.wait()
        assert await peer.api.square(4) == 16


# ---- errors


def _is_custom(error: BaseException) -> None:
    assert isinstance(error, RemoteError)
    assert (error.name, error.message) == ("OutOfCheese", "please reboot")
    assert error.props == {"aisle": 7, "tags": ["brie", {"ripe": True}]}
    assert error.aisle == 7  # type: ignore[attr-defined]


def _is_caused(error: BaseException) -> None:
    assert str(error) == "outer"
    assert isinstance(error.__cause__, TypeError)
    assert str(error.__cause__) == "inner"


def _is_aggregate(error: BaseException) -> None:
    assert isinstance(error, ExceptionGroup)
    assert isinstance(error, RemoteError)
    assert (error.name, error.message) == ("AggregateError", "several")
    one, two = error.exceptions
    assert isinstance(one, TypeError)
    assert str(one) == "one"
    assert isinstance(two, RemoteError)
    assert (two.name, two.message) == ("RangeError", "two")


def _is_named(name: str, message: str) -> Callable[[BaseException], None]:
    def check(error: BaseException) -> None:
        assert isinstance(error, RemoteError)
        assert (error.name, error.message, error.stack) == (name, message, None)

    return check


EXPECTED_ERRORS: Final[dict[str, Callable[[BaseException], None]]] = {
    "type": _is_named("TypeError", "no such shape"),
    "range": _is_named("RangeError", "out of range"),
    "plain": _is_named("Error", "näh \U0001f600"),
    "custom": _is_custom,
    "cause": _is_caused,
    "aggregate": _is_aggregate,
}


@pytest.mark.parametrize("kind", EXPECTED_ERRORS)
async def test_an_error_arrives_whole(node_url: str, kind: str) -> None:
    async with node_peer(node_url) as peer:
        for method in ("fail", "fail_later"):
            with pytest.raises(RemoteError) as caught:
                await peer.api[method](kind)
            EXPECTED_ERRORS[kind](caught.value)
            assert caught.value.stack is None


async def test_javascript_can_throw_what_is_no_error(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        with pytest.raises(RpcError, match="just a text"):
            await peer.api.fail("text")


async def test_an_error_of_a_callback_arrives_whole_and_comes_back(node_url: str) -> None:
    def broken() -> None:
        error = ValueError("callback broke")
        error.aisle = 9  # type: ignore[attr-defined]
        raise error from KeyError("why")

    async with node_peer(node_url) as peer:
        await peer.api.note(f"callback error {peer.id}", broken)
        noted = await peer.monitor.occurred(f"callback error {peer.id}")
        assert noted["message"] == "callback broke"
        assert noted["aisle"] == 9
        with pytest.raises(RemoteError, match="callback broke") as caught:
            await peer.api.call(broken)
        assert caught.value.props["aisle"] == 9
        assert isinstance(caught.value.__cause__, RemoteError)
        sent = [text for text in await peer.monitor.texts(peer.id) if text.startswith('["reject"')]
        assert sent
        assert not [text for text in sent if "Traceback" in text or ".py" in text]


async def test_what_cannot_be_sent_fails_its_call_alone(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        target = LocalCounter()
        with pytest.raises(TypeError, match=r"set.*\['wrong'\]\[1\]"):
            await peer.api.echo({"fine": target, "wrong": [0, {1}]})
        assert target.disposals == 1
        with pytest.raises(TypeError):
            await peer.api.unsendable()
        assert await peer.api.square(5) == 25


async def test_what_our_callback_cannot_send_fails_that_call(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        with pytest.raises(TypeError, match="set"):
            await peer.api.call(lambda: {1})
        assert await peer.api.square(5) == 25


# ---- ends

MALFORMED: Final = {
    "not JSON": "this is no JSON",
    "not a list": '{"push": 1}',
    "unknown message": '["bogus", 1]',
    "pull of nothing": '["pull", 99]',
    "call of nothing": '["push", ["pipeline", 77, ["square"], [1]]]',
    "release below zero": '["release", 0, 5]',
    "unknown expression": '["resolve", 1, ["bogus", 1]]',
    "result of nothing": '["resolve", 12, 1]',
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_message_aborts_with_a_reason(node_url: str, name: str, anyio_backend_name: str) -> None:
    event = f"malformed {name} {anyio_backend_name}"
    query = urlencode({"name": event, "send": MALFORMED[name]})
    with anyio.fail_after(DEADLINE):
        async with connect(node_url) as monitor:
            broken: list[BaseException] = []
            async with connect(f"{node_url}garbage?{query}") as api:
                api.on_broken(broken.append)
                with pytest.raises(SessionClosed) as caught:
                    await api.square(1)
            ending = await monitor.occurred(event)
    assert isinstance(caught.value.__cause__, ProtocolError)
    assert len(broken) == 1
    assert ending["code"] == 3000
    assert 0 < len(ending["reason"].encode()) <= 123
    assert ending["texts"][-1].startswith('["abort",["error",')


async def test_a_lost_server_fails_what_is_pending_and_disposes_what_it_held(node_url: str) -> None:
    target = LocalCounter()
    broken: list[BaseException] = []
    failures: list[BaseException] = []

    async def fail(promise: Any) -> None:
        try:
            await promise
        except RpcError as error:
            failures.append(error)

    with anyio.fail_after(DEADLINE):
        async with open_session(node_url) as session:
            api = session.remote_main
            counter = await api.counter("lost server")
            counter.on_broken(broken.append)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail, api.forever(target))
                tasks.start_soon(fail, api.forever().anything["at"].all)
                tasks.start_soon(fail, api.hangup())
            assert session.closed
            with pytest.raises(SessionClosed):
                await counter.increment()
    assert len(failures) == 3
    assert all(isinstance(error, SessionClosed) for error in failures)
    assert len(broken) == 1
    assert target.disposals == 1


async def test_leaving_disposes_of_what_the_server_held_for_us(node_url: str) -> None:
    with anyio.fail_after(DEADLINE):
        async with connect(node_url) as monitor:
            async with open_session(node_url) as session:
                event = f"left {await session.remote_main.id()}"
                guarded = await session.remote_main.guarded(f"{event} disposed")
                called = anyio.Event()

                async def never() -> None:
                    called.set()
                    await anyio.sleep_forever()

                noted = session.remote_main.note(event, never)
                await session.remote_main.keep(f"{event} broken", LocalCounter())
                await session.remote_main.watch(f"{event} broken")
                await called.wait()
            await monitor.occurred(f"{event} disposed")
            assert (await monitor.occurred(event))["message"]
            assert await monitor.occurred(f"{event} broken")
            with pytest.raises(SessionClosed):
                await noted
            with pytest.raises(SessionClosed):
                await guarded.increment()


# ---- streams


async def numbers(count: int, error: Exception | None = None, closed: anyio.Event | None = None) -> AsyncIterator[int]:
    """Numbers, and how they end."""
    try:
        for number in range(count):
            yield number
        if error is not None:
            raise error
    finally:
        if closed is not None:
            closed.set()


async def test_readable_streams_in_both_directions(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        assert [chunk async for chunk in await peer.api.numbers(2000)] == list(range(2000))
        assert [chunk async for chunk in await peer.api.numbers(0)] == []
        assert await peer.api.collect(numbers(2000)) == list(range(2000))


async def test_writable_streams_in_both_directions(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        sink = LocalSink()
        await peer.api.fill(WritableStream(sink), ["a", [1], None])
        assert (sink.chunks, sink.end) == (["a", [1], None], "closed")
        async with await peer.api.basin("a python basin") as basin:
            for chunk in ("a", [1], None):
                await basin.write(chunk)
        assert await peer.monitor.occurred("a python basin") == {"chunks": ["a", [1], None], "error": None}
        del basin


async def test_errors_of_streams_in_both_directions(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        with pytest.raises(RemoteError, match="please reboot") as raised:
            [chunk async for chunk in await peer.api.numbers(1, kind="custom")]
        assert raised.value.aisle == 7
        error = TypeError("too far")
        error.by = 12  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="too far") as returned:
            await peer.api.collect(numbers(1, error))
        assert returned.value.by == 12  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="full"):
            await peer.api.fill(WritableStream(LocalSink(failing=True)), [1, 2, 3, 4])
        basin = await peer.api.basin("a failing basin", kind="custom")
        with pytest.raises(RemoteError, match="please reboot"):  # noqa: PT012
            async with basin:
                for number in range(10):
                    await basin.write(number)
        del basin, raised, returned, error


async def test_cancelling_and_aborting_in_both_directions(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        async for _ in await peer.api.numbers(None, name="python has left"):
            break
        await peer.monitor.occurred("python has left")
        closed = anyio.Event()
        assert await peer.api.first(numbers(10**9, closed=closed), 2) == [0, 1]
        await closed.wait()
        basin = await peer.api.basin("python has aborted")
        await basin.write("a chunk")
        await basin.abort(ValueError("enough"))
        assert (await peer.monitor.occurred("python has aborted"))["error"] == "enough"
        sink = LocalSink()
        await peer.api.give_up(WritableStream(sink), "custom")
        await sink.ended.wait()
        assert (str(sink.end), sink.end.aisle) == ("please reboot", 7)
        del basin, sink


async def test_a_writable_that_is_lost_is_aborted_there(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        basin = await peer.api.basin("python has lost it")
        await basin.write("a chunk")
        del basin
        assert "disposed without calling close" in (await peer.monitor.occurred("python has lost it"))["error"]


async def test_large_streams_in_both_directions(node_url: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for index in range(24):
            yield bytes([index]) * 65_536

    async with node_peer(node_url) as peer:
        assert await peer.api.measure(chunks()) == [24 * 65_536, 65_536 * 23 * 12]
        received = [chunk async for chunk in await peer.api.pieces(24, 65_536)]
        assert received == [bytes([index]) * 65_536 for index in range(24)]


async def test_capabilities_in_chunks_in_both_directions(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        total = 0
        async for counter in await peer.api.counters("python read them", 4):
            total += await counter.increment(1)
        assert total == 10
        del counter
        counters = [LocalCounter(), LocalCounter()]

        async def yields() -> AsyncIterator[LocalCounter]:
            for counter in counters:
                yield counter

        assert await peer.api.total(yields()) == 22
        for counter in counters:
            await counter.disposed.wait()
        while await peer.monitor.disposals("python read them") < 4:
            pass
