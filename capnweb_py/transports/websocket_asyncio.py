"""WebSocket over asyncio, driven by the connection's own callbacks: no queue, no task and no wake-up between frame
and session.

A frame goes to the session while the loop delivers it, and whatever the session has to send by then goes out in one
write.
"""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import OPEN, Event

from ..options import SessionOptions
from ..session import Message
from .driver import Driver

__all__ = ["SessionClientConnection", "SessionServerConnection", "WebSocketDriver", "closed_text"]


def closed_text(code: int | None, reason: str | None) -> str:
    """What to say of a connection that was closed with a code and a reason."""
    if code is None or code == 1006:  # no close frame came (RFC 6455, section 7.1.5)
        return "the connection was lost"
    return f"the peer closed the connection: {code} {reason or ''}".rstrip()


class WebSocketDriver(Driver):
    """Runs a session over one connection, whose data frames it takes over."""

    def __init__(self, connection: _SessionConnection, options: SessionOptions | None) -> None:
        super().__init__()
        self._connection = connection
        self._max_unsent = (options or SessionOptions()).limits.max_unsent
        self._ended = asyncio.Event()
        # Whether `flush` is sure to be called soon.
        self._flush_due = False
        # The first frames of a message that is not complete.
        self._fragments: list[bytes] = []
        self._binary = False
        # Answers written until the socket had last taken everything, in bytes, and whether reading waits for it.
        self._answers_sent = 0
        self._reading_paused = False

    async def carry(self) -> None:
        self._connection.attach(self)
        self.wake()
        await self._ended.wait()

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)

    def wake(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.soon(self.flush)

    def receiving(self) -> None:
        """Data is about to be delivered. What the session says in return waits for `flush`, which follows."""
        self._flush_due = True

    def flush(self) -> None:
        """Write what the session has to send."""
        self._flush_due = False
        messages = self.session.messages_to_send()
        if messages:
            self._connection.write(messages)
            if self._connection.paused:
                self.writing_paused()
        if self.session.closed:
            self._ended.set()

    def take(self, frame: Frame) -> None:
        """Take a data frame."""
        if frame.opcode is not Opcode.CONT:
            self._binary = frame.opcode is Opcode.BINARY
        if not frame.fin or self._fragments:
            self._fragments.append(bytes(frame.data))
            if not frame.fin:
                return
            data = b"".join(self._fragments)
            self._fragments.clear()
        else:
            data = bytes(frame.data)
        self.session.receive(data, self._binary)

    def writing_paused(self) -> None:
        """The socket does not take what is written. A peer that reads no answers is not asked for more calls."""
        if self.session.answered_bytes - self._answers_sent > self._max_unsent and not self._reading_paused:
            self._reading_paused = True
            self._connection.transport.pause_reading()

    def writing_resumed(self) -> None:
        """The socket has taken what was written."""
        self._answers_sent = self.session.answered_bytes
        if self._reading_paused:
            self._reading_paused = False
            self._connection.transport.resume_reading()

    def connection_lost(self) -> None:
        """The connection is closed."""
        text = closed_text(self._connection.close_code, self._connection.close_reason)
        self.session.connection_lost(self._connection.close_exc, text)
        self.wake()


class _SessionConnection(Connection):
    """A connection that hands its data frames to a driver, once it has one."""

    _driver: WebSocketDriver | None = None
    # Data frames that came before.
    _early: list[Frame]

    def attach(self, driver: WebSocketDriver) -> None:
        """Hand data frames to a driver from now on, beginning with those that have come already."""
        self._driver = driver
        for frame in self.__dict__.pop("_early", ()):
            driver.take(frame)
        if self.connection_lost_waiter.done():
            driver.connection_lost()

    def write(self, messages: list[Message]) -> None:
        """Write messages, in one piece."""
        if self.protocol.state is not OPEN:
            return
        for data, binary in messages:
            if binary:
                self.protocol.send_binary(data)
            else:
                self.protocol.send_text(data)
        self.transport.write(b"".join(self.protocol.data_to_send()))

    def process_event(self, event: Event) -> None:
        if event.__class__ is not Frame or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif self._driver is not None:
            self._driver.take(event)
        else:
            self.__dict__.setdefault("_early", []).append(event)

    def data_received(self, data: bytes) -> None:
        driver = self._driver
        if driver is None:
            super().data_received(data)
            return
        driver.receiving()
        super().data_received(data)
        driver.flush()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._driver is not None:
            self._driver.writing_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._driver is not None:
            self._driver.writing_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._driver is not None:
            self._driver.connection_lost()
            self._driver = None


class SessionClientConnection(_SessionConnection, ClientConnection):
    """The client's."""


class SessionServerConnection(_SessionConnection, ServerConnection):
    """The server's."""
