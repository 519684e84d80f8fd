"""Services with several replicas: requests, sessions and WebSockets are spread, and go elsewhere only if nothing was
sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute, TaskGroup
from proxying import fetch, http_scope, proxy

from capnweb_py import RpcTarget, serve
from capnweb_py.http11 import Http11Client, Unreachable
from capnweb_py.remote import connect_env, start_remote_proxy_session
from capnweb_py.stub import RpcStub
from capnweb_py.web import Request
from proxy_server.bindings import Binding, replicas
from proxy_server.bindings.peer import Peer
from proxy_server.bindings.replicas import Replicas
from proxy_server.bindings.upstream import Upstream

pytestmark = pytest.mark.anyio

Respond = Callable[[ByteStream, bytes], Awaitable[None]]


class Named(RpcTarget):
    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name


@asynccontextmanager
async def answering(respond: Respond) -> AsyncIterator[str]:
    """A server that answers each connection once; yields its URL."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def handle(stream: ByteStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive()
            await respond(stream, received)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


def saying(text: str) -> Respond:
    async def respond(stream: ByteStream, _received: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        await stream.send((head + text).encode())

    return respond


async def nowhere(scheme: str = "http") -> str:
    """A URL at which nobody listens."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        return f"{scheme}://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"


def forwarding(*urls: str) -> Callable[[TaskGroup], Awaitable[Binding]]:
    async def open_upstream(tasks: TaskGroup) -> Binding:
        return Upstream(urls, tasks)

    return open_upstream


async def answers(app: Any, count: int) -> list[str]:
    return [(await fetch(app, http_scope("S"))).body.decode() for _ in range(count)]


async def test_requests_are_spread() -> None:
    async with answering(saying("a")) as a, answering(saying("b")) as b, proxy(S=forwarding(a, b)) as app:
        assert await answers(app, 4) == ["a", "b", "a", "b"]


async def test_a_replica_that_is_down_is_passed_over() -> None:
    down = await nowhere()
    async with answering(saying("a")) as a, answering(saying("b")) as b, proxy(S=forwarding(down, a, b)) as app:
        assert await answers(app, 6) == ["a", "a", "b", "a", "a", "b"]


async def test_a_streamed_body_goes_to_the_next_one_whole() -> None:
    down = await nowhere()
    seen: list[bytes] = []

    async def keep(stream: ByteStream, received: bytes) -> None:
        while not received.endswith(b"0\r\n\r\n"):
            received += await stream.receive()
        seen.append(received.partition(b"\r\n\r\n")[2])
        await saying("kept")(stream, b"")

    async with answering(keep) as up, proxy(S=forwarding(down, up)) as app:
        scope = http_scope("S", method="POST", headers=[("transfer-encoding", "chunked")])
        reply = await fetch(app, scope, b"one", b"two")
    assert reply.body == b"kept"
    assert seen == [b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_may_have_run_goes_nowhere_else(method: str) -> None:
    asked: list[str] = []

    async def take_and_leave(_stream: ByteStream, received: bytes) -> None:
        asked.append(received.partition(b" ")[0].decode())

    async def never(_stream: ByteStream, _received: bytes) -> None:
        asked.append("the other")

    async with (
        answering(take_and_leave) as first,
        answering(never) as second,
        proxy(S=forwarding(first, second)) as app,
    ):
        reply = await fetch(app, http_scope("S", method=method))
    assert (reply.status, asked) == (502, [method])


async def test_a_request_that_went_out_on_an_idle_connection_goes_nowhere_else() -> None:
    """The server left it unanswered, and cannot be reached any more: it may have run there all the same."""
    asked: list[bytes] = []
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/"

    async def serve_one() -> None:
        async with await listener.listeners[0].accept() as stream:
            await listener.aclose()
            asked.append(await stream.receive())
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            asked.append(await stream.receive())

    async with anyio.create_task_group() as tasks, Http11Client(tasks.start_soon) as client:
        tasks.start_soon(serve_one)
        assert (await client.exchange(Request(url), url)).status == 200
        with pytest.raises(ConnectionError) as raised:
            await client.exchange(Request(url), url, keep_unsent=True)
    assert not isinstance(raised.value, Unreachable)
    assert len(asked) == 2


async def test_an_error_says_what_was_tried() -> None:
    down = [await nowhere(), await nowhere()]
    async with proxy(S=forwarding(*down)) as app:
        reply = await fetch(app, http_scope("S"))
    assert reply.status == 502
    text = reply.body.decode()
    for url in down:
        assert f"{url.removeprefix('http://')} cannot be reached: " in text
    assert text.startswith(f"the upstream {down[0]} or {down[1]} did not answer: ")


async def test_the_body_of_a_request_that_reaches_nobody_is_closed() -> None:
    closed: list[bool] = []

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"x"
        finally:
            closed.append(True)

    source = body()
    await anext(source)
    request = Request("http://a.example/", method="POST", body=source)
    async with anyio.create_task_group() as tasks:
        upstream = Upstream([await nowhere(), await nowhere()], tasks)
        assert (await upstream.fetch(request)).status == 502
        await upstream.aclose()
    assert closed == [True]


async def test_a_client_keeps_a_body_for_another_try_only_if_it_is_asked_to() -> None:
    url = await nowhere()
    async with anyio.create_task_group() as tasks, Http11Client(tasks.start_soon) as client:
        request = Request(url, method="POST", body=_chunks())
        with pytest.raises(Unreachable):
            await client.exchange(request, url, keep_unsent=True)
        assert await request.bytes() == b"ab"
        request = Request(url, method="POST", body=_chunks())
        with pytest.raises(Unreachable):
            await client.exchange(request, url)
        with pytest.raises(RuntimeError, match="already been read"):
            await request.bytes()


async def _chunks() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


# The order


def down_at(*down: str) -> tuple[list[str], Callable[[str], Awaitable[str]]]:
    tried: list[str] = []

    async def attempt(url: str) -> str:
        tried.append(url)
        if url in down:
            raise Unreachable(f"{url} is down")
        return url

    return tried, attempt


async def reached(several: Replicas, attempt: Callable[[str], Awaitable[str]], count: int) -> list[str]:
    return [await several.reach(attempt) for _ in range(count)]


async def test_one_that_is_down_is_left_alone_for_a_while() -> None:
    several = Replicas(["a", "b", "c"])
    tried, attempt = down_at("a")
    assert await reached(several, attempt, 6) == ["b", "b", "c", "b", "b", "c"]
    assert tried.count("a") == 1


async def test_it_is_tried_again_after_that_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "REST", 0.0)
    several = Replicas(["a", "b"])
    tried, attempt = down_at("a")
    assert await reached(several, attempt, 4) == ["b", "b", "b", "b"]
    assert tried.count("a") == 2
    tried, attempt = down_at()
    assert await reached(several, attempt, 2) == ["a", "b"]


async def test_where_all_are_down_all_are_tried_every_time() -> None:
    several = Replicas(["a", "b"])
    tried, attempt = down_at("a", "b")
    for _ in range(2):
        with pytest.raises(Unreachable, match=r"(a is down; b is down)|(b is down; a is down)"):
            await several.reach(attempt)
    assert sorted(tried) == ["a", "a", "b", "b"]
    tried, attempt = down_at()
    # The one that was tried first is up again, as far as anybody knows, and the other at rest.
    assert len(set(await reached(several, attempt, 2))) == 1


async def test_what_is_no_lost_way_is_raised_at_once() -> None:
    several = Replicas(["a", "b"])

    async def attempt(url: str) -> str:
        raise ConnectionError(f"{url} broke off")

    with pytest.raises(ConnectionError, match="a broke off"):
        await several.reach(attempt)


# Sessions, and WebSockets


async def names_of(sessions: Sequence[RpcStub]) -> list[str]:
    return [await session.name() for session in sessions]


async def test_sessions_are_spread_over_peers() -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serve(lambda name=name: Named(name))) for name in "ab"]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        peer = Peer([server.url for server in servers], tasks)
        names = await names_of([peer.rpc_main() for _ in range(4)])
        # Which of them is first, the event loop decides.
        assert names in (["a", "b", "a", "b"], ["b", "a", "b", "a"])
        await peer.aclose()


async def test_a_peer_that_is_down_is_passed_over() -> None:
    async with serve(lambda: Named("up")) as server, anyio.create_task_group() as tasks:
        peer = Peer([await nowhere("ws"), server.url], tasks)
        assert await names_of([peer.rpc_main() for _ in range(3)]) == ["up", "up", "up"]
        await peer.aclose()


async def test_calls_say_which_peers_were_tried() -> None:
    urls = [await nowhere("ws"), await nowhere("ws")]
    async with anyio.create_task_group() as tasks:
        peer = Peer(urls, tasks)
        with pytest.raises(ConnectionError, match="cannot be reached") as raised:
            await peer.rpc_main().name()
        await peer.aclose()
    assert all(f"{url}: " in str(raised.value) for url in urls)


async def test_a_websocket_goes_to_a_replica_that_is_up() -> None:
    async with serve(lambda: Named("up")) as server:
        target = {"type": "service", "target": [await nowhere("ws"), server.url]}
        async with (
            await start_remote_proxy_session({"S": target}) as session,
            connect_env(session.connection_string) as env,
        ):
            for _ in range(2):
                async with env.S.websocket("https://a.example/") as socket:
                    # It is a Cap'n Web peer: what is no message of its protocol ends the session.
                    await socket.send("no message")
                    assert '"abort"' in str(await socket.receive())
