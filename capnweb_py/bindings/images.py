"""Images: look at pictures and transform them, as `env.IMAGES` of the Workers runtime does."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal, TypeAlias

import anyio
import attrs

from ..errors import RemoteError, remote_error
from ..stub import RpcStub
from ..web import HeadersInit, ReadableStream, Response
from .channels import Channels

__all__ = ["MAX_INPUT_BYTES", "ImageInfo", "ImageResult", "ImageSource", "ImageTransformer", "Images"]

# Cloudflare's documented limit for one picture that a binding is given, and its number for one that is larger. It
# is refused here already: sending it would take long, and could end the session, whose messages have a limit too.
MAX_INPUT_BYTES: Final = 20_000_000
_TOO_MANY_BYTES: Final = 9402

# A picture: its bytes, in one piece or in several.
ImageSource: TypeAlias = bytes | bytearray | memoryview | AsyncIterable[bytes]


@attrs.frozen
class ImageInfo:
    """What a picture is.

    Attributes:
        format: its MIME type, such as "image/jpeg".
        file_size: in bytes. None for a picture without pixels of its own (SVG), as are the next two.
        width: in pixels, as it is shown.
        height: in pixels, as it is shown.
    """

    format: str
    file_size: int | None = None
    width: int | None = None
    height: int | None = None


@attrs.frozen
class ImageResult:
    """A picture that was made.

    Attributes:
        content_type: its MIME type.
        data: its bytes.
    """

    content_type: str
    data: builtins.bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")

    def image(self) -> ReadableStream[builtins.bytes]:
        """The bytes as a stream."""

        async def whole() -> AsyncIterator[builtins.bytes]:
            yield self.data

        return ReadableStream(whole(), length=len(self.data))

    async def bytes(self) -> builtins.bytes:
        """The bytes."""
        return self.data

    def response(self, *, headers: HeadersInit | None = None) -> Response:
        """An HTTP response that is the picture."""
        response = Response(self.data, headers=headers)
        response.headers["content-type"] = self.content_type
        return response

    def __bytes__(self) -> builtins.bytes:
        return self.data


class Images:
    """The facade of an images binding.

    result = await env.IMAGES.input(jpeg).transform(width=256).output(format="image/webp")
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    @property
    def rpc(self) -> RpcStub:
        """The stub of the remote binding, with the methods that the Workers runtime's has."""
        return self._channels.rpc

    async def info(self, image: ImageSource, **options: Any) -> ImageInfo:
        """What a picture is.

        Raises:
            RemoteError: if it is none, or too large; `code` is Cloudflare's number for the reason.
        """
        data = await _whole(image, "INFO", options)
        info = await self._channels.rpc.info(data, *_optional(options))
        return ImageInfo(info["format"], info.get("fileSize"), info.get("width"), info.get("height"))

    def input(self, image: ImageSource, **options: Any) -> ImageTransformer:
        """Begin with a picture. Nothing is sent before `output`."""
        return ImageTransformer(self._channels, "input", image, options)

    def text(self, content: str, **options: Any) -> ImageTransformer:
        """Begin with a picture of a text, to be drawn on others. Options: font, size, color."""
        return ImageTransformer(self._channels, "text", content, options)

    def __repr__(self) -> str:
        return f"<images {self._channels.name}>"


class ImageTransformer:
    """A picture, and what is to be done to it, in order. Options have the names of Cloudflare's documentation."""

    def __init__(self, channels: Channels, origin: str, source: Any, options: Mapping[str, Any]) -> None:
        self._channels = channels
        # The remote method that makes the picture ("input" or "text"), what it is made of, and its options.
        self._origin = origin
        self._source = source
        self._options = options
        self._steps: list[tuple[str, Any, Mapping[str, Any]]] = []
        self._consumed = False

    def transform(self, **options: Any) -> ImageTransformer:
        """Transform the picture: width, height, fit, gravity, rotate, flip, background, blur, trim ..."""
        self._steps.append(("transform", None, options))
        return self

    def draw(self, image: ImageSource | ImageTransformer, **options: Any) -> ImageTransformer:
        """Draw another picture on this one: top, left, bottom, right, opacity, repeat, composite."""
        if isinstance(image, ImageTransformer):
            image._consume()
        self._steps.append(("draw", image, options))
        return self

    async def output(self, *, format: str, **options: Any) -> ImageResult:  # noqa: A002 - the option's name
        """Make the picture, in one round trip.

        Args:
            format: "image/jpeg", "image/png", "image/webp", "image/avif", "image/gif", "rgb" or "rgba".
            options: quality (1 to 100), background, anim.

        Raises:
            RuntimeError: if the transformer has been used before.
            RemoteError: if the picture or an option is not valid; `code` is Cloudflare's number for the reason.
        """
        self._consume()
        remote = await self._remote()
        result = remote.output({"format": format, **options})
        content_type, data = await _both(result.contentType(), result.image())
        return ImageResult(content_type, data)

    async def _remote(self) -> RpcStub:
        """The promise of the remote transformer with all steps taken. Awaits the pictures, and nothing remote."""
        source = self._source if self._origin == "text" else await _whole(self._source, "TRANSFORM", self._options)
        remote: RpcStub = self._channels.rpc[self._origin](source, *_optional(self._options))
        for name, image, options in self._steps:
            if name == "transform":
                remote = remote.transform(dict(options))
            elif isinstance(image, ImageTransformer):
                remote = remote.draw(await image._remote(), *_optional(options))
            else:
                remote = remote.draw(await _whole(image, "TRANSFORM"), *_optional(options))
        return remote

    def _consume(self) -> None:
        if self._consumed:
            raise RuntimeError("this transformer was used already: output() it or draw() it once")
        self._consumed = True


def _optional(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Options as an argument, which is left out where there are none."""
    return [dict(options)] if options else []


async def _both(first: Any, second: Any) -> tuple[Any, Any]:
    """Two promises' values, asked for together."""
    values: dict[str, Any] = {}

    async def put(name: str, promise: Any) -> None:
        values[name] = await promise

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(put, "first", first)
            tasks.start_soon(put, "second", second)
    except* Exception as group:
        raise group.exceptions[0] from None
    return values["first"], values["second"]


async def _whole(
    image: ImageSource, operation: Literal["INFO", "TRANSFORM"], options: Mapping[str, Any] | None = None
) -> bytes:
    """The bytes of a picture. Raises what the binding would throw for more of them than it takes."""
    encoded = options is not None and options.get("encoding") == "base64"
    # Base64 has four characters for three bytes, and fills up the last three.
    limit = -(-MAX_INPUT_BYTES // 3) * 4 if encoded else MAX_INPUT_BYTES
    if isinstance(image, (bytes, bytearray, memoryview)):
        if memoryview(image).nbytes > limit:
            raise _too_large(operation)
        return bytes(image)
    if not isinstance(image, AsyncIterable):
        raise TypeError(f"a picture is bytes, or an async iterable of bytes, not {type(image).__name__}")
    whole = bytearray()
    async with aclosing(ReadableStream(image)) as stream:
        async for chunk in stream:
            whole += chunk
            if len(whole) > limit:
                raise _too_large(operation)
    return bytes(whole)


def _too_large(operation: str) -> RemoteError:
    message = f"IMAGES_{operation}_ERROR {_TOO_MANY_BYTES}: The image is too large: at most {MAX_INPUT_BYTES} bytes"
    return remote_error("ImagesError", f"{message} are allowed", props={"code": _TOO_MANY_BYTES})
