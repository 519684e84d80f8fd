"""A body cut into chunks of the size that stores keep."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from proxy_server.stores.kv import CHUNK_BYTES

__all__ = ["in_chunks"]


async def in_chunks(body: AsyncIterable[bytes], size: int = CHUNK_BYTES) -> AsyncGenerator[bytes, None]:
    """The same bytes in chunks of one size. The last one is smaller, or not; none is empty."""
    waiting = bytearray()
    async for piece in body:
        waiting += piece
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)
