"""HTTP batch: a session in one request, whose body is all that the client says, and whose response all that the server
says. Messages are lines of JSON (protocol.md, section "HTTP batch").

Both sides are here, as drivers of a `BatchSession`. How the bytes travel is the caller's: http_post.py sends those of a
client, and a server is handed a body and gives one back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel

from ..batch_session import BatchSession
from ..errors import LimitExceeded, RpcError, SessionClosed
from ..options import DEFAULT_OPTIONS, Limits, SessionOptions
from ..session import BATCH, Message
from .driver import Driver

__all__ = ["BatchDriver", "answer_batch", "past_size"]

_UNANSWERED = "the server ended the batch without an answer to this"
_LATE = (
    "the batch was sent without this: it is one request, with what is called before the first await. Await what belongs"
    " together in one step (gather, a task group), and open another http_batch(), or a session with connect(),"
    " for the rest"
)
_NO_WAY_BACK = (
    "a client that sent an HTTP batch cannot answer: the response to its one request is the end of it. Serve it over"
    " WebSocket to call it back, or return the promise without awaiting it"
)


class BatchDriver(Driver):
    """Runs the session of a client.

    The batch is sent when the program first awaits something of it, after all tasks that are about to run have had
    their turn: what they call and await goes along.

    Args:
        post: sends the body of the request, and returns that of the response. What it raises fails the batch.
        limits: of the session.
    """

    session: BatchSession

    def __init__(self, post: Callable[[bytes], Awaitable[bytes]], limits: Limits) -> None:
        super().__init__()
        self._post = post
        self._limits = limits
        # Set when somebody waits for the batch, and when there is nothing left to wait for.
        self._due = anyio.Event()
        self._over = anyio.Event()
        # Set when there is something more to send, before the batch is.
        self._awake = anyio.Event()
        # Everything until the end of the session.
        self._scope = anyio.CancelScope()
        self._failure: BaseException | None = None

    def hurry(self) -> None:
        self._due.set()

    def send_now(self) -> None:
        """There is one request."""

    def wake(self) -> None:
        self._awake.set()
        if self.session.closed:
            self._scope.cancel()

    async def send_unawaited(self) -> None:
        """Send what was called and never awaited, and wait until it is answered.

        Raises:
            RpcError: if the batch fails.
        """
        if self._due.is_set() or self.session.closed or not self.session.has_calls:
            return
        self._due.set()
        await self._over.wait()
        if self._failure is not None:
            raise self._failure

    async def carry(self) -> None:
        try:
            with self._scope:
                await self._due.wait()
                await self._exchange()
                self._conclude()
                # What the answer has set off on this side goes on to the end of the session.
                await anyio.sleep_forever()
        finally:
            self._conclude()

    def _conclude(self) -> None:
        self._failure = self._failure or self.session.end
        self._over.set()

    async def _exchange(self) -> None:
        late = SessionClosed(_LATE)
        try:
            messages = await self._messages(late)
            if self.session.closed:
                return  # there was too much of it
            body = await self._post(_joined(messages))
        except Exception as error:
            self._failure = error
            self.session.input_ended(error, error)
        else:
            await _take(self.session, body, self._limits)
            self.session.input_ended(SessionClosed(_UNANSWERED), late)

    async def _messages(self, late: BaseException) -> list[Message]:
        """All that there is to send, when the streams that are passed have come to their ends."""
        session = self.session
        session.pull_held()
        messages = session.messages_to_send()
        while session.pumping:
            await self._awake.wait()
            self._awake = anyio.Event()
            messages += session.messages_to_send()
        return messages + session.last_messages(late)

    async def close(self, code: int, reason: str) -> None:
        """There is no connection to close."""


async def answer_batch(body: bytes, main: Any, options: SessionOptions | None) -> bytes:
    """Run the session of a server to its end. Returns the body of the response."""
    driver = _AnsweringDriver(body, (options or DEFAULT_OPTIONS).limits)
    driver.session = BatchSession(driver, main, options, "the client of a batch")
    await driver.run()
    return _joined(driver.messages)


def past_size(size: int, limits: Limits) -> LimitExceeded | None:
    """The error of a body that is too large."""
    if size <= limits.max_batch_size:
        return None
    return LimitExceeded(f"a batch of {size} bytes is larger than max_batch_size = {limits.max_batch_size}")


class _AnsweringDriver(Driver):
    """Runs the session of a server: to the last answer, and until every call has ended."""

    session: BatchSession

    def __init__(self, body: bytes, limits: Limits) -> None:
        super().__init__()
        self._body = body
        self._limits = limits
        self.messages: list[Message] = []
        # Set when the session has something to send, or nothing runs any more.
        self._awake = anyio.Event()

    def wake(self) -> None:
        self._awake.set()

    async def carry(self) -> None:
        session = self.session
        await _take(session, self._body, self._limits, self._collect)
        unanswerable = RpcError(_NO_WAY_BACK)
        session.input_ended(unanswerable, unanswerable)
        session.deliveries.on_idle = self.wake
        self._collect()
        while not (session.closed or session.settled):
            await self._awake.wait()
            self._awake = anyio.Event()
            self._collect()

    def _collect(self) -> None:
        self.messages += self.session.messages_to_send()

    async def close(self, code: int, reason: str) -> None:
        """There is no connection to close."""


async def _take(
    session: BatchSession, body: bytes, limits: Limits, collect: Callable[[], object] = lambda: None
) -> None:
    """Have a session take all messages of a body, some in each turn of the event loop."""
    lines = body.count(b"\n") + 1
    excess = past_size(len(body), limits)
    if excess is None and lines > limits.max_batch_messages:
        excess = LimitExceeded(
            f"a batch of {lines} messages has more than max_batch_messages = {limits.max_batch_messages}"
        )
    if excess is not None:
        session.abort(excess)
        return
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            session.receive(line)
        if number % BATCH == 0:
            collect()
            await anyio.lowlevel.checkpoint()


def _joined(messages: list[Message]) -> bytes:
    return b"\n".join(data for data, _ in messages)
