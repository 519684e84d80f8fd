"""Reading an object: a range of it is slices of its blobs, which come one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import anyio
import anyio.to_thread
import attrs

from proxy_server.stores.r2_parts import Blob, BlobReader, Blobs
from proxy_server.stores.r2_sealing import SealedReader

__all__ = ["Reading", "finish", "slices_of"]


@attrs.frozen
class Slice:
    """A part of a blob, not empty."""

    blob: Blob
    offset: int
    length: int


class Reading:
    """The content of an object on its way to one reader. Its blobs stay until it is read to its end, or closed.

    Args:
        blobs: where it is.
        slices: what it is made of.
        release: what is told of the blobs that are not read any more.
        encryption: the key that they are encrypted with.
    """

    def __init__(
        self,
        blobs: Blobs,
        slices: list[Slice],
        release: Callable[[Sequence[str]], Awaitable[None]],
        encryption: bytes | None = None,
    ) -> None:
        self.blob_ids = [each.blob.id for each in slices]
        self._blobs = blobs
        self._slices = slices
        self._release = release
        self._encryption = encryption
        self._reader: BlobReader | None = None
        self._closed = False

    async def open(self) -> None:
        """Open the first blob. Raises FileNotFoundError if it has been deleted."""
        if self._slices:
            self._reader = await anyio.to_thread.run_sync(self._open, self._slices.pop(0))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise StopAsyncIteration
        try:
            data = await anyio.to_thread.run_sync(self._next)
        except BaseException:
            await self.aclose()
            raise
        if not data:
            await self.aclose()
            raise StopAsyncIteration
        return data

    def _next(self) -> bytes:
        while True:
            if self._reader is None:
                if not self._slices:
                    return b""
                self._reader = self._open(self._slices.pop(0))
            data = self._reader.read()
            if data:
                return data
            self._reader.close()
            self._reader = None

    def _open(self, part: Slice) -> BlobReader:
        if self._encryption is None:
            return self._blobs.open(part.blob.id, part.offset, part.length)
        return SealedReader(self._blobs, part.blob, self._encryption, part.offset, part.length)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._reader is not None:
            await finish(self._reader.close)
        await self._release(self.blob_ids)


def slices_of(blobs: Sequence[Blob], offset: int, length: int) -> list[Slice]:
    """Where a range of an object is in its blobs."""
    slices = []
    begin = 0
    for blob in blobs:
        first = max(offset - begin, 0)
        last = min(offset + length - begin, blob.size)
        if first < last:
            slices.append(Slice(blob, first, last - first))
        begin += blob.size
    return slices


async def finish(work: Callable[[], None]) -> None:
    """Do a last piece of work in a thread, even while being cancelled."""
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(work)
