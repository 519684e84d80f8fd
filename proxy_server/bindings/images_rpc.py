"""The images binding for stubs: the targets behind `env.IMAGES`, with the names of the Workers API.

    env.input(photo).transform({width: 256}).draw(env.input(logo), {bottom: 5}).output({format: "image/webp"}).image()

is one round trip. A transformer only records; `output` has the engine do it all. What is asked of a picture is
checked by the engine. Method names are the Workers API's own.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from capnweb_py.stub import RpcStub, local_target
from capnweb_py.target import RpcTarget
from proxy_server import imaging
from proxy_server.bindings.images_hosted import HostedImages
from proxy_server.bindings.images_input import (
    ImagesError,
    StreamedImage,
    given_image,
    is_base64,
    options_of,
    thrown_by,
    whole,
)
from proxy_server.bindings.images_renderer import Renderer, text_source
from proxy_server.bindings.multipart import MAX_FORM_BYTES
from proxy_server.imaging import Output, Rendered, Source, Text
from proxy_server.imaging.errors import BAD_OPTION, BAD_REQUEST, CONSUMED
from proxy_server.imaging.fields import Fields, shown
from proxy_server.imaging.options import MAX_OPERATIONS
from proxy_server.imaging.rendering import MAX_SOURCES

__all__ = ["ImageTransformationResult", "ImagesBinding", "ImagesError", "TransformerTarget"]

# How an operation says which image it is for. They come from the order of the calls, never from their options.
_INDEX_KEYS: Final = frozenset({"imageIndex", "drawImageIndex", "targetImageIndex"})


class ImagesBinding(HostedImages):
    """The main object of a session: `env.IMAGES`.

    The methods of `hosted` are its own as well: the runtime calls them there.
    """

    @property
    def hosted(self) -> HostedImages:
        """The images that are kept."""
        return HostedImages(self._renderer, self._store, self._public)

    async def info(self, image: object, options: object = None) -> dict[str, object]:
        """What kind of image it is: `{format, fileSize, width, height}`, of an SVG `{format}` alone.

        Args:
            image: the bytes of an image, in one piece or as a stream; in base64 where `options` is
                `{"encoding": "base64"}`.

        Raises:
            ImagesError: it is no image, or none that is read.
        """
        with thrown_by("INFO"):
            info = await self._renderer.probe(await whole(_image(self._renderer, "info", image, options)))
        if info.width is None:
            return {"format": info.format}
        return {"format": info.format, "fileSize": info.file_size, "width": info.width, "height": info.height}

    def input(self, image: object, options: object = None) -> TransformerTarget:
        """Begin with an image. Arguments and errors are those of `info`; a stream is read by `output`."""
        with thrown_by("TRANSFORM"):
            return TransformerTarget(self._renderer, _image(self._renderer, "input", image, options))

    def text(self, content: object, options: object = None) -> TransformerTarget:
        """Begin with a text.

        Args:
            content: a string.
            options: `font` (the name of a family that is installed on the server), `size` in points, `color`.

        Raises:
            ImagesError: an option is unknown, or the font one to be downloaded.
        """
        with thrown_by("TRANSFORM"):
            return TransformerTarget(self._renderer, text_source(content, options_of("text", options)))


class TransformerTarget(RpcTarget):
    """An image, or a text, and what is to be done to it. It is used up by `output`, or by being drawn."""

    def __init__(self, renderer: Renderer, source: Text | bytes | StreamedImage) -> None:
        self._renderer = renderer
        self._source = source
        self._steps: list[dict[str, object] | _Drawing] = []
        self._consumed = False

    def transform(self, options: object) -> TransformerTarget:
        """Do this next: width, height, fit, rotate, blur and the like. Returns the same transformer."""
        with thrown_by("TRANSFORM"):
            self._record(_step("transform", options))
        return self

    def draw(self, image: object, options: object = None) -> TransformerTarget:
        """Draw an image on this one. Returns the same transformer.

        Args:
            image: the bytes of an image, a stream of them, or a transformer of this binding, which is used up.
            options: opacity, repeat, composite, top, left, bottom, right.

        Raises:
            ImagesError: the transformer is used up already.
            TypeError: `image` is something else.
        """
        with thrown_by("TRANSFORM"):
            step = _step("draw", options)
            overlay = self._overlay(image)
            self._check_room()
            overlay._consume()
            self._record(_Drawing(overlay, step))
        return self

    async def output(self, options: object) -> ImageTransformationResult:
        """Do all that was recorded, and encode the result.

        Args:
            options: `format` ("image/webp" and the like, "rgb", "rgba"), `quality`, `background`, `anim`.

        Raises:
            ImagesError: an image, an option, or what was asked is refused; or the transformer is used up.
        """
        with thrown_by("TRANSFORM"):
            self._consume()
            output = _output(options)
            order = _Order.of(self)
            sources = await _all_read(order.sources)
            return ImageTransformationResult(await self._renderer.render(sources, order.operations, output))

    def _overlay(self, image: object) -> TransformerTarget:
        target = local_target(image) if isinstance(image, RpcStub) else image
        if isinstance(target, TransformerTarget):
            return target
        if isinstance(image, RpcStub):
            raise TypeError("draw() takes the bytes of an image or a transformer of this binding, not another stub")
        return TransformerTarget(self._renderer, _image(self._renderer, "draw", image, None))

    def _record(self, step: dict[str, object] | _Drawing) -> None:
        self._check_room()
        self._steps.append(step)

    def _check_room(self) -> None:
        if len(self._steps) == MAX_OPERATIONS:
            raise imaging.ImagingError(
                BAD_OPTION, f"There are more than {MAX_OPERATIONS} operations, which are all that is allowed"
            )

    def _consume(self) -> None:
        if self._consumed:
            # The runtime's words.
            raise imaging.ImagingError(
                CONSUMED, "ImageTransformer consumed; you may only call .output() or draw a transformer once"
            )
        self._consumed = True


class ImageTransformationResult(RpcTarget):
    """A finished image."""

    def __init__(self, rendered: Rendered) -> None:
        self._rendered = rendered

    def contentType(self) -> str:
        """The MIME type."""
        return self._rendered.content_type

    def image(self, options: object = None) -> bytes:
        """The file; in base64 where `options` is `{"encoding": "base64"}`."""
        with thrown_by("TRANSFORM"):
            fields = Fields("image", options_of("image", options))
            fields.allow("encoding")
            encoded = is_base64(fields)
        return base64.b64encode(self._rendered.data) if encoded else self._rendered.data


@attrs.frozen
class _Drawing:
    """One `draw`, as it is recorded."""

    overlay: TransformerTarget
    options: dict[str, object]


@attrs.frozen
class _Order:
    """What a transformer recorded, as the engine takes it: images by number, and one list of operations.

    A drawn image may have images drawn on it. The numbers, and the order of the operations, are those that the
    runtime gives them.
    """

    sources: list[Text | bytes | StreamedImage] = attrs.field(factory=list)
    operations: list[dict[str, object]] = attrs.field(factory=list)

    @classmethod
    def of(cls, canvas: TransformerTarget) -> _Order:
        order = cls()
        order._add(canvas)
        return order

    def _add(self, transformer: TransformerTarget) -> int:
        """Add an image with all that is drawn on it. Returns its number."""
        # The cap of the engine, asked here for the sake of the recursion. A transformer that is drawn is used up, so
        # none contains itself.
        if len(self.sources) == MAX_SOURCES:
            raise imaging.ImagingError(BAD_REQUEST, f"There are more than {MAX_SOURCES} images, which are all allowed")
        number = len(self.sources)
        self.sources.append(transformer._source)
        for step in transformer._steps:
            if isinstance(step, _Drawing):
                drawn = self._add(step.overlay)
                self.operations.append({**step.options, "drawImageIndex": drawn, "targetImageIndex": number})
            else:
                self.operations.append({**step, "imageIndex": number})
        return number


def _image(renderer: Renderer, method: str, image: object, options: object) -> bytes | StreamedImage:
    fields = Fields(method, options_of(method, options))
    fields.allow("encoding")
    return given_image(renderer.max_input_bytes, method, image, encoded=is_base64(fields))


async def _all_read(sources: Sequence[Text | bytes | StreamedImage]) -> list[Source]:
    """The images, those that are streams read one after another."""
    read: list[Source] = []
    size = 0
    for source in sources:
        image = source if isinstance(source, Text) else await whole(source)
        read.append(image)
        size += 0 if isinstance(image, Text) else len(image)
        if size > MAX_FORM_BYTES:
            raise imaging.ImagingError(BAD_REQUEST, f"The images have more than {MAX_FORM_BYTES} bytes together")
    return read


def _output(options: object) -> Output:
    fields = Fields("output", options_of("output", options))
    fields.allow(*(field.name for field in attrs.fields(Output)))
    # The engine checks the values, that of a missing format among them.
    values: Mapping[str, Any] = fields.values
    return Output(**{"format": None, **values})


def _step(method: str, options: object) -> dict[str, object]:
    step = options_of(method, options)
    for key in sorted(_INDEX_KEYS & step.keys()):
        raise imaging.ImagingError(BAD_OPTION, f"{method} has the unknown option {shown(key)}")
    return step
