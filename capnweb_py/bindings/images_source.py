"""The pictures that a program gives to an images binding: bytes in one piece or in several, counted on their way.

Base64 is decoded here, as the Workers runtime does (workerd, src/cloudflare/internal/images-api.ts): what travels is
always the picture itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final, Literal, TypeAlias

import anyio

from ..errors import RemoteError, RpcError, remote_error
from ..web import ReadableStream
from .arguments import check

__all__ = ["MAX_INPUT_BYTES", "Encoding", "ImageSource", "Operation", "PictureStream", "images_error", "picture"]

# Cloudflare's documented limit for one picture that a binding is given, and its number for one that is larger. It
# is refused here already: sending it would take long, and could end the session, whose messages have a limit too.
MAX_INPUT_BYTES: Final = 20_000_000
_TOO_MANY_BYTES: Final = 9402
_NOT_AN_IMAGE: Final = 9412

# A picture: its bytes, in one piece or in several.
ImageSource: TypeAlias = bytes | bytearray | memoryview | AsyncIterable[bytes]

# How the bytes are written.
Encoding: TypeAlias = Literal["base64"]

# What a picture is for, as the runtime's errors name it.
Operation: TypeAlias = Literal["INFO", "TRANSFORM", "UPLOAD"]


def images_error(message: str, code: int) -> RemoteError:
    """The error that the binding throws."""
    return remote_error("ImagesError", message, props={"code": code})


def picture(
    source: ImageSource, operation: Operation, encoding: Encoding | None = None, *, limit: int = MAX_INPUT_BYTES
) -> bytes | PictureStream:
    """A picture, ready to be sent.

    Args:
        source: where it comes from. An async iterable is owned by what is returned.
        operation: what it is for.
        encoding: how it is written.
        limit: how many bytes it may have.

    Raises:
        TypeError: if the source is nothing that a picture comes from.
        ValueError: if there is no such encoding.
        RemoteError: if it is too large, or no base64, as the binding would say. Of several pieces, reading them finds
            out.
    """
    if encoding not in (None, "base64"):
        raise ValueError(f'the encoding of a picture is "base64", or None, not {encoding!r}')
    if isinstance(source, bytes | bytearray | memoryview):
        data = _Decoder(operation).whole(bytes(source)) if encoding else bytes(source)
        if len(data) > limit:
            raise _too_large(operation, limit)
        return data
    check("image", source, AsyncIterable, "bytes, or an async iterable of bytes")
    return PictureStream(source, operation, encoding, limit)


class PictureStream:
    """The pieces of a picture: decoded, and counted.

    One task may read it while another one closes it: whoever sends a picture reads it in a task of its own.

    Attributes:
        failure: what kept it from being read to its end. A peer that was sent the pieces says the same in its own way.
    """

    def __init__(self, source: AsyncIterable[bytes], operation: Operation, encoding: Encoding | None, limit: int):
        self.failure: Exception | None = None
        self._stream = source if isinstance(source, ReadableStream) else ReadableStream(source)
        self._operation = operation
        self._decoder = _Decoder(operation) if encoding else None
        self._limit = limit
        self._size = 0
        self._chunks: AsyncIterator[bytes] | None = None
        self._ended = False
        self._closed = False
        # While a piece is being read: what gives it up, and what says that it is over.
        self._reading: tuple[anyio.CancelScope, anyio.Event] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._closed:
            with anyio.CancelScope() as scope:
                self._reading = scope, anyio.Event()
                try:
                    return await self._next()
                except Exception as error:
                    if not isinstance(error, StopAsyncIteration):
                        self.failure = error
                    raise
                finally:
                    self._reading[1].set()
                    self._reading = None
        raise RpcError("the picture is not read any more: the call that it was for is over")

    async def _next(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        if self._chunks is None:
            self._chunks = aiter(self._stream)
        async for chunk in self._chunks:
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise TypeError(f"a picture's pieces are bytes, not {type(chunk).__name__}")
            piece = bytes(chunk) if self._decoder is None else self._decoder.feed(bytes(chunk))
            self._size += len(piece)
            if self._size > self._limit:
                raise _too_large(self._operation, self._limit)
            if piece:
                return piece
        self._ended = True
        if self._decoder is not None and (piece := self._decoder.end()):
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the source. A piece that is being read is given up."""
        self._closed = True
        if self._reading is not None:
            scope, over = self._reading
            scope.cancel()
            await over.wait()
        await self._stream.aclose()


class _Decoder:
    """Base64 in pieces."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        # Less than four characters, which stand for nothing yet; and whether the padding at the end has come.
        self._rest = b""
        self._padded = False

    def whole(self, text: bytes) -> bytes:
        return self.feed(text.strip()) + self.end()

    def feed(self, text: bytes) -> bytes:
        text = self._rest + text
        if self._padded and text:
            raise self._error("it goes on after its padding")
        complete = len(text) // 4 * 4
        self._rest = text[complete:]
        self._padded = text[complete - 1 : complete] == b"="
        return self._decode(text[:complete])

    def end(self) -> bytes:
        return self._decode(self._rest)

    def _decode(self, text: bytes) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise self._error(str(error)) from None

    def _error(self, problem: str) -> RemoteError:
        message = f"IMAGES_{self._operation}_ERROR {_NOT_AN_IMAGE}: The input is not base64: {problem}"
        return images_error(message, _NOT_AN_IMAGE)


def _too_large(operation: Operation, limit: int) -> RemoteError:
    message = f"IMAGES_{operation}_ERROR {_TOO_MANY_BYTES}: The image is too large: at most {limit} bytes are allowed"
    return images_error(message, _TOO_MANY_BYTES)
