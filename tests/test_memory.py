"""memory_pair: two sessions in one process, with every message encoded and decoded as on a wire."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from capnweb_py import LimitExceeded, Limits, RpcTarget, SessionClosed, SessionOptions, memory_pair
from capnweb_py.loops import Loop
from capnweb_py.transports.driver import Driver

pytestmark = pytest.mark.anyio


class Api(RpcTarget):
    def __init__(self) -> None:
        self.cancelled = anyio.Event()
        self.started = anyio.Event()

    def echo(self, value: Any) -> Any:
        return value

    async def call(self, function: Any) -> Any:
        return await function()

    async def wait(self) -> None:
        try:
            self.started.set()
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()


@pytest.mark.parametrize("codec", ["json", "cbor"])
async def test_both_sides_have_a_main_object(codec: str) -> None:
    async with memory_pair(Api(), Api(), codec=codec) as (one, other):
        assert await one.remote_main.echo(b"a") == b"a"
        assert await other.remote_main.echo({"b": 1}) == {"b": 1}
        assert await one.remote_main.call(lambda: "called back") == "called back"


async def test_values_are_copied() -> None:
    async with memory_pair(None, Api()) as (client, _):
        value = {"items": [1]}
        again = await client.remote_main.echo(value)
        assert again == value
        assert again is not value


async def test_a_pair_lasts_until_it_is_closed_without_a_context() -> None:
    client, server = memory_pair(None, Api())
    assert await client.remote_main.echo(1) == 1
    assert await client.remote_main.call(lambda: 2) == 2
    client.close()
    await anyio.wait_all_tasks_blocked()
    assert server.closed


async def test_the_end_of_the_context_cancels_calls_and_fails_what_waits_for_them() -> None:
    api = Api()
    async with memory_pair(None, api) as (client, _):
        pending = client.remote_main.wait()
        await api.started.wait()
    assert api.cancelled.is_set()
    with pytest.raises(SessionClosed):
        await pending


async def test_an_exception_of_the_body_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):  # noqa: PT012
        async with memory_pair(None, Api()) as (client, _):
            client.remote_main.wait()
            raise KeyError


async def test_an_abort_reaches_the_other_side() -> None:
    options = SessionOptions(limits=Limits(max_message_size=100))
    async with memory_pair(None, Api(), options=options) as (client, server):
        with pytest.raises(SessionClosed, match="max_message_size = 100"):
            await client.remote_main.echo("x" * 100)
        assert isinstance(server.end, LimitExceeded)


async def test_drain_waits_for_the_answers_to_the_peer() -> None:
    release = anyio.Event()

    class Slow(RpcTarget):
        async def wait(self) -> None:
            await release.wait()

    async with memory_pair(None, Slow()) as (client, server), anyio.create_task_group() as tasks:
        drained = anyio.Event()

        async def drain() -> None:
            await server.drain()
            drained.set()

        async def call() -> None:
            await client.remote_main.wait()

        tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(drain)
        await anyio.wait_all_tasks_blocked()
        assert not drained.is_set()
        release.set()
        await drained.wait()


async def test_drain_fails_when_the_session_ends_first() -> None:
    async with memory_pair(None, Api()) as (client, server):
        await server.drain()
        server.close()
        with pytest.raises(SessionClosed):
            await server.drain()
        assert client.remote_main is not None


def test_a_codec_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown codec 'xml'; one of cbor, json"):
        memory_pair(codec="xml")


@pytest.mark.parametrize("unfinished", [Loop, Driver])
async def test_what_is_unfinished_cannot_be_made(unfinished: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        unfinished()
