"""Sessions behind an ASGI server: over a WebSocket, or in one POST (ASGI specification, "HTTP & WebSocket").

`RpcApp` is the whole application, which knows web pages of other origins from all else. `serve_websocket` is for
applications that have their own way of saying who may come in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

import anyio

from ..errors import LimitExceeded
from ..options import DEFAULT_OPTIONS, SessionOptions
from ..session import Message, RpcSession
from ..target import release, retain
from .asgi_events import HeaderPairs, Receive, Scope, Send, header, refuse_websocket, send_body, send_text
from .driver import StreamDriver, StreamEnded, serve_session
from .http_batch import answer_batch, past_size
from .websocket import CANCELLING, codec_of, select_subprotocol
from .websocket_asyncio import closed_text

__all__ = ["RpcApp", "serve_websocket"]

_FOREIGN: Final = "web pages of this origin may not use this server: see allowed_origins of asgi_app()"

# Among the allowed origins: all of them.
_ANY: Final = "*"

# As many digits of a length as any has that is not absurd.
_LENGTH_DIGITS: Final = 20

# How many seconds a browser need not ask again whether a page may send its request: two hours, the most that Chromium
# remembers.
_PREFLIGHT_AGE: Final = b"7200"


class RpcApp:
    """An ASGI application that serves sessions over WebSocket, and batches in POST requests, on every path.

    Args:
        make_main: makes the main object of one session.
        shared: the target that `make_main` always returns, if it does: it is released when the server stops.
        options: of each session.
        allowed_origins: see `asgi_app`.

    Raises:
        ValueError: if one of these is no origin.
    """

    def __init__(
        self,
        make_main: Callable[[], Any],
        shared: Any,
        options: SessionOptions | None,
        allowed_origins: Collection[str],
    ) -> None:
        self._make_main = make_main
        self._shared = shared
        self._options = options
        self._limits = (options or DEFAULT_OPTIONS).limits
        self._allowed_origins = frozenset(map(_origin, _several(allowed_origins)))
        retain(shared)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise ValueError(f"the ASGI server speaks {scope['type']!r}, which this application does not know")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        await receive()  # "lifespan.shutdown"
        release(self._shared)
        await send({"type": "lifespan.shutdown.complete"})

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_foreign(scope):
            await refuse_websocket(scope, receive, send, 403, _FOREIGN)
        else:
            await serve_websocket(self._make_main(), scope, receive, send, self._options)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        preflight = method == "OPTIONS" and header(scope, b"access-control-request-method") is not None
        if method != "POST" and not preflight:
            text = "RPC is spoken here: in the body of a POST request, or over a WebSocket"
            await send_text(send, 405, text, [(b"allow", b"POST")])
        elif self._is_foreign(scope):
            await send_text(send, 403, _FOREIGN)
        elif preflight:
            await send_body(send, 200, b"", [*self._cors(scope), *_preflight(scope)])
        else:
            await self._batch(scope, receive, send)

    async def _batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._body(scope, receive)
        except LimitExceeded as error:
            # The connection cannot be used again: the rest of the body is still to come.
            await send_text(send, 413, str(error), [(b"connection", b"close"), *self._cors(scope)])
            return
        if body is None:
            return
        main = self._make_main()
        answer: bytes | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_left, receive, tasks.cancel_scope)
            answer = await answer_batch(body, main, self._options)
            tasks.cancel_scope.cancel()
        if answer is not None:
            await send_body(send, 200, answer, self._cors(scope))

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body of a request; None if the client leaves before its end. Raises LimitExceeded."""
        announced = (header(scope, b"content-length") or "")[:_LENGTH_DIGITS]
        self._check_size(int(announced) if announced.isdecimal() else 0)
        body = bytearray()
        while True:
            event = await receive()
            if event["type"] != "http.request":
                return None
            body += event.get("body", b"")
            self._check_size(len(body))
            if not event.get("more_body", False):
                return bytes(body)

    def _check_size(self, size: int) -> None:
        excess = past_size(size, self._limits)
        if excess is not None:
            raise excess

    def _is_foreign(self, scope: Scope) -> bool:
        """Whether a web page sent this that may not.

        Browsers let any page post text to any server, and open a WebSocket, with the user's cookies (CSRF). The header
        Sec-Fetch-Site tells, or Origin in plain http and from older browsers. What has neither is no browser.
        """
        origin = header(scope, b"origin")
        if origin is not None and self._allows(origin):
            return False
        site = header(scope, b"sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        # The scheme is not compared: TLS may end before this server.
        return origin is not None and origin.partition("://")[2].lower() != (header(scope, b"host") or "").lower()

    def _allows(self, origin: str) -> bool:
        return _ANY in self._allowed_origins or origin.lower() in self._allowed_origins

    def _cors(self, scope: Scope) -> HeaderPairs:
        """What lets a page of another origin read the response (Fetch standard, "CORS protocol")."""
        origin = header(scope, b"origin")
        if not self._allowed_origins or origin is None or not self._allows(origin):
            return ()
        if _ANY in self._allowed_origins:
            return [(b"access-control-allow-origin", b"*")]
        return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]


def _preflight(scope: Scope) -> HeaderPairs:
    wanted = (header(scope, b"access-control-request-headers") or "").encode("latin-1")
    allowed = [(b"access-control-allow-headers", wanted)] if wanted else []
    return [(b"access-control-allow-methods", b"POST"), *allowed, (b"access-control-max-age", _PREFLIGHT_AGE)]


def _several(origins: Collection[str]) -> Collection[str]:
    if isinstance(origins, str):
        raise ValueError(f"allowed_origins is a list of origins, such as [{origins!r}]")
    return origins


def _origin(text: str) -> str:
    scheme, _, host = text.partition("://")
    if text not in (_ANY, "null") and (not scheme or not host or "/" in host):
        raise ValueError(f"{text!r} is no origin of web pages: those look like 'https://app.example' or '*'")
    return text.lower()


async def _cancel_when_left(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def serve_websocket(
    main: Any,
    scope: Scope,
    receive: Receive,
    send: Send,
    options: SessionOptions | None = None,
    on_open: Callable[[RpcSession], object] | None = None,
) -> None:
    """Accept a WebSocket and run one session over it, to its end.

    Args:
        main: the object that the peer gets as its main object.
        scope: of the connection, as the server handed it to the application; its type is "websocket".
        receive: of the connection. Nothing but "websocket.connect" may have been received.
        send: of the connection.
        options: limits, and what is told of errors.
        on_open: is told of the session at its beginning.
    """
    subprotocol = select_subprotocol(scope.get("subprotocols", ()))
    stream = _AsgiStream(receive, send)
    if not await stream.accept(subprotocol):
        return
    driver = StreamDriver(stream, options)
    name = f"from {scope.get('client')}"
    cancelling = subprotocol == CANCELLING
    session = RpcSession(driver, main, options, codec_of(subprotocol), name, releases_streams=cancelling)
    if on_open is not None:
        on_open(session)
    await serve_session(driver, session)


class _AsgiStream:
    """A WebSocket of an ASGI server as a message stream."""

    def __init__(self, receive: Receive, send: Send) -> None:
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
