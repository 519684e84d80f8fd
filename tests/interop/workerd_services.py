"""The services behind the proxy that a real workerd binds to: an RpcTarget with an HTTP side, and an ASGI application.

They run in the server's process. What a test needs to know of it, it asks by a call.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import anyio

from capnweb_py import UNDEFINED, BigInt, RpcStub, RpcTarget
from capnweb_py.web import ReadableStream, Request, Response


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


class Service(RpcTarget):
    """The main object of a session, and the handler of requests."""

    # Set when a response that drips may go on. It is of the process: calls and requests are different sessions.
    going_on: anyio.Event | None = None

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

    def fail(self, kind: str) -> None:
        own = {"OutOfStock": OutOfStock}
        raise (own.get(kind) or getattr(builtins, kind))(f"a {kind} on purpose")

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

    def living(self) -> int:
        return Counter.living

    def go_on(self) -> None:
        assert Service.going_on is not None, "a response drips"
        Service.going_on.set()

    async def fetch(self, request: Request) -> Response:
        path = request.url.removeprefix("https://a.example")
        answers: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/duplex": self._duplex,
            "/drip": self._drip,
            "/cut": self._cut,
            "/fail": self._fail,
            "/redirect": self._redirect,
            "/cookies": self._cookies,
            "/teapot": self._teapot,
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
        Service.going_on = anyio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            assert Service.going_on is not None, "set above"
            yield b"first"
            await Service.going_on.wait()
            yield b"last"

        return Response(ReadableStream(chunks()))

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

    async def _teapot(self, _request: Request) -> Response:
        return Response("short and stout", status=418)


_Event = MutableMapping[str, Any]


async def app(scope: _Event, receive: Callable[[], Awaitable[_Event]], send: Callable[[_Event], Awaitable[None]]) -> None:
    """An ASGI application: says what it was asked, or sends back each chunk as it arrives (/duplex)."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-app", b"yes")]})
    if scope["path"] != "/duplex":
        await send({"type": "http.response.body", "body": f"{scope['method']} {scope['path']}".encode()})
        return
    more = True
    while more:
        event = await receive()
        more = event["more_body"]
        await send({"type": "http.response.body", "body": event["body"], "more_body": more})
