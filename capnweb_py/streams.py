"""Streams: the two ends of a queue that one side writes and the other reads (protocol, section "Streams").

The queue is in write_queue.py. Its back is a `PipeStream`, which the application reads, or the application's own sink,
which `feed` writes to. On the writing side a `RemoteSink` turns writes into messages, with flow control, and `pump`
writes what a source yields. Nothing here knows the session's tables.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, Protocol, Self

import anyio

from .errors import RpcError, fresh, release_frames, sendable
from .flow import FlowControl
from .hooks import ErrorHook, Hook, Path
from .loops import END_TIMEOUT, last_step, wait_settled
from .outflow import Outflow
from .payload import Payload
from .web import ReadableStream
from .write_queue import Signal, WriteQueue

__all__ = [
    "PipeStream",
    "RemoteSink",
    "Sink",
    "WritableStream",
    "as_readable",
    "feed",
    "pump",
]

_log = logging.getLogger("capnweb_py")


class Sink(Protocol):
    """Where the chunks of a `WritableStream` go. It is told of its end once, by `aclose` or by `abort`."""

    async def write(self, chunk: Any) -> None:
        """Take one chunk. Returns when the next may come."""

    async def aclose(self) -> None:
        """There are no more. Returns when everything was taken."""

    async def abort(self, error: BaseException) -> None:
        """There will be no more, because of an error: the writer's, the connection's, or what `write` raised."""


class WritableStream:
    """A stream of chunks that is written: `await stream.write(chunk)`, and `await stream.aclose()` at the end.

    One that a peer sent writes to the peer's: `write` returns when there is room for the next chunk, and raises what an
    earlier one failed with. `async with stream:` closes it at the end of the block, or aborts it with the error that
    the block ended with. One of a peer's that is let go of without either is aborted.

    Args:
        sink: where the chunks go: an object with `async write(chunk)` or `async send(chunk)`, and if it wants to know
            of the end, `async aclose()` and `async abort(error)`. One without `abort` is closed by `aclose` in any
            case. Sending the stream gives it away.

    Raises:
        TypeError: if the sink has neither method.
    """

    __slots__ = ("__weakref__", "_ended", "_locked", "_sink")

    def __init__(self, sink: Any) -> None:
        self._sink: Sink = sink if isinstance(sink, RemoteSink) else _AdaptedSink(sink)
        self._locked = False
        self._ended = False

    @property
    def locked(self) -> bool:
        """Whether it was given away: somebody else writes to it."""
        return self._locked

    async def write(self, chunk: Any) -> None:
        """Write a chunk: any value that can be sent.

        Raises:
            TypeError: if the chunk cannot be sent. The stream goes on.
            RpcError: if the stream has ended, or was given away.
            Exception: what the other side failed with.
        """
        self._check()
        if self._ended:
            raise RpcError("the stream was closed: nothing can be written to it any more")
        await self._sink.write(chunk)

    async def aclose(self) -> None:
        """Say that there are no more chunks, and wait until all were taken. Closing again does nothing.

        Raises:
            Exception: what a write, or the closing, failed with.
        """
        self._check()
        if not self._ended:
            self._ended = True
            await self._sink.aclose()

    async def abort(self, error: BaseException | None = None) -> None:
        """Say that there will be no more, because of an error, which the reader gets. After the end it does nothing."""
        self._check()
        if not self._ended:
            self._ended = True
            await self._sink.abort(RpcError("the stream was aborted") if error is None else error)

    def take(self) -> Sink:
        """The sink, for who takes the stream over. Raises TypeError if it was given away before, or has ended."""
        if self._locked:
            raise TypeError("the WritableStream was given away before: it can be sent once")
        if self._ended:
            raise TypeError("the WritableStream was closed: there is nothing left to send")
        self._locked = True
        return self._sink

    def give_back(self) -> None:
        """What it was taken for did not come about."""
        self._locked = False

    def _check(self) -> None:
        if self._locked:
            raise RpcError("the stream was given away: whoever has it now writes to it")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if self._locked:
            return
        if error is None:
            await self.aclose()
            return
        with anyio.move_on_after(END_TIMEOUT, shield=True):
            await self.abort(
                error if isinstance(error, Exception) else RpcError(f"the writer ended with {type(error).__name__}")
            )

    def __repr__(self) -> str:
        return f"<WritableStream{' locked' if self._locked else ' closed' if self._ended else ''}>"


class _AdaptedSink:
    """An application's sink, whichever of the methods it has."""

    def __init__(self, sink: Any) -> None:
        write = getattr(sink, "write", None) or getattr(sink, "send", None)
        if not callable(write):
            raise TypeError(f"a WritableStream writes to an object with an async write() or send(), not {sink!r}")
        self._write: Callable[[Any], Awaitable[Any]] = write
        self._aclose: Callable[[], Awaitable[Any]] | None = getattr(sink, "aclose", None)
        self._abort: Callable[[BaseException], Awaitable[Any]] | None = getattr(sink, "abort", None)

    async def write(self, chunk: Any) -> None:
        await self._write(chunk)

    async def aclose(self) -> None:
        if self._aclose is not None:
            await self._aclose()

    async def abort(self, error: BaseException) -> None:
        if self._abort is not None:
            await self._abort(error)
        else:
            await self.aclose()


class _QueueReader:
    """Reads a queue: the source of a `PipeStream`."""

    __slots__ = ("_reading", "queue")

    def __init__(self, queue: WriteQueue) -> None:
        self.queue = queue
        self._reading = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._reading:
            raise RuntimeError("the stream is being read by another task: one reads it at a time")
        self._reading = True
        try:
            chunk = await self.queue.first()
        finally:
            self._reading = False
        if chunk is None:
            self.queue.finished()
            raise StopAsyncIteration
        self.queue.taken()
        return chunk.value[0]

    async def aclose(self) -> None:
        self.queue.cancel()


# Has a function called when the session's own turn comes. It may itself be called on any thread.
_Later = Callable[[Callable[[], None]], None]


class _Iteration:
    """What a loop over a `PipeStream` holds, alone: when it is left, the stream is cancelled."""

    __slots__ = ("__weakref__", "_later", "_reader")

    def __init__(self, reader: _QueueReader, later: _Later) -> None:
        self._reader = reader
        self._later = later

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Any]:
        return self._reader.__anext__()

    async def aclose(self) -> None:
        """Stop reading."""
        self._reader.queue.cancel()

    def __del__(self) -> None:
        if not self._reader.queue.over:
            self._later(self._reader.queue.cancel)


class PipeStream(ReadableStream[Any]):
    """The readable end of a pipe. Losing sight of it, or leaving the loop that reads it, cancels the stream: the
    writer learns it from its next write.

    Args:
        queue: what is read.
        later: has a function called when the session's own turn comes, from any thread.
    """

    __slots__ = ("_later", "_reader")

    def __init__(self, queue: WriteQueue, later: _Later) -> None:
        self._reader = _QueueReader(queue)
        self._later = later
        super().__init__(self._reader)

    def __aiter__(self) -> AsyncIterator[Any]:
        super().__aiter__()
        return _Iteration(self._reader, self._later)

    def __del__(self) -> None:
        if not self.locked and not self._reader.queue.over:
            self._later(self._reader.queue.cancel)


async def feed(queue: WriteQueue, sink: Sink) -> None:
    """Write what comes through a queue to a sink of this side, to its end. A write is answered when the sink is done
    with it. What either fails with is the end of the other."""
    closing = False
    try:
        while (chunk := await queue.first()) is not None:
            await sink.write(chunk.value[0])
            del chunk  # what it refers to must not wait for the next one
            queue.taken()
        closing = True
        await sink.aclose()
        queue.finished()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        cancelled = isinstance(error, anyio.get_cancelled_exc_class())
        release_frames(error)
        queue.fail(RpcError("the stream was cut off: its session has ended") if cancelled else sendable(error))
        if not closing and queue.error is not None:
            await last_step(sink.abort(queue.error))
        if cancelled:
            raise


class RemoteSink:
    """A sink of the peer's, behind a hook. As many chunks are under way as flow control lets.

    Args:
        hook: of what takes `write`, `close` and `abort`; owned.
        stream: calls a member of it with arguments: gives the hook of the answer, and the size of the message in bytes,
            or None where none was sent.
        outflow: of the session that the messages go through.
        now: a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        hook: Hook,
        stream: Callable[[Hook, Path, Payload], tuple[Hook, int | None]],
        outflow: Outflow,
        now: Callable[[], float],
    ) -> None:
        self.hook = hook
        self._stream = stream
        self._outflow = outflow
        self._flow = FlowControl(now)
        self._error: BaseException | None = None
        self._ended = False
        self._room = Signal()
        self._broken: Callable[[], object] | None = None

    def watch(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when nothing can be written any more, until the sink is closed or aborted."""
        self._broken = callback
        self.hook.on_broken(self._fail)

    async def write(self, chunk: Any) -> None:
        self._check()
        answer, size = self._stream(self.hook, ("write",), Payload([chunk], borrowed=True))
        if size is None:
            await self._answered(answer)
            return
        sent = self._flow.send(size)

        def acknowledged() -> None:
            error = _failure(answer)
            if error is None:
                self._flow.acknowledge(sent)
            else:
                self._flow.fail(sent)
                self._fail(error)
            if not self._flow.blocked:
                self._room.fire()

        waiting = answer.pull()
        if isinstance(waiting, Payload):
            acknowledged()
        else:
            waiting.subscribe(acknowledged)
        await self.room()

    async def room(self) -> None:
        """Wait until the next chunk may be taken from its source. Raises what a write failed with."""
        while self._flow.blocked and self._error is None:
            await self._room.wait()
        await self._outflow.room()
        if self._error is not None:
            raise fresh(self._error)

    async def aclose(self) -> None:
        self._check()
        self._ended = True
        try:
            # A write that fails makes this fail, too: there is no need to wait for the answers.
            answer, _ = self._stream(self.hook, ("close",), Payload([], borrowed=True))
            await self._answered(answer)
        finally:
            self.hook.dispose()

    async def abort(self, error: BaseException) -> None:
        if self._ended or self._error is not None:
            return
        self._ended = True
        try:
            self._stream(self.hook, ("abort",), Payload([error], borrowed=True))
        finally:
            self._fail(error)

    def _check(self) -> None:
        if self._error is not None:
            raise fresh(self._error)
        if self._ended:
            raise RpcError("the stream was closed: nothing can be written to it any more")

    async def _answered(self, answer: Hook) -> None:
        """Wait for an answer, and raise what it, or a write before it, failed with."""
        while True:
            try:
                resolution = answer.pull()
            except Exception as error:
                self._fail(error)
                raise fresh(self._error or error) from None
            if isinstance(resolution, Payload):
                return
            await wait_settled(resolution)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            self.hook.dispose()
            if self._broken is not None:
                self._broken()
        self._room.fire()


def _failure(answer: Hook) -> BaseException | None:
    """What an answer failed with."""
    settled = answer.settled()
    return settled.error if isinstance(settled, ErrorHook) else None


async def pump(stream: ReadableStream[Any], chunks: AsyncIterator[Any], sink: RemoteSink) -> None:
    """Write what a stream yields to a sink, to its end. What either fails with is the end of the other, at once.

    Args:
        stream: what is read; closed at the end.
        chunks: its chunks, as `stream.take()` gave them.
        sink: where they go.
    """
    try:
        with anyio.CancelScope() as scope:
            sink.watch(scope.cancel)
            if not scope.cancel_called:
                await _copy(chunks, sink)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # The reader is told what the source failed with. Where it was the sink that failed, it knows.
        cancelled = isinstance(error, anyio.get_cancelled_exc_class())
        release_frames(error)
        if not cancelled:
            _log.info("a stream ended early", exc_info=error)
        await last_step(sink.abort(RpcError("the source was cancelled") if cancelled else sendable(error)))
        if cancelled:
            raise
    finally:
        await last_step(stream.aclose())


async def _copy(chunks: AsyncIterator[Any], sink: RemoteSink) -> None:
    await sink.room()
    async for chunk in chunks:
        await sink.write(chunk)
        del chunk  # what it refers to must not wait for the next one
    await sink.aclose()


# Generators that were sent.
_sent: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


class _GeneratorStream(ReadableStream[Any]):
    """Of a generator, which can be sent once: a stream is made of it each time that it is seen."""

    __slots__ = ("_generator",)

    def __init__(self, generator: AsyncGenerator[Any, Any] | Generator[Any, Any, Any]) -> None:
        super().__init__(_asynchronous(generator) if isinstance(generator, Generator) else generator)
        self._generator = generator

    def take(self) -> AsyncIterator[Any]:
        if self._generator in _sent:
            raise TypeError("the generator was sent before: what it yields goes to one reader, once")
        chunks = super().take()
        _sent.add(self._generator)
        return chunks

    def give_back(self) -> None:
        super().give_back()
        _sent.discard(self._generator)


def as_readable(value: Any) -> ReadableStream[Any]:
    """The stream that passes for a value: itself, or one of an async iterable or a generator."""
    if isinstance(value, ReadableStream):
        return value
    return _GeneratorStream(value) if isinstance(value, (AsyncGeneratorType, GeneratorType)) else ReadableStream(value)


async def _asynchronous(generator: Generator[Any, Any, Any]) -> AsyncGenerator[Any, None]:
    try:
        for item in generator:
            yield item
    finally:
        generator.close()
