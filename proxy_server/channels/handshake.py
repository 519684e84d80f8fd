"""The handshake of a WebSocket that was wrapped for the proxy as a request is, and the events that follow it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from capnweb_py.transports.driver import cut_reason
from capnweb_py.web import Request, Response
from capnweb_py.web_socket import INTERNAL_ERROR, NORMAL
from proxy_server.bindings import BindingError
from proxy_server.channels import Receive, Scope, Send, end_to_end
from proxy_server.channels.http import unwrapped

__all__ = ["ClientLeft", "Handshake"]

# RFC 6455, section 11.3: headers of the handshake of one connection. The next one has its own.
_OWN_PREFIX: Final = "sec-websocket-"

# RFC 6455, section 7.4.1: a violated policy.
_POLICY_VIOLATION: Final = 1008

# The most, in bytes, of the body of a response that stands for a WebSocket. ASGI servers hold it whole.
MAX_REFUSAL: Final = 1024 * 1024


class ClientLeft(ConnectionResetError):
    """Nobody is there any more to send to."""


class Handshake:
    """One WebSocket that a client asks for, from the handshake to its end.

    Args:
        scope, receive, send: of the connection, of which nothing has been received.

    Attributes:
        request: what the client of the proxy was given, without the headers that only a handshake has.
        subprotocols: what the client offers to speak.
        scope: of the connection.
        accepted: whether the WebSocket is open, or was.
        over: whether this side has answered without one or closed it, or the client has left.

    Raises:
        ValueError: if there is no request that can be made of the headers.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = unwrapped(scope, "GET", None)
        offered = request.headers.get_all("sec-websocket-protocol")
        names = [name.strip() for value in offered for name in value.split(",")]
        self.subprotocols = tuple(name for name in names if name)
        kept = [pair for pair in request.headers.pairs() if not pair[0].startswith(_OWN_PREFIX)]
        self.request = Request(request.url, headers=kept)
        self.scope = scope
        self.accepted = False
        self.over = False
        self._receive = receive
        self._send = send
        # Whether "websocket.connect" has been received, before which nothing may be sent.
        self._connected = False

    async def receive(self) -> MutableMapping[str, Any]:
        """The next event; the first one is "websocket.connect"."""
        self._connected = True
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            self.over = True
        return event

    async def send(self, event: MutableMapping[str, Any]) -> None:
        """Send an event.

        Raises:
            ClientLeft: if the client has.
        """
        kind = event["type"]
        if kind == "websocket.accept":
            self.accepted = True
        elif kind in {"websocket.close", "websocket.http.response.start"}:
            self.over = True
        try:
            await self._send(event)
        except OSError as error:  # ASGI, section "Disconnected Client"
            self.over = True
            raise ClientLeft("the client left before the end of its WebSocket") from error

    async def refuse(self, response: Response) -> None:
        """Answer with an ordinary response instead. Its body is closed.

        Raises:
            BindingError: if it is too long.
            ClientLeft: if the client has.
        """
        body = await _whole(response)
        if not self._connected:
            await self.receive()
        if self.over:
            return
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            reason = cut_reason(body.decode("utf-8", "replace"))
            await self.send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})
            return
        headers = end_to_end(response.headers)
        headers["content-length"] = str(len(body))
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.pairs()]
        await self.send({"type": "websocket.http.response.start", "status": response.status, "headers": pairs})
        await self.send({"type": "websocket.http.response.body", "body": body, "more_body": False})

    async def finish(self, failure: BaseException | None) -> None:
        """End what a handler has left open.

        Args:
            failure: what the handler raised; the client is told.

        Raises:
            ClientLeft: if the client has.
        """
        if self.over:
            return
        if not self.accepted:
            text = "the binding did not answer the WebSocket handshake" if failure is None else str(failure)
            await self.refuse(Response(text, status=500))
            return
        reason = "" if failure is None else cut_reason(str(failure))
        code = NORMAL if failure is None else INTERNAL_ERROR
        await self.send({"type": "websocket.close", "code": code, "reason": reason})


async def _whole(response: Response) -> bytes:
    if response.buffered is not None or response.body is None:
        return response.buffered or b""
    body = bytearray()
    try:
        async for chunk in response.body:
            body += chunk
            if len(body) > MAX_REFUSAL:
                raise BindingError(f"the answer to a WebSocket handshake has more than {MAX_REFUSAL} bytes")
    finally:
        await response.body.aclose()
    return bytes(body)
