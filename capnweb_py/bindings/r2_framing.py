"""Bodies of R2's HTTP protocol: JSON of a size that a header names, and the content of an object behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from ..web import ReadableStream

__all__ = ["ERROR_HEADER", "REQUEST_HEADER", "SIZE_HEADER", "prefixed", "split"]

# workerd, src/workerd/util/http-util.h and api/r2-rpc.c++.
REQUEST_HEADER: Final = "cf-r2-request"
SIZE_HEADER: Final = "cf-r2-metadata-size"
ERROR_HEADER: Final = "cf-r2-error"


def prefixed(prefix: bytes, content: ReadableStream[bytes] | None) -> ReadableStream[bytes]:
    """One body of both. Closing it closes the content."""
    length: int | None = len(prefix)
    if content is not None:
        length = None if content.length is None else len(prefix) + content.length
    return ReadableStream(_Joined(prefix, content), length=length)


class _Joined:
    """A piece of bytes, and a stream behind it."""

    def __init__(self, first: bytes, rest: ReadableStream[bytes] | None) -> None:
        self._first = first
        self._rest = rest
        self._iterator: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        if self._rest is None:
            raise StopAsyncIteration
        if self._iterator is None:
            self._iterator = aiter(self._rest)
        return await anext(self._iterator)

    async def aclose(self) -> None:
        if self._rest is not None:
            await self._rest.aclose()


async def split(body: ReadableStream[bytes], size: int) -> tuple[bytes, ReadableStream[bytes]]:
    """The first bytes of a body, and a stream of the rest, which closes the body when it is closed.

    Raises:
        ValueError: if the body is shorter.
    """
    taken = bytearray()
    chunks = aiter(body)
    while len(taken) < size:
        chunk = await anext(chunks, None)
        if chunk is None:
            raise ValueError(f"the body ends after {len(taken)} bytes, and {size} belong to its metadata")
        taken += chunk
    rest = None if body.length is None else body.length - size
    return bytes(taken[:size]), ReadableStream(_Rest(bytes(taken[size:]), chunks, body), length=rest)


class _Rest:
    """What is left of a body whose beginning was read."""

    def __init__(self, first: bytes, chunks: AsyncIterator[bytes], body: ReadableStream[bytes]) -> None:
        self._first = first
        self._chunks = chunks
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await anext(self._chunks)

    async def aclose(self) -> None:
        await self._body.aclose()
