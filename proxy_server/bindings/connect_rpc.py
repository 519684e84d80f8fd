"""A "connect" binding on the RPC channel: what a Hyperdrive binding is there to newer Miniflare, and to npm capnweb.

`connect()` gives a pair of streams, whose flow control is that of Cap'n Web. Here the two directions end apart: closing
`writable` is the end of what is sent, and `readable` goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream

from capnweb_py.streams import WritableStream
from capnweb_py.target import RpcTarget
from capnweb_py.web import ReadableStream, Response
from proxy_server.bindings import BindingError, Connectable
from proxy_server.bindings.fetcher import request_of
from proxy_server.egress import broke_off

__all__ = ["ConnectTarget"]

# Where a database listens whose connection string names no port.
_DEFAULT_PORTS: Final = {"mysql": 3306, "postgres": 5432, "postgresql": 5432}


class ConnectTarget(RpcTarget):
    """The main object of one session."""

    def __init__(self, binding: Connectable) -> None:
        self._binding = binding

    async def connect(self, address: Any = None, _options: Any = None) -> dict[str, Any]:
        """Connect to "host:port", by default to where the connection string leads. Returns {readable, writable}."""
        if address is None:
            address = _address(self._binding.connection_string())
        if not isinstance(address, str):
            raise TypeError('an address is a string, "host:port"')
        socket = _Socket(await self._binding.connect(address))
        return {"readable": ReadableStream(socket), "writable": WritableStream(_Sink(socket))}

    def getConnectionString(self) -> str:
        """What a database's driver needs."""
        return self._binding.connection_string()

    async def fetch(self, request: Any, init: Any = None) -> Response:
        """Send an HTTP request to an address that is allowed."""
        return await self._binding.fetch(request_of(request, init))


class _Socket:
    """A connection as what is read from it. It is closed when both directions have ended."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._open = {"readable", "writable"}

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._stream.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            raise ConnectionError(broke_off(error)) from error

    async def aclose(self) -> None:
        await self.end("readable")

    async def send(self, chunk: Any) -> None:
        """Send a chunk, bytes or text."""
        try:
            await self._stream.send(chunk.encode() if isinstance(chunk, str) else bytes(memoryview(chunk)))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            raise ConnectionError(broke_off(error)) from error

    async def end(self, direction: str) -> None:
        """One direction has ended."""
        self._open.discard(direction)
        if not self._open:
            await self._stream.aclose()
        elif direction == "writable":
            await self._stream.send_eof()

    async def abort(self) -> None:
        """End both directions."""
        self._open.clear()
        await self._stream.aclose()


class _Sink:
    """The direction that is written."""

    def __init__(self, socket: _Socket) -> None:
        self._socket = socket

    async def write(self, chunk: Any) -> None:
        await self._socket.send(chunk)

    async def aclose(self) -> None:
        await self._socket.end("writable")

    async def abort(self, _error: BaseException) -> None:
        await self._socket.abort()


def _address(connection_string: str) -> str:
    """Where a connection string leads. Errors repeat nothing of it."""
    try:
        parts = urlsplit(connection_string)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        port = None
    if port is None or not parts.hostname:
        raise BindingError("the connection string of this binding leads to no host and port")
    return f"[{parts.hostname}]:{port}" if ":" in parts.hostname else f"{parts.hostname}:{port}"
