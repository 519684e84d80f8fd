"""A service binding whose target is a Cap'n Web peer elsewhere: the proxy relays between the two sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from capnweb_py import RpcStub, RpcTarget, serve
from capnweb_py.remote import connect_env, start_remote_proxy_session

pytestmark = pytest.mark.anyio


class Counter(RpcTarget):
    def __init__(self) -> None:
        self._value = 0

    def increment(self, by: int) -> int:
        self._value += by
        return self._value


class Upstream(RpcTarget):
    async def hello(self, name: str) -> str:
        return f"Hello, {name}!"

    def make_counter(self) -> Counter:
        return Counter()

    async def call(self, function: RpcStub, value: int) -> Any:
        return await function(value)

    def fail(self) -> None:
        raise KeyError("nothing there")


@asynccontextmanager
async def relayed() -> AsyncIterator[Any]:
    """The facade of a binding that is a peer on this machine, in this process."""
    async with serve(Upstream) as upstream:
        bindings = {"PEER": {"type": "service", "target": upstream.url}}
        async with await start_remote_proxy_session(bindings) as proxy, connect_env(proxy.connection_string) as env:
            yield env.PEER


async def test_calls_reach_the_peer_and_results_come_back() -> None:
    async with relayed() as peer:
        assert await peer.hello("World") == "Hello, World!"


async def test_what_the_peer_returns_by_reference_works_through_the_proxy() -> None:
    async with relayed() as peer:
        counter = peer.make_counter()
        assert await counter.increment(2) == 2
        with await peer.make_counter() as other:
            assert await other.increment(5) == 5
        assert await counter.increment(2) == 4


async def test_the_peer_calls_the_caller_back() -> None:
    async with relayed() as peer:
        assert await peer.call(lambda number: number + 1, 41) == 42


async def test_an_error_of_the_peer_is_the_callers() -> None:
    async with relayed() as peer:
        with pytest.raises(KeyError, match="nothing there"):
            await peer.fail()


async def test_a_peer_has_no_http_side() -> None:
    async with relayed() as peer:
        response = await peer.fetch("http://peer/")
        assert response.status == 500
        assert "speaks RPC only" in await response.text()


async def test_a_service_that_prints_does_not_disturb_the_control_of_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "printing.py").write_text(
        "from capnweb_py import RpcTarget\n"
        "class Printing(RpcTarget):\n"
        "    def speak(self, count):\n"
        "        print('x' * count)\n"
        "        return count\n"
    )
    monkeypatch.chdir(tmp_path)
    bindings = {"P": {"type": "service", "target": "printing:Printing"}}
    async with await start_remote_proxy_session(bindings) as proxy:
        async with connect_env(proxy.connection_string) as env:
            assert await env.P.speak(10) == 10
        await proxy.update_bindings(bindings)


async def test_a_target_that_is_no_text_is_refused_before_it_is_sent() -> None:
    async with await start_remote_proxy_session({}) as proxy:
        with pytest.raises(ValueError, match="module:Name"):
            await proxy.update_bindings({"P": {"type": "service", "target": Upstream}})
