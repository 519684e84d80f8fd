"""WebSocket over asyncio, driven by the connection's own callbacks: no queue, no task and no wake-up between frame
and session.

A frame goes to the session while the loop delivers it, and whatever the session has to send by then goes out in one
write.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.frames import DATA_OPCODES, Close, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CLIENT, OPEN, SERVER, Event, Protocol

from ..loops import Loop
from ..options import DEFAULT_OPTIONS, SessionOptions
from ..session import BATCH, MUCH, Message
from .busy_polling import busy_polling
from .driver import Driver
from .frames import FrameReader, write_frames
from .keepalive import Pinging, Pings

__all__ = [
    "SessionClientConnection",
    "SessionServerConnection",
    "WebSocketDriver",
    "closed_text",
    "connection_closed_text",
]

# How many bytes are read at a time, at most.
READ_SIZE: Final = 256 * 1024


def closed_text(code: int | None, reason: str | None, closed_here: Close | None = None) -> str:
    """What to say of a connection that has ended.

    Args:
        code: of the peer's close frame, or 1006 if none came (RFC 6455, section 7.1.5).
        reason: of the peer's close frame.
        closed_here: the close frame that this side sent, if it sent one first: because the peer broke a rule of
            WebSocket, or sent a message longer than `max_message_size`.
    """
    if closed_here is not None:
        return f"this side closed the connection: {closed_here.code:d} {closed_here.reason}".rstrip()
    if code is None or code == 1006:
        return "the connection was lost"
    return f"the peer closed the connection: {code} {reason or ''}".rstrip()


def connection_closed_text(connection: Any) -> str:
    """The same for a connection of `websockets`, of either loop."""
    protocol = connection.protocol
    closed_here = None if protocol.close_rcvd is not None and protocol.close_rcvd_then_sent else protocol.close_sent
    return closed_text(connection.close_code, connection.close_reason, closed_here)


class WebSocketDriver(Driver):
    """Runs a session over one connection, whose data frames it takes over.

    Args:
        connection: it.
        options: of the session.
        loop: the running event loop.
        pinging: how the connection is kept alive; None if it is not.
    """

    def __init__(
        self,
        connection: _SessionConnection,
        options: SessionOptions | None,
        loop: Loop,
        pinging: Pinging | None,
    ) -> None:
        super().__init__(loop)
        self._connection = connection
        self._pings = None if pinging is None else Pings(connection, pinging)
        options = options or DEFAULT_OPTIONS
        self._max_unsent = options.limits.max_unsent
        self._polling = busy_polling(loop) if options.busy_poll else None
        # Done when the session has ended.
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Whether `flush` is sure to be called soon, and whether it has been put off once already.
        self._flush_due = False
        self._put_off = False
        # Whether something was written already since the loop's turn began.
        self._hurried = False
        # Messages taken since something was last written because of their number.
        self._taken = 0
        # Answers written until the socket had last taken everything, in bytes, and whether reading waits for it.
        self._answers_sent = 0
        self._reading_paused = False
        # Whether `_go_on_reading` is sure to be called soon.
        self._go_on_due = False
        # Messages that had been read already when reading was paused: one read can hold thousands of calls.
        self._held: deque[Message] | None = None

    async def carry(self) -> None:
        self._connection.attach(self)
        self.wake()
        if self._pings is not None:
            self._pings.start()
        try:
            await self._ended
        finally:
            if self._pings is not None:
                self._pings.stop()

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)

    def wake(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.soon(self._flush_soon)

    def wake_from_anywhere(self) -> None:
        # The flush that is due sees what was collected before it begins, on whatever thread.
        if not self._flush_due:
            super().wake_from_anywhere()

    def hurry(self) -> None:
        # For a few calls once a turn: the first of many tasks is not to write for itself what the others are to add to.
        if self.session.undecided or not self._hurried:
            self._hurried = True
            self._write(hurried=True)

    def send_now(self) -> None:
        self._write()

    def rest(self) -> None:
        if not self.session.closed:
            self._pause_reading()
            self.wake()

    def _flush_soon(self) -> None:
        """Write, now that the turn of the loop is over in which the first message came.

        Calls that nobody has awaited wait for one more turn. Tasks that `asyncio.gather` and its like have made for
        them await them in this one, and a call that was awaited by the time that it is written costs two messages,
        not four.
        """
        self._hurried = False
        if self.session.undecided and not self._put_off:
            self._put_off = True
            self._loop.soon(self._flush_soon)
        else:
            self._put_off = False
            self.flush()

    def receiving(self) -> None:
        """Data is about to be delivered. What the session says in return waits for `flush`, which follows."""
        self._flush_due = True
        if self._polling is not None:
            self._polling.heard()

    def take(self, data: bytes, binary: bool) -> None:
        """Take a message. What many of them have led to is written before the last."""
        if self._reading_paused:
            if self._held is None:
                self._held = deque()
            self._held.append((data, binary))
            return
        self.session.receive(data, binary)
        self._taken += 1
        if self._taken >= BATCH or self.session.ahead >= MUCH:
            self._taken = 0
            self._write()

    def flush(self) -> None:
        """Write what the session has to send, and notice its end."""
        self._hurried = False
        self._write()
        # What those who woke have to send follows in the turn that they go on in, which is sooner than `wake` would
        # have it. What the session has left for later follows when other connections have had their turn.
        self._flush_due = self.session.woke or self.session.unfinished
        self.session.woke = False
        if self._flush_due:
            self._loop.soon(self._flush_soon)
        elif self._reading_paused and not self.session.congested and not self._go_on_due:
            self._go_on_due = True
            self._loop.soon(self._go_on_soon)
        if self.session.closed and not self._ended.done():
            self._ended.set_result(None)

    def _write(self, *, hurried: bool = False) -> None:
        messages = self.session.messages_to_send(hurried=hurried)
        if messages:
            self._connection.write(messages)
            if self._connection.paused:
                self.writing_paused()
            if self._polling is not None:
                self._polling.sent()
        if self.session.holding:
            self._pause_reading()

    def writing_paused(self) -> None:
        """The socket does not take what is written. A peer that reads no answers is not asked for more calls."""
        self.session.congested = True
        if self.session.answered_bytes - self._answers_sent > self._max_unsent:
            self._pause_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._connection.transport.pause_reading()

    def writing_resumed(self) -> None:
        """The socket has taken what was written."""
        self.session.congested = False
        if self._pings is not None:
            self._pings.writing_resumed()
        self.wake()
        self._answers_sent = self.session.answered_bytes
        self._go_on_reading()

    def _go_on_soon(self) -> None:
        self._go_on_due = False
        self._go_on_reading()

    def _go_on_reading(self) -> None:
        """Take what had been read already, then read on, unless that leads to too many answers again."""
        if not self._reading_paused or self.session.holding or self.session.congested:
            return
        self._reading_paused = False
        while self._held and not self._reading_paused:
            self.take(*self._held.popleft())
        if not self._held:
            self._held = None
        self.flush()
        if not self._reading_paused:
            self._connection.transport.resume_reading()

    def answered(self, payload: bytes) -> None:
        """A pong has come."""
        if self._pings is not None:
            self._pings.answered(payload)

    def connection_lost(self) -> None:
        """The connection is closed."""
        if self._pings is not None:
            self._pings.stop()
        text = connection_closed_text(self._connection)
        self.session.connection_lost(self._connection.close_exc, text)
        self.wake()


class _Received(threading.local):
    """Where a thread's loop puts what its connections receive. One place for all of them: it is taken at once."""

    def __init__(self) -> None:
        self.buffer = bytearray(READ_SIZE)
        self.view = memoryview(self.buffer)


_received = _Received()


class _NoMessages:
    """Where `websockets` would put the messages of a connection whose messages go elsewhere."""

    def close(self) -> None:
        """There will be no more."""


class _SleepingParser:
    """Stands for the parser of a connection of `websockets`, which is three generators, and refers to the request that
    it has parsed before, until there is something to parse."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def __next__(self) -> None:
        self._protocol.parser = Protocol.parse(self._protocol)
        next(self._protocol.parser)


_NO_MESSAGES: Final[Any] = _NoMessages()
_PAST_REQUEST: Final = Request("", Headers())
_PAST_RESPONSE: Final = Response(HTTPStatus.SWITCHING_PROTOCOLS, "", Headers())


class _SessionConnection(Connection, asyncio.BufferedProtocol):
    """A connection that hands its messages to a driver.

    Plain frames go past `websockets` (see frames.py), from the first one on: the frames of a connection begin where
    the head of the handshake ends. Should more have come together with that head, this connection does without the
    short way.
    """

    # Not beside the attributes of `websockets`: up to 30 of an object take 8 bytes each (their names are kept with the
    # class), and with more it gets a dict of its own, of 1.5 KiB.
    __slots__ = ("_at_first_frame", "_binary", "_driver", "_early", "_fragments", "_reader")

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._driver: WebSocketDriver | None = None
        self._reader: FrameReader | None = None
        # Tasks wait here for the socket to take what was written: hardly ever, and an empty deque takes more than half
        # a kibibyte.
        self.drain_waiters: Any = []
        # Messages that came before there was a driver. None while there are none.
        self._early: list[Message] | None = None
        # Whether the data so far ended with the head of the handshake.
        self._at_first_frame = False
        # The frames of a message that is not complete, and whether it is binary.
        self._fragments: list[bytes] | None = None
        self._binary = False

    def attach(self, driver: WebSocketDriver) -> None:
        """Hand messages to a driver from now on, beginning with those that have come already."""
        self._driver = driver
        self._forget_handshake()
        early, self._early = self._early, None
        for data, binary in early or ():
            driver.take(data, binary)
        if self.connection_lost_waiter.done():
            driver.connection_lost()

    def _forget_handshake(self) -> None:
        """Let go of what `websockets` keeps of the handshake, and of what it has for receiving messages: 5 KiB."""
        # In the place of what came, whose absence would say that the next thing to come is the handshake.
        self.request, self.response = _PAST_REQUEST, _PAST_RESPONSE
        self.recv_messages.close()
        self.recv_messages = _NO_MESSAGES
        if self._reader is not None or self._at_first_frame:
            self._rest_parser()

    def _rest_parser(self) -> None:
        """Let the parser of `websockets` sleep. It must have been given whole frames only, as those are that a
        FrameReader passes on."""
        if self.protocol.state is OPEN:
            parser: Any = _SleepingParser(self.protocol)
            self.protocol.parser = parser

    def write(self, messages: list[Message]) -> None:
        """Write messages."""
        if self.protocol.state is OPEN:
            for piece in write_frames(messages, self.protocol.side is CLIENT):
                self.transport.write(piece)

    # The loop is to read into a buffer that is there: for a protocol without one it allocates 256 KiB each time, which
    # costs more than all else that is done to receive a small message (13 of 31 us).

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:
        reader = self._reader
        return reader.room() if reader is not None and reader.within_long else _received.buffer

    def buffer_updated(self, nbytes: int) -> None:
        reader = self._reader
        if reader is not None and reader.within_long:
            self._deliver(reader.filled, nbytes)
        else:
            self._deliver(self._receive, _received.view[:nbytes].tobytes())

    def data_received(self, data: bytes) -> None:
        """The same on a loop that hands its own bytes to whatever is an `asyncio.Protocol`, too, as uvloop does."""
        self._deliver(self._receive, data)

    def _deliver(self, take: Callable[[Any], object], received: Any) -> None:
        """Have what was received taken, and what follows from it written."""
        driver = self._driver
        if driver is not None:
            driver.receiving()
        take(received)
        if driver is not None:
            driver.flush()

    def _receive(self, data: bytes) -> None:
        if self.protocol.state is OPEN and (self._reader is not None or self._at_first_frame):
            self._frames().feed(data)
        else:
            self._at_first_frame = data.endswith(b"\r\n\r\n")
            super().data_received(data)

    def _frames(self) -> FrameReader:
        if self._reader is None:
            assert self.protocol.max_message_size is not None, "it is set with every connection"
            masked = self.protocol.side is SERVER
            self._reader = FrameReader(masked, self.protocol.max_message_size, self._take, self._pass_on)
        return self._reader

    def _take(self, data: bytes, binary: bool) -> None:
        if self._driver is not None:
            self._driver.take(data, binary)
        else:
            if self._early is None:
                self._early = []
            self._early.append((data, binary))

    def _pass_on(self, data: bytes) -> bool:
        super().data_received(data)
        self._rest_parser()
        return not self._fragments and self.protocol.state is OPEN

    def process_event(self, event: Event) -> None:
        if event.__class__ is not Frame or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            if self._driver is not None and event.__class__ is Frame and event.opcode is Opcode.PONG:
                self._driver.answered(bytes(event.data))
            return
        if event.opcode is not Opcode.CONT:
            self._binary = event.opcode is Opcode.BINARY
        if self._fragments is None:
            self._fragments = []
        if event.data or event.opcode is not Opcode.CONT:  # any number of empty fragments can be sent for nothing
            self._fragments.append(bytes(event.data))
        if event.fin:
            data = b"".join(self._fragments)
            self._fragments = None
            self._take(data, self._binary)

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
            # Each refers to the other: this lets go of both now.
            self._driver = self._reader = None


class SessionClientConnection(_SessionConnection, ClientConnection):
    """The client's."""

    __slots__ = ()

    def _forget_handshake(self) -> None:
        super()._forget_handshake()
        self.response_rcvd: Any = None


class SessionServerConnection(_SessionConnection, ServerConnection):
    """The server's."""

    __slots__ = ()

    def _forget_handshake(self) -> None:
        super()._forget_handshake()
        self.request_rcvd: Any = None
