"""Reading an object: a range of it is slices of its blobs, which come one after the other."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from threading import Lock
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
import attrs

from proxy_server.stores.r2_parts import Blob, BlobReader, Blobs
from proxy_server.stores.r2_sealing import SealedReader

__all__ = ["Readers", "Reading", "finish", "slices_of"]

ResultT = TypeVar("ResultT")

# How many blobs of a bucket are open to be read, not counting those that a thread is reading at the moment: well below
# the 1024 files that a process may open by default.
_MAX_OPEN: Final = 256


@attrs.frozen
class Slice:
    """A part of a blob."""

    blob: Blob
    offset: int
    length: int

    def after(self, count: int) -> Slice:
        """What is left of it when so many bytes have been read."""
        return Slice(self.blob, self.offset + count, self.length - count)


class Readers:
    """Who reads a bucket's blobs in this process, and the blobs that are to be deleted when nobody does."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._doomed: set[str] = set()
        # What those read who have ended. It is filled from any thread, and from inside the garbage collector.
        self._ended: deque[Sequence[str]] = deque()
        # Those who may have a blob open, in the order in which they opened it.
        self._open: WeakValueDictionary[int, Reading] = WeakValueDictionary()

    def begin(self, blob_ids: Sequence[str]) -> None:
        """Somebody reads these blobs."""
        self._counts.update(blob_ids)

    def end(self, reading: Reading) -> None:
        """One who has begun reads no more."""
        self._open.pop(id(reading), None)
        self._ended.append(reading.blob_ids)

    def has_read(self, reading: Reading) -> None:
        """Count a reader's blob as open. Where that is too many, who was first closes his until he reads again."""
        if id(reading) in self._open:
            return
        self._open[id(reading)] = reading
        while len(self._open) > _MAX_OPEN:
            oldest = self._open.pop(next(self._open.keys()), None)
            if oldest is not None:
                oldest.pause()

    def doom(self, blob_ids: Iterable[str]) -> None:
        """These are to be deleted."""
        self._doomed.update(blob_ids)

    def take_unread(self) -> list[str]:
        """The blobs that are to be deleted and that nobody reads. They are the caller's to delete."""
        while self._ended:
            for blob_id in self._ended.popleft():
                self._counts[blob_id] -= 1
                if not self._counts[blob_id]:
                    del self._counts[blob_id]
        unread = [blob_id for blob_id in self._doomed if blob_id not in self._counts]
        self._doomed.difference_update(unread)
        return unread


class Reading:
    """The content of an object on its way to one reader. Its blobs stay until it is read to its end, or closed, or
    nothing refers to it any more.

    What ends it is no task's to wait for: on asyncio a task may be cancelled again while it closes this.

    Args:
        blobs: where it is.
        slices: what it is made of.
        readers: is told when it begins, reads and ends.
        sweep: deletes what nobody reads any more.
        encryption: the key that they are encrypted with.
    """

    def __init__(
        self,
        blobs: Blobs,
        slices: list[Slice],
        readers: Readers,
        sweep: Callable[[], Awaitable[None]],
        encryption: bytes | None = None,
    ) -> None:
        self.blob_ids = [each.blob.id for each in slices]
        self._blobs = blobs
        self._slices = slices
        self._readers = readers
        self._sweep = sweep
        self._encryption = encryption
        self._reader: BlobReader | None = None
        # Held by the thread that reads, which may outlive the task that waits for it.
        self._lock = Lock()
        self._closed = False
        readers.begin(self.blob_ids)

    async def open(self) -> None:
        """Open the first blob. Raises FileNotFoundError if it has been deleted."""
        if self._slices:
            await self._in_thread(self._opened)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise StopAsyncIteration
        try:
            data = await self._in_thread(self._read)
        except BaseException:
            await self.aclose()
            raise
        if not data:
            await self.aclose()
            raise StopAsyncIteration
        return data

    async def _in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        def locked() -> ResultT:
            try:
                with self._lock:
                    return work()
            finally:
                if self._closed:
                    self.pause()

        result = await anyio.to_thread.run_sync(locked)
        self._readers.has_read(self)
        return result

    def _read(self) -> bytes:
        while self._slices:
            data = self._opened().read() if self._slices[0].length else b""
            if data:
                self._slices[0] = self._slices[0].after(len(data))
                return data
            del self._slices[0]
            self._shut()
        return b""

    def _opened(self) -> BlobReader:
        if self._reader is None:
            part = self._slices[0]
            if self._encryption is None:
                self._reader = self._blobs.open(part.blob.id, part.offset, part.length)
            else:
                self._reader = SealedReader(self._blobs, part.blob, self._encryption, part.offset, part.length)
        return self._reader

    def _shut(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def pause(self) -> None:
        """Close the blob until the next read, unless it is being read. Never waits."""
        if self._lock.acquire(blocking=False):
            try:
                self._shut()
            finally:
                self._lock.release()

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self.pause()
            self._readers.end(self)

    async def aclose(self) -> None:
        self._end()
        await self._sweep()

    def __del__(self) -> None:
        self._end()


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
