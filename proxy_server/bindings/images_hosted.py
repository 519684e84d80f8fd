"""Hosted images for stubs: `env.IMAGES.hosted`, with the names of the Workers API.

The runtime calls these methods on the binding's main object (workerd, src/cloudflare/internal/images-api.ts); npm
capnweb finds them under `hosted` as well, where the runtime shows them. Rules and limits are those of Cloudflare's
documentation: "Manage hosted images with Workers", "Limits and formats", "Upload via custom path", and the REST API.
Where it is silent, Miniflare's images service is followed.
"""

from __future__ import annotations

import base64
import builtins
import json
import re
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from capnweb_py.target import RpcTarget
from capnweb_py.values import UNDEFINED
from capnweb_py.web import ReadableStream
from proxy_server.bindings.images_filter import conditions_of
from proxy_server.bindings.images_input import (
    ImagesError,
    given_image,
    is_base64,
    is_text,
    options_of,
    thrown_by,
    whole,
)
from proxy_server.bindings.images_renderer import Renderer
from proxy_server.imaging import ImagingError
from proxy_server.imaging.errors import BAD_OPTION
from proxy_server.imaging.fields import Fields
from proxy_server.stores.images import Changes, HostedImage, ImageStore, Position, Selection

__all__ = [
    "DEFAULT_PAGE",
    "MAX_HOSTED_BYTES",
    "MAX_ID_LENGTH",
    "MAX_META_BYTES",
    "MAX_PAGE",
    "HostedImageTarget",
    "HostedImages",
]

# "Limits and formats", hosted images.
MAX_HOSTED_BYTES: Final = 10_000_000
MAX_META_BYTES: Final = 1024

# "Upload via custom path", and the schema of the REST API.
MAX_ID_LENGTH: Final = 1024
MAX_FILENAME_LENGTH: Final = 255
MAX_CREATOR_LENGTH: Final = 1024

# How many images a page has: at most, as in the REST API, and by default, as in Miniflare.
MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 50

# The REST API's numbers.
NOT_FOUND: Final = 5404
EXISTS: Final = 5409

# Miniflare's, where nothing else is said.
_DEFAULT_FILENAME: Final = "uploaded.jpg"
_VARIANTS: Final = ("public",)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class _SortOrder(StrEnum):
    ASCENDING = "asc"
    DESCENDING = "desc"


class HostedImages(RpcTarget):
    """`env.IMAGES.hosted`.

    Args:
        renderer: looks at what is uploaded.
        store: keeps it.
    """

    def __init__(self, renderer: Renderer, store: ImageStore) -> None:
        self._renderer = renderer
        self._store = store

    async def upload(self, image: object, options: object = None) -> dict[str, object]:
        """Keep a new image. Returns what `details` does.

        Args:
            image: its bytes, in one piece or as a stream; base64 where `encoding` says so.
            options: `id`, `filename`, `requireSignedURLs`, `metadata`, `creator`, `encoding`.

        Raises:
            ImagesError: it is no image, or one that is too large; an option is not valid; the id is taken.
        """
        with thrown_by("UPLOAD"):
            values = _options("upload", options)
            values.allow("id", "filename", "requireSignedURLs", "metadata", "creator", "encoding")
            given = given_image(MAX_HOSTED_BYTES, "upload", image, encoded=is_base64(values))
            hosted = HostedImage(
                id=_new_id(values),
                uploaded=time.time_ns() // 1_000_000,
                filename=_text(values, "filename", MAX_FILENAME_LENGTH) or _DEFAULT_FILENAME,
                require_signed_urls=values.flag("requireSignedURLs") or False,
                meta=_meta(values) or {},
                creator=_text(values, "creator", MAX_CREATOR_LENGTH),
            )
            _check_signing(values, hosted.id)
            data = await whole(given)
            await self._renderer.check(data)
            if not await self._store.add(hosted, data):
                raise ImagesError(f"IMAGES_UPLOAD_ERROR {EXISTS}: Resource already exists: {hosted.id}", EXISTS)
        return _described(hosted)

    async def list(self, options: object = None) -> dict[str, object]:
        """A page of the images there are: `{images, cursor, listComplete}`.

        Args:
            options: `limit`, `cursor` (that of the page before), `sortOrder` ("asc" or "desc", by the time of the
                upload), `creator`, `metadataFilter` (see images_filter.py).

        Raises:
            ImagesError: an option is not valid.
        """
        with thrown_by("LIST"):
            values = _options("list", options)
            values.allow("limit", "cursor", "sortOrder", "creator", "metadataFilter")
            limit = values.integer("limit", 1, MAX_PAGE) or DEFAULT_PAGE
            selection = Selection(
                limit=limit + 1,  # the one more tells whether there is another page
                after=_position(values),
                newest_first=values.choice("sortOrder", _SortOrder) is _SortOrder.DESCENDING,
                creator=_text(values, "creator", MAX_CREATOR_LENGTH),
                conditions=conditions_of(values.values.get("metadataFilter")),
            )
            found = await self._store.select(selection)
        page = {"images": [_described(image) for image in found[:limit]], "listComplete": len(found) <= limit}
        return page if page["listComplete"] else {**page, "cursor": _cursor(found[limit - 1].position)}

    def image(self, image_id: object) -> HostedImageTarget:
        """The image of an id, whether there is one or not."""
        if not isinstance(image_id, str):
            raise TypeError(f"image() takes the id of an image, a string, not {type(image_id).__name__}")
        return HostedImageTarget(self._store, image_id)


class HostedImageTarget(RpcTarget):
    """One hosted image, or one that there is not."""

    def __init__(self, store: ImageStore, image_id: str) -> None:
        self._store = store
        self._id = image_id

    async def details(self) -> dict[str, object] | None:
        """What is known of it; None if there is none."""
        if not is_text(self._id):
            return None
        image = await self._store.details(self._id)
        return None if image is None else _described(image)

    async def bytes(self) -> ReadableStream[builtins.bytes] | None:
        """The file as it was uploaded; None if there is none."""
        return await self._store.data(self._id) if is_text(self._id) else None

    async def update(self, options: object = None) -> dict[str, object]:
        """Change what is known of it. Returns what `details` does.

        Args:
            options: `requireSignedURLs`, `metadata` (all of it anew), `creator`. What is left out stays.

        Raises:
            ImagesError: there is no such image, or an option is not valid.
        """
        with thrown_by("UPDATE"):
            values = _options("update", options)
            values.allow("requireSignedURLs", "metadata", "creator")
            _check_signing(values, self._id)
            changes = Changes(
                require_signed_urls=values.flag("requireSignedURLs"),
                meta=_meta(values),
                creator=_text(values, "creator", MAX_CREATOR_LENGTH),
            )
        image = await self._store.update(self._id, changes) if is_text(self._id) else None
        if image is None:
            # Miniflare's words.
            raise ImagesError(f"Image not found: {self._id}", NOT_FOUND)
        return _described(image)

    async def delete(self) -> bool:
        """Remove it. Whether there was one."""
        return is_text(self._id) and await self._store.delete(self._id)


def _options(method: str, options: object) -> Fields:
    """The options of a method. What null means in metadata, and in a filter of it, is theirs to say."""
    values = options_of(method, options)
    for key in ("metadata", "metadataFilter"):
        if key in values:
            assert isinstance(options, dict), "it has a key"
            values[key] = options[key]
    return Fields(method, values)


def _text(fields: Fields, key: str, longest: int) -> str | None:
    value = fields.values.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= longest or not is_text(value):
        raise fields.wrong(key, f"a string of 1 to {longest} characters")
    return value


def _new_id(fields: Fields) -> str:
    """The id that the uploader wants, or a new UUID."""
    chosen = _text(fields, "id", MAX_ID_LENGTH)
    if chosen is None:
        return str(uuid.uuid4())
    if chosen.startswith("/") or chosen.endswith("/"):
        raise fields.wrong("id", "a path that neither begins nor ends with a slash")
    if _UUID.fullmatch(chosen):
        raise fields.wrong("id", "something else than a UUID, which are the ids that are given to images without one")
    return chosen


def _check_signing(fields: Fields, image_id: str) -> None:
    if fields.flag("requireSignedURLs") and not _UUID.fullmatch(image_id):
        raise ImagingError(
            BAD_OPTION,
            f"{fields.where}.requireSignedURLs can't be true for an image with a custom id: leave one of the two out",
        )


def _meta(fields: Fields) -> Mapping[str, Any] | None:
    meta = fields.values.get("metadata")
    if meta is None:
        return None
    if not isinstance(meta, dict):
        raise fields.wrong("metadata", "an object")
    try:
        meta = {key: _without_undefined(member) for key, member in meta.items() if member is not UNDEFINED}
        size = len(json.dumps(meta, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ImagingError(BAD_OPTION, f"{fields.where}.metadata is nothing that JSON can say: {error}") from error
    if size > MAX_META_BYTES:
        raise ImagingError(
            BAD_OPTION, f"{fields.where}.metadata has {size} bytes as JSON; at most {MAX_META_BYTES} are allowed"
        )
    return meta


def _without_undefined(value: Any) -> Any:
    """A value without the members that are undefined, which JSON.stringify leaves out."""
    if isinstance(value, dict):
        return {key: _without_undefined(member) for key, member in value.items() if member is not UNDEFINED}
    if isinstance(value, list):
        return [None if item is UNDEFINED else _without_undefined(item) for item in value]
    return value


def _described(image: HostedImage) -> dict[str, object]:
    """What the Workers API calls ImageMetadata."""
    uploaded = (_EPOCH + timedelta(milliseconds=image.uploaded)).isoformat(timespec="milliseconds")
    described: dict[str, object] = {
        "id": image.id,
        "filename": image.filename,
        "uploaded": uploaded.replace("+00:00", "Z"),
        "requireSignedURLs": image.require_signed_urls,
        "meta": dict(image.meta),
        "variants": [*_VARIANTS],
        "draft": False,
    }
    return described if image.creator is None else {**described, "creator": image.creator}


def _cursor(position: Position) -> str:
    return base64.urlsafe_b64encode(json.dumps([position.uploaded, position.id]).encode()).decode()


def _position(fields: Fields) -> Position | None:
    cursor: Any = fields.values.get("cursor")
    if cursor is None:
        return None
    try:
        uploaded, image_id = json.loads(base64.urlsafe_b64decode(cursor))
        if type(uploaded) is not int or abs(uploaded) >= 1 << 63 or not is_text(image_id):
            raise ValueError
    except (TypeError, ValueError, RecursionError):
        raise fields.wrong("cursor", "the cursor of a page before") from None
    return Position(uploaded, image_id)
