"""A WebSocket of a binding that is open in the program's own process: both ends are here, and messages go by memory.

The binding is asked as a proxy asks it, with the events of an ASGI server's WebSocket; the other end of these events is
the client's `WebSocket`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from capnweb_py.errors import AnswerLost
from capnweb_py.loops import Spawn
from capnweb_py.web import Headers, Request, Response
from capnweb_py.web_socket import LOST, NORMAL, WebSocket, WebSocketClosed, WebSocketRefused, check_close, check_message
from capnweb_py.websocket_client import CLOSE_TIMEOUT
from proxy_server.bindings import Binding
from proxy_server.channels import BODILESS_STATUSES, Scope
from proxy_server.channels.websocket import serve_fetched_websocket

__all__ = ["open_local_socket"]

_Event = MutableMapping[str, Any]

# How many messages one end may be ahead of the other.
_AHEAD: Final = 16


@asynccontextmanager
async def open_local_socket(
    binding: Binding, request: Request, subprotocols: Sequence[str], title: str, spawn: Spawn
) -> AsyncIterator[WebSocket]:
    """Open a WebSocket of a binding, which is closed at the end of the block.

    Args:
        binding: it.
        request: its URL and headers.
        subprotocols: what to offer.
        title: what errors call the binding.
        spawn: starts the task in which the binding answers, which may go on for a while after the WebSocket.

    Raises:
        WebSocketRefused: if the binding answers with an ordinary response.
        AnswerLost: if it does not answer.
    """
    to_binding, binding_receives = anyio.create_memory_object_stream[_Event](_AHEAD)
    binding_sends, from_binding = anyio.create_memory_object_stream[_Event](_AHEAD)
    socket = _LocalSocket(to_binding, from_binding)

    async def receive() -> _Event:
        try:
            return await binding_receives.receive()
        except anyio.EndOfStream:
            code = LOST if socket.close_code is None else socket.close_code
            return {"type": "websocket.disconnect", "code": code, "reason": socket.close_reason}

    async def send(event: _Event) -> None:
        try:
            await binding_sends.send(event)
        except anyio.BrokenResourceError as error:
            raise OSError("the client has left") from error  # ASGI, section "Disconnected Client"

    ended = anyio.Event()

    async def run() -> None:
        try:
            with binding_sends, binding_receives:
                await serve_fetched_websocket(binding, _scope(request, subprotocols), receive, send)
        finally:
            ended.set()

    with to_binding, from_binding:
        await to_binding.send({"type": "websocket.connect"})
        spawn(run)
        await socket.open(title)
        try:
            yield socket
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await socket.close()
                from_binding.close()
                # What was said last is on its way: a program that ends now would cut it off.
                await ended.wait()


def _scope(request: Request, subprotocols: Sequence[str]) -> Scope:
    wrapped = Headers({"mf-url": request.url})
    for name, value in request.headers.pairs():
        wrapped.append(f"mf-header-{name}", value)
    if subprotocols:
        wrapped["mf-header-sec-websocket-protocol"] = ", ".join(subprotocols)
    return {
        "type": "websocket",
        "path": "/",
        "query_string": b"",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in wrapped.pairs()],
        "subprotocols": list(subprotocols),
        "extensions": {"websocket.http.response": {}},
    }


def _refusal(start: Mapping[str, Any], body: bytes) -> Response:
    headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"])
    return Response(
        body or None if start["status"] not in BODILESS_STATUSES else None, status=start["status"], headers=headers
    )


class _LocalSocket(WebSocket):
    """The client's end."""

    def __init__(
        self, to_binding: MemoryObjectSendStream[_Event], from_binding: MemoryObjectReceiveStream[_Event]
    ) -> None:
        self._to_binding = to_binding
        self._from_binding = from_binding
        self._subprotocol: str | None = None

    async def open(self, title: str) -> None:
        """Wait for the answer to the handshake."""
        self._title = f"the WebSocket of {title}"
        try:
            event = await self._from_binding.receive()
            if event["type"] == "websocket.http.response.start":
                raise WebSocketRefused(title, _refusal(event, (await self._from_binding.receive())["body"]))
        except anyio.EndOfStream:
            raise AnswerLost(f"{title} did not answer the WebSocket handshake") from None
        if event["type"] != "websocket.accept":
            raise AnswerLost(f"{title} did not answer the WebSocket handshake as it should: it closed it")
        self._subprotocol = event.get("subprotocol")

    @property
    def subprotocol(self) -> str | None:
        return self._subprotocol

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        check_message(message)
        if self._end is not None:
            raise self._closed()
        said = {"text": message} if isinstance(message, str) else {"bytes": bytes(message)}
        try:
            await self._to_binding.send({"type": "websocket.receive", **said})
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._end = self._end or WebSocketClosed(LOST, "")
            raise self._closed() from None

    async def receive(self) -> str | bytes:
        if self._end is not None:
            raise self._closed()
        try:
            event = await self._from_binding.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._end = self._end or WebSocketClosed(LOST, "")
            raise self._closed() from None
        if event["type"] == "websocket.close":
            self._end = WebSocketClosed(event.get("code", NORMAL), event.get("reason") or "")
            self._to_binding.close()
            raise self._closed()
        data: bytes | None = event.get("bytes")
        return event["text"] if data is None else data

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        check_close(code, reason)
        if self._end is None:
            self._end = WebSocketClosed(code, reason)
            self._to_binding.close()
