"""A WebSocket peer that does what the test says and nothing else: it answers no ping, reads only when asked, and closes
only when told. On the Sans-I/O layer of `websockets`, over a socket of anyio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream, SocketAttribute
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri


class RawPeer:
    """One side of a WebSocket connection, after its handshake."""

    def __init__(self, stream: ByteStream, protocol: ClientProtocol | ServerProtocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._frames: list[Frame] = []
        # The opening request, at a server.
        self.request: Request | None = None

    @property
    def subprotocol(self) -> str | None:
        return self._protocol.subprotocol

    async def say(self, *texts: str) -> None:
        for text in texts:
            self._protocol.send_text(text.encode())
        await self._flush()

    async def say_in_parts(self, *parts: str) -> None:
        """One message in several frames, with an empty ping before all but the first."""
        for number, part in enumerate(parts):
            final = number == len(parts) - 1
            if number == 0:
                self._protocol.send_text(part.encode(), final)
            else:
                self._protocol.send_ping(b"")
                self._protocol.send_continuation(part.encode(), final)
        await self._flush()

    async def ping(self, payload: bytes) -> None:
        self._protocol.send_ping(payload)
        await self._flush()

    async def pong_unasked(self, payload: bytes) -> None:
        self._protocol.send_pong(payload)
        await self._flush()

    async def pong(self) -> bytes:
        """What the next pong repeats."""
        while (frame := await self.frame()).opcode is not Opcode.PONG:
            pass
        return bytes(frame.data)

    async def frame(self) -> Frame:
        """The next frame, of whatever kind. Raises anyio.EndOfStream when the connection ends without one."""
        while not self._frames:
            self._protocol.receive_data(await self._stream.receive())
            self._frames += [event for event in self._protocol.events_received() if isinstance(event, Frame)]
            self._protocol.data_to_send()  # answers to pings, which are not given
        return self._frames.pop(0)

    async def text(self) -> str:
        """The next data frame, as text."""
        while (frame := await self.frame()).opcode not in (Opcode.TEXT, Opcode.BINARY):
            pass
        return bytes(frame.data).decode()

    async def close_frame(self) -> Close:
        """The code and reason of the close frame that comes next, of what is no data."""
        while (frame := await self.frame()).opcode is not Opcode.CLOSE:
            pass
        return Close.parse(bytes(frame.data))

    async def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data:
            await self._stream.send(data)

    async def open_as_client(self) -> None:
        assert isinstance(self._protocol, ClientProtocol)
        self._protocol.send_request(self._protocol.connect())
        await self._flush()
        while True:
            self._protocol.receive_data(await self._stream.receive())
            events = self._protocol.events_received()
            if events:
                assert isinstance(events[0], Response)
                return

    async def open_as_server(self) -> None:
        assert isinstance(self._protocol, ServerProtocol)
        while True:
            self._protocol.receive_data(await self._stream.receive())
            events = self._protocol.events_received()
            if events:
                assert isinstance(events[0], Request)
                self.request = events[0]
                self._protocol.send_response(self._protocol.accept(self.request))
                await self._flush()
                return


@asynccontextmanager
async def raw_client(url: str, subprotocols: Sequence[str] = ()) -> AsyncIterator[RawPeer]:
    """A client of a server."""
    uri = parse_uri(url)
    offered = [Subprotocol(name) for name in subprotocols] or None
    async with await anyio.connect_tcp(uri.host, uri.port) as stream:
        peer = RawPeer(stream, ClientProtocol(uri, subprotocols=offered, max_size=None))
        await peer.open_as_client()
        yield peer


@asynccontextmanager
async def raw_server(
    handle: Callable[[RawPeer], Awaitable[object]], choose: Callable[[Sequence[str]], str | None] = lambda offered: None
) -> AsyncIterator[str]:
    """A server, of which every connection is handled by a function. Yields its URL.

    Args:
        handle: called after the handshake; the connection ends when it returns.
        choose: what it answers to the offered subprotocols.
    """

    def select(_protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        chosen = choose(offered)
        return None if chosen is None else Subprotocol(chosen)

    async def accept(stream: ByteStream) -> None:
        async with stream:
            peer = RawPeer(stream, ServerProtocol(select_subprotocol=select, max_size=None))
            await peer.open_as_server()
            await handle(peer)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, accept)
        yield f"ws://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/"
        tasks.cancel_scope.cancel()
