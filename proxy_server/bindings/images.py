"""The "images" binding: pictures made by the engine in `proxy_server.imaging`, over both channels.

Here is its HTTP channel: the forms that the Workers runtime's own `env.IMAGES` sends (workerd,
src/cloudflare/internal/images-api.ts), and the answers that it reads. The RPC channel is in images_rpc.py, and hosted
images, which go by that one alone, in images_hosted.py; what they have for the public is in images_public.py.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from anyio.abc import TaskGroup

from capnweb_py.web import ReadableStream, Request, Response
from proxy_server.bindings import Binding, Opener
from proxy_server.bindings.images_public import PublicImages
from proxy_server.bindings.images_renderer import Renderer, text_source, too_large
from proxy_server.bindings.images_rpc import ImagesBinding
from proxy_server.bindings.images_uploads import Uploads
from proxy_server.bindings.multipart import FormError, Part, PartTooLargeError, read_form
from proxy_server.bindings.upstream import check_upstream_url
from proxy_server.imaging import ImagingError, Output, Probed, Source, Text
from proxy_server.imaging.errors import BAD_OPTION, BAD_REQUEST
from proxy_server.imaging.fields import shown
from proxy_server.imaging.sources import MAX_IMAGE_BYTES
from proxy_server.stores.images import ImageStore
from proxy_server.stores.images_files import FileImageStore
from proxy_server.tables import Table

__all__ = ["MAX_FIELD_BYTES", "ImagesService", "parse"]

# How large a field may be that is no image. The longest is `transforms`: 64 operations at most, each of which
# has room here for a thousand characters.
MAX_FIELD_BYTES: Final = 65_536

# How much of a finished picture is handed to the connection at a time.
_CHUNK_BYTES: Final = 65_536

_CANVAS_FIELDS: Final = ("image", "text_input")
_DRAWN_FIELDS: Final = ("draw_image", "draw_text")
_OPTION_FIELDS: Final = ("transforms", "output_format", "output_quality", "background", "anim")
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")

# What becomes part of a file's name.
_STORE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

_IMAGE_FIELDS: Final = frozenset({"image", "draw_image"})


def parse(table: Table, state_dir: Path) -> Opener:
    """Check the table of an images binding.

    `max_input_bytes` lowers the cap on one image file. `id` names the store of hosted images: bindings that name the
    same one, or none, share it, as those of one account do at Cloudflare. `public_url` is where the server is for those
    who upload or see images without access to the binding; where the client of the binding found it, if left out.

    Raises:
        ConfigError: if a key is unknown, or its value not valid.
    """
    max_input_bytes = table.integer("max_input_bytes", MAX_IMAGE_BYTES, low=1, high=MAX_IMAGE_BYTES)
    store_id = table.optional_text("id")
    if store_id is not None and not _STORE_ID.fullmatch(store_id):
        raise table.error('1 to 64 letters, digits, "-" and "_" are needed here', "id")
    public_url = table.optional_text("public_url")
    if public_url is not None:
        _check_public_url(table, public_url)
    table.finish()
    path = state_dir / ("images" if store_id is None else f"images-{store_id}")

    async def open_images(_tasks: TaskGroup) -> Binding:
        return ImagesService(FileImageStore(path), max_input_bytes, public_url)

    return open_images


def _check_public_url(table: Table, url: str) -> None:
    try:
        check_upstream_url(url)
    except ValueError as error:
        raise table.error(str(error), "public_url") from error
    if urlsplit(url).scheme not in {"http", "https"}:
        raise table.error("an http: or https: URL is needed here", "public_url")


class ImagesService:
    """Answers both channels. Nothing is kept between requests but hosted images.

    Args:
        store: of hosted images. It is closed with the binding.
        max_input_bytes: how large one image file may be; 1 to MAX_IMAGE_BYTES.
        public_url: the server's, for public URLs; None is the one that a client uses.
    """

    def __init__(
        self, store: ImageStore, max_input_bytes: int = MAX_IMAGE_BYTES, public_url: str | None = None
    ) -> None:
        self._store = store
        self._renderer = Renderer(max_input_bytes)
        self._public_url = public_url
        self._uploads = Uploads()
        self._public = PublicImages(self._renderer, store, self._uploads, None)

    def rpc_main(self) -> object:
        return ImagesBinding(self._renderer, self._store, self._public)

    def at(self, server: str, path: str) -> Binding:
        base = (self._public_url or server).rstrip("/")
        placed = copy.copy(self)
        placed._public = PublicImages(self._renderer, self._store, self._uploads, f"{base}/{path}")
        return placed

    async def public(self, path: str, request: Request) -> Response | None:
        return await self._public.answer(path, request)

    async def fetch(self, request: Request) -> Response:
        """Answer `POST /info` and `POST /transform`. What the engine refuses is a response that says so."""
        try:
            return await self._answer(request)
        except ImagingError as error:
            # The runtime throws an error with the number in this header, and the body as its message.
            return Response(str(error), status=error.status, headers={"cf-images-binding": f"err={error.code}"})
        finally:
            if request.body is not None:
                # Of a form that is refused, the rest is not read.
                await request.body.aclose()

    async def aclose(self) -> None:
        await self._store.aclose()

    async def _answer(self, request: Request) -> Response:
        path = urlsplit(request.url).path
        if request.method != "POST" or path not in {"/info", "/transform"}:
            raise ImagingError(
                BAD_REQUEST,
                f"{request.method} {path} is nothing that this binding answers: POST /info and POST /transform are",
                status=404,
            )
        if path == "/info":
            return await self._info(request)
        return await self._transform(request)

    async def _info(self, request: Request) -> Response:
        form = await self._form(request, ("image",))
        return Response.from_json(_info_json(await self._renderer.probe(form.one("image"))))

    async def _transform(self, request: Request) -> Response:
        form = await self._form(request, (*_CANVAS_FIELDS, *_DRAWN_FIELDS, *_OPTION_FIELDS))
        rendered = await self._renderer.render(_sources(form), _operations(form), _output(form))
        body = ReadableStream(_chunks(rendered.data), length=len(rendered.data))
        return Response(body, headers={"content-type": rendered.content_type})

    async def _form(self, request: Request, names: tuple[str, ...]) -> _Form:
        image_bytes = self._renderer.max_input_bytes
        sizes = {name: image_bytes if name in _IMAGE_FIELDS else MAX_FIELD_BYTES for name in names}
        try:
            return _Form(await read_form(request, sizes))
        except PartTooLargeError as error:
            is_image = error.field in _IMAGE_FIELDS
            raise (too_large(error.limit) if is_image else _bad_request(str(error))) from error
        except FormError as error:
            raise _bad_request(str(error)) from error


@attrs.frozen
class _Form:
    """The parts of a form, in their order."""

    parts: list[Part]

    def optional(self, name: str) -> bytes | None:
        """The content of a field that comes once or not at all."""
        found = [part.data for part in self.parts if part.name == name]
        if len(found) > 1:
            raise _bad_request(f'the field "{name}" comes {len(found)} times, and is allowed once')
        return found[0] if found else None

    def one(self, name: str) -> bytes:
        """The content of a field that has to be there."""
        data = self.optional(name)
        if data is None:
            raise _bad_request(f'the field "{name}" is missing')
        return data

    def text(self, name: str) -> str | None:
        """The same as `optional`, as text."""
        data = self.optional(name)
        return None if data is None else _utf8(name, data)


def _bad_request(problem: str) -> ImagingError:
    return ImagingError(BAD_REQUEST, f"Bad request to the Images binding: {problem}")


def _sources(form: _Form) -> list[Source]:
    """The canvas, and the images to draw, which are numbered from 1 in the order of their parts, images and
    texts alike."""
    canvas = [part for part in form.parts if part.name in _CANVAS_FIELDS]
    if len(canvas) != 1:
        raise _bad_request(f'one field "image" or "text_input" is needed, and there are {len(canvas)}')
    drawn = [part for part in form.parts if part.name in _DRAWN_FIELDS]
    return [part.data if part.name in _IMAGE_FIELDS else _text(part) for part in canvas + drawn]


def _text(part: Part) -> Text:
    values = _json(part.name, part.data)
    if not isinstance(values, dict) or "text" not in values:
        raise _bad_request(f'the field "{part.name}" is no JSON object with a "text"')
    return text_source(values.pop("text"), values)


def _operations(form: _Form) -> list[Any]:
    operations = _json("transforms", form.one("transforms"))
    if not isinstance(operations, list):
        raise _bad_request('the field "transforms" is no JSON array')
    return operations


def _output(form: _Form) -> Output:
    media_type = form.text("output_format")
    if media_type is None:
        raise _bad_request('the field "output_format" is missing')
    anim = form.text("anim")
    if anim not in {None, "true", "false"}:
        raise ImagingError(BAD_OPTION, f"output.anim must be true or false, not {shown(anim)}")
    return Output(
        media_type,
        quality=_number_or_text(form.text("output_quality")),
        background=form.text("background"),
        anim=anim != "false",
    )


def _number_or_text(value: str | None) -> Any:
    """The quality, which comes as text: a number, or one of the words for it."""
    if value is None or not _NUMBER.fullmatch(value):
        return value
    number = float(value)
    return int(number) if number.is_integer() else number


def _json(field: str, data: bytes) -> Any:
    try:
        return json.loads(_utf8(field, data))
    except (ValueError, RecursionError) as error:
        raise _bad_request(f'the field "{field}" is no JSON: {error}') from error


def _utf8(field: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _bad_request(f'the field "{field}" is no UTF-8: {error}') from error


def _info_json(info: Probed) -> dict[str, object]:
    """What the runtime makes the result of `info()` from: the field that it calls fileSize is file_size here."""
    return {key: value for key, value in attrs.asdict(info).items() if value is not None}


async def _chunks(data: bytes) -> AsyncGenerator[bytes, None]:
    """Piece by piece: a slow reader holds back the next one, and not the whole picture in its socket's buffer."""
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]
