"""Promise pipelining: what a chain of calls costs in messages and round trips."""

from __future__ import annotations

import gc
import logging
from typing import Any

import anyio
import pytest
from byhand import Peer, by_hand

from capnweb_py import RpcTarget, SessionStats, memory_pair

pytestmark = pytest.mark.anyio


class Node(RpcTarget):
    def __init__(self, name: str) -> None:
        self._name = name
        self.asked: list[str] = []

    def child(self, name: str) -> Node:
        self.asked.append(name)
        return Node(f"{self._name}/{name}")

    @property
    def name(self) -> str:
        return self._name

    def join(self, *names: str) -> str:
        return "+".join(names)

    def fail(self) -> Node:
        raise LookupError("no such child")


def introduce(one: Peer, other: Peer) -> int:
    """Carry messages between two sessions until there are none. Returns how many round trips the first one made."""
    trips = 0
    while messages := one.session.messages_to_send():
        trips += 1
        for data, binary in messages:
            other.session.receive(data, binary)
        for data, binary in other.session.messages_to_send():
            one.session.receive(data, binary)
    return trips


async def test_a_chain_of_calls_takes_one_round_trip() -> None:
    async with by_hand() as client, by_hand(Node("root")) as server, anyio.create_task_group() as tasks:
        results: list[Any] = []

        async def ask() -> None:
            grandchild = client.main.child("a").child("b")
            results.append(await client.main.join(grandchild.name, grandchild.child("c").name))

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        messages = client.session.messages_to_send()
        for data, binary in messages:
            server.session.receive(data, binary)
        for data, binary in server.session.messages_to_send():
            client.session.receive(data, binary)
        await anyio.wait_all_tasks_blocked()
        assert results == ["root/a/b+root/a/b/c"]
        introduce(client, server)
        assert server.session.stats().exports == client.session.stats().imports == 1


async def test_a_failed_call_fails_all_that_is_pipelined_on_it_with_the_same_error() -> None:
    async with memory_pair(None, Node("root")) as (client, _):
        failed = client.remote_main.fail()
        for promise in (failed.child("a").name, failed.name, client.remote_main.join("x", failed.name), failed):
            with pytest.raises(LookupError, match="no such child"):
                await promise
        with pytest.raises(LookupError, match="no such child"):
            await failed


async def test_a_call_that_fails_before_anybody_awaits_it_is_no_accident(caplog: pytest.LogCaptureFixture) -> None:
    """Neither side reports an exception that nobody has seen: the caller may still be about to await it."""

    class Failing(RpcTarget):
        def fail(self) -> None:
            raise LookupError("at once")

        async def fail_later(self) -> None:
            await anyio.lowlevel.checkpoint()
            raise LookupError("later")

        def echo(self, value: Any) -> Any:
            return value

    async with memory_pair(None, Failing()) as (client, server):
        main = client.remote_main
        awaited = [main.fail(), main.fail_later(), main.echo(main.fail()), main.echo(main.fail_later())]
        main.fail_later().dispose()
        main.echo(main.fail()).dispose()
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        for promise in awaited:
            with pytest.raises(LookupError, match=r"at once|later"):
                await promise
        awaited.clear()
        del promise
        gc.collect()
        await anyio.wait_all_tasks_blocked()
        assert client.stats() == server.stats() == SessionStats(1, 1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_promise_in_a_result_is_replaced_by_what_it_resolves_to() -> None:
    class Squares(RpcTarget):
        def square(self, number: int) -> int:
            return number * number

        def ask(self, squares: Any, number: int) -> dict[str, Any]:
            return {"result": squares.square(number)}

    async with memory_pair(Squares(), Squares()) as (client, server):
        assert await client.remote_main.ask(client.remote_main, 3) == {"result": 9}
        assert await client.remote_main.ask(Squares(), 4) == {"result": 16}
        await anyio.wait_all_tasks_blocked()
        assert client.stats() == server.stats() == SessionStats(1, 1)


async def test_the_functions_of_a_value_that_is_not_there_yet_are_called_in_order() -> None:
    called: list[tuple[str, int]] = []

    class Functions(RpcTarget):
        async def functions(self) -> dict[str, Any]:
            await anyio.lowlevel.checkpoint()
            return {name: lambda number, name=name: called.append((name, number)) for name in ("one", "other")}

    async with memory_pair(None, Functions()) as (client, _):
        promise = client.remote_main.functions()
        for call in [promise.one(1), promise.other(2), promise.one(3), promise.other(4)]:
            await call
    assert called == [("one", 1), ("other", 2), ("one", 3), ("other", 4)]


async def test_what_nobody_awaits_is_called_and_its_value_never_sent() -> None:
    root = Node("root")
    client, server = Peer(), Peer(root)
    client.main.child("x")
    client.main.child("y").child("z")
    for data, binary in client.session.messages_to_send():
        server.session.receive(data, binary)
    assert root.asked == ["x", "y"]
    assert server.hear() == []


async def test_awaiting_a_promise_again_gives_the_same_value_without_asking_again() -> None:
    async with memory_pair(None, Node("root")) as (client, _):
        promise = client.remote_main.child("a")
        stub = await promise
        assert await promise is stub
        assert await promise.name == "root/a"


async def test_a_member_of_a_value_that_has_arrived_is_read_here() -> None:
    class Tree(RpcTarget):
        def tree(self) -> Any:
            return {"a": [{"b": 5}]}

    async with memory_pair(None, Tree()) as (client, server):
        promise = client.remote_main.tree()
        assert await promise == {"a": [{"b": 5}]}
        before = server.answered_bytes
        assert await promise.a[0].b == 5
        assert server.answered_bytes == before


async def test_a_property_can_be_awaited_and_called_through() -> None:
    async with memory_pair(None, Node("root")) as (client, _):
        assert await client.remote_main.name == "root"
        assert await client.remote_main["name"] == "root"
        with pytest.raises(TypeError, match="name is not a function"):
            await client.remote_main.name()


@pytest.mark.parametrize("name", ["_private", "__len__", "__array__"])
async def test_names_that_python_asks_for_by_itself_are_no_members(name: str) -> None:
    main = Peer().main
    with pytest.raises(AttributeError, match=r"a remote member of that name is stub\["):
        getattr(main, name)
    with pytest.raises(TypeError):
        iter(main)
    with pytest.raises(TypeError):
        5 in main  # noqa: B015
    with pytest.raises(AttributeError, match="cannot be assigned to"):
        main.x = 5
    with pytest.raises(TypeError, match="a member is named by a str or an index"):
        main[1.5]  # type: ignore[index]
