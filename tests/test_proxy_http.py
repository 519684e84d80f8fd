"""The HTTP channel and what answers behind it: unwrapping, streaming both ways, and how things go wrong."""

from __future__ import annotations

import gzip
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import ByteStream, SocketAttribute, TaskGroup
from proxying import SECRET, declared, fetch, http_scope, proxy, serving, wired

from capnweb_py.target import RpcTarget
from capnweb_py.web import ReadableStream, Request, Response
from proxy_server.app import ProxyApp
from proxy_server.auth import Gate
from proxy_server.bindings import Binding, BindingError, Opener
from proxy_server.bindings.asgi import AsgiService
from proxy_server.bindings.service import RpcService
from proxy_server.bindings.upstream import Upstream
from proxy_server.refusals import NAMELESS

pytestmark = pytest.mark.anyio


def service(handler: Callable[[Request], Any]) -> RpcService:
    """A binding whose targets answer fetch() with a function."""

    class Target(RpcTarget):
        def fetch(self, request: Request) -> Any:
            return handler(request)

    return RpcService("tests:Target", Target)


def asgi(app: Any) -> Opener:
    async def open_app(tasks: Any) -> AsgiService:
        binding = AsgiService(app, "tests:app", tasks)
        await binding.start()
        return binding

    return open_app


def wrapped(url: str, **headers: str) -> list[tuple[str, str]]:
    original = [(f"mf-header-{name.replace('_', '-')}", value) for name, value in headers.items()]
    return [("mf-url", url), *original]


# Unwrapping


async def test_the_original_request_is_restored_and_nothing_else_passes() -> None:
    async def handle(request: Request) -> Response:
        return Response.from_json(
            [request.method, request.url, request.headers.pairs(), await request.text()], status=201
        )

    headers = [
        *wrapped("https://app.example/a%20b?c=d", x_one="1", content_type="text/css"),
        ("mf-header-x-one", "2"),
        ("cookie", "of the connection"),
        ("host", "127.0.0.1"),
        ("upgrade", "h2c"),
        ("content-length", "5"),
    ]
    async with proxy(S=service(handle)) as app:
        reply = await fetch(app, http_scope("S", method="PUT", headers=headers), b"he", b"llo")
    assert reply.status == 201
    assert Response(reply.body).buffered == (
        b'["PUT","https://app.example/a%20b?c=d",'
        b'[["x-one","1"],["content-type","text/css"],["x-one","2"],["upgrade","h2c"]],"hello"]'
    )


async def test_without_a_url_the_request_is_for_the_default_one() -> None:
    async with proxy(S=service(lambda request: Response(request.url))) as app:
        assert (await fetch(app, http_scope("S"))).body == b"http://example.com"


@pytest.mark.parametrize(
    ("headers", "has_body"),
    [
        ([("content-length", "0")], False),
        ([], False),
        ([("content-length", "2")], True),
        ([("transfer-encoding", "chunked")], True),
    ],
)
async def test_a_request_has_a_body_if_it_declares_one(headers: list[tuple[str, str]], has_body: bool) -> None:
    seen: list[ReadableStream[bytes] | None] = []

    def handle(request: Request) -> Response:
        seen.append(request.body)
        return Response()

    async with proxy(S=service(handle)) as app:
        await fetch(app, http_scope("S", method="POST", headers=headers), b"ab")
    assert (seen[0] is not None) is has_body


@pytest.mark.parametrize(
    ("method", "headers", "problem"),
    [
        ("GET", wrapped("/relative"), "absolute"),
        ("GET", [("content-length", "1")], "GET request has no body"),
        ("TRACE", [], "TRACE"),
    ],
)
async def test_a_request_that_cannot_be_restored_is_a_400_with_the_reason(
    method: str, headers: list[tuple[str, str]], problem: str
) -> None:
    async with proxy(S=service(lambda _: Response())) as app:
        reply = await fetch(app, http_scope("S", method=method, headers=headers))
    assert reply.status == 400
    assert problem in reply.body.decode()


@pytest.mark.parametrize(
    ("name", "text"), [("NONE", 'Binding "NONE" not found'), (None, NAMELESS.text), ("", NAMELESS.text)]
)
async def test_an_unknown_binding_is_a_400_that_names_it(name: str | None, text: str) -> None:
    async with proxy(S=service(lambda _: Response())) as app:
        reply = await fetch(app, http_scope(name))
    assert (reply.status, reply.body.decode()) == (400, text)


# Answers


async def test_status_headers_and_body_come_back() -> None:
    headers = [
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Connection", "x-hop"),
        ("X-Hop", "1"),
        ("X-End", "2"),
    ]
    async with proxy(S=service(lambda _: Response("hé", status=418, headers=headers))) as app:
        reply = await fetch(app, http_scope("S"))
    assert reply.status == 418
    assert reply.headers == [
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x-end", "2"),
        ("content-type", "text/plain;charset=UTF-8"),
        ("content-length", "3"),
        ("mf-forwarded-response", "true"),
    ]
    assert reply.body == "hé".encode()


@pytest.mark.parametrize(("status", "length"), [(200, "0"), (205, "0"), (204, None), (304, None)])
async def test_a_response_without_a_body_declares_none(status: int, length: str | None) -> None:
    async with proxy(S=service(lambda _: Response(status=status))) as app:
        reply = await fetch(app, http_scope("S"))
    assert (reply.status, reply.header("content-length"), reply.body) == (status, length, b"")


@pytest.mark.parametrize("kind", [KeyError, SystemExit])
async def test_what_a_handler_raises_is_a_500_with_its_message_and_its_type_alone_in_the_log(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def handle(request: Request) -> Response:
        raise kind("the message")

    async with proxy(S=service(handle)) as app:
        reply = await fetch(app, http_scope("S"))
    assert (reply.status, reply.body.strip(b"'")) == (500, b"the message")
    (record,) = caplog.records
    assert f"S http GET / failed: {kind.__name__}, after" in record.getMessage()
    assert "the message" not in caplog.text


async def test_a_target_without_fetch_says_so() -> None:
    async with proxy(S=RpcService("tests:RpcTarget", RpcTarget)) as app:
        reply = await fetch(app, http_scope("S"))
    assert reply.status == 500
    assert reply.body == b"Handler does not export a fetch() function. tests:RpcTarget has none."


async def test_a_fetch_that_returns_no_response_says_so() -> None:
    async with proxy(S=service(lambda _: {"a": 1})) as app:
        reply = await fetch(app, http_scope("S"))
    assert (reply.status, reply.body) == (500, b"tests:Target.fetch() returned dict, not a Response")


# Streaming


async def test_the_first_chunk_is_sent_before_the_second_is_made() -> None:
    release = anyio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await release.wait()
        yield b"second"

    async with (
        proxy(S=service(lambda _: Response(chunks()))) as app,
        wired(app, http_scope("S")) as wire,
    ):
        assert (await wire.next())["type"] == "http.response.start"
        assert await wire.next_chunk() == b"first"
        release.set()
        assert await wire.next_chunk() == b"second"
        assert await wire.next() == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_response_is_made_no_faster_than_it_is_sent() -> None:
    made: list[int] = []

    async def chunks() -> AsyncGenerator[bytes, None]:
        for number in range(100):
            made.append(number)
            yield b"%d" % number

    async with (
        proxy(S=service(lambda _: Response(chunks()))) as app,
        wired(app, http_scope("S")) as wire,
    ):
        await wire.next()
        for number in range(10):
            assert await wire.next_chunk() == b"%d" % number
            await anyio.wait_all_tasks_blocked()
            assert len(made) == number + 2  # the one that stands at the door


async def check_pieces_come_back(wire: Any) -> None:
    """Each piece of the body is answered with itself before the next is there."""
    await wire.next()
    for chunk in (b"one", b"two"):
        await wire.push(chunk)
        assert await wire.next_chunk() == chunk
    await wire.push(b"three", more=False)
    assert await wire.next_chunk() == b"three"
    assert (await wire.next())["more_body"] is False


async def test_a_request_is_read_while_it_arrives() -> None:
    async def handle(request: Request) -> Response:
        assert request.body is not None
        return Response(request.body)

    scope = http_scope("S", method="POST", headers=[("transfer-encoding", "chunked")])
    async with proxy(S=service(handle)) as app, wired(app, scope) as wire:
        await check_pieces_come_back(wire)


async def test_a_request_is_taken_from_the_server_no_faster_than_it_is_read() -> None:
    read_on = anyio.Event()

    async def handle(request: Request) -> Response:
        await read_on.wait()
        return Response(await request.bytes())

    scope = http_scope("S", method="POST", headers=[("content-length", "10")])
    async with proxy(S=service(handle)) as app, wired(app, scope) as wire:
        for _ in range(10):
            await wire.push(b"x")
        await wire.push(b"", more=False)
        await anyio.wait_all_tasks_blocked()
        assert wire.received == 2  # one in the buffer, one at the door
        read_on.set()
        assert (await wire.next())["type"] == "http.response.start"
        assert await wire.next_chunk() == b"x" * 10


async def test_a_request_that_nobody_reads_is_no_obstacle() -> None:
    scope = http_scope("S", method="POST", headers=[("content-length", "10")])
    async with proxy(S=service(lambda _: Response("done"))) as app:
        assert (await fetch(app, scope, *[b"x"] * 10)).body == b"done"


async def test_a_client_that_leaves_cancels_the_handler() -> None:
    cancelled = anyio.Event()
    begun = anyio.Event()

    async def handle(request: Request) -> Response:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with proxy(S=service(handle)) as app, wired(app, http_scope("S")) as wire:
        await begun.wait()
        await wire.leave()
        await cancelled.wait()
        await wire.ended.wait()
        assert wire.failure is None


@pytest.mark.parametrize("taken", [0, 1])
async def test_a_client_that_leaves_closes_the_body_of_the_response(taken: int) -> None:
    closed = anyio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            closed.set()

    async with (
        proxy(S=service(lambda _: Response(chunks()))) as app,
        wired(app, http_scope("S")) as wire,
    ):
        await wire.push(b"", more=False)
        await wire.next()
        await anyio.wait_all_tasks_blocked()
        if taken:
            await wire.next_chunk()
        await wire.leave()
        await closed.wait()
        await wire.ended.wait()
        assert wire.failure is None


async def test_a_client_that_leaves_in_its_upload_does_not_look_like_the_end_of_it() -> None:
    outcome: list[str] = []

    async def handle(request: Request) -> Response:
        with anyio.CancelScope(shield=True):
            try:
                outcome.append(await request.text())
            except ConnectionResetError as error:
                outcome.append(str(error))
        return Response()

    scope = http_scope("S", method="POST", headers=[("content-length", "10")])
    async with proxy(S=service(handle)) as app, wired(app, scope) as wire:
        await wire.push(b"half")
        await wire.leave()
        await wire.ended.wait()
    assert outcome == ["the client left before the end of its request's body"]


async def _text(request: Request) -> Response:
    return Response(await request.text())


async def _echo(request: Request) -> Response:
    return Response(request.body)


@pytest.mark.parametrize(("handle", "answered"), [(_text, 0), (_echo, 2)])
async def test_an_upload_that_the_client_aborts_is_no_accident_of_the_server(
    handle: Callable[[Request], Any], answered: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scope = http_scope("S", method="POST", headers=[("content-length", "10")])
    async with proxy(S=service(handle)) as app, wired(app, scope) as wire:
        await wire.push(b"half")
        for _ in range(answered):
            await wire.next()
        await anyio.wait_all_tasks_blocked()  # the handler waits for the rest
        await wire.leave()
        await wire.ended.wait()
    assert wire.failure is None
    logged = [record for record in caplog.records if record.name == "proxy_server"]
    assert [(record.levelname, record.exc_info) for record in logged] == [("INFO", None)]


@pytest.mark.parametrize("kind", [LookupError, FileNotFoundError])
async def test_a_body_that_fails_breaks_the_connection_off(kind: type[Exception]) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"first"
        raise kind("in the middle")

    async with (
        proxy(S=service(lambda _: Response(chunks()))) as app,
        wired(app, http_scope("S")) as wire,
    ):
        await wire.next()
        assert await wire.next_chunk() == b"first"
        await wire.ended.wait()
        assert isinstance(wire.failure, kind)


async def test_a_chunk_that_is_no_bytes_breaks_the_connection_off() -> None:
    async def chunks() -> AsyncGenerator[Any, None]:
        yield 3

    async with (
        proxy(S=service(lambda _: Response(chunks()))) as app,
        wired(app, http_scope("S")) as wire,
    ):
        await wire.next()
        await wire.ended.wait()
        assert isinstance(wire.failure, TypeError)


async def test_a_server_that_raises_when_the_client_has_left_is_believed() -> None:
    closed: list[bool] = []

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
        finally:
            closed.append(True)

    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(event: Any) -> None:
        if event["type"] == "http.response.body":
            raise BrokenPipeError

    async with proxy(S=service(lambda _: Response(chunks()))) as app:
        await app(http_scope("S"), receive, send)
    assert closed == [True]


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_target_is_disposed_once_after_its_response(streamed: bool) -> None:
    events: list[str] = []

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"a"
        events.append("sent")

    class Target(RpcTarget):
        async def fetch(self, request: Request) -> Response:
            return Response(chunks() if streamed else b"a")

        def dispose(self) -> None:
            events.append("disposed")

    async with proxy(S=RpcService("tests:Target", Target)) as app:
        assert (await fetch(app, http_scope("S"))).body == b"a"
    assert events == (["sent", "disposed"] if streamed else ["disposed"])


# ASGI applications


async def test_an_application_gets_the_request_as_from_a_server() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        keys = ("method", "path", "raw_path", "query_string", "scheme", "server")
        body = (await receive())["body"]
        text = repr([*(scope[key] for key in keys), sorted(scope["headers"]), body])
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x", b"1"), (b"x", b"2")]})
        await send({"type": "http.response.body", "body": text.encode()})

    headers = [*wrapped("https://app.example/a%20b?c=%20", accept="*/*"), ("content-length", "2")]
    async with proxy(S=asgi(app)) as running:
        reply = await fetch(running, http_scope("S", method="POST", headers=headers), b"hi")
    assert reply.status == 201
    assert reply.headers == [("x", "1"), ("x", "2"), ("mf-forwarded-response", "true")]
    assert reply.body.decode() == repr(
        [
            "POST",
            "/a b",
            b"/a%20b",
            b"c=%20",
            "https",
            ("app.example", 443),
            [(b"accept", b"*/*"), (b"content-length", b"2"), (b"host", b"app.example")],
            b"hi",
        ]
    )


async def test_an_application_streams_both_ways() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await send({"type": "http.response.start", "status": 200})
        more = True
        while more:
            event = await receive()
            more = event["more_body"]
            await send({"type": "http.response.body", "body": event["body"], "more_body": more})
        assert (await receive())["type"] == "http.disconnect"

    scope = http_scope("S", method="POST", headers=[("transfer-encoding", "chunked")])
    async with proxy(S=asgi(echo)) as running, wired(running, scope) as wire:
        await check_pieces_come_back(wire)


async def test_an_applications_lifespan_runs_once_and_its_state_reaches_requests() -> None:
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                events.append((await receive())["type"])
                scope["state"]["counter"] = events
                await send({"type": f"lifespan.{phase}.complete"})
            return
        scope["state"]["counter"].append("request")
        scope["state"]["counter"] = None
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with proxy(S=asgi(app)) as running:
        for _ in range(2):
            assert (await fetch(running, http_scope("S"))).status == 204
    assert events == ["lifespan.startup", "request", "request", "lifespan.shutdown"]


async def test_an_application_that_fails_to_start_stops_the_proxy_from_starting() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        sent.append(event)

    with pytest.raises(ExceptionGroup) as caught:
        async with proxy(S=asgi(app)) as running:
            raise AssertionError(running)
    assert "no database" in str(caught.value.exceptions[0])
    await ProxyApp({"S": declared(asgi(app))}, Gate(SECRET))({"type": "lifespan"}, receive, send)
    assert sent == [
        {
            "type": "lifespan.startup.failed",
            "message": 'the binding "S" cannot be opened: tests:app failed to start: no database',
        }
    ]


async def test_an_application_goes_on_after_its_response() -> None:
    finished = anyio.Event()
    go_on = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"done"})
        await go_on.wait()
        finished.set()

    async with proxy(S=asgi(app)) as running:
        assert (await fetch(running, http_scope("S"))).body == b"done"
        go_on.set()
        await finished.wait()


async def test_an_application_is_cancelled_when_the_client_leaves() -> None:
    cancelled = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        try:
            await send({"type": "http.response.start", "status": 200})
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with proxy(S=asgi(app)) as running, wired(running, http_scope("S")) as wire:
        await wire.next()
        await wire.push(b"", more=False)
        await wire.leave()
        await cancelled.wait()
        await wire.ended.wait()


@pytest.mark.parametrize("response_begun", [True, False])
async def test_what_an_application_raises_is_an_error_of_the_request(response_begun: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if response_begun and scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200})
        raise LookupError("of the application")

    async with proxy(S=asgi(app)) as running, wired(running, http_scope("S")) as wire:
        start = await wire.next()
        assert start["status"] == (200 if response_begun else 500)
        if response_begun:
            await wire.ended.wait()
            assert isinstance(wire.failure, LookupError)
        else:
            assert await wire.next_chunk() == b"of the application"


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([], "returned without a response"),
        ([{"type": "http.response.body"}], "sent 'http.response.body' where ASGI does not allow it"),
    ],
)
async def test_an_application_that_breaks_the_protocol_is_told(events: list[Any], problem: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for event in events if scope["type"] == "http" else []:
            await send(event)

    async with proxy(S=asgi(app)) as running:
        reply = await fetch(running, http_scope("S"))
    assert reply.status == 500
    assert problem in reply.body.decode()


# Upstream URLs


def forwarding(url: str) -> Opener:
    """What opens a binding that forwards to a URL."""

    async def open_upstream(tasks: TaskGroup) -> Binding:
        return Upstream(url, tasks)

    return open_upstream


@asynccontextmanager
async def upstream(respond: Callable[[ByteStream, bytes], Any]) -> AsyncIterator[str]:
    """An HTTP server that reads a request's head, and leaves the rest of the connection to a function."""

    async def handle(stream: ByteStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive()
            await respond(stream, received)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


async def test_a_request_is_forwarded_as_it_is_and_its_answer_comes_back_as_it_is() -> None:
    seen: list[bytes] = []
    packed = gzip.compress(b"content")

    async def respond(stream: ByteStream, received: bytes) -> None:
        while not received.endswith(b"body"):
            received += await stream.receive()
        seen.append(received)
        await stream.send(
            b"HTTP/1.1 302 Elsewhere\r\nLocation: /other\r\nContent-Encoding: gzip\r\nSet-Cookie: a=1\r\n"
            b"Set-Cookie: b=2\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nContent-Length: %d\r\n\r\n%b"
            % (len(packed), packed)
        )

    async with upstream(respond) as url, proxy(S=forwarding(f"{url}/base/")) as app:
        headers = [
            *wrapped("https://app.example/a%20b?c=d", x_one="1", te="trailers"),
            ("content-length", "4"),
        ]
        reply = await fetch(app, http_scope("S", method="POST", headers=headers), b"bo", b"dy")
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"POST /base/a%20b?c=d HTTP/1.1"
    host = url.removeprefix("http://").encode()
    assert sorted(line.lower() for line in head.splitlines()[1:]) == [
        b"content-length: 4",
        b"host: " + host,
        b"x-one: 1",
    ]
    assert body == b"body"
    assert reply.status == 302
    assert reply.headers == [
        ("location", "/other"),
        ("content-encoding", "gzip"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("content-length", str(len(packed))),
        ("mf-forwarded-response", "true"),
    ]
    assert reply.body == packed


async def test_an_upstream_streams_both_ways() -> None:
    async def respond(stream: ByteStream, received: bytes) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while b"two" not in received:
            received += await stream.receive()
        await stream.send(b"5\r\nfirst\r\n")
        while b"0\r\n\r\n" not in received:
            received += await stream.receive()
        await stream.send(b"6\r\nsecond\r\n0\r\n\r\n")

    scope = http_scope("S", method="POST", headers=[("transfer-encoding", "chunked")])
    async with upstream(respond) as url, proxy(S=forwarding(url)) as app, wired(app, scope) as wire:
        await wire.push(b"one")
        await wire.push(b"two")
        await wire.push(b"", more=False)
        await wire.next()
        assert await wire.next_chunk() == b"first"
        assert await wire.next_chunk() == b"second"


@pytest.mark.parametrize(
    ("path", "forwarded"),
    [
        ("", b"/base/"),
        ("/../../etc", b"/base/etc"),
        ("/a/%2E%2e/../b", b"/base/b"),
        ("/a/./b/..", b"/base/a/"),
        ("//a", b"/base//a"),
    ],
)
async def test_a_path_stays_below_the_targets(path: str, forwarded: bytes) -> None:
    seen: list[bytes] = []

    async def respond(stream: ByteStream, received: bytes) -> None:
        seen.append(received.split()[1])
        await stream.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with upstream(respond) as url, proxy(S=forwarding(f"{url}/base")) as app:
        headers = wrapped(f"http://app.example{path}")
        assert (await fetch(app, http_scope("S", headers=headers))).status == 204
    assert seen == [forwarded]


async def test_an_upstream_that_does_not_answer_is_a_502_that_names_it() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
    async with proxy(S=forwarding(url)) as app:
        reply = await fetch(app, http_scope("S"))
    assert reply.status == 502
    assert f"the upstream {url} did not answer" in reply.body.decode()


async def test_a_client_that_leaves_gives_the_upstreams_connection_up() -> None:
    left = anyio.Event()

    async def respond(stream: ByteStream, received: bytes) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await stream.receive()
        left.set()

    async with upstream(respond) as url, proxy(S=forwarding(url)) as app, wired(app, http_scope("S")) as wire:
        await wire.push(b"", more=False)
        await wire.next()
        assert await wire.next_chunk() == b"a"
        await wire.leave()
        await left.wait()


async def test_an_upstream_has_no_rpc_side() -> None:
    async with anyio.create_task_group() as tasks:
        with pytest.raises(BindingError, match="speak HTTP only"):
            Upstream("http://a/", tasks).rpc_main()


# On a real server

SERVICE = """
import anyio
from capnweb_py.target import RpcTarget
from capnweb_py.web import Response

released = None
closed = None

class Streaming(RpcTarget):
    async def fetch(self, request):
        global released, closed
        if request.url.endswith("/stream"):
            released, closed = anyio.Event(), anyio.Event()
            return Response(self._chunks())
        if request.url.endswith("/release"):
            released.set()
            return Response("released")
        if request.url.endswith("/closed"):
            await closed.wait()
            return Response("closed")
        if request.url.endswith("/whole"):
            return Response(await request.bytes(), headers=request.headers)
        return Response(request.body, headers=request.headers)

    async def _chunks(self):
        try:
            yield b"first"
            await released.wait()
            yield b"second"
        finally:
            closed.set()
"""

CONFIG = '[bindings.S]\ntype = "service"\ntarget = "streaming:Streaming"\n'


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = tmp_path_factory.mktemp("streaming")
    (directory / "streaming.py").write_text(SERVICE)
    (directory / "capnweb.toml").write_text(CONFIG)
    with serving(directory / "capnweb.toml") as server:
        yield server.url


def to(path: str, **headers: str) -> dict[str, str]:
    return {"MF-Binding": "S", "MF-URL": f"http://a{path}", **headers}


def test_a_real_server_sends_the_first_chunk_before_the_last_is_made(server_url: str) -> None:
    with httpx2.stream("GET", server_url, headers=to("/stream")) as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"first"
        assert httpx2.get(server_url, headers=to("/release")).text == "released"
        assert next(chunks) == b"second"


async def test_a_real_server_passes_a_request_on_while_it_arrives(server_url: str) -> None:
    echoed = anyio.Event()

    async def upload() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await echoed.wait()
        yield b"second"

    received: list[bytes] = []
    with anyio.fail_after(60):
        async for chunk in duplex(server_url, upload()):
            received.append(chunk)
            echoed.set()
    assert b"".join(received) == b"firstsecond"


async def duplex(url: str, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A POST that reads its response while it sends: raw, because HTTP clients send first and read then."""
    parts = httpx2.URL(url)
    assert parts.port is not None
    async with await anyio.connect_tcp(parts.host, parts.port) as stream, anyio.create_task_group() as tasks:
        head = "".join(f"{name}: {value}\r\n" for name, value in to("/", **{"Transfer-Encoding": "chunked"}).items())
        await stream.send(f"POST {parts.path} HTTP/1.1\r\nHost: a\r\n{head}\r\n".encode())

        async def send() -> None:
            async for chunk in body:
                await stream.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await stream.send(b"0\r\n\r\n")

        tasks.start_soon(send)
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive()
        head_bytes, _, received = received.partition(b"\r\n\r\n")
        assert head_bytes.startswith(b"HTTP/1.1 200")
        while not received.startswith(b"0\r\n\r\n"):
            size, separator, rest = received.partition(b"\r\n")
            length = int(size, 16) if separator else 0
            if not separator or len(rest) < length + 2:
                received += await stream.receive()
                continue
            yield rest[:length]
            received = rest[length + 2 :]


def test_a_real_client_that_leaves_closes_the_body(server_url: str) -> None:
    with httpx2.stream("GET", server_url, headers=to("/stream")) as response:
        assert next(response.iter_raw()) == b"first"
    assert httpx2.get(server_url, headers=to("/closed")).text == "closed"


def test_a_real_server_carries_a_large_body_through_unharmed(server_url: str) -> None:
    body = bytes(range(256)) * 4096 * 16
    response = httpx2.post(server_url, headers=to("/whole", **{"MF-Header-X-A": "b"}), content=body)
    assert response.content == body
    assert response.headers["x-a"] == "b"
    assert "server" not in response.headers
