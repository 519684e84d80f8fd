"""asgi_app: WebSocket and batch on one path, which web pages may use it, and frameworks that it is mounted in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anyio
import django
import httpx2
import pytest
from asgi_server import asgi_server
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from fastapi import FastAPI
from proxying import Reply, fetch, websocket_scope, wired
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from capnweb_py import (
    Limits,
    RpcError,
    RpcTarget,
    SessionOptions,
    asgi_app,
    connect,
    http_batch,
    http_batch_response,
)

BATCH = b'["stream",["pipeline",0,["hello"],["ASGI"]]]'
ANSWER = b'["resolve",1,"Hello, ASGI!"]'


class Api(RpcTarget):
    def __init__(self) -> None:
        self.disposed = 0
        self.waiting = anyio.Event()
        self.cancelled = anyio.Event()

    async def hello(self, name: Any) -> Any:
        return f"Hello, {name}!"

    async def call_me(self, callback: Any) -> Any:
        return await callback(41)

    async def forever(self) -> None:
        self.waiting.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()

    def dispose(self) -> None:
        self.disposed += 1


def scope(method: str = "POST", **headers: str) -> dict[str, Any]:
    """The scope of a request; `sec_fetch_site` stands for the header Sec-Fetch-Site."""
    pairs = {"host": "api.example", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {
        "type": "http",
        "method": method,
        "path": "/",
        "headers": [(name.encode(), value.encode()) for name, value in pairs.items()],
    }


# Requests.


@pytest.mark.anyio
async def test_a_batch_is_answered() -> None:
    reply = await fetch(asgi_app(Api), scope(), BATCH[:10], BATCH[10:])
    assert reply == Reply(
        200, [("content-type", "text/plain;charset=UTF-8"), ("content-length", str(len(ANSWER)))], ANSWER
    )


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_get_405(method: str) -> None:
    reply = await fetch(asgi_app(Api), scope(method))
    assert (reply.status, reply.header("allow")) == (405, "POST")


@pytest.mark.anyio
async def test_what_is_wrong_inside_a_batch_is_said_in_the_answer() -> None:
    reply = await fetch(asgi_app(Api), scope(), b"name=value")
    assert reply.status == 200
    assert json.loads(reply.body)[1][1] == "ProtocolError"


@pytest.mark.anyio
@pytest.mark.parametrize("length", ["101", "9" * 5000])
async def test_a_body_that_is_too_large_is_refused_before_it_is_read(length: str) -> None:
    app = asgi_app(Api, SessionOptions(limits=Limits(max_batch_size=100)))
    async with wired(app, scope(content_length=length)) as wire:
        start = await wire.next()
        assert start["status"] == 413
        assert (b"connection", b"close") in start["headers"]
        assert wire.received == 0
        assert b"max_batch_size = 100" in await wire.next_chunk()


@pytest.mark.anyio
async def test_a_body_of_unknown_length_is_read_to_the_limit() -> None:
    app = asgi_app(Api, SessionOptions(limits=Limits(max_batch_size=100)))
    async with wired(app, scope()) as wire:
        for _ in range(5):
            await wire.push(b" " * 60)
        assert (await wire.next())["status"] == 413
        assert wire.received == 2


@pytest.mark.anyio
async def test_a_client_that_leaves_early_has_said_nothing() -> None:
    made: list[Api] = []

    def new_main() -> Api:
        made.append(Api())
        return made[-1]

    async with wired(asgi_app(new_main), scope()) as wire:
        await wire.push(BATCH)
        await wire.leave()
        await wire.ended.wait()
    assert made == []
    assert wire.failure is None


@pytest.mark.anyio
async def test_a_client_that_leaves_cancels_its_calls() -> None:
    api = Api()
    async with wired(asgi_app(api), scope()) as wire:
        await wire.push(b'["stream",["pipeline",0,["forever"],[]]]', more=False)
        await api.waiting.wait()
        await wire.leave()
        await api.cancelled.wait()
        await wire.ended.wait()
    assert wire.failure is None


@pytest.mark.anyio
async def test_a_factory_that_fails_is_the_servers_to_report() -> None:
    def broken() -> Api:
        raise OSError("no database")

    async with wired(asgi_app(broken), scope()) as wire:
        await wire.push(BATCH, more=False)
        await wire.ended.wait()
    assert isinstance(wire.failure, OSError)


@pytest.mark.anyio
async def test_the_lifespan_of_the_server_is_that_of_a_shared_main() -> None:
    api = Api()
    app = asgi_app(api)
    async with wired(app, {"type": "lifespan"}) as wire:
        await wire.to_app.send({"type": "lifespan.startup"})
        assert await wire.next() == {"type": "lifespan.startup.complete"}
        await fetch(app, scope(), BATCH)
        assert api.disposed == 0
        await wire.to_app.send({"type": "lifespan.shutdown"})
        assert await wire.next() == {"type": "lifespan.shutdown.complete"}
    assert api.disposed == 1


@pytest.mark.anyio
async def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="the ASGI server speaks 'smtp'"):
        await asgi_app(Api)({"type": "smtp"}, None, None)  # type: ignore[arg-type]


def test_what_cannot_be_served_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="derive it from RpcTarget"):
        asgi_app(dict)


# Web pages.

FOREIGN = "https://elsewhere.example"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"sec_fetch_site": "same-origin", "origin": "https://proxied.example"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "same-site", "origin": FOREIGN}, False),
        ({"sec_fetch_site": "cross-site", "origin": FOREIGN}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"origin": "https://API.example"}, True),
        ({"origin": "http://api.example"}, True),
        ({"origin": "https://api.example:8443"}, False),
        ({"origin": FOREIGN}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"sec_fetch_site": "cross-site", "origin": "https://APP.example"}, True),
        ({"sec_fetch_site": "cross-site", "origin": "https://app.example:1"}, False),
    ],
)
async def test_which_pages_may_use_it(headers: dict[str, str], passes: bool) -> None:
    app = asgi_app(Api, allowed_origins=["https://app.example"])
    reply = await fetch(app, scope(**headers), BATCH)
    assert reply.status == (200 if passes else 403)
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    handshake = websocket_scope() | {"headers": [(b"host", b"api.example"), *pairs]}
    async with wired(app, handshake) as wire:
        await wire.to_app.send({"type": "websocket.connect"})
        event = await wire.next()
        assert event["type"] == ("websocket.accept" if passes else "websocket.http.response.start")
        assert event.get("status") == (None if passes else 403)
        if passes:
            await wire.to_app.send({"type": "websocket.disconnect", "code": 1000})
            await wire.ended.wait()


@pytest.mark.anyio
async def test_pages_are_told_of_no_other_origins() -> None:
    reply = await fetch(asgi_app(Api), scope(origin="https://api.example"), BATCH)
    assert reply.header("access-control-allow-origin") is None
    reply = await fetch(asgi_app(Api, allowed_origins=["https://app.example"]), scope(), BATCH)
    assert reply.header("access-control-allow-origin") is None


@pytest.mark.anyio
async def test_an_allowed_page_may_read_the_answer() -> None:
    app = asgi_app(Api, SessionOptions(limits=Limits(max_batch_size=60)), allowed_origins=["https://app.example"])
    for body, status in ((BATCH, 200), (BATCH * 2, 413)):
        reply = await fetch(app, scope(origin="https://app.example"), body)
        assert reply.status == status
        assert reply.header("access-control-allow-origin") == "https://app.example"
        assert reply.header("vary") == "origin"
    reply = await fetch(asgi_app(Api, allowed_origins=["*"]), scope(origin="null"), BATCH)
    assert (reply.status, reply.header("access-control-allow-origin")) == (200, "*")


@pytest.mark.anyio
async def test_a_preflight_is_answered_for_allowed_pages() -> None:
    app = asgi_app(Api, allowed_origins=["https://app.example"])
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,x-trace"}
    reply = await fetch(app, scope("OPTIONS", origin="https://app.example", **asked))
    assert (reply.status, reply.body) == (200, b"")
    assert reply.header("access-control-allow-origin") == "https://app.example"
    assert reply.header("access-control-allow-methods") == "POST"
    assert reply.header("access-control-allow-headers") == "authorization,x-trace"
    reply = await fetch(app, scope("OPTIONS", origin=FOREIGN, **asked))
    assert (reply.status, reply.header("access-control-allow-origin")) == (403, None)


@pytest.mark.parametrize("origins", ["https://app.example", ["https://app.example/"], ["app.example"], ["https://"]])
def test_what_is_no_origin_is_a_value_error(origins: Any) -> None:
    with pytest.raises(ValueError, match="origin"):
        asgi_app(Api, allowed_origins=origins)


# Servers and frameworks.


def starlette_app() -> Any:
    return Starlette(routes=[Route("/", lambda _request: PlainTextResponse("home")), Mount("/rpc", asgi_app(Api))])


def starlette_routes() -> Any:
    rpc = asgi_app(Api)
    return Starlette(routes=[Route("/rpc/", rpc), WebSocketRoute("/rpc/", rpc)])


def fastapi_app() -> Any:
    app = FastAPI()
    app.mount("/rpc", asgi_app(Api))
    return app


def django_app() -> Any:
    """Django serves HTTP; what is in front of it passes everything below /rpc/ on."""
    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="for tests only")
        django.setup()
    site, rpc = get_asgi_application(), asgi_app(Api)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        here = rpc if scope["type"] != "http" or scope["path"] == "/rpc/" else site
        await here(scope, receive, send)

    return application


async def django_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await http_batch_response(request.body, Api), content_type="text/plain")


urlpatterns = [path("view/", django_view)]

APPS = {
    "uvicorn alone": lambda: asgi_app(Api),
    "mounted in Starlette": starlette_app,
    "routes of Starlette": starlette_routes,
    "mounted in FastAPI": fastapi_app,
    "in front of Django": django_app,
}


@pytest.fixture(scope="module", params=APPS)
def authority(request: pytest.FixtureRequest) -> Iterator[str]:
    with asgi_server(APPS[request.param]()) as authority:
        yield authority


@pytest.mark.anyio
async def test_sessions_and_batches_on_one_path(authority: str) -> None:
    async with http_batch(f"http://{authority}/rpc/") as api:
        one, two = api.hello("batch"), api.hello("again")
        assert (await one, await two) == ("Hello, batch!", "Hello, again!")
    async with connect(f"ws://{authority}/rpc/") as api:
        assert await api.hello("WebSocket") == "Hello, WebSocket!"
        assert await api.call_me(lambda number: number + 1) == 42


@pytest.mark.anyio
async def test_pages_of_other_origins_are_refused_at_both(authority: str) -> None:
    headers = {"Origin": FOREIGN}
    async with http_batch(f"http://{authority}/rpc/", headers=headers) as api:
        with pytest.raises(RpcError, match="403 Forbidden: web pages of this origin may not use this server"):
            await api.hello("batch")
    with pytest.raises(RpcError, match="403"):
        async with connect(f"ws://{authority}/rpc/", headers=headers):
            pass


@pytest.mark.anyio
async def test_one_client_sends_many_batches(authority: str) -> None:
    async with httpx2.AsyncClient() as client:
        for number in range(3):
            async with http_batch(f"http://{authority}/rpc/", client=client) as api:
                assert await api.hello(number) == f"Hello, {number}!"


@pytest.mark.anyio
async def test_a_path_without_its_slash_leads_to_a_mounted_application() -> None:
    with asgi_server(starlette_app()) as authority:
        async with http_batch(f"http://{authority}/rpc") as api:
            assert await api.hello("Starlette") == "Hello, Starlette!"


@pytest.mark.anyio
async def test_a_view_of_a_framework_answers_batches() -> None:
    async def starlette_view(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await http_batch_response(await request.body(), Api))

    for app in (django_app(), Starlette(routes=[Route("/view/", starlette_view, methods=["POST"])])):
        with asgi_server(app) as authority:
            async with http_batch(f"http://{authority}/view/") as api:
                assert await api.hello("view") == "Hello, view!"
