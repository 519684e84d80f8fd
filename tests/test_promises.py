"""RpcPromise(awaitable): publishing something that does not exist yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any

import anyio
import pytest
from byhand import by_hand

from capnweb_py import RpcError, RpcPromise, RpcStub, RpcTarget, memory_pair

pytestmark = pytest.mark.anyio


class Log(RpcTarget):
    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.disposed = False

    def add(self, line: Any) -> int:
        self.lines.append(line)
        return len(self.lines)

    async def add_later(self, line: Any) -> int:
        return self.add(line)

    @property
    def size(self) -> int:
        return len(self.lines)

    def dispose(self) -> None:
        self.disposed = True


class Later:
    """A value that is there once it is given; an awaitable of no known kind."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._value: Any = None

    def give(self, value: Any) -> None:
        self._value = value
        self._event.set()

    async def _wait(self) -> Any:
        await self._event.wait()
        if isinstance(self._value, BaseException):
            raise self._value
        return self._value

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._wait().__await__()


class Api(RpcTarget):
    def __init__(self, value: Awaitable[Any]) -> None:
        self._value = value

    def log(self) -> Any:
        return RpcPromise(self._value)

    def echo(self, value: Any) -> Any:
        return value

    def add_to(self, log: RpcStub, line: str) -> Any:
        return log.add(line)


async def test_calls_that_are_made_before_it_settles_queue_in_order() -> None:
    later, log = Later(), Log()
    promise = RpcPromise(later)
    answers = [promise.add(1), promise.add_later(2), promise.add(3), promise.size]
    await anyio.wait_all_tasks_blocked()
    assert log.lines == []
    later.give(log)
    assert await answers[0] == 1
    answers.append(promise.add(4))
    assert [await answer for answer in answers] == [1, 2, 3, 3, 4] or log.lines == [1, 2, 3, 4]
    assert log.lines == [1, 2, 3, 4]


async def test_a_method_returns_one_and_its_caller_calls_on_it_at_once() -> None:
    later, log = Later(), Log()
    async with memory_pair(None, Api(later)) as (client, server):
        promise = client.remote_main.log()
        first = promise.add("first")
        second = promise.add("second")
        await anyio.wait_all_tasks_blocked()
        later.give(log)
        assert (await first, await second) == (1, 2)
        assert await (await promise).add("third") == 3
        assert log.lines == ["first", "second", "third"]
        del promise, first, second
        await anyio.wait_all_tasks_blocked()
        assert (client.stats().imports, server.stats().exports) == (1, 1)
        assert log.disposed


async def test_it_passes_as_an_argument_and_the_call_waits_for_it() -> None:
    later, log = Later(), Log()
    async with memory_pair(None, Api(later)) as (client, server):
        called = client.remote_main.add_to(RpcPromise(later), "line")
        echoed = client.remote_main.echo([RpcPromise(later)])
        await anyio.wait_all_tasks_blocked()
        assert log.lines == []
        later.give(log)
        assert await called == 1
        (stub,) = await echoed
        assert stub == log
        del stub, called, echoed
        await anyio.wait_all_tasks_blocked()
        assert (client.stats().exports, server.stats().imports) == (1, 1)


async def test_its_wire_is_a_promise_and_a_resolution() -> None:
    later = Later()
    async with by_hand() as peer:
        peer.main.take(RpcPromise(later)).dispose()
        assert peer.hear()[0] == ["push", ["pipeline", 0, ["take"], [["promise", -1]]]]
        assert peer.hear() == []
        later.give({"n": 1})
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["resolve", -1, {"n": 1}]]


async def test_values_awaited_on_this_side_are_copies_as_if_they_had_been_sent() -> None:
    value = {"list": (1, 2)}
    later = Later()
    later.give(value)
    promise = RpcPromise(later)
    given = await promise
    assert given == {"list": [1, 2]}
    assert given is not value
    assert await promise is given
    assert await promise.list[1] == 2


async def test_its_failure_is_that_of_all_that_waits_for_it() -> None:
    later = Later()
    async with memory_pair(None, Api(later)) as (client, _):
        promise = client.remote_main.log()
        call = promise.add(1)
        later.give(LookupError("there is none"))
        for failed in (call, promise, promise.size, client.remote_main.echo(promise), promise):
            with pytest.raises(LookupError, match="there is none"):
                await failed


async def test_letting_go_of_it_before_it_settles_lets_go_of_the_value() -> None:
    later, log = Later(), Log()
    async with memory_pair(None, Api(later)) as (client, server):
        promise = client.remote_main.log()
        await anyio.wait_all_tasks_blocked()
        promise.dispose()
        await anyio.wait_all_tasks_blocked()
        assert server.stats().exports == 1
        later.give(log)
        await anyio.wait_all_tasks_blocked()
        assert log.disposed


async def test_promises_of_promises_are_one() -> None:
    later = Later()
    promise = RpcPromise(RpcPromise(RpcPromise(later)))
    part = RpcPromise(promise.name)
    later.give({"name": "Ada"})
    assert await promise == {"name": "Ada"}
    assert await part == "Ada"

    async def forward() -> Any:
        return promise

    assert await RpcPromise(forward()) == {"name": "Ada"}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_tasks_and_futures_are_awaitables(anyio_backend: str) -> None:
    async def make() -> Log:
        return Log()

    assert await RpcPromise(asyncio.create_task(make())).add("x") == 1
    future = asyncio.get_running_loop().create_future()
    promise = RpcPromise(future)
    future.set_result(5)
    assert await promise == 5
    cancelled = asyncio.get_running_loop().create_future()
    promise = RpcPromise(cancelled)
    await anyio.wait_all_tasks_blocked()
    cancelled.cancel()
    with pytest.raises(RpcError, match="cancelled"):
        await promise


def test_it_is_made_of_an_awaitable_in_a_running_loop() -> None:
    with pytest.raises(TypeError, match="a promise is made of an awaitable, not of a int"):
        RpcPromise(5)  # type: ignore[arg-type]

    async def make() -> None: ...

    # What fails must not stay in line before what comes later.
    with pytest.raises(RuntimeError, match="no event loop is running here"):
        RpcPromise(make())

    async def later() -> None:
        stub = RpcStub(Log())
        assert await stub.add_later(1) == 1

    with pytest.raises(RuntimeError, match="no event loop is running here"):
        RpcStub(Log()).add_later(1)
    anyio.run(later)
    anyio.run(later, backend="trio")
