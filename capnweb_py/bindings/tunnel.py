"""TCP connections of bindings as anyio byte streams: over the WebSocket tunnel of Cloudflare's remote bindings, or over
a pair of streams of Cap'n Web.

The tunnel (workers-sdk, ProxyServerWorker.ts, "handleConnect") has bytes in binary messages; a close with the code 1000
is the end of the stream, with 1011 and a reason a failure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.lowlevel
import websockets.asyncio.client
from anyio.abc import ByteStream
from websockets.exceptions import ConcurrencyError, ConnectionClosed

from ..errors import RpcError, has_not_run
from ..loops import on_asyncio
from ..stub import RpcStub
from ..transports.websocket import readable_refusals
from ..web import ReadableStream
from ..web_socket import NORMAL

__all__ = ["TunnelError", "open_tunnel", "rpc_stream"]

# The longest message that is taken, in bytes, and how many wait to be received before nothing more is read. Ours are
# of 64 KiB at most, and a Worker's of what its socket gave at a time.
_MAX_MESSAGE: Final = 1 << 24
_MAX_WAITING: Final = 16

# How many bytes may wait to be sent before `send` waits, too.
_MAX_UNSENT: Final = 65536

# How long, in seconds, opening may take, and the closing handshake.
_OPEN_TIMEOUT: Final = 20
_CLOSE_TIMEOUT: Final = 5


class TunnelError(anyio.BrokenResourceError, RpcError):
    """A connection through a binding failed, or was refused. The message is what the proxy said of it."""


@asynccontextmanager
async def open_tunnel(url: str, headers: Mapping[str, str]) -> AsyncIterator[ByteStream]:
    """Open a tunnel, and close it at the end of the block.

    Raises:
        RpcError: if the server refuses it. OSError: if it cannot be reached.
    """
    settings: dict[str, Any] = {
        "additional_headers": headers,
        "compression": None,
        "max_size": _MAX_MESSAGE,
        "max_queue": _MAX_WAITING,
        "open_timeout": _OPEN_TIMEOUT,
        "close_timeout": _CLOSE_TIMEOUT,
        # A connection that rests for long is of use still: the proxy pings.
        "ping_interval": None,
    }
    connecting = _connecting(url, settings)
    with readable_refusals(url):
        connection = await connecting.__aenter__()
    try:
        async with _Tunnel(connection) as tunnel:
            yield tunnel
    finally:
        await connecting.__aexit__(None, None, None)


def _connecting(url: str, settings: dict[str, Any]) -> Any:
    if on_asyncio():
        return websockets.asyncio.client.connect(url, write_limit=_MAX_UNSENT, **settings)
    from websockets.trio.client import connect as connect_on_trio

    return connect_on_trio(url, **settings)


class _ReceivedBytes(ByteStream):
    """A byte stream whose bytes come in pieces. What of a piece was not asked for is kept."""

    def __init__(self) -> None:
        self._rest = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while not self._rest:
            self._rest = await self._piece()
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def _piece(self) -> bytes:
        """The next piece. Raises anyio.EndOfStream at the end, and TunnelError."""
        raise NotImplementedError


class _Tunnel(_ReceivedBytes):
    """A connection over a WebSocket.

    Args:
        connection: of `websockets`, of the running event loop's kind.
    """

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._connection = connection
        # What came before the end and has not been received.
        self._waiting: deque[str | bytes] = deque()
        # What is over, here.
        self._eof_sent = False
        self._closed = False
        # Whether a `send` was cancelled: `websockets` over trio leaves half a message then, which nothing can follow.
        self._cut_short = False

    async def _piece(self) -> bytes:
        if self._closed:
            raise anyio.ClosedResourceError
        try:
            message = self._waiting.popleft() if self._waiting else await self._connection.recv()
        except ConcurrencyError:
            raise anyio.BusyResourceError("reading from") from None
        except ConnectionClosed as error:
            if self._closed:
                raise anyio.ClosedResourceError from None
            if self._eof_sent or (error.rcvd is not None and error.rcvd.code == NORMAL):
                raise anyio.EndOfStream from None
            raise _failure(error) from error
        return message.encode() if isinstance(message, str) else bytes(message)

    async def send(self, item: bytes) -> None:
        if self._eof_sent or self._closed:
            raise anyio.ClosedResourceError
        if self._cut_short:
            raise TunnelError("a send was cancelled, and what was cut short there cannot be followed by more")
        try:
            await self._connection.send(bytes(item))
        except ConnectionClosed as error:
            raise _failure(error) from error
        except anyio.get_cancelled_exc_class():
            self._cut_short = True
            raise

    async def send_eof(self) -> None:
        """Deliver what was sent, and end both directions. What has come already can be received."""
        if not self._eof_sent and not self._closed:
            self._eof_sent = True
            await self._close()

    async def aclose(self) -> None:
        """Deliver what was sent, and close. Who is cancelled, here or in `send`, drops the connection: the other side
        sees it reset."""
        self._closed = True
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()
            await self._close()
        except anyio.get_cancelled_exc_class():
            await self._drop()
            raise

    async def _drop(self) -> None:
        # The tasks in which `websockets` reads over trio are cancelled as well: there is no closing handshake then.
        if on_asyncio():
            self._connection.transport.abort()
        else:
            import trio

            await trio.aclose_forcefully(self._connection.stream)

    async def _close(self) -> None:
        if self._cut_short:
            await self._drop()
            return
        close = self._connection.close if on_asyncio() else self._connection.aclose
        async with anyio.create_task_group() as tasks:
            # While messages wait to be received, `websockets` reads no more, and would not see that it is closed.
            tasks.start_soon(self._take_the_rest)
            await close(NORMAL)

    async def _take_the_rest(self) -> None:
        try:
            while True:
                message = await self._connection.recv()
                if not self._closed:
                    self._waiting.append(message)
        except (ConnectionClosed, ConcurrencyError):
            pass  # it is closed, or somebody else receives


def _failure(error: ConnectionClosed) -> TunnelError:
    closed = error.rcvd
    if closed is None:
        return TunnelError("the connection to the proxy is lost")
    if closed.code == NORMAL:
        return TunnelError("the other side has ended the connection")
    return TunnelError(closed.reason or f"the proxy closed the tunnel with the code {closed.code}")


@asynccontextmanager
async def rpc_stream(binding: RpcStub, address: str) -> AsyncIterator[ByteStream]:
    """Connect over the RPC channel, and close the connection at the end of the block.

    Raises:
        TunnelError: if it is refused, or fails. ConnectionError: if the proxy cannot be reached.
    """
    try:
        socket = await binding.connect(address)
    except RpcError as error:
        if has_not_run(error):
            raise
        raise TunnelError(str(error)) from error
    async with _RpcStream(socket["readable"], socket["writable"]) as stream:
        yield stream


class _RpcStream(_ReceivedBytes):
    """A connection as a pair of Cap'n Web's streams."""

    def __init__(self, readable: ReadableStream[bytes], writable: Any) -> None:
        super().__init__()
        self._readable = readable
        self._chunks: AsyncIterator[bytes] = aiter(readable)
        self._writable = writable
        self._eof_sent = False
        self._closed = False

    async def _piece(self) -> bytes:
        if self._closed:
            raise anyio.ClosedResourceError
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise anyio.EndOfStream from None
        except (RpcError, ConnectionError) as error:
            raise TunnelError(str(error)) from error

    async def send(self, item: bytes) -> None:
        if self._eof_sent or self._closed:
            raise anyio.ClosedResourceError
        try:
            await self._writable.write(bytes(item))
        except (RpcError, ConnectionError) as error:
            raise TunnelError(str(error)) from error

    async def send_eof(self) -> None:
        """Say that nothing more is sent. Receiving goes on."""
        if self._eof_sent or self._closed:
            return
        self._eof_sent = True
        try:
            await self._writable.aclose()
        except (RpcError, ConnectionError) as error:
            raise TunnelError(str(error)) from error

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            try:
                await self._readable.aclose()
                if not self._eof_sent:
                    await self._writable.aclose()
            except (RpcError, ConnectionError):
                pass  # it is over already
