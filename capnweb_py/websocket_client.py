"""Plain WebSockets to a server, for programs and not for sessions: `open_web_socket`.

`websockets` has the protocol, and a driver of the same shape for each event loop; here they become one. Each message is
read when it is asked for: a reader that is slow slows the sender down. No redirect is followed and no proxy asked, as
in fetch() of the Workers runtime.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from .errors import AnswerLost, Unreachable
from .http11 import CONNECT_TIMEOUT, os_reason
from .loops import on_asyncio
from .options import DEFAULT_OPTIONS
from .transports.websocket import close_over_trio
from .web import Headers, Response
from .web_socket import NORMAL, WebSocket, WebSocketRefused, check_close, check_message

__all__ = ["CLOSE_TIMEOUT", "ClientWebSocket", "open_web_socket"]

# How long, in seconds, a server may take to answer a handshake, connecting included.
HANDSHAKE_TIMEOUT: Final = 60.0

# In seconds, as of sessions: an idle WebSocket stays open through routers that forget connections after a minute. No
# answer is waited for: it comes behind messages, and a program may be slow to read those. Of a peer that is gone TCP
# tells, to which a ping is data.
PING_INTERVAL: Final = 20.0

# How long, in seconds, the other side may take to answer a close frame. A Worker that does not call close() itself
# never does, unless its compatibility date says so (web_socket_auto_reply_to_close).
CLOSE_TIMEOUT: Final = 2.0

# These are the handshake's own (RFC 6455, section 4.1), or of one connection.
_OWN_HEADERS: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol"}
    | {"sec-websocket-accept"}
)


@asynccontextmanager
async def open_web_socket(
    url: str,
    *,
    headers: Headers | None = None,
    subprotocols: Sequence[str] = (),
    title: str,
    tls: ssl.SSLContext | None = None,
    address: str | None = None,
) -> AsyncIterator[ClientWebSocket]:
    """Open a WebSocket, which is closed at the end of the block.

    Args:
        url: ws or wss. It may hold a secret: no error names it.
        headers: of the handshake, beside its own.
        subprotocols: what to offer.
        title: what errors call the server.
        tls: for wss; by default, the system's certificate authorities are trusted.
        address: where to connect, in place of what the URL's host resolves to.

    Raises:
        Unreachable: if there is no connection: nothing was sent.
        WebSocketRefused: if the server answers with an ordinary response.
        AnswerLost: if it answers with none that is valid, or not at all. It is a ConnectionError.
        ValueError: if the URL is none of a WebSocket.
    """
    pairs = [] if headers is None else [pair for pair in headers.pairs() if pair[0] not in _OWN_HEADERS]
    where: dict[str, Any] = {} if address is None else {"host": address}
    if tls is not None and url.startswith("wss:"):
        where["ssl"] = tls
    try:
        connecting = _connecting(
            url,
            **where,
            additional_headers=pairs,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            user_agent_header=None,
            compression=None,
            proxy=None,
            max_size=DEFAULT_OPTIONS.limits.max_message_size,
            open_timeout=HANDSHAKE_TIMEOUT,
            ping_interval=PING_INTERVAL,
            ping_timeout=None,
            close_timeout=CLOSE_TIMEOUT,
        )
    except InvalidURI as error:
        raise ValueError(f"{title} has no URL of a WebSocket") from error
    socket = ClientWebSocket(await _opened(connecting, title), title)
    try:
        yield socket
    finally:
        # Over trio, a connection is a nursery, which ends where it began: outside any scope of this side's.
        with anyio.CancelScope(shield=True):  # closing has a time-out of its own
            await socket.close()
        await connecting.__aexit__(None, None, None)


async def _opened(connecting: Any, title: str) -> Any:
    try:
        return await connecting.__aenter__()
    except Unreachable as error:
        raise Unreachable(f"{title} cannot be reached: {error}") from error.__cause__
    except InvalidStatus as error:
        raise WebSocketRefused(title, _response(error)) from None
    except (InvalidHandshake, OSError, EOFError, ConnectionClosed) as error:
        raise AnswerLost(f"{title} did not answer the WebSocket handshake as it should: {error}") from error


def _response(refusal: InvalidStatus) -> Response:
    answer = refusal.response
    headers = Headers()
    for name, value in answer.headers.raw_items():
        headers.append(name, value)
    # A response of fetch() has none of these statuses; a server that sends one speaks something else.
    status = answer.status_code if 200 <= answer.status_code <= 599 else 502
    body = bytes(answer.body) if answer.body and status not in (204, 205, 304) else None
    return Response(body, status=status, status_text=answer.reason_phrase, headers=headers)


class ClientWebSocket(WebSocket):
    """A WebSocket that this side has opened.

    Args:
        connection: of `websockets`, of either event loop.
        title: what errors call the server.

    Attributes:
        headers: of the server's answer.
    """

    def __init__(self, connection: Any, title: str) -> None:
        self._title = f"the WebSocket of {title}"
        self._connection = connection
        self._close = connection.close if on_asyncio() else partial(close_over_trio, connection)
        self.headers = Headers(
            (name, value) for name, value in connection.response.headers.raw_items() if name.lower() not in _OWN_HEADERS
        )

    @property
    def subprotocol(self) -> str | None:
        name: str | None = self._connection.subprotocol
        return name

    @property
    def close_code(self) -> int | None:
        code: int | None = self._connection.close_code
        return code

    @property
    def close_reason(self) -> str:
        return self._connection.close_reason or ""

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        check_message(message)
        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise self._closed() from error

    async def receive(self) -> str | bytes:
        try:
            message: str | bytes = await self._connection.recv()
        except ConnectionClosed as error:
            raise self._closed() from error
        return message

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        check_close(code, reason)
        await self._close(code, reason)


class _NoRedirect:
    """Has `websockets` hand a redirect on as what it is: an answer that is no WebSocket."""

    def process_redirect(self, error: Exception) -> Exception:
        return error


class _AsyncioConnecting(_NoRedirect, websockets.asyncio.client.connect):
    async def open_tcp_connection(self) -> Any:
        return await _reaching(super().open_tcp_connection)


def _connecting(url: str, **settings: Any) -> Any:
    """The asynchronous context manager of a connection, of the event loop's kind."""
    if on_asyncio():
        return _AsyncioConnecting(url, **settings)
    import trio
    from websockets.trio.client import connect

    class TrioConnecting(_NoRedirect, connect):
        async def open_tcp_stream(self) -> trio.abc.Stream:
            stream: trio.abc.Stream = await _reaching(super().open_tcp_stream)
            return stream

        async def enable_tls(self, stream: trio.abc.Stream) -> trio.abc.Stream:
            async def enable() -> trio.abc.Stream:
                return await super(TrioConnecting, self).enable_tls(stream)

            secured: trio.abc.Stream = await _reaching(enable)
            return secured

    return TrioConnecting(url, **settings)


async def _reaching(connect: Any) -> Any:
    """Connect. Raises Unreachable for whatever goes wrong before anything of a handshake was sent."""
    try:
        with anyio.fail_after(CONNECT_TIMEOUT):
            return await connect()
    except TimeoutError as error:
        raise Unreachable(f"no connection after {CONNECT_TIMEOUT:g} s") from error
    except (OSError, ssl.SSLError) as error:
        raise Unreachable(os_reason(error)) from error
    except Exception as error:
        if isinstance(error.__cause__, ssl.SSLError):  # trio: a stream that broke in its TLS handshake
            raise Unreachable(os_reason(error.__cause__)) from error
        raise
