"""What every transport does with a session: run it for as long as its connection lasts, and no longer.

A driver is the session's host. It is one of two kinds: the one here moves messages between the session and a
`MessageStream` in two tasks, which works with anything that sends and receives; `websocket_asyncio.py` has one that
is called by its connection.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from ..codec import Codec
from ..errors import LimitExceeded, ProtocolError, text_of
from ..loops import Loop, Spawn, beside, running_loop, task_set
from ..options import DEFAULT_OPTIONS, SessionOptions
from ..session import ABORTED, Message, RpcSession

__all__ = [
    "CLOSE_TIMEOUT",
    "Driver",
    "MessageStream",
    "StreamDriver",
    "StreamEnded",
    "close_reason",
    "cut_reason",
    "run_session",
    "running",
    "serve_session",
]

# A WebSocket close reason is at most 125 bytes with its code of two (RFC 6455, section 5.5).
MAX_REASON_BYTES: Final = 123

# How long, in seconds, a closing connection may take before it is dropped.
CLOSE_TIMEOUT: Final = 10

# The close code of a connection that ends without a complaint (RFC 6455, section 7.4.1).
NORMAL: Final = 1000


class StreamEnded(Exception):
    """A message stream has come to its end. The text says how; the cause is the error that ended it, if one did."""


class MessageStream(Protocol):
    """A connection that carries messages."""

    async def receive(self) -> Message:
        """The next message.

        Raises:
            StreamEnded: when there will be none.
            ProtocolError, LimitExceeded: if the peer breaks a rule of the stream; the session aborts for that reason.
        """

    async def send(self, messages: list[Message]) -> None:
        """Send messages in order, waiting while the peer does not take them. Raises StreamEnded if it is gone."""

    async def close(self, code: int, reason: str) -> None:
        """Close the connection, if it is open."""


class Driver(ABC):
    """The host of one session, and what both kinds of driver share.

    Args:
        loop: the running event loop, where one object for it serves many drivers.
    """

    session: RpcSession

    def __init__(self, loop: Loop | None = None) -> None:
        self._loop = loop or running_loop()
        self._spawn: Spawn | None = None

    @abstractmethod
    def wake(self) -> None:
        """As of `Host`."""

    def hurry(self) -> None:  # noqa: B027 - a driver may do without
        """As of `Host`."""

    def send_now(self) -> None:  # noqa: B027 - a driver may do without
        """As of `Host`."""

    def rest(self) -> None:  # noqa: B027 - so may one that takes few messages at a time
        """As of `Host`."""

    def wake_from_anywhere(self) -> None:
        self._loop.soon_from_anywhere(self.wake)

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._spawn is not None, "calls arrive after run() has begun"
        self._spawn(run)

    def now(self) -> float:
        return time.monotonic()

    @abstractmethod
    async def carry(self) -> None:
        """Carry messages both ways until the session has ended, and what it had to say is sent."""

    @abstractmethod
    async def close(self, code: int, reason: str) -> None:
        """Close the connection."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the session to its end: its calls are cancelled, and its connection is closed."""
        try:
            async with task_set() as self._spawn:
                try:
                    task_status.started()
                    await self.carry()
                finally:
                    self.session.close()  # while what it leads to can still be begun
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self.close(*close_reason(self.session))


@asynccontextmanager
async def run_session(
    driver: Driver,
    local_main: Any,
    options: SessionOptions | None,
    codec: Codec,
    name: str,
    *,
    releases_streams: bool = False,
) -> AsyncIterator[RpcSession]:
    """Run a session for as long as the context lasts, at most. The arguments are those of `RpcSession`."""
    session = RpcSession(driver, local_main, options, codec, name, releases_streams=releases_streams)
    async with running(driver, session):
        yield session


async def serve_session(driver: Driver, session: RpcSession) -> None:
    """Run a session, which was made for the driver, until it has ended and its connection is closed.

    It runs in the current task: an idle session takes no other.
    """
    driver.session = session
    await driver.run()


_Session = TypeVar("_Session", bound=RpcSession)


@asynccontextmanager
async def running(driver: Driver, session: _Session) -> AsyncIterator[_Session]:
    """The same with a session that was made for the driver."""
    driver.session = session
    async with beside(driver.run):
        try:
            yield session
        finally:
            # Its end ends the driver, after what was called and not awaited has been sent.
            session.close()


def close_reason(session: RpcSession) -> tuple[int, str]:
    """The close code and reason that tell a peer of a session's end."""
    if not session.aborted or session.end is None:
        return NORMAL, ""
    return ABORTED, cut_reason(text_of(session.end))


def cut_reason(text: str) -> str:
    """As much of a text as the reason of a close frame holds, cut between two characters."""
    return text.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")


class StreamDriver(Driver):
    """Runs a session over a message stream."""

    def __init__(self, stream: MessageStream, options: SessionOptions | None) -> None:
        super().__init__()
        self._stream = stream
        self._max_unsent = (options or DEFAULT_OPTIONS).limits.max_unsent
        # Set when the session has something to send, or has ended.
        self._awake = anyio.Event()
        # Set when the session has ended. What it still has to say is not waited for without end.
        self._ended = anyio.Event()
        # Set when the stream has taken everything.
        self._idle = anyio.Event()
        # Messages that the stream has not been given yet, and the answers among all that it has not taken, in bytes.
        self._unsent: list[Message] = []
        self._answers_sent = 0
        # Whether others are to have their turn before the next message.
        self._resting = False

    def wake(self) -> None:
        self._awake.set()
        if self.session.closed:
            self._ended.set()

    def rest(self) -> None:
        self._resting = True

    async def carry(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read)
            tasks.start_soon(self._give_up, tasks.cancel_scope)
            try:
                await self._write()
            except StreamEnded as error:
                self.session.connection_lost(error.__cause__, str(error))
            tasks.cancel_scope.cancel()

    async def close(self, code: int, reason: str) -> None:
        await self._stream.close(code, reason)

    def _collect(self) -> None:
        self.session.congested = bool(self._unsent)
        self._unsent += self.session.messages_to_send()

    async def _give_up(self, carrying: anyio.CancelScope) -> None:
        """Stop carrying some time after the session's end: a peer that reads nothing must not hold up this side's."""
        await self._ended.wait()
        await anyio.sleep(CLOSE_TIMEOUT)
        carrying.cancel()

    async def _read(self) -> None:
        while not self.session.closed:
            try:
                data, binary = await self._stream.receive()
            except StreamEnded as error:
                self.session.connection_lost(error.__cause__, str(error))
                return
            except (ProtocolError, LimitExceeded) as error:
                self.session.abort(error)
                return
            self.session.receive(data, binary)
            self._collect()
            # A peer that calls and does not read its answers must not fill this side's memory.
            while self._too_much_unsent and not self.session.closed:
                self._awake.set()
                await self._idle.wait()
            if self._resting:
                self._resting = False
                await anyio.lowlevel.checkpoint()

    @property
    def _too_much_unsent(self) -> bool:
        return self.session.holding or self.session.answered_bytes - self._answers_sent > self._max_unsent

    async def _write(self) -> None:
        """Send what there is, whenever there is something, until the session has ended."""
        while True:
            self._collect()
            if self._unsent:
                messages, self._unsent = self._unsent, []
                answered = self.session.answered_bytes
                await self._stream.send(messages)
                self._answers_sent = answered
            elif self.session.closed:
                return
            else:
                self._idle.set()
                self._idle = anyio.Event()
                await self._awake.wait()
                self._awake = anyio.Event()
