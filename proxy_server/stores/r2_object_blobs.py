"""The blobs of a bucket in an object store, an object each; and what obstore fails with, as an OSError."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import obstore
from obstore.exceptions import BaseError, NotFoundError

__all__ = ["ObjectBlobs", "answering"]

# How much of an upload is in memory: pieces of this size, two at a time. S3 takes 10,000 pieces.
_BUFFER_BYTES: Final = 8 * 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024


@contextmanager
def answering() -> Iterator[None]:
    """Have what obstore fails with raised as an OSError."""
    try:
        yield
    except BaseError as error:
        raise OSError(f"the object store: {str(error).splitlines()[0]}") from error


class ObjectBlobs:
    """Blobs, an object each."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def create(self, blob_id: str) -> ObjectWriter:
        with answering():
            return ObjectWriter(self._store, _blob_path(blob_id))

    def open(self, blob_id: str, offset: int, length: int) -> ObjectReader:
        with answering():
            return ObjectReader(self._store, _blob_path(blob_id), offset, length)

    def delete(self, blob_ids: Sequence[str]) -> None:
        for blob_id in blob_ids:
            with answering(), suppress(NotFoundError, FileNotFoundError):
                obstore.delete(self._store, _blob_path(blob_id))

    def close(self) -> None:
        """Nothing is held."""


def _blob_path(blob_id: str) -> str:
    return f"blobs/{blob_id[:2]}/{blob_id}"


class ObjectWriter:
    """An object that is being written: at once if it is small, in pieces if not."""

    def __init__(self, store: Any, path: str) -> None:
        self._file = obstore.open_writer(store, path, buffer_size=_BUFFER_BYTES, max_concurrency=2)
        self._open = True

    def write(self, data: bytes) -> None:
        with answering():
            self._file.write(data)

    def commit(self) -> None:
        self._open = False
        with answering():
            self._file.close()

    def discard(self) -> None:
        """Closing is the only way to end it; the bucket deletes what has come about."""
        if self._open:
            self._open = False
            with suppress(BaseError, OSError):
                self._file.close()


class ObjectReader:
    """A part of an object that is being read."""

    def __init__(self, store: Any, path: str, offset: int, length: int) -> None:
        try:
            found = obstore.get(store, path, options={"range": (offset, offset + length)})
        except NotFoundError as error:
            raise FileNotFoundError(path) from error
        self._chunks: Iterator[Any] = iter(found.stream(min_chunk_size=_CHUNK_BYTES))

    def read(self) -> bytes:
        with answering():
            return bytes(next(self._chunks, b""))

    def close(self) -> None:
        self._chunks = iter(())
