"""WebSocket, client and server, on `websockets`, which has a driver of the same shape for each event loop.

A session over asyncio is driven by its connection's own callbacks (websocket_asyncio.py), one over trio by two tasks.
Compression is off: it costs more time than it saves on any link that carries calls, and memory for every connection.
"""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import websockets.asyncio.client
import websockets.asyncio.server
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.protocol import CLIENT, OPEN
from websockets.typing import Origin, Subprotocol

from ..codec import CBOR, CODECS, JSON, Codec, chosen_codec
from ..errors import RpcError
from ..loops import beside, on_asyncio, running_loop
from ..options import DEFAULT_OPTIONS, SessionOptions
from ..session import Message, RpcSession
from .driver import CLOSE_TIMEOUT, Driver, StreamDriver, StreamEnded, run_session, serve_session
from .frames import write_frames
from .keepalive import Pinging, keep_alive
from .refusals import explanation, shown
from .websocket_asyncio import SessionClientConnection, SessionServerConnection, WebSocketDriver, connection_closed_text

__all__ = [
    "CANCELLING",
    "Listening",
    "close_over_trio",
    "codec_of",
    "listen",
    "open_websocket",
    "readable_refusals",
    "select_subprotocol",
    "subprotocols_for",
]


# CBOR, with a peer that takes a "release" of the result of a "stream" message. It has a name of its own, since a peer
# can speak CBOR and have the session of npm capnweb, which does not take it.
CANCELLING: Final = Subprotocol(f"{CBOR.subprotocol}.cancel")


def subprotocols_for(codec: Codec | None) -> list[Subprotocol]:
    """What a client offers for a choice of codec: nothing means JSON, and None leaves the choice to the server."""
    if codec is None:
        # JSON first: a server that does not look takes the first, as `ws` for Node does.
        return [*(Subprotocol(choice.subprotocol) for choice in reversed(CODECS)), CANCELLING]
    if codec is CBOR:
        return [Subprotocol(codec.subprotocol), CANCELLING]
    return [] if codec is JSON else [Subprotocol(codec.subprotocol)]


def select_subprotocol(offered: Sequence[str], codecs: Sequence[Codec] = CODECS) -> Subprotocol | None:
    """What a server chooses of a client's offers: the first codec of its own that is there, or None, which means
    JSON."""
    for choice in codecs:
        if choice is CBOR and CANCELLING in offered:
            return CANCELLING
        if choice.subprotocol in offered:
            return Subprotocol(choice.subprotocol)
    return None


def codec_of(subprotocol: str | None, codecs: Sequence[Codec] = CODECS) -> Codec:
    """The codec of a connection."""
    if subprotocol == CANCELLING and CBOR in codecs:
        return CBOR
    return next((codec for codec in codecs if codec.subprotocol == subprotocol), JSON)


@asynccontextmanager
async def open_websocket(
    url: str,
    local_main: Any,
    options: SessionOptions | None,
    *,
    headers: Mapping[str, str] | None,
    codec: str | Codec | None,
    ssl: ssl_module.SSLContext | None,
    open_timeout: float | None,
    ping_interval: float | None,
    ping_timeout: float | None,
) -> AsyncIterator[RpcSession]:
    """Connect to a server and run a session. The arguments are those of `connect`."""
    limits = (options or DEFAULT_OPTIONS).limits
    chosen = None if codec is None else chosen_codec(codec)
    settings: dict[str, Any] = {
        "additional_headers": headers,
        "subprotocols": subprotocols_for(chosen) or None,
        "compression": None,
        "max_size": limits.max_message_size,
        "open_timeout": open_timeout,
        "ping_interval": None,  # see keepalive.py
        "close_timeout": CLOSE_TIMEOUT,
    }
    if ssl is not None:
        settings["ssl"] = ssl
    with readable_refusals(url):
        connecting = _connecting(url, limits.max_unsent, settings)
        connection = await connecting.__aenter__()
    try:
        agreed = codec_of(connection.subprotocol, CODECS if chosen is None else (chosen,))
        if chosen is not None and agreed is not chosen:
            raise RpcError(
                f"{shown(url)} does not speak the codec {chosen.name!r}; leave the choice open with codec=None"
            )
        async with run_session(
            _drivers(options, ping_interval, ping_timeout)(connection),
            local_main,
            options,
            agreed,
            shown(url),
            releases_streams=connection.subprotocol == CANCELLING,
        ) as session:
            yield session
    finally:
        await connecting.__aexit__(None, None, None)


def _connecting(url: str, write_limit: int, settings: dict[str, Any]) -> Any:
    """The asynchronous context manager of a connection, of the event loop's kind."""
    if on_asyncio():
        return websockets.asyncio.client.connect(
            url, create_connection=SessionClientConnection, write_limit=write_limit, **settings
        )
    from websockets.trio.client import connect as connect_on_trio

    return connect_on_trio(url, **settings)


@contextmanager
def readable_refusals(url: str) -> Iterator[None]:
    """Turns what the two drivers raise for a connection that does not open into the errors of `open_session`."""
    try:
        yield
    except InvalidURI as error:
        # The path and the query may hold a secret: `error` tells them, and its `msg` does not.
        scheme = urlsplit(url).scheme
        if scheme in ("ws", "wss"):
            raise ValueError(f"the URL is none of a WebSocket: {error.msg}") from error
        given = f"{scheme}:" if scheme else "neither"
        raise ValueError(f"the URL of a WebSocket begins with ws:// or wss://, and this one with {given}") from error
    except InvalidHandshake as error:
        raise RpcError(f"{shown(url)} refused the connection: {error}{_quoted(error)}") from error
    except Exception as error:
        # Of TLS that fails trio says only that the stream is broken; asyncio raises what is the cause there.
        if not isinstance(error.__cause__, ssl_module.SSLError):
            raise
        raise error.__cause__ from None


def _quoted(error: InvalidHandshake) -> str:
    if not isinstance(error, InvalidStatus):
        return ""
    said = explanation(error.response.body)
    if said or error.response.status_code not in (403, 404):
        return said
    # What ASGI servers answer where nothing is mounted at the path, which this error must not show.
    return ": is the path right? That of a mounted application ends with a slash"


def _drivers(
    options: SessionOptions | None, ping_interval: float | None, ping_timeout: float | None
) -> Callable[[Any], Driver]:
    """What makes the driver of a connection, of the running event loop's kind."""
    if on_asyncio():
        pinging = None if ping_interval is None else Pinging(ping_interval, ping_timeout)
        return partial(WebSocketDriver, options=options, loop=running_loop(), pinging=pinging)
    return partial(_TrioDriver, options=options, ping_interval=ping_interval, ping_timeout=ping_timeout)


class _TrioDriver(StreamDriver):
    """Runs a session over a connection over trio."""

    def __init__(
        self, connection: Any, options: SessionOptions | None, ping_interval: float | None, ping_timeout: float | None
    ) -> None:
        super().__init__(_TrioStream(connection), options)
        self._connection = connection
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout

    async def carry(self) -> None:
        if self._ping_interval is not None:
            self.spawn(partial(keep_alive, self._connection, self._ping_interval, self._ping_timeout))
        await super().carry()


class _TrioStream:
    """A connection over trio as a message stream."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def receive(self) -> Message:
        try:
            message = await self._connection.recv()
        except ConnectionClosed as error:
            raise self._ended() from error
        return (message.encode(), False) if isinstance(message, str) else (message, True)

    async def send(self, messages: list[Message]) -> None:
        import trio

        connection = self._connection
        async with connection.send_lock:  # a control frame may be on its way
            if connection.protocol.state is not OPEN:
                raise self._ended()
            try:
                for piece in write_frames(messages, connection.protocol.side is CLIENT):
                    await connection.stream.send_all(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise self._ended() from error

    async def close(self, code: int, reason: str) -> None:
        await close_over_trio(self._connection, code, reason)

    def _ended(self) -> StreamEnded:
        return StreamEnded(connection_closed_text(self._connection))


async def close_over_trio(connection: Any, code: int, reason: str) -> None:
    """Close a connection of `websockets` over trio, whose task may be waiting for somebody to take messages.

    Nobody would, and its own `aclose` leaves the task waiting, and with it whoever opened the connection (17.0).
    """
    try:
        await connection.aclose(code, reason)
    finally:
        if connection.recv_flow_control is not None:
            connection.resume_reading()


@attrs.frozen
class Listening:
    """Where a server listens, and the sessions that it has."""

    host: str
    port: int
    sessions: Collection[RpcSession]


@asynccontextmanager
async def listen(
    host: str,
    port: int,
    main: Callable[[], Any],
    options: SessionOptions | None,
    *,
    codecs: Sequence[Codec],
    ssl: ssl_module.SSLContext | None,
    origins: Sequence[str | None] | None,
    open_timeout: float | None,
    ping_interval: float | None,
    ping_timeout: float | None,
) -> AsyncIterator[Listening]:
    """Listen, and run a session with a main object of its own for each client. The arguments are those of `serve`."""
    limits = (options or DEFAULT_OPTIONS).limits
    sessions: set[RpcSession] = set()
    spoken = (*map(chosen_codec, codecs), *CODECS)
    driver_of = _drivers(options, ping_interval, ping_timeout)

    async def handle(connection: Any) -> None:
        name = f"from {connection.remote_address}"
        driver = driver_of(connection)
        codec = codec_of(connection.subprotocol, spoken)
        cancelling = connection.subprotocol == CANCELLING
        session = RpcSession(driver, main(), options, codec, name, releases_streams=cancelling)
        sessions.add(session)
        try:
            await serve_session(driver, session)
        finally:
            sessions.discard(session)

    settings: dict[str, Any] = {
        "host": host,
        "ssl": ssl,
        "origins": None if origins is None else [None if origin is None else Origin(origin) for origin in origins],
        "select_subprotocol": lambda _connection, offered: select_subprotocol(offered, spoken),
        "compression": None,
        "max_size": limits.max_message_size,
        "open_timeout": open_timeout,
        "ping_interval": None,  # see keepalive.py
        "close_timeout": CLOSE_TIMEOUT,
    }
    listen_on = _listen_on_asyncio if on_asyncio() else _listen_on_trio
    async with listen_on(handle, port, limits.max_unsent, settings) as address:
        yield Listening(address[0], address[1], sessions)


_Handle = Callable[[Any], Awaitable[None]]


@asynccontextmanager
async def _listen_on_asyncio(
    handle: _Handle, port: int, write_limit: int, settings: dict[str, Any]
) -> AsyncIterator[tuple[Any, ...]]:
    async with websockets.asyncio.server.serve(
        handle, port=port, create_connection=SessionServerConnection, write_limit=write_limit, **settings
    ) as server:
        yield next(iter(server.sockets)).getsockname()


@asynccontextmanager
async def _listen_on_trio(
    handle: _Handle, port: int, write_limit: int, settings: dict[str, Any]
) -> AsyncIterator[tuple[Any, ...]]:
    from websockets.trio.server import serve as serve_on_trio

    async with beside(partial(serve_on_trio, handle, port, **settings)) as server, server:
        yield server.listeners[0].socket.getsockname()
