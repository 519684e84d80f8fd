"""Services with WebSockets behind a proxy in its tests: an RpcTarget, an ASGI application that does the same, and what
entrypoints and dispatch namespaces lead to. service_target.mjs does the same as a Worker.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio

from capnweb_py import RpcTarget
from capnweb_py.web import Request, Response
from capnweb_py.web_socket import ServerWebSocket

# How the last WebSocket to /watch was closed: put by its handler, taken by a request.
_ENDS: list[list[Any]] = []
_ENDED: list[anyio.Event] = []

FLOOD = 2000
FLOOD_SIZE = 10_000


def _path_of(url: str) -> str:
    return "/" + url.partition("://")[2].partition("/")[2].partition("?")[0]


def _note_end(end: list[Any]) -> None:
    _ENDS.append(end)
    while _ENDED:
        _ENDED.pop().set()


async def _last_end() -> list[Any]:
    while not _ENDS:
        event = anyio.Event()
        _ENDED.append(event)
        await event.wait()
    return _ENDS.pop()


class Chat(RpcTarget):
    """A target that answers calls, requests and WebSockets."""

    living = 0

    def __init__(self) -> None:
        Chat.living += 1

    def dispose(self) -> None:
        Chat.living -= 1

    def hello(self, name: str) -> str:
        return f"Hello, {name}!"

    async def fetch(self, request: Request) -> Response:
        path = _path_of(request.url)
        if path == "/watched":
            return Response.from_json(await _last_end())
        if path == "/living":
            return Response.from_json(Chat.living)
        return Response(f"plain {path}", headers={"x-plain": "yes"})

    async def websocket(self, socket: ServerWebSocket, request: Request) -> Response | None:
        path = _path_of(request.url)
        if path == "/refuse":
            return Response("members only", status=403, headers={"x-reason": "none"})
        if path == "/plain":
            return await self.fetch(request)
        if path == "/fail":
            raise LookupError("no room today")
        if path == "/fail-later":
            await socket.accept()
            raise LookupError("out of rooms")
        chosen = "chat" if "chat" in socket.subprotocols else None
        await socket.accept(subprotocol=chosen, headers={"x-room": "lobby"})
        await self._talk(path, socket, request)
        return None

    async def _talk(self, path: str, socket: ServerWebSocket, request: Request) -> None:
        if path == "/farewell":
            await socket.send("bye")
            await socket.close(4001, "enough")
        elif path == "/headers":
            await socket.send(json.dumps([request.url, request.headers.get("x-asked"), request.headers.get("cookie")]))
        elif path == "/flood":
            for number in range(FLOOD):
                await socket.send(bytes([number % 256]) * FLOOD_SIZE)
        else:
            async for message in socket:
                await socket.send(message)
            if path == "/watch":
                _note_end([socket.close_code, socket.close_reason])


class Admin(RpcTarget):
    """A second entrypoint of this module, with what its binding is configured with."""

    def __init__(self, props: dict[str, Any]) -> None:
        self._props = props

    def role(self) -> str:
        return f"admin of {self._props.get('realm', 'nothing')}"

    async def fetch(self, _request: Request) -> Response:
        return Response(self.role())


class Tenant(RpcTarget):
    """A service of a dispatch namespace, which is told how it was got."""

    def __init__(self, props: dict[str, Any], args: dict[str, Any], options: dict[str, Any]) -> None:
        self._given = {"props": props, "args": args, "options": options}

    def given(self) -> dict[str, Any]:
        return self._given

    def hello(self, name: str) -> str:
        return f"Hello, {name}, from a tenant!"

    async def fetch(self, request: Request) -> Response:
        return Response.from_json([request.method, request.url, await request.text(), self._given])

    async def websocket(self, socket: ServerWebSocket, _request: Request) -> None:
        async for message in socket:
            await socket.send(f"{self._given['args'].get('name')}: {message!r}")


_Event = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Event]]
_Send = Callable[[_Event], Awaitable[None]]


async def chat_app(scope: _Event, receive: _Receive, send: _Send) -> None:
    """The same as an ASGI application."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
    elif scope["type"] == "http":
        path = scope["path"]
        answer = json.dumps(await _last_end()) if path == "/watched" else f"plain {path}"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-plain", b"yes")]})
        await send({"type": "http.response.body", "body": answer.encode()})
    else:
        await receive()
        await _chat(scope, receive, send)


async def _chat(scope: _Event, receive: _Receive, send: _Send) -> None:
    path = scope["path"]
    if path in ("/refuse", "/plain"):
        refused = path == "/refuse"
        status, text = (403, b"members only") if refused else (200, b"plain /plain")
        name, value = (b"x-reason", b"none") if refused else (b"x-plain", b"yes")
        await send({"type": "websocket.http.response.start", "status": status, "headers": [(name, value)]})
        await send({"type": "websocket.http.response.body", "body": text, "more_body": False})
        return
    if path == "/fail":
        raise LookupError("no room today")
    chosen = "chat" if "chat" in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"x-room", b"lobby")]})
    if path == "/fail-later":
        raise LookupError("out of rooms")
    if path == "/farewell":
        await send({"type": "websocket.send", "text": "bye"})
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
    elif path == "/headers":
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = f"?{scope['query_string'].decode()}" if scope["query_string"] else ""
        url = f"https://a.example{path}{query}"
        await send({"type": "websocket.send", "text": json.dumps([url, headers.get("x-asked"), headers.get("cookie")])})
        await send({"type": "websocket.close", "code": 1000})
    elif path == "/flood":
        for number in range(FLOOD):
            await send({"type": "websocket.send", "bytes": bytes([number % 256]) * FLOOD_SIZE})
        await send({"type": "websocket.close", "code": 1000})
    else:
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})
        if path == "/watch":
            _note_end([event["code"], event.get("reason", "")])
