"""The events of an ASGI server (https://asgi.readthedocs.io): the types that it gives names to, and plain answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, TypeAlias

from .driver import cut_reason

__all__ = ["HeaderPairs", "Receive", "Scope", "Send", "header", "refuse_websocket", "send_body", "send_text"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Names and values of headers, of which the names are in lower case.
HeaderPairs: TypeAlias = Sequence[tuple[bytes, bytes]]

_TEXT: Final = (b"content-type", b"text/plain;charset=UTF-8")

# RFC 6455, section 7.4.1: a violated policy.
_POLICY_VIOLATION: Final = 1008


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a request's header; of several, the last."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[-1].decode("latin-1") if values else None


async def send_text(send: Send, status: int, text: str, headers: HeaderPairs = ()) -> None:
    """Answer an HTTP request with one piece of text."""
    await send_body(send, status, text.encode("utf-8", "replace"), headers)


async def send_body(send: Send, status: int, body: bytes, headers: HeaderPairs = ()) -> None:
    """Answer an HTTP request with text that is encoded already."""
    for event in _response("http", status, body, headers):
        await send(event)


async def refuse_websocket(
    scope: Scope, receive: Receive, send: Send, status: int, text: str, headers: HeaderPairs = ()
) -> None:
    """Refuse a WebSocket's handshake with an HTTP response, or by closing where the server cannot do that."""
    await receive()  # "websocket.connect", before which nothing may be sent
    if "websocket.http.response" in (scope.get("extensions") or {}):
        for event in _response("websocket.http", status, text.encode("utf-8", "replace"), headers):
            await send(event)
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": cut_reason(text)})


def _response(prefix: str, status: int, body: bytes, headers: HeaderPairs) -> tuple[dict[str, Any], dict[str, Any]]:
    all_headers = [_TEXT, (b"content-length", b"%d" % len(body)), *headers]
    start = {"type": f"{prefix}.response.start", "status": status, "headers": all_headers}
    return start, {"type": f"{prefix}.response.body", "body": body, "more_body": False}
