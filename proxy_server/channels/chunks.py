"""A body on its way from one task to another: chunks in order, and whether its end is the end or a break.

An anyio stream alone does not tell the two apart. Nothing here knows where the chunks come from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio

__all__ = ["ChunkPipe"]


class ChunkPipe:
    """One body, with one writer and one reader.

    Args:
        ahead: how many chunks the writer may be ahead of the reader.
        broken_off: makes the error that the reader meets where the writer stopped before the end of the body.
    """

    def __init__(self, ahead: int, broken_off: Callable[[], Exception]) -> None:
        self._writer, self._reader = anyio.create_memory_object_stream[bytes](ahead)
        self._broken_off = broken_off
        # Whether the writer has said that the body is complete.
        self.complete = False

    async def write(self, chunk: bytes) -> bool:
        """Write a chunk, and wait while the reader is too far behind. Returns whether anybody takes it."""
        try:
            await self._writer.send(chunk)
        except anyio.BrokenResourceError:
            return False
        return True

    def finish(self) -> None:
        """The body is complete."""
        self.complete = True
        self._writer.close()

    def stop_writing(self) -> None:
        """Nothing more is written. Before `finish`, that breaks the body off. Safe to do twice."""
        self._writer.close()

    def stop_reading(self) -> None:
        """Nothing more is read: what else is written, nobody takes. Safe to do twice."""
        self._reader.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._reader.receive()
        except anyio.EndOfStream:
            if self.complete:
                raise StopAsyncIteration from None
            raise self._broken_off() from None
        except anyio.ClosedResourceError:
            raise RuntimeError("the exchange is over, and its body can no longer be read") from None
