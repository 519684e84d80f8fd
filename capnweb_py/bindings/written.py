"""What a program writes in pieces, as its facade sends it: counted, and with the errors of its source kept.

A peer that was sent the pieces says in its own way what kept it from having them all. The caller hears the error
itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from ..web import ReadableStream
from .arguments import check

__all__ = ["sending"]


@contextmanager
def sending(content: bytes | ReadableStream[bytes]) -> Iterator[bytes | ReadableStream[bytes]]:
    """What to send in the block for some content: the same bytes.

    Raises:
        TypeError: if a piece is no bytes.
        ValueError: if there are more bytes than the length of a stream says, or fewer.
        Exception: what else reading the stream raises.
    """
    if isinstance(content, bytes):
        yield content
        return
    source = _Source(content)
    try:
        yield ReadableStream(source, length=content.length)
    except Exception:
        if source.failure is not None:
            raise source.failure from None
        raise


class _Source:
    """The pieces of a stream.

    Attributes:
        failure: what kept it from being read to its end.
    """

    def __init__(self, stream: ReadableStream[bytes]) -> None:
        self.failure: Exception | None = None
        self._stream = stream
        self._chunks: AsyncIterator[bytes] | None = None
        self._size = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._next()
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise

    async def _next(self) -> bytes:
        if self._chunks is None:
            self._chunks = aiter(self._stream)
        length = self._stream.length
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            if length is not None and self._size < length:
                raise ValueError(f"the content ends after {self._size} bytes, and its length is {length}") from None
            raise
        check("each chunk", chunk, bytes | bytearray | memoryview, "bytes")
        data = bytes(chunk)
        self._size += len(data)
        if length is not None and self._size > length:
            raise ValueError(f"the content has more bytes than its length, {length}")
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()
