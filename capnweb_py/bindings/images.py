"""Images: look at pictures and transform them, as `env.IMAGES` of the Workers runtime does.

What is here is what a program sees. It goes over either channel: over HTTP as the forms that the runtime sends
(images_http.py), over RPC as calls (images_calls.py).
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import attrs

from ..stub import RpcStub
from ..web import HeadersInit, ReadableStream, Response
from .channels import Channels
from .images_calls import rpc_info, rpc_output
from .images_hosted import DirectUpload, HostedImages, ImageHandle, ImageList, ImageMetadata
from .images_http import http_info, http_output
from .images_order import Chain, Drawing, TextPicture
from .images_source import MAX_INPUT_BYTES, Encoding, ImageSource, PictureStream, picture

__all__ = [
    "MAX_INPUT_BYTES",
    "DirectUpload",
    "HostedImages",
    "ImageHandle",
    "ImageInfo",
    "ImageList",
    "ImageMetadata",
    "ImageResult",
    "ImageSource",
    "ImageTransformer",
    "Images",
]

# How an operation says over HTTP which picture it is for. The numbers come from the order of the calls.
_NUMBERS: Final = frozenset({"imageIndex", "drawImageIndex", "targetImageIndex"})


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

    @property
    def hosted(self) -> HostedImages:
        """The images that the binding keeps."""
        return HostedImages(self._channels)

    async def info(self, image: ImageSource, *, encoding: Encoding | None = None) -> ImageInfo:
        """What a picture is.

        Args:
            image: its bytes. An async iterable is read as fast as the binding takes it, and closed.
            encoding: "base64" if that is how the bytes are written.

        Raises:
            RemoteError: if it is none, or too large; `code` is Cloudflare's number for the reason.
        """
        given = picture(image, "INFO", encoding)
        ask = http_info if self._channels.preferred == "http" else rpc_info
        async with _sending([given] if isinstance(given, PictureStream) else []):
            info = await ask(self._channels, given)
        return ImageInfo(info["format"], info.get("fileSize"), info.get("width"), info.get("height"))

    def input(self, image: ImageSource, *, encoding: Encoding | None = None) -> ImageTransformer:
        """Begin with a picture, given as to `info`. Nothing is sent, and nothing read, before `output`."""
        return ImageTransformer(self._channels, image, encoding)

    def text(
        self, content: str, *, font: str | None = None, size: float | None = None, color: str | None = None
    ) -> ImageTransformer:
        """Begin with a picture of a text, to be drawn on others.

        Args:
            content: the text.
            font: the name of a family of fonts that the server has.
            size: in points.
            color: a CSS colour.
        """
        return ImageTransformer(
            self._channels, TextPicture(content, _without_none({"font": font, "size": size, "color": color}))
        )

    def __repr__(self) -> str:
        return f"<images {self._channels.name}>"


class ImageTransformer:
    """A picture, and what is to be done to it, in order. Options have the names of Cloudflare's documentation."""

    def __init__(self, channels: Channels, source: ImageSource | TextPicture, encoding: Encoding | None = None) -> None:
        self._channels = channels
        self._source = source
        self._encoding: Encoding | None = encoding
        # What is drawn is a transformer, too.
        self._steps: list[Mapping[str, Any] | tuple[ImageTransformer, Mapping[str, Any]]] = []
        self._consumed = False

    def transform(self, **options: Any) -> ImageTransformer:
        """Transform the picture: width, height, fit, gravity, rotate, flip, background, blur, trim ..."""
        self._steps.append(_options("transform", options))
        return self

    def draw(self, image: ImageSource | ImageTransformer, **options: Any) -> ImageTransformer:
        """Draw another picture on this one: top, left, bottom, right, opacity, repeat, composite."""
        checked = _options("draw", options)
        drawn = image if isinstance(image, ImageTransformer) else ImageTransformer(self._channels, image)
        drawn._consume()
        self._steps.append((drawn, checked))
        return self

    async def output(
        self,
        *,
        format: str,  # noqa: A002 - the option's name
        quality: int | str | None = None,
        background: str | None = None,
        anim: bool | None = None,
    ) -> ImageResult:
        """Make the picture, in one round trip.

        Args:
            format: "image/jpeg", "image/png", "image/webp", "image/avif", "image/gif", "rgb" or "rgba".
            quality: 1 to 100, or "low", "medium-low", "medium-high" or "high".
            background: a CSS colour to put underneath.
            anim: False keeps the first frame of an animation alone.

        Raises:
            RuntimeError: if the transformer has been used before.
            RemoteError: if the picture or an option is not valid; `code` is Cloudflare's number for the reason.
        """
        self._consume()
        make = http_output if self._channels.preferred == "http" else rpc_output
        output = {"format": format, "quality": quality, "background": background, "anim": anim}
        streams: list[PictureStream] = []
        async with _sending(streams):
            content_type, data = await make(self._channels, self._chain(streams), output)
        return ImageResult(content_type, data)

    def _chain(self, streams: list[PictureStream]) -> Chain:
        """All that is to be done. Pictures that are streams are added to `streams`."""
        source = self._source
        chain = Chain(source if isinstance(source, TextPicture) else picture(source, "TRANSFORM", self._encoding))
        if isinstance(chain.picture, PictureStream):
            streams.append(chain.picture)
        for step in self._steps:
            chain.steps.append(Drawing(step[0]._chain(streams), step[1]) if isinstance(step, tuple) else step)
        return chain

    def _consume(self) -> None:
        if self._consumed:
            raise RuntimeError("this transformer was used already: output() it or draw() it once")
        self._consumed = True


@asynccontextmanager
async def _sending(streams: Sequence[PictureStream]) -> AsyncIterator[None]:
    """While pictures are being sent. Where one cannot be read, that is what went wrong. All are closed at the end."""
    try:
        yield
    except Exception:
        for stream in streams:
            if stream.failure is not None:
                raise stream.failure from None
        raise
    finally:
        with anyio.CancelScope(shield=True):
            for stream in streams:
                await stream.aclose()


def _options(method: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in _NUMBERS & options.keys():
        raise TypeError(f"{method}() takes no option {name!r}: it is for the picture that it is called on")
    return _without_none(options)


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were left out as None, which to the binding would be a value."""
    return {
        name: _without_none(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if value is not None
    }
