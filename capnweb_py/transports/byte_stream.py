"""Messages over any byte stream of anyio: TCP, Unix sockets, TLS, pipes. Where a message ends is framing.py's.

There is no close frame here. A side that has ended sends what it has to say, then the end of its own direction, and
reads on, for a while, until the other has done the same: closing with bytes unread would make TCP throw away what
the peer has not read yet (RFC 1122, section 4.2.2.13).
"""

from __future__ import annotations

from typing import Final

import anyio
from anyio.abc import AnyByteStream

from ..errors import LimitExceeded
from ..session import Message
from .driver import StreamEnded
from .framing import Framing

__all__ = ["ByteStreamMessages"]

# What a stream raises when its connection is gone. TLS and the pipes of asyncio raise an OSError as it is.
_GONE: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class ByteStreamMessages:
    """A byte stream as a message stream, which owns it."""

    def __init__(self, stream: AnyByteStream, framing: Framing) -> None:
        self._stream = stream
        self._framing = framing
        # Whether the peer has sent all that it will, and whether the bytes sent so far end inside a message.
        self._at_end = False
        self._torn = False

    async def receive(self) -> Message:
        while (message := self._framing.next()) is None:
            self._framing.feed(await self._read())
        return message

    async def _read(self) -> bytes:
        try:
            return await self._stream.receive()
        except anyio.EndOfStream:
            self._at_end = True
            within = " in the middle of a message" if self._framing.within else ""
            raise StreamEnded(f"the peer closed the stream{within}") from None
        except _GONE as error:
            self._at_end = True
            raise StreamEnded("the connection was lost") from error

    async def send(self, messages: list[Message]) -> None:
        try:
            data = self._framing.write(messages)
        except LimitExceeded as error:
            raise StreamEnded(str(error)) from error
        # When this is cancelled, nobody knows how much of it was sent.
        self._torn = True
        try:
            await self._stream.send(data)
        except _GONE as error:
            raise StreamEnded("the connection was lost") from error
        self._torn = False

    async def close(self, code: int, reason: str) -> None:
        if self._torn:
            await anyio.aclose_forcefully(self._stream)
            return
        try:
            if not self._at_end:
                await self._linger()
        finally:
            await self._aclose()

    async def _linger(self) -> None:
        """Send the end, and read until the peer's."""
        try:
            await self._stream.send_eof()
            while True:
                await self._stream.receive()
        except NotImplementedError:
            pass  # TLS ends both directions at once, by a handshake of its own
        except (anyio.EndOfStream, *_GONE):
            pass  # there is nothing to wait for

    async def _aclose(self) -> None:
        try:
            await self._stream.aclose()
        except _GONE:
            pass  # the peer did not answer in TLS's closing handshake: the connection is closed all the same
