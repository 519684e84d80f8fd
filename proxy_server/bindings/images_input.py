"""What a peer of the images binding gives: objects of options, and images in one piece or as streams.

And how the binding's errors are thrown to it: `ImagesError`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import attrs

from capnweb_py.values import UNDEFINED, TypedArray
from capnweb_py.web import ReadableStream
from proxy_server import imaging
from proxy_server.bindings.images_renderer import too_large
from proxy_server.imaging.errors import NOT_AN_IMAGE
from proxy_server.imaging.fields import Fields

__all__ = [
    "ImagesError",
    "Operation",
    "StreamedImage",
    "given_image",
    "is_base64",
    "is_text",
    "options_of",
    "thrown_by",
    "whole",
]

Operation: TypeAlias = Literal["INFO", "TRANSFORM", "UPLOAD", "DIRECT_UPLOAD", "LIST", "UPDATE", "SIGNED_URL"]


class ImagesError(Exception):
    """What `env.IMAGES` throws: `code` is Cloudflare's number and travels with the error.

    The message has the runtime's form: "IMAGES_TRANSFORM_ERROR 9520: ...", or "IMAGES_INFO_ERROR ...".
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def thrown_by(operation: Operation) -> Iterator[None]:
    """Have the engine's errors raised as the runtime throws them."""
    try:
        yield
    except imaging.ImagingError as error:
        # None: what the image library said is not for peers.
        raise ImagesError(f"IMAGES_{operation}_{error}", error.code) from None


@attrs.frozen
class StreamedImage:
    """An image that is still to be read. Whoever drops it unread closes the stream.

    Attributes:
        stream: its bytes.
        encoded: whether they are base64.
        limit: how many bytes the image may have.
    """

    stream: ReadableStream[Any]
    encoded: bool
    limit: int

    async def read(self) -> bytes:
        """The image.

        Raises:
            ImagingError: 9402, it is too large: no more of it is read. 9412, it is not base64.
            TypeError: if a chunk is not bytes.
            Exception: what the stream fails with.
        """
        most = base64_length(self.limit) if self.encoded else self.limit
        collected = bytearray()
        try:
            async for chunk in self.stream:
                if isinstance(chunk, TypedArray):
                    chunk = bytes(chunk)
                if not isinstance(chunk, bytes):
                    raise TypeError(f"the stream of an image has to yield bytes, not {type(chunk).__name__}")
                collected += chunk
                if len(collected) > most:
                    raise too_large(self.limit)
        finally:
            await self.stream.aclose()
        return decoded(bytes(collected)) if self.encoded else bytes(collected)


def base64_length(size: int) -> int:
    """How long the base64 of so many bytes is."""
    return -(-size // 3) * 4


def given_image(limit: int, method: str, image: object, *, encoded: bool) -> bytes | StreamedImage:
    """An image as a peer gave it.

    Args:
        limit: how many bytes it may have.
        method: what it was given to, for errors.
        image: what was given.
        encoded: whether it is base64, which may be text as well.

    Raises:
        ImagingError: 9402, it is too large; 9412, it is not base64. A stream is found to be so when it is read.
        TypeError: if it is nothing that an image can be given as.
    """
    if isinstance(image, ReadableStream):
        return StreamedImage(image, encoded, limit)
    if isinstance(image, TypedArray):
        image = bytes(image)
    if isinstance(image, bytes) or (encoded and isinstance(image, str)):
        data = decoded(image) if encoded else image
        assert isinstance(data, bytes), "a str is decoded"
        if len(data) > limit:
            raise too_large(limit)
        return data
    wanted = "bytes or a str of base64" if encoded else "the bytes of an image"
    raise TypeError(f"{method}() takes {wanted}, or a stream of them, not {type(image).__name__}")


async def whole(image: bytes | StreamedImage) -> bytes:
    """All of an image. Raises as `StreamedImage.read`."""
    return await image.read() if isinstance(image, StreamedImage) else image


def decoded(text: bytes | str) -> bytes:
    """The bytes that base64 stands for. Raises ImagingError 9412 if it is none."""
    try:
        return base64.b64decode(text.strip(), validate=True)
    except ValueError as error:
        raise imaging.ImagingError(NOT_AN_IMAGE, f"The input is not base64: {error}") from error


def is_base64(fields: Fields) -> bool:
    """Whether the option `encoding` says that an image is base64."""
    encoding = fields.values.get("encoding")
    if encoding not in (None, "base64"):
        raise fields.wrong("encoding", '"base64", or left out')
    return encoding is not None


def options_of(method: str, options: object) -> dict[str, object]:
    """An object of options as a peer gave it, without what is undefined: to JavaScript that is absent."""
    if options is None or options is UNDEFINED:
        return {}
    if not isinstance(options, dict):
        raise TypeError(f"{method}() takes its options as an object, not as {type(options).__name__}")
    return _defined(options)


def _defined(options: dict[str, Any]) -> dict[str, object]:
    return {
        key: _defined(value) if isinstance(value, dict) else value
        for key, value in options.items()
        if value is not UNDEFINED and value is not None
    }


def is_text(value: str) -> bool:
    """Whether a string can be kept: JavaScript's may hold half of a character, which UTF-8 does not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
