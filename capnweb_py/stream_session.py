"""Sessions over any byte stream of anyio: one over a stream that is there, or one for each that a listener accepts."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
from anyio.abc import AnyByteStream, Listener, SocketAttribute, TaskStatus

from .codec import Codec, chosen_codec
from .loops import beside
from .options import DEFAULT_OPTIONS, SessionOptions
from .server import main_factory
from .session import RpcSession
from .target import release, retain
from .transports.byte_stream import ByteStreamMessages
from .transports.driver import StreamDriver, run_session
from .transports.framing import Framing, FramingName, framing_named

__all__ = ["StreamServer", "codec_and_framing", "open_stream_session", "serve_streams"]

_log = logging.getLogger("capnweb_py")


def codec_and_framing(
    codec: str | Codec, framing: FramingName, options: SessionOptions | None
) -> tuple[Codec, Framing]:
    """What two arguments stand for. Raises ValueError if they stand for nothing, or do not go together."""
    chosen = chosen_codec(codec)
    return chosen, framing_named(framing, (options or DEFAULT_OPTIONS).limits.max_message_size, chosen)


@asynccontextmanager
async def open_stream_session(
    stream: AnyByteStream,
    *,
    local_main: Any = None,
    options: SessionOptions | None = None,
    codec: str | Codec = "json",
    framing: FramingName = "length",
    name: str = "a byte stream",
) -> AsyncIterator[RpcSession]:
    """Run a session over a byte stream until the context ends. Both ends of the stream call this.

        async with open_stream_session(await anyio.connect_unix("/run/api.sock")) as session:
            await session.remote_main.hello("World")

    Nothing is negotiated: both sides have to say the same codec and framing. What was called by the end of the context
    is sent before the stream is closed. Where the context is cancelled, the stream may end inside a message, which
    the peer notices. The session owns the stream, and closes it.

    Args:
        stream: an anyio byte stream: a TCP or Unix socket, TLS, `anyio.streams.stapled.StapledByteStream` of two pipes.
        local_main: the object that the peer gets as its `remote_main`.
        options: limits, and what is told of errors.
        codec: "json", "cbor", or one of your own.
        framing: "length" for a header before each message; "newline" for a message a line, which carries JSON alone
            (protocol, section "Byte streams").
        name: what the session calls its peer in a repr.

    Raises:
        ValueError: if there is no such codec or framing, or the framing does not carry the codec. The stream is left as
            it is.
    """
    chosen, framed = codec_and_framing(codec, framing, options)
    driver = StreamDriver(ByteStreamMessages(stream, framed), options)
    async with run_session(driver, local_main, options, chosen, name) as session:
        yield session


@attrs.frozen
class StreamServer:
    """A server that accepts byte streams.

    Attributes:
        listener: what it accepts them from. `listener.extra(SocketAttribute.local_port)` is the port of a TCP listener.
        sessions: the sessions that are open now.
    """

    listener: Listener[Any]
    sessions: Collection[RpcSession]

    async def serve_forever(self) -> None:
        """Serve until cancelled."""
        await anyio.sleep_forever()


@asynccontextmanager
async def serve_streams(
    listener: Listener[AnyByteStream],
    main: Any,
    *,
    options: SessionOptions | None = None,
    codec: str | Codec = "json",
    framing: FramingName = "length",
) -> AsyncIterator[StreamServer]:
    """Serve an object over every byte stream that a listener accepts, for as long as the context lasts.

        listener = await anyio.create_unix_listener("/run/api.sock")
        async with serve_streams(listener, Api) as server:
            await server.serve_forever()

    At its end every session is closed, and the listener, too.

    Args:
        listener: of `anyio.create_tcp_listener` or `anyio.create_unix_listener`, or a `TLSListener` around one.
        main: what a client gets as its main object, as in `serve`.
        options: limits, and what is told of errors.
        codec: as in `open_stream_session`.
        framing: as there.

    Raises:
        TypeError: if `main` cannot be served: its class is no RpcTarget.
        ValueError: if there is no such codec or framing, or the framing does not carry the codec.
    """
    make_main = main_factory(main)
    codec_and_framing(codec, framing, options)  # raises now what would fail each connection
    sessions: set[RpcSession] = set()

    async def serve_one(stream: AnyByteStream) -> None:
        name = f"from {stream.extra(SocketAttribute.remote_address, 'a byte stream')}"
        async with open_stream_session(
            stream, local_main=make_main(), options=options, codec=codec, framing=framing, name=name
        ) as session:
            sessions.add(session)
            try:
                await session.wait_closed()
            finally:
                sessions.discard(session)

    async def handle(stream: AnyByteStream) -> None:
        try:
            await serve_one(stream)
        except Exception:
            # It has nobody to tell, and the others go on.
            _log.exception("a byte stream could not be served")
            await anyio.aclose_forcefully(stream)

    serving = anyio.CancelScope()

    async def serve_all(*, task_status: TaskStatus[None]) -> None:
        with serving:
            async with anyio.create_task_group() as tasks:
                task_status.started()
                await listener.serve(handle, tasks)

    retain(main)
    try:
        async with listener, beside(serve_all):
            try:
                yield StreamServer(listener, sessions)
            finally:
                serving.cancel()
    finally:
        release(main)
