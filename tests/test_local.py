"""Stubs of values of this side: no session, and the same rules as with one."""

from __future__ import annotations

import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.lowlevel
import pytest
from byhand import by_hand
from witnesses import Counter, Diary

from capnweb_py import UNDEFINED, RpcPromise, RpcStub, RpcTarget, SessionClosed, memory_pair

pytestmark = pytest.mark.anyio


class Holder(RpcTarget):
    """A target whose properties are references: to a stub, and to a target."""

    def __init__(self, held: Counter) -> None:
        self._stub = RpcStub(held)
        self._counter = held
        self.disposed = 0

    @property
    def stub(self) -> RpcStub:
        return self._stub

    @property
    def counter(self) -> Counter:
        return self._counter

    def make(self) -> Counter:
        return Counter(10)

    def dispose(self) -> None:
        self.disposed += 1


async def square(number: int) -> int:
    await anyio.lowlevel.checkpoint()
    return number * number


async def test_a_target_is_called_through_its_stub() -> None:
    stub = RpcStub(Counter(3))
    assert await stub.increment() == 4
    assert await stub.increment(6) == 10
    assert await stub.value == 10


@pytest.mark.parametrize("function", [lambda number: number * number, square], ids=["plain", "asynchronous"])
async def test_a_function_is_called_through_its_stub(function: Callable[[int], Any]) -> None:
    assert await RpcStub(function)(3) == 9


async def test_a_value_is_read_through_its_stub() -> None:
    stub = RpcStub({"text": "hello", "list": [1, {"deep": 2}]})
    assert await stub.text == "hello"
    assert await stub.list[1].deep == 2
    assert await RpcStub([5, 6])[1] == 6


@pytest.mark.parametrize(
    ("member", "call"),
    [
        (RpcStub(Counter(4)), lambda member: member.increment(0)),
        (Counter(4), lambda member: member.increment(0)),
        (lambda number: number + 1, lambda member: member(3)),
        (square, lambda member: member(2)),
    ],
    ids=["stub", "target", "function", "asynchronous function"],
)
async def test_what_a_value_refers_to_is_called_through_the_stub_of_the_value(
    member: Any, call: Callable[[Any], Awaitable[int]]
) -> None:
    stub = RpcStub({"member": member, "number": 42})
    assert await stub.number == 42
    assert await call(stub.member) == 4


async def test_what_a_target_refers_to_is_called_through_the_stub_of_the_target() -> None:
    stub = RpcStub(Holder(Counter(1)))
    assert await stub.stub.increment() == 2
    assert await stub.counter.increment() == 3
    assert await stub.make().increment() == 11


async def test_a_stub_of_a_stub_or_of_a_promise_leads_where_that_leads() -> None:
    stub = RpcStub(RpcStub(Counter(1)))
    assert await stub.increment() == 2
    made = RpcStub(RpcStub(Holder(Counter())).make())
    assert await made.increment() == 11
    assert await made.value == 11


@pytest.mark.parametrize("value", [{"there": 1}, [1, 2], Counter()], ids=["dict", "list", "target"])
async def test_what_is_not_there_is_undefined_and_has_no_members(value: Any) -> None:
    stub = RpcStub(value)
    assert await stub.missing is UNDEFINED
    with pytest.raises(TypeError, match="cannot read the property 'more' of UNDEFINED"):
        await stub.missing.more
    with pytest.raises(TypeError, match="missing is not a function"):
        await stub.missing()


async def test_what_is_private_is_as_private_as_it_is_to_a_peer() -> None:
    stub = RpcStub(Counter())
    assert await stub["_count"] is UNDEFINED
    assert await stub["__class__"] is UNDEFINED
    with pytest.raises(TypeError, match="'disposed' is an instance attribute of Counter"):
        await stub.disposed


# Lifetimes.


async def test_a_stub_of_a_value_holds_the_targets_in_it_and_the_stubs() -> None:
    inner, target = Counter(), Counter()
    stub = RpcStub({"stub": RpcStub(inner), "list": [target]})
    assert await stub.stub.increment() == 1
    assert await stub.list[0].increment() == 1
    assert (inner.disposed, target.disposed) == (0, 0)
    stub.dispose()
    assert (inner.disposed, target.disposed) == (1, 1)


async def test_a_stub_that_the_program_still_refers_to_outlives_the_value_that_it_was_in() -> None:
    counter = Counter()
    inner = RpcStub(counter)
    RpcStub({"stub": inner}).dispose()
    assert await inner.increment() == 1
    assert counter.disposed == 0
    inner.dispose()
    assert counter.disposed == 1


async def test_a_target_lets_go_of_its_own_stubs_by_itself() -> None:
    held = Counter()
    holder = Holder(held)
    stub = RpcStub(holder)
    assert await stub.stub.increment() == 1
    stub.dispose()
    assert (holder.disposed, held.disposed) == (1, 0)
    del holder, stub
    assert held.disposed == 1


async def test_a_target_is_disposed_of_with_the_last_of_its_stubs() -> None:
    counter = Counter()
    stubs = [original := RpcStub(counter), original.dup(), original.dup()]
    del original
    for stub in stubs:
        assert counter.disposed == 0
        stub.dispose()
        stub.dispose()
    assert counter.disposed == 1


async def give(value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    "stub_of",
    [RpcStub, lambda diary: RpcStub({"diary": diary}).diary, lambda diary: RpcPromise(give(diary))],
    ids=["target", "member of a value", "promise"],
)
async def test_calls_that_were_made_before_a_stub_was_disposed_begin_before_its_target_is(
    stub_of: Callable[[Diary], RpcStub],
) -> None:
    diary = Diary()
    stub = stub_of(diary)
    calls = [stub.later(), stub.plain(), stub.later()]
    stub.dispose()
    del stub
    for call in calls:
        await call
    assert diary.entries == ["later", "plain", "later", "later ends", "later ends", "disposed"]


async def test_a_target_that_nobody_was_given_is_not_disposed_of_by_a_call() -> None:
    """What a property gives is the target's own: a call through it is no reference."""
    inner = Diary()

    class Outer(RpcTarget):
        @property
        def inner(self) -> Diary:
            return inner

    stub = RpcStub(Outer())
    await stub.inner.later()
    await stub.inner.plain()
    assert inner.entries == ["later", "later ends", "plain"]


# Promises of this side: RpcPromise(awaitable).


async def fail() -> Any:
    raise ValueError("never there")


@pytest.mark.parametrize("over", ["this side", "a session"])
async def test_a_promise_becomes_a_target_a_stub_or_a_value(over: str) -> None:
    async with memory_pair(None, Holder(Counter())) as (client, _):
        holder = RpcStub(Holder(Counter())) if over == "this side" else client.remote_main
        assert await RpcPromise(give(Counter(1))).increment() == 2
        promise = RpcPromise(give(holder))
        assert await promise.make().increment(2) == 12
        assert await (await promise).make().value == 10
        counter = RpcPromise(give(RpcStub(Counter(1))))
        assert await counter.increment(2) == 3
        assert await (await counter).increment(3) == 6
        value = RpcPromise(give({"number": 123}))
        assert await value.number == 123
        assert await value == {"number": 123}


async def test_a_promise_that_fails_tells_everybody() -> None:
    told: list[BaseException] = []
    promise = RpcPromise(fail())
    promise.on_broken(told.append)
    for waiting in (promise.increment(), promise, promise.member):
        with pytest.raises(ValueError, match="never there"):
            await waiting
    promise.on_broken(told.append)
    assert [str(error) for error in told] == ["never there", "never there"]


async def test_a_promise_that_fails_and_that_nobody_awaits_is_no_accident(caplog: pytest.LogCaptureFixture) -> None:
    RpcPromise(fail())
    kept = RpcPromise(fail())
    call = kept.increment(1)
    kept.member.method().dispose()
    await anyio.wait_all_tasks_blocked()
    call.dispose()
    kept.dispose()
    del kept, call
    gc.collect()
    await anyio.wait_all_tasks_blocked()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("early", [True, False], ids=["before it is there", "afterwards"])
@pytest.mark.parametrize("collected", [True, False], ids=["collected", "disposed"])
async def test_what_a_promise_becomes_is_disposed_of_with_it(early: bool, collected: bool) -> None:
    counter, there = Counter(), anyio.Event()

    async def later() -> Counter:
        await there.wait()
        return counter

    promise = RpcPromise(later())
    await anyio.wait_all_tasks_blocked()
    for step in (0, 1):
        if step == early:
            there.set()
        elif collected:
            del promise
        else:
            promise.dispose()
        await anyio.wait_all_tasks_blocked()
    assert counter.disposed == 1


async def test_a_promise_of_a_stub_counts_one_reference_to_its_target() -> None:
    counter = Counter()
    stub = RpcStub(counter)
    promise = RpcPromise(give(stub))
    assert await promise.increment() == 1
    stub.dispose()
    del stub
    promise.dispose()
    promise.dispose()
    assert counter.disposed == 1


async def test_a_promise_of_a_stub_breaks_with_it() -> None:
    told: list[BaseException] = []
    async with memory_pair(None, Holder(Counter())) as (client, _):
        promise = RpcPromise(give(client.remote_main.dup()))
        promise.on_broken(told.append)
        await anyio.wait_all_tasks_blocked()
        client.connection_lost(OSError("cable"))
        assert [type(error) for error in told] == [SessionClosed]


async def test_a_promise_of_a_promise_is_another_reference_to_the_same() -> None:
    counter = Counter(1)
    source = RpcPromise(give(counter))
    promise = RpcPromise(source)
    assert await source.increment() == 2
    source.dispose()
    assert await promise.increment() == 3
    assert counter.disposed == 0
    promise.dispose()
    assert counter.disposed == 1


async def test_a_promise_of_the_promise_of_a_member_reads_it_when_it_is_awaited() -> None:
    reads: list[str] = []

    class Reading(RpcTarget):
        @property
        def member(self) -> int:
            reads.append("read")
            return 42

    source = RpcStub(Reading()).member
    promise = RpcPromise(source)
    await anyio.wait_all_tasks_blocked()
    assert reads == []
    assert await promise == 42
    assert reads == ["read"]
    assert await source == 42


async def test_a_promise_asks_the_peer_for_nothing_but_what_is_awaited() -> None:
    """Neither what it becomes nor what is in between is sent."""
    async with by_hand() as peer:
        there = anyio.Event()

        async def later() -> RpcStub:
            await there.wait()
            return peer.main.dup()

        promises = [RpcPromise(later()), RpcPromise(peer.main.make(0)), RpcPromise(give(peer.main.dup()))]
        calls = [promise.make(1).increment(2) for promise in promises]
        there.set()
        await anyio.wait_all_tasks_blocked()
        kinds = [message[0] for message in peer.hear()]
        assert (kinds.count("push"), kinds.count("pull"), kinds.count("stream")) == (7, 0, 0)
        del calls


async def test_a_promise_of_the_promise_of_a_peers_member_sends_nothing_until_it_is_awaited() -> None:
    async with by_hand() as peer, anyio.create_task_group() as tasks:
        source = peer.main.make(5).value
        promise = RpcPromise(source)
        again = RpcPromise(promise)
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["push", ["pipeline", 0, ["make"], [5]]]]

        async def wait() -> None:
            assert await again == 5

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["stream", ["pipeline", 1, ["value"]]]]
        peer.say("resolve", 2, 5)
