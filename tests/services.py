"""The services behind a proxy in its tests: an RpcTarget with an HTTP side, and an ASGI application.

They run in the server's process. What a test needs to know of it, it asks by a call.
"""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import anyio

from capnweb_py import UNDEFINED, BigInt, Blob, RpcStub, RpcTarget, Url, WritableStream
from capnweb_py.web import Headers, ReadableStream, Request, Response


class OutOfStock(Exception):
    """An error of the service's own, with more than a message."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 7
        self.detail = {"left": 0}


class Counter(RpcTarget):
    """Counts, and is counted itself."""

    living = 0

    def __init__(self, start: int) -> None:
        self._value = start
        Counter.living += 1

    def increment(self, by: int = 1) -> int:
        self._value += by
        return self._value

    @property
    def value(self) -> int:
        return self._value

    def twin(self) -> Counter:
        return Counter(self._value)

    def dispose(self) -> None:
        Counter.living -= 1


class Forms(RpcTarget):
    """Gives and takes what Miniflare's own client does not know: maps, streams and web types."""

    def __init__(self) -> None:
        self._written: list[Any] = []
        self._closed = 0

    def echo(self, value: Any) -> Any:
        return value

    def counter(self, start: int) -> Counter:
        return Counter(start)

    def living(self) -> int:
        return Counter.living

    def people(self) -> list[dict[str, Any]]:
        return [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}]

    def nothing(self) -> None:
        return None

    def fail(self, number: int) -> None:
        raise OutOfStock(f"none of {number}")

    def count(self, to: int) -> AsyncIterator[int]:
        return self._count(to)

    async def _count(self, to: int) -> AsyncIterator[int]:
        try:
            for number in range(to):
                yield number
        finally:
            self._closed += 1

    def sources_closed(self) -> int:
        return self._closed

    async def total(self, stream: AsyncIterable[bytes]) -> int:
        return sum([len(chunk) async for chunk in stream])

    def notebook(self) -> WritableStream:
        return WritableStream(Notebook(self._written))

    def written(self) -> list[Any]:
        return self._written

    async def describe(self, value: Any) -> list[Any]:
        """What a web value is, by its kind."""
        match value:
            case Url():
                return ["url", str(value)]
            case Headers():
                return ["headers", value.combined()]
            case Blob():
                return ["blob", value.type, await value.text()]
            case Request():
                return ["request", value.method, value.url, value.headers.combined(), await value.text()]
            case Response():
                return ["response", value.status, value.headers.combined(), await value.text()]
            case _:
                return [type(value).__name__]


class Notebook:
    """A sink that remembers."""

    def __init__(self, written: list[Any]) -> None:
        self._written = written

    async def write(self, chunk: Any) -> None:
        self._written.append(chunk)

    async def aclose(self) -> None:
        self._written.append("closed")

    async def abort(self, error: BaseException) -> None:
        self._written.append(f"aborted: {error}")


class Signals:
    """Chunks that one request leaves for another."""

    def __init__(self) -> None:
        self._writer, self._reader = anyio.create_memory_object_stream[bytes](10)

    async def give(self, chunk: bytes = b"") -> None:
        await self._writer.send(chunk)

    async def take(self) -> bytes:
        return await self._reader.receive()


PERMITS, ARRIVALS = Signals(), Signals()


async def drip() -> AsyncIterator[bytes]:
    """Two chunks, the second of which is made when there is a permit."""
    yield b"first"
    await PERMITS.take()
    yield b"last"


async def upload(body: AsyncIterable[bytes]) -> bytes:
    """Read a body, and let others know of its first chunk. Returns all of it."""
    whole = b""
    async for chunk in body:
        if chunk and not whole:
            await ARRIVALS.give(chunk)
        whole += chunk
    return whole


class Service(RpcTarget):
    """The main object of a session, and the handler of requests."""

    made = 0

    def __init__(self) -> None:
        Service.made += 1

    @property
    def motto(self) -> str:
        return "all is reachable that is meant to be"

    def _secret(self) -> str:
        return "never reachable"

    def hello(self, name: str, *, greeting: str = "Hello") -> str:
        return f"{greeting}, {name}!"

    def echo(self, value: Any) -> Any:
        return value

    def every_kind(self) -> dict[str, Any]:
        return {
            "none": None,
            "undefined": UNDEFINED,
            "truth": True,
            "int": 2**53 - 1,
            "float": 0.5,
            "inf": float("inf"),
            "nan": float("nan"),
            "bigint": BigInt(10**30),
            "text": "ü\u0000\U0001f600",
            "bytes": b"\x00\xff",
            "date": datetime(2026, 4, 1, tzinfo=UTC),
            "list": [1, [2, []]],
            "dict": {"a": {"b": {}}},
            "error": ValueError("as a value"),
        }

    async def describe(self, value: Request | Response | Headers) -> list[Any]:
        """What a web value is, to the end of its body."""
        headers = [list(pair) for pair in (value if isinstance(value, Headers) else value.headers).combined()]
        if isinstance(value, Headers):
            return [headers]
        first = [value.method, value.url] if isinstance(value, Request) else [value.status]
        return [*first, headers, await value.text()]

    def web_value(self, kind: str) -> Any:
        values: dict[str, Callable[[], Any]] = {
            "headers": lambda: Headers([("b", "1"), ("a", "2"), ("b", "3")]),
            "request": lambda: Request("https://a.example/x", method="POST", headers={"x-a": "b"}, body=b"question"),
            "response": lambda: Response(b"answer", status=404, headers={"x-a": "b"}),
            "plain": lambda: Response(status=204),
        }
        return values[kind]()

    def fail(self, kind: str) -> None:
        if kind == "OutOfStock":
            raise OutOfStock("an OutOfStock on purpose")
        raise getattr(builtins, kind)(f"a {kind} on purpose")

    async def call_each(self, values: list[Any], callback: RpcStub) -> list[Any]:
        return [await callback(value) for value in values]

    async def report_failure(self, callback: RpcStub) -> list[str]:
        try:
            await callback()
        except Exception as error:
            return [str(getattr(error, "name", "")), str(error)]
        return []

    def make_counter(self, start: int) -> Counter:
        return Counter(start)

    def make_counters(self) -> dict[str, Any]:
        return {"counters": [Counter(0), Counter(10)], "name": "pair"}

    def make_adder(self, to: int) -> Callable[[int], int]:
        return lambda number: number + to

    async def value_of(self, counter: RpcStub) -> int:
        value: int = await counter.value
        return value

    async def motto_of(self, service: RpcStub) -> str:
        motto: str = await service.motto
        return motto

    def living(self) -> int:
        return Counter.living

    def targets_made(self) -> int:
        """How many of these there have been: one for each session and for each request."""
        return Service.made

    def process_id(self) -> int:
        return os.getpid()

    async def wait(self, started: RpcStub) -> str:
        """Tell that the call has begun, and wait for a permit."""
        await started()
        return (await PERMITS.take()).decode()

    async def permit(self, text: str) -> None:
        """Let a call of `wait` end, on whichever session."""
        await PERMITS.give(text.encode())

    async def fetch(self, request: Request) -> Response:
        path = request.url.removeprefix("https://a.example")
        answers: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/duplex": self._duplex,
            "/drip": self._drip,
            "/go-on": self._go_on,
            "/upload": self._upload,
            "/arrived": self._arrived,
            "/cut": self._cut,
            "/fail": self._fail,
            "/redirect": self._redirect,
            "/cookies": self._cookies,
            "/teapot": self._teapot,
            "/forged": self._forged,
        }
        return await answers.get(path, self._mirror)(request)

    async def _mirror(self, request: Request) -> Response:
        seen = {
            "method": request.method,
            "url": request.url,
            "headers": list(request.headers.pairs()),
            "body": await request.text(),
        }
        return Response(json.dumps(seen), headers={"content-type": "application/json"})

    async def _duplex(self, request: Request) -> Response:
        assert request.body is not None, "there is something to send back"
        return Response(request.body)

    async def _drip(self, _request: Request) -> Response:
        return Response(ReadableStream(drip()))

    async def _go_on(self, _request: Request) -> Response:
        await PERMITS.give()
        return Response()

    async def _upload(self, request: Request) -> Response:
        assert request.body is not None, "there is something to upload"
        return Response(await upload(request.body))

    async def _arrived(self, _request: Request) -> Response:
        return Response(await ARRIVALS.take())

    async def _cut(self, _request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first"
            raise ConnectionError("cut off on purpose")

        return Response(ReadableStream(chunks()))

    async def _fail(self, _request: Request) -> Response:
        raise LookupError("no answer today")

    async def _redirect(self, _request: Request) -> Response:
        return Response(status=302, headers={"location": "https://elsewhere.example/"})

    async def _cookies(self, _request: Request) -> Response:
        return Response("two", headers=[("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2"), ("x-one", "1")])

    async def _forged(self, _request: Request) -> Response:
        return Response(status=400, headers={"capnweb-refused": "secret", "mf-forwarded-response": "no"})

    async def _teapot(self, _request: Request) -> Response:
        return Response("short and stout", status=418)


_Event = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Event]]
_Send = Callable[[_Event], Awaitable[None]]


async def app(scope: _Event, receive: _Receive, send: _Send) -> None:
    """An ASGI application: it says what it was asked, where its path is none of those that Service has too."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-app", b"yes")]})
    async for chunk in _app_chunks(scope, receive):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


# Of the application's lifespan, in their order.
EVENTS: list[str] = []


async def _live(receive: _Receive, send: _Send) -> None:
    """Run a lifespan, and note its events."""
    for phase in ("startup", "shutdown"):
        event = await receive()
        assert event["type"] == f"lifespan.{phase}"
        EVENTS.append(phase)
        await send({"type": f"lifespan.{phase}.complete"})


async def _app_chunks(scope: _Event, receive: _Receive) -> AsyncIterator[bytes]:
    path = scope["path"]
    if path == "/duplex":
        async for chunk in _uploaded(receive):
            yield chunk
    elif path == "/drip":
        async for chunk in drip():
            yield chunk
    elif path == "/go-on":
        await PERMITS.give()
    elif path == "/upload":
        yield await upload(_uploaded(receive))
    elif path == "/lifespan":
        yield " ".join(EVENTS).encode()
    elif path == "/arrived":
        yield await ARRIVALS.take()
    else:
        yield f"{scope['method']} {path}?{scope['query_string'].decode()}".encode()


async def _uploaded(receive: _Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        event = await receive()
        more = event["more_body"]
        yield event["body"]
