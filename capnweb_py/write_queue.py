"""What a peer writes into a stream, until somebody takes it. Nothing here knows the session's tables.

The front of a `WriteQueue` is a `WriterHook` in the export table, which answers a write when its chunk was taken. Who
takes the chunks at its back is in streams.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import anyio

from .delivery import Deliveries
from .errors import LimitExceeded, RpcError, fresh
from .hooks import ErrorHook, Hook, Path, Pending, PromiseHook
from .local import PayloadHook
from .loops import wait_settled
from .mapper import Mapper
from .metering import Meter
from .payload import Payload, settle
from .values import UNDEFINED

__all__ = ["Signal", "Unread", "WriteQueue", "WriterHook"]

# What a write costs beside the bytes of its message: the objects that hold it, and each value that is copied into it.
_BYTES_PER_WRITE: Final = 2048
_BYTES_PER_VALUE: Final = 16


class Signal:
    """Something that is waited for again and again."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        # What those who wait now wait for.
        self._event: anyio.Event | None = None

    async def wait(self) -> None:
        """Wait until it is fired the next time."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()

    def fire(self) -> None:
        if self._event is not None:
            event, self._event = self._event, None
            event.set()


class Unread:
    """How much of what a peer has written into the streams of one session nobody has taken.

    Args:
        limit: `Limits.max_unread`.
        meter: counts what is copied into chunks.
    """

    def __init__(self, limit: int, meter: Meter) -> None:
        self._limit = limit
        self._meter = meter
        self._size = 0
        # The size of the message that is being handled, in bytes: what a chunk in it takes, at least.
        self.message_size = 0

    def add(self, chunk: Payload) -> int:
        """A chunk came in the message that is being handled. Its promises are replaced from now on.

        Returns what it counts.

        Raises:
            LimitExceeded: if it is too much. It counts nothing then.
        """
        size = self.message_size + _BYTES_PER_WRITE
        if self._size + size <= self._limit:
            left = self._meter.left
            settle(chunk, self._meter)
            size += (left - self._meter.left) * _BYTES_PER_VALUE
        if self._size + size > self._limit:
            raise LimitExceeded(f"more than max_unread = {self._limit} bytes were written into streams and not read")
        self._size += size
        return size

    def remove(self, size: int) -> None:
        """A chunk was taken."""
        self._size -= size


class _Write(NamedTuple):
    """A chunk that nobody has taken."""

    arguments: Payload
    size: int
    answer: PromiseHook


class WriteQueue:
    """What was written into a stream and not taken, in order, and how it ends."""

    __slots__ = ("_changed", "_closing", "_ended", "_error", "_unread", "_writes", "writers")

    def __init__(self, unread: Unread) -> None:
        self._unread = unread
        # How many hooks there are to write by.
        self.writers = 0
        self._writes: deque[_Write] = deque()
        # The answer to "close", once it has been called.
        self._closing: PromiseHook | None = None
        # Why nothing more is taken or written, once that is so.
        self._error: BaseException | None = None
        self._ended = False
        self._changed = Signal()

    # The front: what the peer calls.

    def write(self, arguments: Payload) -> Hook:
        """Add a chunk. Returns the hook of the answer."""
        if self._error is not None:
            return ErrorHook(self._error)
        if self._closing is not None:
            return ErrorHook(RpcError("the stream was closed: nothing can be written to it any more"))
        try:
            size = self._unread.add(arguments)
        except LimitExceeded as error:
            self.fail(error)
            return ErrorHook(error)
        answer = PromiseHook()
        self._writes.append(_Write(arguments, size, answer))
        self._changed.fire()
        return answer

    def close(self) -> Hook:
        """There are no more chunks. Returns the hook of the answer, which comes when all were taken."""
        if self._error is not None:
            return ErrorHook(self._error)
        if self._closing is not None:
            return ErrorHook(RpcError("the stream was closed before"))
        self._closing = PromiseHook()
        self._changed.fire()
        return self._closing

    def fail(self, error: BaseException) -> None:
        """End the stream: what waits is refused, and whoever reads gets the error. Nothing happens after the end."""
        if self._ended or self._error is not None:
            return
        self._error = error
        writes, self._writes = self._writes, deque()
        failure = ErrorHook(error)
        for write in writes:
            self._unread.remove(write.size)
            write.answer.settle(failure)
        if self._closing is not None:
            self._closing.settle(failure)
        self._changed.fire()

    # The back: who takes the chunks.

    @property
    def closing(self) -> bool:
        """Whether the writer has said that there are no more chunks."""
        return self._closing is not None

    @property
    def error(self) -> BaseException | None:
        """What the stream failed with."""
        return self._error

    @property
    def over(self) -> bool:
        """Whether nothing more can come of it."""
        return self._ended or self._error is not None

    def cancel(self) -> None:
        """Nobody reads any more: the writer learns it from the answer to a write."""
        self.fail(RpcError("the reader has let go of the stream"))

    async def first(self) -> Payload | None:
        """Wait for the first chunk that was not taken; None at the end. Its promises have been replaced by values.

        Raises the error that the stream failed with.
        """
        while not self._writes:
            if self._error is not None:
                raise fresh(self._error)
            if self._closing is not None:
                return None
            await self._changed.wait()
        chunk = self._writes[0].arguments
        settling = settle(chunk)
        if settling is None:
            return chunk
        await wait_settled(settling)
        if settling.error is not None:
            self.fail(settling.error)
        if self._error is not None:
            raise fresh(self._error)
        return chunk

    def taken(self) -> None:
        """The first chunk was taken."""
        if self._writes:  # else the stream has failed meanwhile
            write = self._writes.popleft()
            self._unread.remove(write.size)
            write.answer.settle(_done())

    def finished(self) -> None:
        """The end was seen."""
        if self._closing is not None and not self.over:
            self._ended = True
            self._closing.settle(_done())


def _done() -> Hook:
    return PayloadHook(Payload(UNDEFINED))


class WriterHook(Hook):
    """On a stream of this side that the peer writes: it can be called `write`, `close` and `abort`, and nothing else.

    Args:
        queue: where the chunks go.
    """

    __slots__ = ("_disposed", "queue")

    def __init__(self, queue: WriteQueue) -> None:
        self.queue = queue
        self._disposed = False
        queue.writers += 1

    def call(self, path: Path, arguments: Payload) -> Hook:
        if arguments.borrowed:
            arguments.own()
        if path == ("write",) and len(arguments.value) == 1:
            return self.queue.write(arguments)
        if path == ("close",) and not arguments.value:
            return self.queue.close()
        if path == ("abort",) and len(arguments.value) <= 1:
            self.queue.fail(_reason(arguments.value))
            return _done()
        name = ".".join(map(str, path)) or "a call of the stream itself"
        return ErrorHook(TypeError(f"a stream has write(chunk), close() and abort(reason), but not this: {name}"))

    def map(self, path: Path, mapper: Mapper) -> Hook:
        mapper.dispose()
        return ErrorHook(TypeError("a stream that can be written cannot be mapped"))

    def get(self, path: Path, deliveries: Deliveries | None = None) -> Hook:
        return ErrorHook(TypeError("a stream that can be written has no properties")) if path else self.dup()

    def dup(self) -> Hook:
        return WriterHook(self.queue)

    def pull(self) -> Payload | Pending:
        raise TypeError("a stream that can be written is no promise: it has no value")

    def dispose(self) -> None:
        if self._disposed:
            return
        self._disposed = True
        self.queue.writers -= 1
        if not self.queue.writers and not self.queue.closing:
            self.queue.fail(RpcError("the writer has let go of the stream before it was closed"))

    def __del__(self) -> None:
        self.dispose()

    def on_broken(self, callback: Callable[[BaseException], object]) -> None:
        """Writing tells."""


def _reason(arguments: list[Any]) -> BaseException:
    reason = arguments[0] if arguments else UNDEFINED
    if isinstance(reason, BaseException):
        return reason
    return RpcError("the writer aborted the stream" + (f": {reason[:1000]}" if isinstance(reason, str) else ""))
