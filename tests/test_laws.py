"""The laws of the core under random use: two sessions, and whatever their programs may do with them, in any order.

Calls on one stub arrive in the order in which they were made; nothing hangs; whoever is let go of is disposed once; and
when everything was let go of, both tables are back to one entry.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import anyio
import attrs
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from witnesses import NOTHING_HELD

from capnweb_py import RpcPromise, RpcStub, RpcTarget, SessionClosed, SessionStats, memory_pair

# In seconds, longer than anything here takes: what takes so long hangs.
PATIENCE = 60


class Node(RpcTarget):
    """An object of the server, which makes others."""

    def __init__(self, made: list[Node]) -> None:
        self._made = made
        self.notes: list[int] = []
        self.times_disposed = 0
        made.append(self)

    def make(self) -> Node:
        return Node(self._made)

    async def make_later(self) -> Node:
        await anyio.lowlevel.checkpoint()
        return Node(self._made)

    def make_many(self, count: int) -> list[Node]:
        return [Node(self._made) for _ in range(count)]

    def note(self, number: int) -> None:
        self.notes.append(number)

    async def note_later(self, number: int) -> None:
        self.notes.append(number)
        await anyio.lowlevel.checkpoint()

    def echo(self, value: Any) -> Any:
        return value

    def same(self, one: Any, other: Any) -> bool:
        return bool(one == other)

    def fail(self) -> None:
        raise LookupError("as asked")

    async def call(self, callback: Any, number: int) -> Any:
        return await callback(number)

    async def forever(self) -> None:
        await anyio.sleep_forever()

    def count(self, to: int) -> AsyncIterator[int]:
        return numbers(to)

    async def total(self, stream: Any) -> int:
        return sum([number async for number in stream])

    def dispose(self) -> None:
        self.times_disposed += 1


async def numbers(to: int) -> AsyncIterator[int]:
    for i in range(to):
        yield i


@attrs.define(eq=False)
class Held:
    """A stub or promise that the client has, and what was noted by way of it, in order."""

    stub: RpcStub
    noted: list[int] = attrs.field(factory=list)


some = st.integers(0, 99)


class TwoSessions(RuleBasedStateMachine):
    """A client that uses a server in every way that there is."""

    backend = "asyncio"

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._portal: BlockingPortal = self._stack.enter_context(start_blocking_portal(self.backend))
        self._made: list[Node] = []
        pair = memory_pair(None, Node(self._made))
        self._client, self._server = self._stack.enter_context(self._portal.wrap_async_context_manager(pair))
        self._main = self._client.remote_main
        self._held: list[Held] = []
        self._noted: list[list[int]] = []
        self._next = 0
        self._broken = False

    def _run(self, step: Callable[[], Awaitable[Any]]) -> Any:
        """Take a step in the event loop. It may fail with the connection's end, if that has come, and must not hang."""

        async def patiently() -> Any:
            with anyio.fail_after(PATIENCE):
                try:
                    return await step()
                except SessionClosed:
                    assert self._broken
                    return None

        return self._portal.call(patiently)

    def _hold(self, *stubs: RpcStub | None) -> None:
        self._held += [Held(stub) for stub in stubs if stub is not None]

    def _pick(self, number: int) -> Held:
        return self._held[number % len(self._held)]

    def _note(self, held: Held, name: str) -> RpcPromise:
        self._next += 1
        if not held.noted:
            self._noted.append(held.noted)
        held.noted.append(self._next)
        promise: RpcPromise = held.stub[name](self._next)
        return promise

    @rule(later=st.booleans())
    def make(self, later: bool) -> None:
        async def call() -> None:
            self._hold(self._main.make_later() if later else self._main.make())

        self._run(call)

    @rule(count=st.integers(0, 3))
    def make_many(self, count: int) -> None:
        async def wait() -> None:
            self._hold(*await self._main.make_many(count))

        self._run(wait)

    @precondition(lambda self: self._held)
    @rule(pick=some, other=some)
    def make_by_another(self, pick: int, other: int) -> None:
        async def call() -> None:
            self._hold(self._pick(pick).stub.make().echo(self._pick(other).stub.make()))

        self._run(call)

    @precondition(lambda self: self._held)
    @rule(pick=some)
    def await_it(self, pick: int) -> None:
        async def wait() -> None:
            stub = self._pick(pick).stub
            if isinstance(stub, RpcPromise):
                value = await stub
                assert value == await stub
                self._hold(value)

        self._run(wait)

    @precondition(lambda self: self._held)
    @rule(pick=some, name=st.sampled_from(["note", "note_later"]), waiting=st.booleans())
    def note(self, pick: int, name: str, waiting: bool) -> None:
        async def call() -> None:
            promise = self._note(self._pick(pick), name)
            if waiting:
                await promise

        self._run(call)

    @precondition(lambda self: self._held)
    @rule(pick=some)
    def pass_it_around(self, pick: int) -> None:
        async def wait() -> None:
            stub = self._pick(pick).stub
            await stub.echo(0)  # what it stands for is there now
            back = (await self._main.echo({"there": [stub]}))["there"][0]
            assert await self._main.same(stub, back)
            self._hold(back)

        self._run(wait)

    @precondition(lambda self: self._held)
    @rule(pick=some, number=st.integers(0, 9))
    def call_back(self, pick: int, number: int) -> None:
        async def wait() -> None:
            stub = self._pick(pick).stub
            got, back = await self._main.call(lambda n: [n, stub], number)
            assert got == number
            self._hold(back)

        self._run(wait)

    @precondition(lambda self: self._held)
    @rule(pick=some, count=st.integers(1, 3), waiting=st.booleans())
    def map(self, pick: int, count: int, waiting: bool) -> None:
        async def wait() -> None:
            stub = self._pick(pick).stub
            promise = self._main.make_many(count).map(lambda node: {"made": node.make(), "stub": stub, "node": node})
            if not waiting:
                self._hold(promise[0].made)
                return
            await stub.echo(0)
            for item in await promise:
                assert await self._main.same(item["stub"], stub)
                self._hold(item["made"], item["node"])

        self._run(wait)

    @rule()
    def fail(self) -> None:
        async def wait() -> None:
            with pytest.raises((LookupError, SessionClosed)):
                await self._main.fail().anything()

        self._run(wait)

    @rule(items=st.integers(0, 5))
    def write_a_stream(self, items: int) -> None:
        async def wait() -> None:
            assert await self._main.total(numbers(items)) == sum(range(items))

        self._run(wait)

    @rule(items=st.integers(1, 5), read=st.integers(1, 6))
    def read_a_stream(self, items: int, read: int) -> None:
        async def wait() -> None:
            stream = await self._main.count(items)
            got = []
            async for item in stream:
                got.append(item)
                if len(got) == read:
                    break
            assert got == list(range(min(items, read)))
            await stream.aclose()

        self._run(wait)

    @rule()
    def leave_something_running(self) -> None:
        async def call() -> None:
            self._main.forever()

        self._run(call)

    @precondition(lambda self: self._held)
    @rule(pick=some)
    def dup(self, pick: int) -> None:
        async def call() -> None:
            self._hold(self._pick(pick).stub.dup())

        self._run(call)

    @precondition(lambda self: self._held)
    @rule(pick=some, early=st.booleans())
    def let_go(self, pick: int, early: bool) -> None:
        async def call() -> None:
            held = self._pick(pick)
            self._held.remove(held)
            if early:
                held.stub.dispose()

        self._run(call)

    @rule()
    def collect(self) -> None:
        async def call() -> None:
            gc.collect(1)
            await anyio.lowlevel.checkpoint()

        self._run(call)

    @precondition(lambda self: not self._broken and self._next > 5)
    @rule(by_server=st.booleans())
    def disconnect(self, by_server: bool) -> None:
        async def end() -> None:
            (self._server if by_server else self._client).close()
            while not (self._server.closed and self._client.closed):
                await anyio.lowlevel.checkpoint()

        self._broken = True
        self._run(end)

    @invariant()
    def nobody_is_disposed_twice(self) -> None:
        assert all(node.times_disposed <= 1 for node in self._made)

    @invariant()
    def notes_arrive_in_order(self) -> None:
        for noted in self._noted:
            for node in self._made:
                arrived = [number for number in node.notes if number in noted]
                assert arrived == sorted(arrived)

    def teardown(self) -> None:
        try:
            self._held.clear()
            self._run(self._until_nothing_is_held)
            if not self._broken:
                main, *others = self._made
                assert main.times_disposed == 0
                assert [node.times_disposed for node in others] == [1] * len(others)
        finally:
            self._stack.close()
        gc.collect()
        assert [node.times_disposed for node in self._made] == [1] * len(self._made)

    async def _until_nothing_is_held(self) -> None:
        nothing = SessionStats(0, 0) if self._broken else NOTHING_HELD
        while (self._client.stats(), self._server.stats()) != (nothing, nothing) or not (
            # A call that runs holds its target a little longer than the tables do.
            self._broken or all(node.times_disposed for node in self._made[1:])
        ):
            gc.collect()
            for _ in range(100):
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_laws_hold(backend: str) -> None:
    machine = type("TwoSessions", (TwoSessions,), {"backend": backend})
    quick = settings(
        max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    run_state_machine_as_test(machine, settings=quick)
