"""The dispatch_namespace binding: its facade on both event loops, its RPC channel, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import anyio
import httpx2
import pytest
from proxying import fetch, http_scope, proxy, serving, websocket_scope

from capnweb_py import ProxyError, RemoteError, connect, lazy_sessions
from capnweb_py.bindings.dispatch_namespace import MAX_OPTIONS
from capnweb_py.remote import Env, connect_env
from capnweb_py.web_socket import WebSocketRefused
from proxy_server.bindings import BindingError, Declaration, dispatching, parse_binding
from proxy_server.bindings.dispatching import Dispatch, DispatchError
from proxy_server.tables import Table

pytestmark = pytest.mark.anyio

CONFIG: Final = """
[bindings.DISPATCH]
type = "dispatch_namespace"

[bindings.DISPATCH.services.tenant]
target = "tests.chat:Tenant"
props = { plan = "free" }

[bindings.DISPATCH.services.plain]
target = "tests.chat:Chat"

[bindings.DISPATCH.services.app]
target = "tests.chat:chat_app"

[bindings.SVC]
type = "service"
target = "tests.chat:Chat"
"""
# RFC 6455, section 4.1.
HANDSHAKE: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
OPTIONS: Final = {"limits": {"cpuMs": 5, "subRequests": 3}, "outbound": {"who": "ä"}}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config: Path = tmp_path_factory.mktemp("dispatch") / "capnweb.toml"
    config.write_text(CONFIG)
    with serving(config) as server:
        yield server.url


@pytest.fixture
async def env(url: str) -> AsyncIterator[Env]:
    with anyio.fail_after(60):
        async with connect_env(url) as env:
            yield env


# The facade


async def test_calls(env: Env) -> None:
    assert await env.DISPATCH.get("tenant").hello("World") == "Hello, World, from a tenant!"
    assert await env.DISPATCH.get("plain").hello("World") == "Hello, World!"


async def test_args_and_options_reach_a_target_that_takes_them(env: Env) -> None:
    service = env.DISPATCH.get("tenant", {"name": "ä\n😀"}, OPTIONS)
    given = {"props": {"plan": "free"}, "args": {"name": "ä\n😀"}, "options": OPTIONS}
    assert await service.given() == given
    response = await service.fetch("https://a.example/x?y", method="POST", body="ü")
    assert await response.json() == ["POST", "https://a.example/x?y", "ü", given]


async def test_a_target_that_takes_none_does_without(env: Env) -> None:
    assert await env.DISPATCH.get("plain", {"name": "x"}, OPTIONS).hello("World") == "Hello, World!"
    response = await env.DISPATCH.get("app", {"name": "x"}).fetch("https://a.example/x")
    assert (response.status, await response.text()) == (200, "plain /x")


async def test_each_get_is_one_of_its_own(env: Env) -> None:
    ada, bob = env.DISPATCH.get("tenant", {"name": "Ada"}), env.DISPATCH.get("tenant", {"name": "Bob"})
    first, second = ada.given(), bob.given()
    assert ((await first)["args"], (await second)["args"]) == ({"name": "Ada"}, {"name": "Bob"})


async def test_websockets(env: Env) -> None:
    async with env.DISPATCH.get("tenant", {"name": "Ada"}).websocket("https://a.example/") as socket:
        await socket.send("hello")
        assert await socket.receive() == "Ada: 'hello'"
    async with env.DISPATCH.get("app").websocket("https://a.example/echo") as socket:
        await socket.send(b"hello")
        assert await socket.receive() == b"hello"


async def test_a_name_that_nothing_has_fails_where_it_is_used(env: Env) -> None:
    nobody = env.DISPATCH.get("nobody")
    with pytest.raises(RemoteError, match=r"^Worker not found\.$") as raised:
        await nobody.hello("World")
    assert raised.value.name == "Error"
    response = await nobody.fetch("https://a.example/")
    assert (response.status, await response.text()) == (500, "Worker not found.")
    with pytest.raises(WebSocketRefused) as refused:
        async with nobody.websocket("https://a.example/"):
            raise AssertionError("there is nobody")
    assert await refused.value.response.text() == "Worker not found."


async def test_what_cannot_be_sent_is_refused_at_once(env: Env) -> None:
    get = env.DISPATCH.get
    with pytest.raises(TypeError, match="the name of a service is a str, not int"):
        get(1)
    with pytest.raises(ValueError, match="is not empty"):
        get("")
    with pytest.raises(TypeError, match="not JSON serializable"):
        get("tenant", {"a": {1, 2}})
    with pytest.raises(ValueError, match="Out of range float"):
        get("tenant", {"a": float("nan")})
    with pytest.raises(ValueError, match="at most"):
        get("tenant", {"a": "x" * 40_000})


async def test_args_as_long_as_they_may_be(env: Env) -> None:
    service = env.DISPATCH.get("tenant", {"list": ["x\n", {}] * 1400})
    assert len((await service.given())["args"]["list"]) == 2800
    assert (await service.fetch("https://a.example/")).status == 200
    async with service.websocket("https://a.example/"):
        pass


async def test_sessions_that_nobody_uses_do_not_pile_up(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_sessions, "MAX_IDLE", 3)
    services = [env.DISPATCH.get("plain", {"number": number}) for number in range(10)]
    for service in services:
        assert await service.hello("World") == "Hello, World!"
    # Each has a target of its own, and so has the request that asks. News of an end takes its time to arrive.
    while await (await env.SVC.fetch("https://a.example/living")).json() > 4:
        pass
    # Those that were closed are opened again.
    for service in services:
        assert await service.hello("World") == "Hello, World!"


async def test_the_facade_names_itself(env: Env) -> None:
    assert repr(env.DISPATCH) == "<dispatch namespace DISPATCH>"


# The RPC channel, for a client that knows of no parameter


async def test_a_session_without_a_service_gets_them_by_calls(url: str) -> None:
    async with connect(url.replace("http", "ws", 1) + "?MF-Binding=DISPATCH") as namespace:
        assert await namespace.get("plain").hello("World") == "Hello, World!"
        given = await namespace.get("tenant", {"a": 1}, {"limits": {}}).given()
        assert given == {"props": {"plan": "free"}, "args": {"a": 1}, "options": {"limits": {}}}
        for name, problem in {"nobody": r"^Worker not found\.$", "app": "speak HTTP only", "": "the name of a"}.items():
            with pytest.raises(RemoteError, match=problem):
                await namespace.get(name).hello("World")
        with pytest.raises(TypeError, match="args of get"):
            await namespace.get("tenant", [1]).hello("World")


# What is refused


BROKEN: Final = [
    ("{", 400, "it is not JSON"),
    ("", 400, "it is not JSON"),
    ("[1]", 400, "a JSON object is needed"),
    ('"tenant"', 400, "a JSON object is needed"),
    ("{}", 400, "the name of a service is needed"),
    ('{"name": 5}', 400, "the name of a service is needed"),
    ('{"name": ""}', 400, "the name of a service is needed"),
    ('{"name": "tenant", "args": [1]}', 400, "args has to be an object"),
    ('{"name": "tenant", "options": "x"}', 400, "options has to be an object"),
    ('{"name": "tenant", "args": {"a": NaN}}', 400, "it is not JSON: NaN"),
    ("[" * 16_000, 400, "it nests too deep"),
    ('{"name": "' + "x" * MAX_OPTIONS + '"}', 431, "characters are too many"),
]


def declared(document: dict[str, Any]) -> Declaration:
    return parse_binding(Table({"type": "dispatch_namespace", **document}, Path("test.toml"), "bindings.D"), Path())


NAMESPACE: Final = declared({"services": {"plain": {"target": "tests.chat:Chat"}}})


@pytest.mark.parametrize(("options", "status", "problem"), BROKEN)
async def test_options_that_are_none(options: str, status: int, problem: str) -> None:
    header = ("mf-dispatch-namespace-options", options)
    query = f"MF-Binding=D&MF-Dispatch-Namespace-Options={quote(options)}"
    async with proxy(D=NAMESPACE) as app:
        replies = [
            await fetch(app, http_scope("D", headers=[header])),
            await fetch(app, websocket_scope(headers=[("mf-binding", "D"), header])),
            await fetch(app, websocket_scope(query)),
        ]
    for reply in replies:
        assert reply.status == status
        assert problem in reply.body.decode()


@pytest.mark.parametrize("more", [{}, HANDSHAKE], ids=["request", "handshake"])
def test_a_huge_header_is_refused(url: str, more: dict[str, str]) -> None:
    headers = {"MF-Binding": "DISPATCH", "MF-Dispatch-Namespace-Options": "x" * 100_000, **more}
    # Past the server's own limit, or past that of the options, as the pieces arrive.
    assert httpx2.get(url, headers=headers).status_code in (400, 431)


def test_a_handshake_with_many_headers_is_answered(url: str) -> None:
    headers = {"MF-Binding": "NONE", **HANDSHAKE, **{f"MF-Header-X-{number}": "x" for number in range(200)}}
    assert httpx2.get(url, headers=headers).text == 'Binding "NONE" not found'


async def test_options_in_no_utf_8_are_read_as_far_as_they_go() -> None:
    scope = http_scope("D")
    scope["headers"].append((b"mf-dispatch-namespace-options", b'{"name": "\xff"}'))
    async with proxy(D=NAMESPACE) as app:
        reply = await fetch(app, scope)
    assert (reply.status, reply.body) == (500, b"Worker not found.")


async def test_options_for_a_binding_that_is_no_namespace(url: str) -> None:
    async with connect_env(url, bindings={"SVC": "dispatch_namespace"}) as env:
        with pytest.raises(ProxyError, match="not one that can be used as 'dispatch_namespace'"):
            await env.SVC.get("plain").fetch("https://a.example/")
    # Of a client that does not say as what it uses the binding.
    refused = httpx2.get(url, headers={"MF-Binding": "SVC", "MF-Dispatch-Namespace-Options": '{"name": "plain"}'})
    assert refused.status_code == 400
    assert "is for dispatch namespaces, and the binding is none" in refused.text


async def test_a_request_that_names_no_service() -> None:
    async with proxy(D=NAMESPACE) as app:
        reply = await fetch(app, http_scope("D"))
    assert reply.status == 400
    assert "name a service in the header MF-Dispatch-Namespace-Options" in reply.body.decode()


def test_options_as_a_client_writes_them() -> None:
    assert Dispatch.parse('{"name": "a"}') == Dispatch("a", {}, {})
    assert Dispatch.parse('{"name": "a", "args": null, "options": {"x": 1}}') == Dispatch("a", {}, {"x": 1})
    with pytest.raises(DispatchError) as raised:
        Dispatch.parse("x" * (MAX_OPTIONS + 1))
    assert raised.value.status == 431
    assert dispatching.DISPATCH_OPTIONS in str(raised.value)


async def test_a_service_that_cannot_be_opened_is_named() -> None:
    namespace = declared({"services": {"bad": {"target": "tests.test_dispatch_namespace:failing_app"}}})

    async with anyio.create_task_group() as tasks:
        with pytest.raises(BindingError, match=r'the service "bad" cannot be opened: .* failed to start: no database'):
            await namespace.open(tasks)
        tasks.cancel_scope.cancel()


async def failing_app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
