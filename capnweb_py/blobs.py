"""Blobs on their way in. One arrives when it is whole: its stream is read in the background, and the value that it is
in waits for it as for a promise (protocol, section "Web types").
"""

from __future__ import annotations

from functools import partial

import anyio

from .errors import LimitExceeded, RpcError
from .hooks import ErrorHook, Hook, PromiseHook
from .local import PayloadHook
from .loops import Spawn
from .payload import Payload
from .web import Blob, ReadableStream

__all__ = ["BlobReader"]


class BlobReader:
    """Reads the blobs of one session.

    Args:
        spawn: starts the task that reads one.
        limit: `Limits.max_blob_size`.
    """

    def __init__(self, spawn: Spawn, limit: int) -> None:
        self._spawn = spawn
        self._limit = limit
        # Bytes of all blobs that are being read.
        self._held = 0

    def read(self, stream: ReadableStream[object], media_type: str) -> Hook:
        """Read a stream to its end. Returns the promise of the blob."""
        promise = PromiseHook()
        self._spawn(partial(self._fulfil, promise, stream, media_type))
        return promise

    async def _fulfil(self, promise: PromiseHook, stream: ReadableStream[object], media_type: str) -> None:
        data = bytearray()
        try:
            async for chunk in stream:
                self._add(data, chunk)
            result: Hook = PayloadHook(Payload(Blob(bytes(data), media_type)))
        except anyio.get_cancelled_exc_class():
            promise.settle(ErrorHook(RpcError("the session ended before the blob was whole")))
            raise
        except Exception as error:
            # That the reader stops tells the writer to.
            await stream.aclose()
            result = ErrorHook(error)
        finally:
            self._held -= len(data)
        promise.settle(result)

    def _add(self, data: bytearray, chunk: object) -> None:
        if not isinstance(chunk, bytes):
            raise TypeError(
                f"the stream of a blob has a chunk of the type {type(chunk).__name__}: each has to be bytes"
            )
        if self._held + len(chunk) > self._limit:
            raise LimitExceeded(f"more than max_blob_size = {self._limit} bytes of blobs are on their way")
        self._held += len(chunk)
        data += chunk
