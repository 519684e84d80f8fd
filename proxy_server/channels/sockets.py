"""A WebSocket behind the proxy as an object, for a handler, and the watch for the client's departure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

import anyio

from capnweb_py.web import Headers, HeadersInit, Response
from capnweb_py.web_socket import LOST, NO_STATUS, NORMAL, ServerWebSocket, WebSocketClosed, check_close, check_message
from proxy_server.channels import LOG
from proxy_server.channels.handshake import ClientLeft, Handshake

__all__ = ["serve_socket"]

Handler: TypeAlias = Callable[[ServerWebSocket], Awaitable[Response | None]]

# How long, in seconds, a handler may go on once its WebSocket is closed, before it is cancelled.
GRACE: Final = 10.0


async def serve_socket(handshake: Handshake, run: Handler) -> None:
    """Have a handler answer a handshake, and carry the WebSocket until the handler returns.

    A handler that returns a response refuses the WebSocket with it. One that has not ended some seconds after the
    WebSocket has is cancelled.

    Raises:
        Exception: what the handler raises, but WebSocketClosed: that is an end like any other.
    """
    if (await handshake.receive())["type"] == "websocket.disconnect":
        return
    socket = _Socket(handshake)
    failure: Exception | SystemExit | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(socket.pump, tasks.cancel_scope)
            try:
                await _run(socket, run)
            except (Exception, SystemExit) as error:
                # Kept, not raised: the task group would wrap it.
                failure = error
            tasks.cancel_scope.cancel()
    finally:
        socket.release()
    if failure is not None:
        raise failure


async def _run(socket: _Socket, run: Handler) -> None:
    try:
        response = await run(socket)
    except WebSocketClosed:
        LOG.debug("a handler ended with its WebSocket")
    else:
        if response is not None:
            await socket.refuse(response)


class _Socket(ServerWebSocket):
    """The WebSocket of one handshake. `pump` is the only one who receives, one message ahead of the handler."""

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake
        self._subprotocol: str | None = None
        self._arrive, self._arrived = anyio.create_memory_object_stream[str | bytes](1)

    @property
    def subprotocols(self) -> tuple[str, ...]:
        return self._handshake.subprotocols

    @property
    def subprotocol(self) -> str | None:
        return self._subprotocol

    async def accept(self, *, subprotocol: str | None = None, headers: HeadersInit | None = None) -> None:
        if subprotocol is not None and subprotocol not in self.subprotocols:
            offered = ", ".join(self.subprotocols) or "none"
            raise ValueError(f"the client does not offer the subprotocol {subprotocol!r}; it offers {offered}")
        if self._handshake.accepted:
            raise RuntimeError("the WebSocket is open already: accept() comes before the first message")
        pairs = Headers(() if headers is None else headers).pairs()
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        self._subprotocol = subprotocol
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": encoded})

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        check_message(message)
        said = {"text": message} if isinstance(message, str) else {"bytes": bytes(message)}
        await self._accepted()
        await self._send({"type": "websocket.send", **said})

    async def receive(self) -> str | bytes:
        await self._accepted()
        try:
            return await self._arrived.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            raise self._closed() from None

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        check_close(code, reason)
        if self._end is None:
            await self._accepted()
            # What the client has sent and nobody has read is dropped: `receive` says how it ended.
            self._end = WebSocketClosed(code, reason)
            self._arrived.close()
            if not self._handshake.over:
                with suppress(ClientLeft):
                    await self._handshake.send({"type": "websocket.close", "code": code, "reason": reason})

    async def refuse(self, response: Response) -> None:
        """Answer with a response. A WebSocket that is open stays one."""
        if self._handshake.accepted:
            raise TypeError("the handler returned a response for a WebSocket that it has opened")
        await self._handshake.refuse(response)

    async def pump(self, handler: anyio.CancelScope) -> None:
        """Take what arrives until the client has left, and cancel a handler that does not end then."""
        while (event := await self._handshake.receive())["type"] == "websocket.receive":
            text = event.get("text")
            try:
                await self._arrive.send(event["bytes"] if text is None else text)
            except anyio.BrokenResourceError:
                LOG.debug("a message arrived that nobody reads")
        if self._end is None:
            self._end = _end(event.get("code"), event.get("reason"))
        self._arrive.close()
        await anyio.sleep(GRACE)
        LOG.warning("a handler went on for %s s after its WebSocket had ended, and is cancelled", GRACE)
        handler.cancel()

    def release(self) -> None:
        """The handler has ended. One that kept the WebSocket reads nothing more."""
        self._arrive.close()
        self._arrived.close()

    async def _accepted(self) -> None:
        if not self._handshake.accepted and self._end is None:
            await self.accept()

    async def _send(self, event: dict[str, object]) -> None:
        if self._end is not None or self._handshake.over:
            raise self._closed()
        try:
            await self._handshake.send(event)
        except ClientLeft as error:
            raise self._closed() from error


def _end(code: int | None, reason: str | None) -> WebSocketClosed:
    # uvicorn names no reason where no close frame came, and the code of a frame without one.
    if code is None or (code == NO_STATUS and reason is None):
        return WebSocketClosed(LOST, "")
    return WebSocketClosed(code, reason or "")
