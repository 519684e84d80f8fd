"""WebSockets of a service binding: the client's facade on both event loops, against a real proxy server, and the
serving side event by event."""

from __future__ import annotations

import base64
import gc
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute, TaskGroup
from chat_bindings import BINDINGS, chat_server, tables
from proxying import Wire, fetch, http_scope, proxy, serving, start, websocket_scope, wired

from capnweb_py import ProxyError, RpcTarget
from capnweb_py.remote import Env, connect_env
from capnweb_py.web import Request, Response
from capnweb_py.web_socket import ServerWebSocket, WebSocketClosed, WebSocketRefused
from proxy_server.bindings import Binding
from proxy_server.bindings.asgi import AsgiService
from proxy_server.bindings.service import RpcService
from proxy_server.bindings.upstream import Upstream
from proxy_server.channels import handshake, sockets
from proxy_server.channels.websocket import serve_fetched_websocket

pytestmark = pytest.mark.anyio

CONNECT: Final = {"type": "websocket.connect"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with chat_server() as url:
        yield url


@pytest.fixture(scope="module")
def url(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config: Path = tmp_path_factory.mktemp("chat") / "capnweb.toml"
    config.write_text(tables(upstream))
    with serving(config) as server:
        yield server.url


@pytest.fixture
async def env(url: str) -> AsyncIterator[Env]:
    with anyio.fail_after(60):
        async with connect_env(url) as env:
            yield env


# The facade


@pytest.mark.parametrize("binding", BINDINGS)
async def test_texts_and_bytes_there_and_back(env: Env, binding: str) -> None:
    async with env[binding].websocket("https://a.example/echo") as chat:
        for message in ["text", "ü😀", "", b"\x00\xff", b"", bytearray(b"ab"), memoryview(b"cd")]:
            await chat.send(message)
            assert await chat.receive() == (message if isinstance(message, str) else bytes(message))


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_subprotocol_is_agreed_on(env: Env, binding: str) -> None:
    async with env[binding].websocket("https://a.example/echo", subprotocols=["other", "chat"]) as chat:
        assert chat.subprotocol == "chat"
    async with env[binding].websocket("https://a.example/echo", subprotocols=["other"]) as chat:
        assert chat.subprotocol is None


@pytest.mark.parametrize("binding", BINDINGS)
async def test_reading_ends_where_the_service_closes(env: Env, binding: str) -> None:
    async with env[binding].websocket("https://a.example/farewell") as chat:
        assert [message async for message in chat] == ["bye"]
        assert (chat.close_code, chat.close_reason) == (4001, "enough")
        with pytest.raises(WebSocketClosed, match="closed: 4001 enough"):
            await chat.send("too late")
        with pytest.raises(WebSocketClosed) as raised:
            await chat.receive()
        assert (raised.value.code, raised.value.reason) == (4001, "enough")


@pytest.mark.parametrize(("binding", "asked"), [("SVC", "SVC"), ("APP", "APP"), ("PEER", "UPSTREAM")])
async def test_the_service_hears_how_the_client_closes(env: Env, binding: str, asked: str) -> None:
    async with env[binding].websocket("https://a.example/watch") as chat:
        await chat.close(4002, "done")
    assert await (await env[asked].fetch("https://a.example/watched")).json() == [4002, "done"]
    async with env[binding].websocket("https://a.example/watch"):
        pass
    assert await (await env[asked].fetch("https://a.example/watched")).json() == [1000, ""]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_response_instead_of_a_websocket(env: Env, binding: str) -> None:
    with pytest.raises(WebSocketRefused, match="the status 403") as raised:
        async with env[binding].websocket("https://a.example/refuse"):
            raise AssertionError("it is refused")
    assert raised.value.may_have_run is True
    response = raised.value.response
    assert (response.status, response.headers["x-reason"], await response.text()) == (403, "none", "members only")


@pytest.mark.parametrize("binding", BINDINGS)
async def test_headers_and_the_url_of_the_handshake(env: Env, binding: str) -> None:
    url = "https://a.example/headers?a=b"
    async with env[binding].websocket(url, headers={"X-Asked": "yes", "Cookie": "a=1"}) as chat:
        assert json.loads(await chat.receive()) == [url, "yes", "a=1"]


@pytest.mark.parametrize("binding", ["SVC", "APP"])
async def test_a_handler_that_fails_later_closes_with_its_message(env: Env, binding: str) -> None:
    async with env[binding].websocket("https://a.example/fail-later") as chat:
        assert [message async for message in chat] == []
        assert (chat.close_code, chat.close_reason) == (1011, "out of rooms")


async def test_one_task_sends_while_another_receives(env: Env) -> None:
    received: list[str | bytes] = []

    async def read(chat: Any) -> None:
        while len(received) < 500:
            received.append(await chat.receive())

    async with env.UPSTREAM.websocket("https://a.example/echo") as chat, anyio.create_task_group() as tasks:
        tasks.start_soon(read, chat)
        for number in range(500):
            await chat.send(str(number))
    assert received == [str(number) for number in range(500)]


async def test_targets_end_with_their_websockets(env: Env) -> None:
    for _ in range(3):
        async with env.SVC.websocket("https://a.example/echo") as chat:
            await chat.send("x")
            await chat.receive()
    gc.collect()
    # The one that answers this is living.
    while await (await env.SVC.fetch("https://a.example/living")).json() != 1:
        pass


@pytest.mark.parametrize("code", [999, 1005, 1006, 1015, 2000, 5000])
async def test_codes_that_no_close_frame_has_are_refused(env: Env, code: int) -> None:
    async with env.SVC.websocket("https://a.example/echo") as chat:
        with pytest.raises(ValueError, match="no code to close"):
            await chat.close(code)
        with pytest.raises(ValueError, match="123 bytes"):
            await chat.close(1000, "ä" * 62)
        with pytest.raises(TypeError, match="a message is a str or bytes, not int"):
            await chat.send(code)


async def test_a_name_that_is_a_method_of_the_facade_is_reached_by_an_index(env: Env) -> None:
    assert await env.SVC["hello"]("World") == "Hello, World!"


async def test_a_proxy_that_dies_is_a_lost_connection(tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.SVC]\ntype = "service"\ntarget = "tests.chat:Chat"\n')
    server = start(config)
    try:
        async with connect_env(server.url) as env, env.SVC.websocket("https://a.example/echo") as chat:
            await chat.send("x")
            assert await chat.receive() == "x"
            server.process.kill()
            with pytest.raises(WebSocketClosed, match=r"of the binding 'SVC' .* connection was lost") as lost:
                await anext(chat)
            assert lost.value.may_have_run is True
            assert chat.close_code == 1006
    finally:
        server.process.kill()
        server.ended()


async def test_a_proxy_that_is_told_to_stop_closes_its_websockets(tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.SVC]\ntype = "service"\ntarget = "tests.chat:Chat"\n')
    server = start(config)
    async with connect_env(server.url) as env, env.SVC.websocket("https://a.example/echo") as chat:
        await chat.send("x")
        assert await chat.receive() == "x"
        server.process.terminate()
        assert [message async for message in chat] == []
        assert chat.close_code == 1012
        with pytest.raises(
            WebSocketClosed, match=r"^the WebSocket of the binding 'SVC' of the proxy at .* is closed: 1012"
        ):
            await chat.receive()
    _output, errors = server.ended()
    assert (server.process.returncode, errors) == (0, "")


async def test_a_client_that_is_cancelled_leaves_nothing_behind(env: Env) -> None:
    with anyio.move_on_after(0.05) as scope:
        async with env.SVC.websocket("https://a.example/echo") as chat:
            await chat.receive()
    assert scope.cancelled_caught
    while await (await env.SVC.fetch("https://a.example/living")).json() != 1:
        pass


async def test_a_proxy_that_is_gone_cannot_be_reached(tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.SVC]\ntype = "service"\ntarget = "tests.chat:Chat"\n')
    with serving(config) as server:
        url = server.url
    async with connect_env(url, bindings={"SVC": "service"}) as env:
        with pytest.raises(ConnectionError, match=r"the binding 'SVC' of the proxy at .* cannot be reached") as raised:
            async with env.SVC.websocket("https://a.example/echo"):
                raise AssertionError("nobody is there")
    assert "://" not in str(raised.value)


async def test_a_binding_that_the_proxy_does_not_have(url: str) -> None:
    async with connect_env(url, bindings={"NONE": "service"}) as env:
        with pytest.raises(ProxyError, match="has no binding 'NONE'"):
            async with env.NONE.websocket("https://a.example/echo"):
                raise AssertionError("there is none")


# The serving side, event by event


Handler = Callable[[ServerWebSocket, Request], Awaitable[Response | None]]


def target(handler: Handler) -> RpcService:
    class Target(RpcTarget):
        async def websocket(self, socket: ServerWebSocket, request: Request) -> Response | None:
            return await handler(socket, request)

    return RpcService("tests:Target", Target)


def asked(*headers: tuple[str, str], can_respond: bool = True) -> dict[str, Any]:
    return websocket_scope(headers=[("mf-binding", "S"), *headers], can_respond=can_respond)


async def connect(wire: Wire) -> None:
    await wire.to_app.send(CONNECT)


async def test_a_message_opens_the_websocket() -> None:
    async def greet(socket: ServerWebSocket, _request: Request) -> None:
        await socket.send("hello")

    async with proxy(S=target(greet)) as app, wired(app, asked()) as wire:
        await connect(wire)
        assert (await wire.next())["type"] == "websocket.accept"
        assert await wire.next() == {"type": "websocket.send", "text": "hello"}
        assert await wire.next() == {"type": "websocket.close", "code": 1000, "reason": ""}
        await wire.ended.wait()


async def test_headers_of_the_handshake_itself_are_the_connections_own() -> None:
    seen: list[Any] = []

    async def look(socket: ServerWebSocket, request: Request) -> None:
        seen.extend([request.method, request.url, request.headers.pairs(), socket.subprotocols])
        await socket.accept(subprotocol="b", headers={"x-a": "b"})

    headers = {
        "mf-url": "https://a.example/x",
        "mf-header-sec-websocket-key": "k",
        "mf-header-sec-websocket-extensions": "permessage-deflate",
        "mf-header-sec-websocket-protocol": "a, b",
        "mf-header-x-a": "1",
        "sec-websocket-protocol": "the outer one",
        "upgrade": "websocket",
    }
    async with proxy(S=target(look)) as app, wired(app, asked(*headers.items())) as wire:
        await connect(wire)
        accepted = await wire.next()
        assert accepted == {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-a", b"b")]}
        await wire.next()
    assert seen == ["GET", "https://a.example/x", [("x-a", "1"), ("upgrade", "websocket")], ("a", "b")]


async def test_a_subprotocol_that_was_not_offered_is_refused() -> None:
    async def choose(socket: ServerWebSocket, _request: Request) -> None:
        await socket.accept(subprotocol="c")

    async with proxy(S=target(choose)) as app:
        reply = await fetch_websocket(app, asked(("mf-header-sec-websocket-protocol", "a, b")))
    assert reply == (500, "the client does not offer the subprotocol 'c'; it offers a, b")


async def fetch_websocket(app: Any, scope: Mapping[str, Any]) -> tuple[int, str]:
    reply = await fetch(app, scope)
    return reply.status, reply.body.decode()


async def test_messages_are_taken_no_faster_than_they_are_read() -> None:
    go_on = anyio.Event()

    async def slow(socket: ServerWebSocket, _request: Request) -> None:
        await socket.receive()
        await go_on.wait()
        async for _message in socket:
            pass

    async with proxy(S=target(slow)) as app, wired(app, asked()) as wire:
        await connect(wire)
        await wire.next()
        for number in range(10):
            await wire.to_app.send({"type": "websocket.receive", "text": str(number)})
        await anyio.wait_all_tasks_blocked()
        # One is read, one waits to be read, one waits for that, after the event of connecting.
        assert wire.received <= 4
        go_on.set()
        await wire.to_app.send({"type": "websocket.disconnect", "code": 1000, "reason": ""})
        await wire.ended.wait()
        assert wire.received == 12


async def test_messages_are_sent_no_faster_than_they_are_taken() -> None:
    sent = 0

    async def flood(socket: ServerWebSocket, _request: Request) -> None:
        nonlocal sent
        while True:
            await socket.send(b"x")
            sent += 1

    async with proxy(S=target(flood)) as app, wired(app, asked()) as wire:
        await connect(wire)
        await wire.next()
        for _ in range(3):
            await wire.next()
        await anyio.wait_all_tasks_blocked()
        assert sent <= 4
        await wire.to_app.send({"type": "websocket.disconnect", "code": 1006})
        with suppress(anyio.EndOfStream):
            while not wire.ended.is_set():
                await wire.next()
        assert wire.failure is None


@pytest.mark.parametrize(
    ("event", "end"),
    [
        ({"code": 4000, "reason": "x"}, (4000, "x")),
        ({"code": 1005, "reason": ""}, (1005, "")),
        ({"code": 1005}, (1006, "")),
        ({"code": 1006}, (1006, "")),
        ({"code": None}, (1006, "")),
    ],
)
async def test_how_a_client_leaves(event: dict[str, Any], end: tuple[int, str]) -> None:
    seen: list[Any] = []

    async def wait(socket: ServerWebSocket, _request: Request) -> None:
        try:
            await socket.receive()
        except WebSocketClosed as error:
            seen.append((error.code, error.reason))
            seen.append((socket.close_code, socket.close_reason))
            raise

    async with proxy(S=target(wait)) as app, wired(app, asked()) as wire:
        await connect(wire)
        await wire.next()
        await wire.to_app.send({"type": "websocket.disconnect", **event})
        await wire.ended.wait()
        assert wire.failure is None
    assert seen == [end, end]


async def test_a_handler_that_goes_on_after_its_websocket_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "GRACE", 0.01)

    async def stay(socket: ServerWebSocket, _request: Request) -> None:
        await socket.accept()
        await anyio.sleep_forever()

    async with proxy(S=target(stay)) as app, wired(app, asked()) as wire:
        await connect(wire)
        await wire.next()
        await wire.to_app.send({"type": "websocket.disconnect", "code": 1001, "reason": ""})
        await wire.ended.wait()
        assert wire.failure is None


async def test_a_client_that_leaves_during_the_handshake_is_no_accident() -> None:
    async def never(_socket: ServerWebSocket, _request: Request) -> None:
        raise AssertionError("nobody asks any more")

    async with proxy(S=target(never)) as app, wired(app, asked()) as wire:
        await wire.to_app.send({"type": "websocket.disconnect", "code": 1006})
        await wire.ended.wait()
        assert wire.failure is None


async def test_a_response_after_accept_closes_with_an_error() -> None:
    async def confused(socket: ServerWebSocket, _request: Request) -> Response:
        await socket.accept()
        return Response("what?")

    async with proxy(S=target(confused)) as app, wired(app, asked()) as wire:
        await connect(wire)
        await wire.next()
        closing = await wire.next()
    assert closing["code"] == 1011
    assert "returned a response for a WebSocket that it has opened" in closing["reason"]


async def test_accepting_twice_is_an_error() -> None:
    async def twice(socket: ServerWebSocket, _request: Request) -> None:
        await socket.accept()
        await socket.accept()

    async with proxy(S=target(twice)) as app, wired(app, asked()) as wire:
        await connect(wire)
        await wire.next()
        assert "is open already" in (await wire.next())["reason"]


async def test_a_server_that_cannot_answer_a_handshake_closes_with_the_text() -> None:
    async def refuse(_socket: ServerWebSocket, _request: Request) -> Response:
        return Response("members only", status=403)

    async with proxy(S=target(refuse)) as app, wired(app, asked(can_respond=False)) as wire:
        await connect(wire)
        assert await wire.next() == {"type": "websocket.close", "code": 1008, "reason": "members only"}


async def test_a_response_that_is_too_long_to_stand_for_a_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "MAX_REFUSAL", 10)
    closed: list[bool] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"1234"
        finally:
            closed.append(True)

    async def refuse(_socket: ServerWebSocket, _request: Request) -> Response:
        return Response(endless())

    async with proxy(S=target(refuse)) as app:
        assert await fetch_websocket(app, asked()) == (
            500,
            "the answer to a WebSocket handshake has more than 10 bytes",
        )
    assert closed == [True]


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (("mf-header-x", "a\r\nset-cookie: b"), "holds a line break"),
        (("mf-header-x", "a\0"), "holds a line break, a NUL"),
        (("mf-header-", "a"), "cannot name a header"),
        (("mf-header-a\r\nb", "a"), "cannot name a header"),
        (("mf-header-a b", "a"), "cannot name a header"),
        (("mf-url", "hello"), "is not an absolute URL"),
        (("mf-url", "https://a.example/\r\nX: y"), "holds white space or a control character"),
    ],
)
async def test_headers_that_would_be_others_are_refused(header: tuple[str, str], problem: str) -> None:
    async def never(_socket: ServerWebSocket, _request: Request) -> None:
        raise AssertionError("nothing is passed on")

    async with proxy(S=target(never)) as app:
        status, text = await fetch_websocket(app, asked(header))
    assert status == 400
    assert text.startswith("the request cannot be passed on: ")
    assert problem in text


async def test_an_asgi_application_that_returns_without_an_answer() -> None:
    async def silent(scope: Any, receive: Any, _send: Any) -> None:
        if scope["type"] != "lifespan":
            await receive()

    async def open_app(tasks: TaskGroup) -> Binding:
        service = AsgiService(silent, "tests:silent", tasks)
        await service.start()
        return service

    async with proxy(S=open_app) as app:
        assert await fetch_websocket(app, asked()) == (500, "the binding did not answer the WebSocket handshake")


async def test_an_upstream_that_is_not_there_is_a_502(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = tmp_path / "capnweb.toml"
    config.write_text(f'[bindings.S]\ntype = "service"\ntarget = "ws://127.0.0.1:{port}/"\n')
    with serving(config) as server:
        async with connect_env(server.url) as env:
            with pytest.raises(WebSocketRefused) as raised:
                async with env.S.websocket("https://a.example/"):
                    raise AssertionError("nobody is there")
    assert raised.value.response.status == 502
    assert f"ws://127.0.0.1:{port}/ cannot be reached: " in await raised.value.response.text()


async def test_a_server_that_raises_when_the_client_has_left_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(_event: Any) -> None:
        raise OSError("nobody is there")

    async def greet(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})

    async with anyio.create_task_group() as tasks:
        for binding in (AsgiService(greet, "tests:greet", tasks), target(_echo)):
            await serve_fetched_websocket(binding, asked(), receive, send)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def _echo(socket: ServerWebSocket, _request: Request) -> None:
    async for message in socket:
        await socket.send(message)


# What is passed on, over this event loop


def forwarding(url: str) -> Callable[[TaskGroup], Awaitable[Binding]]:
    async def open_upstream(tasks: TaskGroup) -> Binding:
        return Upstream(url, tasks)

    return open_upstream


async def test_an_upstream_hears_that_a_client_was_lost(upstream: str) -> None:
    async with proxy(S=forwarding(upstream)) as app:
        async with wired(app, asked(("mf-url", "https://a.example/watch"))) as wire:
            await connect(wire)
            assert (await wire.next())["type"] == "websocket.accept"
            await wire.to_app.send({"type": "websocket.receive", "bytes": b"x"})
            assert await wire.next() == {"type": "websocket.send", "bytes": b"x"}
            await wire.to_app.send({"type": "websocket.disconnect", "code": 1006})
            await wire.ended.wait()
            assert wire.failure is None
        reply = await fetch(app, http_scope("S", headers=[("mf-url", "https://a.example/watched")]))
    assert json.loads(reply.body) == [1011, ""]


async def test_a_client_hears_that_the_upstream_was_lost() -> None:
    async def accept_and_leave(stream: ByteStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await stream.receive()
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
        assert key is not None
        accept = base64.b64encode(sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        await stream.send(head + b"Sec-WebSocket-Accept: " + accept + b"\r\nSet-Cookie: a=1\r\n\r\n")
        await stream.aclose()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, accept_and_leave)
        url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/"
        async with proxy(S=forwarding(url)) as app, wired(app, asked()) as wire:
            await connect(wire)
            accepted = await wire.next()
            assert accepted["headers"] == [(b"set-cookie", b"a=1")]
            assert await wire.next() == {"type": "websocket.close", "code": 1011, "reason": ""}
        tasks.cancel_scope.cancel()


async def test_a_redirect_of_an_upstream_is_the_clients_to_follow() -> None:
    """And what it was asked for stays below its path."""
    seen: list[bytes] = []

    async def redirect(stream: ByteStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive()
            seen.append(request.partition(b"\r\n")[0])
            await stream.send(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, redirect)
        url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/base"
        async with proxy(S=forwarding(url)) as app:
            reply = await fetch(app, asked(("mf-url", "https://a.example/%2e%2e/../etc?x=y")))
        tasks.cancel_scope.cancel()
    assert (reply.status, reply.header("location")) == (302, "http://elsewhere.example/")
    assert seen == [b"GET /base/etc?x=y HTTP/1.1"]
