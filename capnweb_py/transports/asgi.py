"""Sessions over the WebSocket side of an ASGI server (ASGI specification, section "WebSocket")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..options import SessionOptions
from ..session import Message
from .driver import StreamDriver, StreamEnded, run_session
from .websocket import codec_of, select_subprotocol
from .websocket_asyncio import closed_text

__all__ = ["serve_websocket"]

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def serve_websocket(
    main: Any, scope: _Scope, receive: _Receive, send: _Send, options: SessionOptions | None = None
) -> None:
    """Accept a WebSocket and run one session over it, to its end.

    Args:
        main: the object that the peer gets as its main object.
        scope: of the connection, as the server handed it to the application; its type is "websocket".
        receive: of the connection. Nothing but "websocket.connect" may have been received.
        send: of the connection.
        options: limits, and what is told of errors.
    """
    subprotocol = select_subprotocol(scope.get("subprotocols", ()))
    stream = _AsgiStream(receive, send)
    if not await stream.accept(subprotocol):
        return
    driver = StreamDriver(stream, options)
    async with run_session(driver, main, options, codec_of(subprotocol), f"from {scope.get('client')}"):
        await driver.finished.wait()


class _AsgiStream:
    """A WebSocket of an ASGI server as a message stream."""

    def __init__(self, receive: _Receive, send: _Send) -> None:
        self._receive = receive
        self._send = send
        self._open = False

    async def accept(self, subprotocol: str | None) -> bool:
        """Complete the handshake. Returns whether the client is still there."""
        event = await self._receive()
        if event["type"] != "websocket.connect":
            return False
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})
        self._open = True
        return True

    async def receive(self) -> Message:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            self._open = False
            raise StreamEnded(closed_text(event.get("code"), event.get("reason")))
        text = event.get("text")
        return (event["bytes"], True) if text is None else (text.encode("utf-8", "surrogatepass"), False)

    async def send(self, messages: list[Message]) -> None:
        try:
            for data, binary in messages:
                message = {"bytes": data} if binary else {"text": data.decode()}
                await self._send({"type": "websocket.send", **message})
        except OSError as error:  # what a server raises for a client that is gone
            self._open = False
            raise StreamEnded("the connection was lost") from error

    async def close(self, code: int, reason: str) -> None:
        if self._open:
            self._open = False
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
