"""Bytes that are all there, sent as a stream: one argument of a call is one message, and a session's messages have a
limit."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from ..web import ReadableStream

__all__ = ["PIECE_BYTES", "in_pieces"]

# The size of each, but the last one.
PIECE_BYTES: Final = 256 * 1024


def in_pieces(data: bytes) -> ReadableStream[bytes]:
    """The same bytes as a stream."""
    return ReadableStream(_pieces(data))


async def _pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]
