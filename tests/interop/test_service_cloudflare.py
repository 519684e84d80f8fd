"""The facades of services and of dispatch namespaces over Cloudflare's own proxy Worker, as npm wrangler ships it, with
the Worker of service_target.mjs behind it.

Miniflare has no dispatch namespace of its own: dispatcher.mjs stands for one. What the proxy Worker does with the
options of a `get`, in a header and in a query, is all its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import anyio
import pytest

from capnweb_py import RemoteError
from capnweb_py.remote import Env, connect_env
from capnweb_py.web_socket import WebSocketRefused

from .node import HERE
from .runtime import cloudflare_proxy

pytestmark = pytest.mark.anyio

TYPES: Final = {"SVC": "service", "ADMIN": "service", "DISPATCH": "dispatch_namespace"}


def module_worker(name: str, script: str, **options: Any) -> dict[str, Any]:
    modules = [{"type": "ESModule", "path": str(HERE / script)}]
    date = {"compatibilityDate": "2026-04-01"}
    return {"name": name, "modules": modules, "modulesRoot": str(HERE), **date, **options}


@pytest.fixture(scope="module")
def connection_string(node: str) -> Iterator[str]:
    admin = {"name": "target", "entrypoint": "Admin", "props": {"realm": "all"}}
    proxy = module_worker(
        "proxy",
        "node_modules/wrangler/wrangler-dist/ProxyServerWorker.js",
        serviceBindings={"SVC": "target", "ADMIN": admin},
        wrappedBindings={"DISPATCH": {"scriptName": "dispatcher"}},
    )
    dispatcher = module_worker("dispatcher", "dispatcher.mjs", serviceBindings={"tenant": "target"})
    del dispatcher["compatibilityDate"]  # a wrapped binding has that of the Worker which is given it
    with cloudflare_proxy(node, workers=[proxy, module_worker("target", "service_target.mjs"), dispatcher]) as url:
        yield url


@pytest.fixture
async def env(connection_string: str) -> AsyncIterator[Env]:
    with anyio.fail_after(60):
        async with connect_env(connection_string, bindings=TYPES) as env:
            yield env


async def test_calls_and_requests(env: Env) -> None:
    assert await env.SVC.hello("World") == "Hello, World!"
    response = await env.SVC.fetch("https://a.example/x")
    assert (response.status, response.headers["x-plain"], await response.text()) == (200, "yes", "plain /x")


async def test_a_named_entrypoint_is_the_bindings_own(env: Env) -> None:
    assert await env.ADMIN.role() == "admin of all"


async def test_websockets(env: Env) -> None:
    async with env.SVC.websocket("https://a.example/echo", subprotocols=["other", "chat"]) as socket:
        assert socket.subprotocol == "chat"
        for message in ["text", "ü😀", "", b"\x00\xff"]:
            await socket.send(message)
            assert await socket.receive() == message


async def test_a_websocket_that_the_service_closes(env: Env) -> None:
    async with env.SVC.websocket("https://a.example/farewell") as socket:
        assert [message async for message in socket] == ["bye"]
        assert (socket.close_code, socket.close_reason) == (4001, "enough")


async def test_a_websocket_that_the_client_closes(env: Env) -> None:
    async with env.SVC.websocket("https://a.example/watch") as socket:
        await socket.close(4002, "done")
    assert await (await env.SVC.fetch("https://a.example/watched")).json() == [4002, "done"]


async def test_headers_and_the_url_of_a_handshake(env: Env) -> None:
    url = "https://a.example/headers?a=b"
    async with env.SVC.websocket(url, headers={"X-Asked": "yes"}) as socket:
        assert await socket.receive() == f'["{url}","yes",null]'


@pytest.mark.parametrize(
    ("path", "status", "body"), [("/refuse", 403, "members only"), ("/plain", 200, "plain /plain")]
)
async def test_a_response_instead_of_a_websocket(env: Env, path: str, status: int, body: str) -> None:
    with pytest.raises(WebSocketRefused) as raised:
        async with env.SVC.websocket(f"https://a.example{path}"):
            raise AssertionError("it is refused")
    assert (raised.value.response.status, await raised.value.response.text()) == (status, body)


async def test_20_megabytes_arrive_in_order(env: Env) -> None:
    async with env.SVC.websocket("https://a.example/flood") as socket:
        firsts = [message[0] async for message in socket]
    assert firsts == [number % 256 for number in range(2000)]


async def test_a_dispatched_service(env: Env) -> None:
    tenant = env.DISPATCH.get("tenant", {"name": "ä"}, {"limits": {"cpuMs": 5}})
    assert await tenant.hello("World") == "Hello, World!"
    assert await (await tenant.fetch("https://a.example/x")).text() == "plain /x"
    async with tenant.websocket("https://a.example/echo") as socket:
        await socket.send("hello")
        assert await socket.receive() == "hello"


async def test_a_name_that_nothing_has(env: Env) -> None:
    nobody = env.DISPATCH.get("nobody")
    response = await nobody.fetch("https://a.example/")
    assert (response.status, await response.text()) == (500, "Worker not found.")
    with pytest.raises(RemoteError):
        await nobody.hello("World")
