"""The ways in: what a request or a connection turns into, once app.py has let it pass and found its binding.

Here are the types that ASGI gives names to (https://asgi.readthedocs.io), and the plain answers that all
channels give.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from capnweb_py.transports.driver import cut_reason
from capnweb_py.web import Headers

__all__ = [
    "BODILESS_STATUSES",
    "LOG",
    "AsgiApp",
    "Receive",
    "Scope",
    "Send",
    "end_to_end",
    "header",
    "refuse_websocket",
    "send_text",
]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# The Fetch standard's "null body statuses": their responses have no body.
BODILESS_STATUSES: Final = frozenset({204, 205, 304})

# RFC 9110, section 7.6.1: these describe one connection, and the message on the next one has its own.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

LOG: Final = logging.getLogger("proxy_server")

# RFC 6455, section 7.4.1: a violated policy.
_POLICY_VIOLATION: Final = 1008


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a header of the request, or None. Of several, the last."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[-1].decode("latin-1") if values else None


def end_to_end(headers: Headers) -> Headers:
    """The headers without those that belong to one connection, which `connection` may name more of."""
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return Headers(pair for pair in headers.pairs() if pair[0] not in _HOP_BY_HOP | named)


async def send_text(send: Send, status: int, text: str) -> None:
    """Answer an HTTP request with one piece of text."""
    start, body = _text_response("http", status, text)
    await send(start)
    await send(body)


async def refuse_websocket(scope: Scope, receive: Receive, send: Send, status: int, text: str) -> None:
    """Refuse a WebSocket's handshake with an HTTP response, or by closing where the server cannot do that."""
    await receive()  # "websocket.connect", before which nothing may be sent
    if "websocket.http.response" in (scope.get("extensions") or {}):
        start, body = _text_response("websocket.http", status, text)
        await send(start)
        await send(body)
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": cut_reason(text)})


def _text_response(prefix: str, status: int, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    body = text.encode("utf-8", "replace")
    headers = [(b"content-type", b"text/plain;charset=UTF-8"), (b"content-length", str(len(body)).encode())]
    start = {"type": f"{prefix}.response.start", "status": status, "headers": headers}
    return start, {"type": f"{prefix}.response.body", "body": body, "more_body": False}
