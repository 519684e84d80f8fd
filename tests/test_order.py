"""E-order: calls on one stub begin in the order in which they were made, whatever they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from capnweb_py import RpcPromise, RpcStub, RpcTarget, memory_pair

pytestmark = pytest.mark.anyio


class Log(RpcTarget):
    """Writes down in which order its methods begin."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.gate = anyio.Event()

    def plain(self, number: int, *_: Any) -> int:
        self.begun.append(number)
        return number

    async def waiting(self, number: int, *_: Any) -> int:
        self.begun.append(number)
        await self.gate.wait()
        return number

    async def quick(self, number: int) -> int:
        self.begun.append(number)
        return number

    @property
    def me(self) -> Log:
        return self

    async def slowly_me(self) -> Log:
        await self.gate.wait()
        return self

    def open(self) -> None:
        self.gate.set()


class Mirror(RpcTarget):
    """Gives back what it gets, at once or later."""

    def __init__(self) -> None:
        self.gate = anyio.Event()

    def echo(self, value: Any) -> Any:
        return value

    async def later(self, value: Any) -> Any:
        await self.gate.wait()
        return value

    def open(self) -> None:
        self.gate.set()


def call_in_turn(stub: RpcStub, count: int, first: int = 0) -> list[RpcPromise]:
    """Call plain and asynchronous methods in turn."""
    names = ("waiting", "plain", "quick")
    return [stub[names[number % 3]](number) for number in range(first, first + count)]


async def test_plain_and_asynchronous_methods_begin_in_the_order_of_the_calls() -> None:
    log = Log()
    async with memory_pair(None, log) as (client, _):
        promises = call_in_turn(client.remote_main, 60)
        log.gate.set()
        assert [await promise for promise in promises] == list(range(60))
    assert log.begun == list(range(60))


async def test_so_do_they_when_awaited_by_tasks_of_their_own() -> None:
    log = Log()
    log.gate.set()
    async with memory_pair(None, log) as (client, _), anyio.create_task_group() as tasks:

        async def wait(promise: RpcPromise) -> None:
            await promise

        for promise in call_in_turn(client.remote_main, 60):
            tasks.start_soon(wait, promise)
    assert log.begun == list(range(60))


async def test_calls_on_a_local_stub_keep_their_order_too() -> None:
    log = Log()
    log.gate.set()
    promises = call_in_turn(RpcStub(log), 30)
    assert [await promise for promise in promises] == list(range(30))
    assert log.begun == list(range(30))


class Later(RpcTarget):
    def later(self) -> Any:
        return _Value()

    def plain(self, number: int) -> int:
        return number


class _Value:
    """What a method may return to be awaited, besides a coroutine."""

    def __await__(self) -> Generator[None, None, int]:
        yield from ()
        return 1


def test_what_stood_in_line_when_a_loop_ended_holds_up_no_later_one() -> None:
    stub = RpcStub(Later())

    async def call_and_end() -> None:
        # In the loop's last turn: the task that is to begin the call never runs.
        asyncio.get_running_loop().call_soon(stub.later)

    async def call() -> list[int]:
        with anyio.fail_after(60):
            return [await stub.later(), await stub.plain(2)]

    asyncio.run(call_and_end())
    assert asyncio.run(call()) == [1, 2]


async def test_a_plain_function_can_be_called_where_no_loop_runs() -> None:
    log = Log()
    await anyio.to_thread.run_sync(RpcStub(log).plain, 1)
    assert log.begun == [1]


async def test_calls_on_a_promise_keep_their_order_before_and_after_it_resolves() -> None:
    log = Log()
    async with memory_pair(None, log) as (client, _):
        promise = client.remote_main.slowly_me()
        promises = call_in_turn(promise, 10)
        await anyio.wait_all_tasks_blocked()
        assert log.begun == []
        client.remote_main.open()
        promises += call_in_turn(promise, 10, first=10)
        stub = await promise
        promises += call_in_turn(promise, 10, first=20)
        promises += call_in_turn(stub, 10, first=30)
        assert [await one for one in promises] == list(range(40))
    assert log.begun == list(range(40))


@pytest.mark.parametrize("method", ["echo", "later"])
async def test_a_promise_that_turns_out_to_be_the_callers_own_object_is_not_overtaken(method: str) -> None:
    log = Log()
    log.gate.set()
    async with memory_pair(None, Mirror()) as (client, _):
        promise = client.remote_main[method](log)
        promises = call_in_turn(promise, 10)
        client.remote_main.open()
        own = await promise
        promises += call_in_turn(own, 10, first=10)
        promises += call_in_turn(promise, 10, first=20)
        assert [await one for one in promises] == list(range(30))
    assert log.begun == list(range(30))


async def test_a_stub_in_a_result_is_not_overtaken_either() -> None:
    log = Log()
    log.gate.set()
    async with memory_pair(None, Mirror()) as (client, _):
        promise = client.remote_main.later({"log": log})
        promises = call_in_turn(promise.log, 10)
        client.remote_main.open()
        own = (await promise)["log"]
        promises += call_in_turn(own, 10, first=10)
        assert [await one for one in promises] == list(range(20))
    assert log.begun == list(range(20))


async def test_a_call_that_waits_for_an_argument_holds_up_nobody_and_runs_when_it_is_there() -> None:
    log, mirror = Log(), Mirror()
    async with memory_pair(None, log) as (client, _), memory_pair(None, mirror) as (other, _):
        late = client.remote_main.plain(1, other.remote_main.later("argument"))
        assert await client.remote_main.plain(2) == 2
        await anyio.wait_all_tasks_blocked()
        assert log.begun == [2]
        mirror.open()
        assert await late == 1
    assert log.begun == [2, 1]


async def test_promises_as_arguments_are_replaced_by_their_values() -> None:
    async with memory_pair(None, Mirror()) as (client, _):
        main = client.remote_main
        one = main.echo({"a": [1, 2]})
        assert await main.echo([one, {"x": one.a, "y": one.a[1]}]) == [{"a": [1, 2]}, {"x": [1, 2], "y": 2}]
        assert await main.echo(main.echo(main.echo(5))) == 5


async def test_an_awaited_call_that_is_used_before_its_answer_lines_calls_up() -> None:
    log = Log()
    async with memory_pair(None, log) as (client, _), anyio.create_task_group() as tasks:
        promise = client.remote_main.slowly_me()

        async def wait() -> None:
            await promise

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        promises = call_in_turn(promise, 10)
        await anyio.wait_all_tasks_blocked()
        assert log.begun == []
        log.gate.set()
        assert [await one for one in promises] == list(range(10))
    assert log.begun == list(range(10))


async def test_a_line_on_an_awaited_call_outlives_the_promise_of_the_call() -> None:
    log = Log()
    async with memory_pair(None, log) as (client, _), anyio.create_task_group() as tasks:
        promises = [client.remote_main.slowly_me()]

        async def wait() -> None:
            await promises[0]

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        late = promises[0].plain(5)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            promises.clear()
            await anyio.wait_all_tasks_blocked()
            log.gate.set()
            assert await late == 5


async def test_a_promise_made_of_an_awaitable_takes_calls_before_there_is_a_value() -> None:
    log, opened = Log(), anyio.Event()
    log.gate.set()

    async def later() -> Log:
        await opened.wait()
        return log

    promise = RpcPromise(later())
    promises = call_in_turn(promise, 9)
    await anyio.wait_all_tasks_blocked()
    assert log.begun == []
    opened.set()
    assert [await one for one in promises] == list(range(9))
    assert log.begun == list(range(9))


async def test_a_long_chain_of_promises_ends_in_its_value() -> None:
    class Adder(RpcTarget):
        async def add(self, one: int, other: int) -> int:
            return one + other

    async with memory_pair(None, Adder()) as (client, server):
        total: Any = 0
        for number in range(1000):
            total = client.remote_main.add(total, number)
        assert await total == sum(range(1000))
        del total
        await anyio.wait_all_tasks_blocked()
        assert client.stats().imports == server.stats().exports == 1
