"""Who holds what: references are the ownership, and when everything is let go of both tables are back to one entry."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from byhand import Peer, by_hand
from witnesses import NOTHING_HELD, Diary

from capnweb_py import (
    RemoteError,
    RpcError,
    RpcPromise,
    RpcSession,
    RpcStub,
    RpcTarget,
    SessionClosed,
    SessionStats,
    WritableStream,
    memory_pair,
)

pytestmark = pytest.mark.anyio


class Counter(RpcTarget):
    def __init__(self) -> None:
        self._count = 0
        self.disposed = 0
        self.gone = anyio.Event()

    def increment(self, by: int = 1) -> int:
        self._count += by
        return self._count

    async def wait(self) -> None:
        await anyio.sleep_forever()

    def dispose(self) -> None:
        self.disposed += 1
        self.gone.set()


class Api(RpcTarget):
    def __init__(self) -> None:
        self.made: list[Counter] = []
        self.kept: list[Any] = []

    def make(self) -> Counter:
        self.made.append(Counter())
        return self.made[-1]

    def make_two(self) -> dict[str, Any]:
        return {"one": self.make(), "two": [self.make()]}

    def echo(self, value: Any) -> Any:
        return value

    def keep(self, value: Any) -> None:
        self.kept.append(value)

    def drop(self) -> None:
        self.kept.clear()

    async def call(self, function: Any, *arguments: Any) -> Any:
        return await function(*arguments)

    def fail(self, value: Any = None) -> None:
        raise ValueError("failed")

    def make_set(self) -> set[int]:
        return {1}


@asynccontextmanager
async def connected(main: Any = None) -> AsyncIterator[tuple[Api, RpcStub, RpcSession, RpcSession]]:
    """An Api and the stub of it, with both sessions. At the end nothing may be held by either."""
    api = Api()
    async with memory_pair(main, api) as (client, server):
        yield api, client.remote_main, client, server
        await anyio.wait_all_tasks_blocked()
        assert (client.stats(), server.stats()) == (NOTHING_HELD, NOTHING_HELD)


async def test_a_stub_is_released_when_nothing_refers_to_it() -> None:
    async with connected() as (api, main, client, _):
        counter = await main.make()
        assert client.stats().imports == 2
        assert await counter.increment() == 1
        assert api.made[0].disposed == 0
        del counter
        await api.made[0].gone.wait()


async def test_a_stub_in_a_reference_cycle_is_released_with_it() -> None:
    async with connected() as (api, main, _, _):
        cycle: list[Any] = [await main.make()]
        cycle.append(cycle)
        del cycle
        gc.collect()
        await api.made[0].gone.wait()


async def test_a_stub_is_released_from_any_thread() -> None:
    async with connected() as (api, main, _, _):
        holder = [await main.make()]
        thread = threading.Thread(target=holder.clear)
        thread.start()
        await api.made[0].gone.wait()
        thread.join()


async def test_dispose_releases_early_and_may_be_done_twice() -> None:
    async with connected() as (api, main, _, _):
        counter = await main.make()
        counter.dispose()
        counter.dispose()
        await api.made[0].gone.wait()
        with pytest.raises(RpcError, match="this stub was disposed"):
            await counter.increment()


async def test_disposing_twice_lets_go_of_one_reference() -> None:
    async with connected() as (api, main, _, _):
        counter = await main.make()
        again = counter.dup()
        again.dispose()
        again.dispose()
        assert await counter.increment() == 1
        assert api.made[0].disposed == 0
        counter.dispose()
        await api.made[0].gone.wait()
        assert api.made[0].disposed == 1


async def test_with_disposes_at_the_end_of_the_block() -> None:
    async with connected() as (api, main, _, _):
        with await main.make() as counter:
            await counter.increment()
            assert api.made[0].disposed == 0
        await api.made[0].gone.wait()


async def test_dup_has_a_life_of_its_own() -> None:
    async with connected() as (api, main, client, _):
        counter = await main.make()
        again = counter.dup()
        assert counter == again
        assert hash(counter) == hash(again)
        counter.dispose()
        assert await again.increment() == 1
        assert api.made[0].disposed == 0
        assert client.stats().imports == 2
        again.dispose()
        await api.made[0].gone.wait()


async def test_every_target_of_a_result_is_released_once() -> None:
    async with connected() as (api, main, _, _):
        result = await main.make_two()
        assert await result["two"][0].increment(5) == 5
        del result
        for counter in api.made:
            await counter.gone.wait()
        await main.echo(1)
        assert [counter.disposed for counter in api.made] == [1, 1]


async def test_a_target_that_is_several_times_in_a_result_is_disposed_of_once_after_the_last_stub() -> None:
    counter = Counter()

    class Tripled(RpcTarget):
        def counters(self) -> list[Counter]:
            return [counter, counter, counter]

    async with memory_pair(None, Tripled()) as (client, server):
        stubs = await client.remote_main.counters()
        assert [await stub.increment() for stub in stubs] == [1, 2, 3]
        assert client.stats().imports == server.stats().exports == 4
        while stubs:
            assert counter.disposed == 0
            stubs.pop().dispose()
            await anyio.wait_all_tasks_blocked()
        assert counter.disposed == 1
        assert client.stats() == server.stats() == NOTHING_HELD


async def test_a_result_that_is_never_sent_is_disposed() -> None:
    async with connected() as (api, main, _, _):
        main.make()
        main.make_two()
        await main.echo(1)
        await anyio.wait_all_tasks_blocked()
        assert [counter.disposed for counter in api.made] == [1, 1, 1]


async def test_a_pipelined_result_lives_until_its_calls_are_done() -> None:
    async with connected() as (api, main, _, _):
        assert await main.make().increment(3) == 3
        await api.made[0].gone.wait()


async def test_a_release_waits_for_the_calls_before_it() -> None:
    diary = Diary()

    class Library(RpcTarget):
        def lend(self) -> Diary:
            return diary

    async with by_hand(Library()) as peer:
        peer.say("push", ["pipeline", 0, ["lend"], []])
        peer.say("push", ["pipeline", 1, ["later"], []])
        peer.say("push", ["pipeline", 1, ["plain"], []])
        peer.say("release", 1, 1)
        await anyio.wait_all_tasks_blocked()
    assert diary.entries == ["later", "plain", "later ends", "disposed"]


async def test_a_call_pipelined_on_a_result_keeps_its_target() -> None:
    diary = Diary()

    class Library(RpcTarget):
        def lend(self) -> Diary:
            return diary

    async with memory_pair(None, Library()) as (client, _):
        await client.remote_main.lend().later()
        gc.collect()
        await anyio.wait_all_tasks_blocked()
    assert diary.entries == ["later", "later ends", "disposed"]


async def test_an_argument_is_held_for_the_call_and_no_longer() -> None:
    async with connected() as (_, main, _, server):
        counter = Counter()
        assert await main.call(counter.increment, 2) == 2
        assert await main.echo(counter) == counter
        await counter.gone.wait()
        assert server.stats().imports == 1


async def test_a_target_that_is_an_argument_of_two_calls_is_disposed_of_after_both() -> None:
    async with connected() as (_, main, _, _):
        counter = Counter()
        await main.keep(counter)
        await main.echo(counter)
        await anyio.wait_all_tasks_blocked()
        assert counter.disposed == 0
        await main.drop()
        await counter.gone.wait()
        assert counter.disposed == 1


async def test_an_argument_that_is_kept_is_held() -> None:
    async with connected() as (_, main, _, server):
        counter = Counter()
        await main.keep({"a": [counter]})
        assert server.stats().imports == 2
        assert counter.disposed == 0
        await main.drop()
        await counter.gone.wait()
        assert counter.disposed == 1


async def test_a_failed_call_holds_none_of_its_arguments() -> None:
    async with connected() as (_, main, _, _):
        counter = Counter()
        with pytest.raises(ValueError, match="failed"):
            await main.fail(counter)
        await counter.gone.wait()


async def failing() -> Any:
    raise ValueError("failed")


async def valued() -> Any:
    return {"value": 5}


@pytest.mark.parametrize(
    "call",
    [
        lambda main, argument: RpcPromise(failing()).method(argument),
        lambda main, argument: RpcPromise(valued()).no_such(argument),
        lambda main, argument: main.fail().method(argument),
        lambda main, argument: main.fail(argument),
        lambda main, argument: main.echo(5).method(argument),
        lambda main, argument: main.no_such(argument),
        lambda main, argument: main.echo([argument, main.fail()]),
        lambda main, argument: main.echo([argument, main.make_set()]),
        lambda main, argument: RpcStub({"value": 5}).no_such(argument),
    ],
    ids=[
        "on a promise of this side that fails", "on a promise of this side that has no such member",
        "on a call that fails", "of a method that fails", "on a result that has no such member", "of no method",
        "beside a promise that fails", "beside what cannot be sent", "on a value of this side that has no such member",
    ],
)  # fmt: skip
async def test_a_call_that_fails_holds_none_of_its_stubs_whatever_it_fails_by(
    call: Callable[[RpcStub, RpcStub], RpcPromise],
) -> None:
    async with connected() as (_, main, _, _):
        counter = Counter()
        stub = RpcStub(counter)
        with pytest.raises((ValueError, TypeError), match=r"failed|is not a function|cannot be sent"):
            await call(main, stub)
        await anyio.wait_all_tasks_blocked()
        assert counter.disposed == 0
        stub.dispose()
        assert counter.disposed == 1


async def test_a_call_that_cannot_be_sent_holds_none_of_its_stubs() -> None:
    async with connected() as (_, main, client, _):
        counter = Counter()
        stub = RpcStub(counter)
        with pytest.raises(TypeError, match="type set cannot be sent"):
            main.echo(stub, {1})
        assert client.stats() == NOTHING_HELD
        stub.dispose()
        assert counter.disposed == 1


async def test_a_stub_that_an_error_carries_lives_as_long_as_the_error() -> None:
    counter = Counter()

    class Refusing(RpcTarget):
        def refuse(self) -> None:
            error = ValueError("ask the counter")
            error.counter, error.code = counter, 7  # type: ignore[attr-defined]
            raise error

    async with memory_pair(None, Refusing()) as (client, server):
        with pytest.raises(RemoteError, match="ask the counter") as caught:
            await client.remote_main.refuse()
        assert await caught.value.props["counter"].increment() == 1
        assert caught.value.props["code"] == 7
        assert counter.disposed == 0
        del caught
        gc.collect()
        await counter.gone.wait()
        assert client.stats() == server.stats() == NOTHING_HELD


async def test_a_property_of_an_error_that_cannot_be_sent_leaves_nothing_exported() -> None:
    class Making(RpcTarget):
        def make_error(self) -> Any:
            error = ValueError("mixed")
            error.mixed, error.code = {"counter": Counter(), "bad": {1}}, 7  # type: ignore[attr-defined]
            return {"wrapped": error}

    async with memory_pair(None, Making()) as (client, server):
        result = await client.remote_main.make_error()
        assert (str(result["wrapped"]), result["wrapped"].props) == ("mixed", {"code": 7})
        assert client.stats() == server.stats() == NOTHING_HELD


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (["not", "a", "method"], "but not this: not.a.method"),
        (["write"], "the stream was closed"),
    ],
)
async def test_a_call_of_a_stream_that_it_refuses_holds_none_of_its_stubs(path: list[str], problem: str) -> None:
    class Idle:
        async def write(self, chunk: Any) -> None: ...

        async def aclose(self) -> None: ...

        async def abort(self, error: BaseException) -> None: ...

    async with by_hand() as peer:
        peer.main.take(WritableStream(Idle())).dispose()
        peer.hear()
        peer.say("stream", ["pipeline", -1, ["close"], []])
        await anyio.wait_all_tasks_blocked()
        peer.hear()
        peer.say("stream", ["pipeline", -1, path, [["export", -1]]])
        await anyio.wait_all_tasks_blocked()
        (kind, _, error), release = peer.hear()
        assert kind == "reject"
        assert problem in error[2]
        assert release == ["release", -1, 1]


async def test_a_stub_that_goes_home_is_the_object() -> None:
    async with connected() as (api, main, _, _):
        counter = await main.make()
        await main.keep(counter)
        assert api.kept == [api.made[0]]
        assert await (await main.echo(counter)).increment(2) == 2
        assert api.made[0].increment() == 3
        await main.drop()
        del counter


async def test_a_stub_of_this_sides_object_is_that_object() -> None:
    async with connected() as (_, main, _, _):
        counter = Counter()
        assert await main.echo(counter) == counter
        assert await main.echo(counter.increment) == counter.increment
        assert await main.echo(counter) != Counter()


async def test_the_main_object_is_held_by_the_session_alone() -> None:
    async with connected() as (_, main, client, _):
        again = main.dup()
        again.dispose()
        assert await main.echo(1) == 1
        assert not client.closed


async def test_disposing_the_main_stub_closes_the_session() -> None:
    told: list[BaseException] = []
    async with memory_pair(None, api := Counter()) as (client, server):
        server.remote_main.on_broken(told.append)
        client.remote_main.dispose()
        assert client.closed
        await api.gone.wait()
        assert server.closed
        assert [(type(error), str(error)) for error in told] == [(SessionClosed, "the other session was closed")]


async def test_nothing_of_a_peer_works_after_its_main_stub_was_disposed() -> None:
    async with memory_pair(None, Api()) as (client, _):
        main = client.remote_main
        counter = await main.make()
        pending = counter.wait()
        main.dispose()
        for call in (counter.increment, main.make, counter.dup().increment):
            with pytest.raises(RpcError, match=r"the session was closed on this side|this stub was disposed"):
                await call()
        with pytest.raises(SessionClosed, match="the session was closed on this side"):
            await pending


async def test_a_target_of_several_sessions_is_disposed_after_the_last() -> None:
    shared = Counter()
    first, _ = memory_pair(None, shared)
    second, _ = memory_pair(None, shared)
    assert await first.remote_main.increment() == 1
    assert await second.remote_main.increment() == 2
    first.close()
    await anyio.wait_all_tasks_blocked()
    assert shared.disposed == 0
    second.close()
    await shared.gone.wait()
    assert shared.disposed == 1


# Breaking.


async def test_a_lost_connection_fails_what_is_pending_and_disposes_what_was_exported() -> None:
    counter = Counter()
    async with memory_pair(None, Api()) as (client, server):
        await client.remote_main.keep(counter)
        held = await client.remote_main.make()
        pending = held.wait()
        server.connection_lost(OSError("cable"))
        with pytest.raises(SessionClosed):
            await pending
        with pytest.raises(SessionClosed):
            await held.increment()
        assert counter.disposed == 1
        assert client.stats() == server.stats() == SessionStats(0, 0)


async def test_on_broken_is_called_once_in_order_when_the_session_ends() -> None:
    told: list[tuple[str, type]] = []

    def tell(name: str) -> Callable[[BaseException], None]:
        return lambda error: told.append((name, type(error)))

    def fail(error: BaseException) -> None:
        raise RuntimeError("nobody hears this")

    async with memory_pair(None, Api()) as (client, _):
        counter = await client.remote_main.make()
        pending = counter.wait()
        client.remote_main.on_broken(tell("main"))
        counter.on_broken(fail)
        counter.on_broken(tell("counter"))
        pending.on_broken(tell("pending"))
        client.close()
        assert told == [("main", SessionClosed), ("counter", SessionClosed), ("pending", SessionClosed)]
        client.close()
        assert len(told) == 3
        counter.on_broken(tell("late"))
        assert told[3:] == [("late", SessionClosed)]


async def test_a_callback_of_on_broken_keeps_its_place_when_its_promise_resolves() -> None:
    told: list[str] = []

    def tell(name: str) -> Callable[[BaseException], None]:
        return lambda error: told.append(name)

    async with memory_pair(None, Api()) as (client, _):
        promise = client.remote_main.make()
        promise.on_broken(tell("promise"))
        counter = await client.remote_main.make()
        counter.on_broken(tell("another stub"))
        stub = await promise
        stub.on_broken(tell("what the promise resolved to"))
        failing = client.remote_main.fail()
        failing.on_broken(tell("a failing call"))
        with pytest.raises(ValueError, match="failed"):
            await failing
        assert told == ["a failing call"]
        failing.on_broken(tell("the same, late"))
        client.connection_lost(OSError("cable"))
    assert told == [
        "a failing call", "the same, late", "promise", "another stub", "what the promise resolved to",
    ]  # fmt: skip


async def test_a_promise_that_resolved_forgets_who_was_to_be_told_with_its_stub() -> None:
    told: list[BaseException] = []
    async with memory_pair(None, Api()) as (client, _):
        promise = client.remote_main.make()
        promise.on_broken(told.append)
        stub = await promise
        del promise
        stub.dispose()
        del stub
        client.close()
    assert told == []


async def test_on_broken_is_called_when_a_promise_fails() -> None:
    async with connected() as (_, main, _, _):
        told: list[BaseException] = []
        promise = main.fail()
        promise.on_broken(told.append)
        with pytest.raises(ValueError, match="failed"):
            await promise
        assert [str(error) for error in told] == ["failed"]
        del promise
        told.clear()


async def test_a_promise_that_became_a_value_breaks_no_more() -> None:
    told: list[BaseException] = []
    async with memory_pair(None, Api()) as (client, _):
        promise = client.remote_main.echo(5)
        promise.on_broken(told.append)
        assert await promise == 5
    assert told == []


async def test_a_released_stub_forgets_who_was_to_be_told() -> None:
    told: list[BaseException] = []
    async with memory_pair(None, Api()) as (client, _):
        counter = await client.remote_main.make()
        counter.on_broken(told.append)
        counter.dispose()
        client.close()
    assert told == []


async def test_a_dispose_hook_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Counter):
        def dispose(self) -> None:
            super().dispose()
            raise RuntimeError("in dispose")

    async with connected() as (_, main, _, _):
        bad = Bad()
        await main.keep(bad)
        await main.drop()
        await bad.gone.wait()
        assert await main.echo(1) == 1
    assert "Bad.dispose() failed" in caplog.text


# Stubs without a session.


async def test_a_local_stub_holds_its_target() -> None:
    counter = Counter()
    stub = RpcStub(counter)
    assert await stub.increment(2) == 2
    again = stub.dup()
    stub.dispose()
    assert counter.disposed == 0
    assert await again.increment() == 3
    del again
    assert counter.disposed == 1


async def test_a_call_on_a_local_stub_copies_its_arguments_as_a_wire_would() -> None:
    api = Api()
    value: dict[str, Any] = {"items": [1]}
    await RpcStub(api).keep(value)
    value["items"].append(2)
    assert api.kept == [{"items": [1]}]
    with pytest.raises(TypeError, match="a value of the type set cannot be sent"):
        await RpcStub(api).keep({1})


# Three parties.


async def test_a_stub_of_one_session_works_over_another_and_is_released_everywhere() -> None:
    async with connected() as (origin, main, near, far), connected() as (api, other, _, _):
        counter = await main.make()
        assert await other.call(counter.increment, 3) == 3
        await other.keep(counter)
        assert await api.kept[0].increment(4) == 7
        assert await (await other.echo(counter)).increment() == 8
        del counter
        await anyio.wait_all_tasks_blocked()
        assert near.stats().imports == far.stats().exports == 2
        assert origin.made[0].disposed == 0
        await other.drop()
        await origin.made[0].gone.wait()


async def test_a_peer_in_the_middle_hands_on_capabilities_and_promises() -> None:
    class Middle(RpcTarget):
        """Serves what another peer makes: awaited, and as the promise that it has."""

        def __init__(self, origin: RpcStub) -> None:
            self._origin = origin

        async def awaited(self) -> Any:
            return await self._origin.make()

        def promised(self) -> Any:
            return self._origin.make()

        def call(self, function: Any, *arguments: Any) -> Any:
            return self._origin.call(function, *arguments)

    async with connected() as (origin, main, _, _), memory_pair(None, Middle(main)) as (client, server):
        middle = client.remote_main
        assert await (await middle.awaited()).increment(2) == 2
        assert await middle.awaited().increment(2) == 2
        assert await middle.promised().increment(2) == 2
        counter = Counter()
        assert await middle.call(counter.increment, 3) == 3
        assert counter.increment() == 4
        for made in origin.made:
            await made.gone.wait()
        await anyio.wait_all_tasks_blocked()
        assert client.stats() == server.stats() == NOTHING_HELD


async def test_a_promise_of_one_session_is_an_argument_over_another() -> None:
    async with connected() as (_, main, _, _), connected() as (_, other, _, _):
        assert await other.echo(main.make().increment(6)) == 6
        with pytest.raises(ValueError, match="failed"):
            await other.echo(main.fail())


async def test_a_stub_of_a_session_that_ended_breaks_for_the_third_party_alone() -> None:
    async with memory_pair(None, Api()) as (near, _), connected() as (api, other, _, _):
        await other.keep(await near.remote_main.make())
        near.close()
        with pytest.raises(RpcError, match="the session was closed on this side"):
            await other.call(api.kept[0].increment)
        assert await other.echo(1) == 1
        await other.drop()


async def test_what_cannot_be_passed_on_to_a_third_party_fails_that_call_alone() -> None:
    from capnweb_py import Limits, SessionOptions

    shallow = SessionOptions(limits=Limits(max_depth=3))
    async with memory_pair(None, Api(), options=shallow) as (near, _), connected() as (api, other, _, _):
        await other.keep(near.remote_main.echo)
        with pytest.raises(TypeError, match="max_depth"):
            await api.kept[0]([[[[1]]]])
        proxied = await other.echo(near.remote_main.dup())
        assert await other.echo(1) == 1
        await other.drop()
        del proxied


@pytest.mark.parametrize(
    ("asked", "further"), [([], ["tracked"]), (["tracked"], [])], ids=["the whole", "a part that is a target"]
)
def test_what_was_asked_of_a_result_outlives_it(asked: list[str], further: list[str]) -> None:
    """Released or not, sent or not: what refers to a target holds it."""
    counter = Counter()

    class Maker(RpcTarget):
        def make(self) -> Any:
            return {"tracked": counter}

    peer = Peer(Maker())
    peer.say("push", ["pipeline", 0, ["make"], []])
    peer.say("push", ["pipeline", 1, asked])
    peer.say("release", 1, 1)
    peer.say("stream", ["pipeline", 2, [*further, "increment"], [5]])
    assert peer.hear() == [["resolve", 3, 5]]
    assert counter.disposed == 0
    peer.say("release", 2, 1)
    assert counter.disposed == 1


def test_a_part_of_a_result_does_not_take_the_targets_of_the_whole_with_it() -> None:
    """A result lives until it is released, whatever has been asked of it and released before."""
    disposed: list[str] = []

    class Tracked(RpcTarget):
        def dispose(self) -> None:
            disposed.append("disposed")

    class Api(RpcTarget):
        def make(self) -> dict[str, Tracked]:
            return {"tracked": Tracked()}

    peer = Peer(Api())
    peer.say("push", ["pipeline", 0, ["make"], []])
    peer.say("push", ["pipeline", 1, ["tracked"]])
    peer.say("pull", 2)
    assert peer.hear() == [["resolve", 2, ["export", -1]]]
    peer.say("release", 2, 1)
    peer.say("release", -1, 1)
    assert disposed == []
    peer.say("release", 1, 1)
    assert disposed == ["disposed"]
