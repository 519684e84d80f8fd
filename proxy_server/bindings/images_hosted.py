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
import time
from enum import StrEnum
from typing import Any, Final

from capnweb_py.target import RpcTarget
from capnweb_py.web import ReadableStream
from proxy_server.bindings.images_filter import conditions_of
from proxy_server.bindings.images_input import (
    ImagesError,
    Operation,
    given_image,
    is_base64,
    is_text,
    thrown_by,
    whole,
)
from proxy_server.bindings.images_options import (
    DEFAULT_FILENAME,
    MAX_CREATOR_LENGTH,
    MAX_FILENAME_LENGTH,
    MAX_HOSTED_BYTES,
    check_signing,
    described,
    given_text,
    hosted_options,
    metadata,
    new_id,
)
from proxy_server.bindings.images_public import PublicImages
from proxy_server.bindings.images_renderer import Renderer
from proxy_server.imaging.fields import Fields
from proxy_server.stores.images import Changes, HostedImage, ImageStore, Position, Selection

__all__ = [
    "DEFAULT_PAGE",
    "MAX_PAGE",
    "HostedImageTarget",
    "HostedImages",
]

# How many images a page has: at most, as in the REST API, and by default, as in Miniflare.
MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 50

# The REST API's numbers.
NOT_FOUND: Final = 5404
EXISTS: Final = 5409


class _SortOrder(StrEnum):
    ASCENDING = "asc"
    DESCENDING = "desc"


class HostedImages(RpcTarget):
    """`env.IMAGES.hosted`.

    Args:
        renderer: looks at what is uploaded.
        store: keeps it.
        public: makes URLs for those who have no access to the binding.
    """

    def __init__(self, renderer: Renderer, store: ImageStore, public: PublicImages) -> None:
        self._renderer = renderer
        self._store = store
        self._public = public

    async def upload(self, image: object, options: object = None) -> dict[str, object]:
        """Keep a new image. Returns what `details` does.

        Args:
            image: its bytes, in one piece or as a stream; base64 where `encoding` says so.
            options: `id`, `filename`, `requireSignedURLs`, `metadata`, `creator`, `encoding`.

        Raises:
            ImagesError: it is no image, or one that is too large; an option is not valid; the id is taken.
        """
        with thrown_by("UPLOAD"):
            values = hosted_options("upload", options)
            values.allow("id", "filename", "requireSignedURLs", "metadata", "creator", "encoding")
            given = given_image(MAX_HOSTED_BYTES, "upload", image, encoded=is_base64(values))
            hosted = HostedImage(
                id=new_id(values),
                uploaded=time.time_ns() // 1_000_000,
                filename=given_text(values, "filename", MAX_FILENAME_LENGTH) or DEFAULT_FILENAME,
                require_signed_urls=values.flag("requireSignedURLs") or False,
                meta=metadata(values) or {},
                creator=given_text(values, "creator", MAX_CREATOR_LENGTH),
            )
            check_signing(values, hosted.id)
            data = await whole(given)
            await self._renderer.check(data)
            if not await self._store.add(hosted, data):
                raise _taken("UPLOAD", hosted.id)
        return described(hosted)

    async def createDirectUpload(self, options: object = None) -> dict[str, object]:
        """Let somebody without access to the binding upload one image: `{id, uploadURL}`.

        Until then the image is a draft: `details` knows it, `list` does not.

        Args:
            options: `id`, `requireSignedURLs`, `metadata`, `creator`, and `expiresIn`, in seconds.

        Raises:
            ImagesError: an option is not valid, or the id is taken.
            BindingError: there is no server that could take the upload.
        """
        with thrown_by("DIRECT_UPLOAD"):
            values = hosted_options("createDirectUpload", options)
            values.allow("id", "requireSignedURLs", "metadata", "creator", "expiresIn")
            announced = HostedImage(
                id=new_id(values),
                uploaded=time.time_ns() // 1_000_000,
                filename=None,
                require_signed_urls=values.flag("requireSignedURLs") or False,
                meta=metadata(values) or {},
                creator=given_text(values, "creator", MAX_CREATOR_LENGTH),
                draft=True,
            )
            check_signing(values, announced.id)
            upload_url = await self._public.announce(announced, values)
            if upload_url is None:
                raise _taken("DIRECT_UPLOAD", announced.id)
        return {"id": announced.id, "uploadURL": upload_url}

    async def list(self, options: object = None) -> dict[str, object]:
        """A page of the images there are: `{images, cursor, listComplete}`.

        Args:
            options: `limit`, `cursor` (that of the page before), `sortOrder` ("asc" or "desc", by the time of the
                upload), `creator`, `filter` with `metadata` in it (see images_filter.py), which Cloudflare's
                documentation calls `metadataFilter`.

        Raises:
            ImagesError: an option is not valid.
        """
        with thrown_by("LIST"):
            values = hosted_options("list", options)
            values.allow("limit", "cursor", "sortOrder", "creator", "filter", "metadataFilter")
            limit = values.integer("limit", 1, MAX_PAGE) or DEFAULT_PAGE
            selection = Selection(
                limit=limit + 1,  # the one more tells whether there is another page
                after=_position(values),
                newest_first=values.choice("sortOrder", _SortOrder) is _SortOrder.DESCENDING,
                creator=given_text(values, "creator", MAX_CREATOR_LENGTH),
                conditions=conditions_of(values),
            )
            found = await self._store.select(selection)
        page = {"images": [described(image) for image in found[:limit]], "listComplete": len(found) <= limit}
        return page if page["listComplete"] else {**page, "cursor": _cursor(found[limit - 1].position)}

    def image(self, image_id: object) -> HostedImageTarget:
        """The image of an id, whether there is one or not."""
        if not isinstance(image_id, str):
            raise TypeError(f"image() takes the id of an image, a string, not {type(image_id).__name__}")
        return HostedImageTarget(self._store, self._public, image_id)


class HostedImageTarget(RpcTarget):
    """One hosted image, or one that there is not."""

    def __init__(self, store: ImageStore, public: PublicImages, image_id: str) -> None:
        self._store = store
        self._public = public
        self._id = image_id

    async def details(self) -> dict[str, object] | None:
        """What is known of it; None if there is none."""
        if not is_text(self._id):
            return None
        image = await self._store.details(self._id)
        return None if image is None else described(image)

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
            values = hosted_options("update", options)
            values.allow("requireSignedURLs", "metadata", "creator")
            check_signing(values, self._id)
            changes = Changes(
                require_signed_urls=values.flag("requireSignedURLs"),
                meta=metadata(values),
                creator=given_text(values, "creator", MAX_CREATOR_LENGTH),
            )
        image = await self._store.update(self._id, changes) if is_text(self._id) else None
        if image is None:
            # Miniflare's words.
            raise ImagesError(f"Image not found: {self._id}", NOT_FOUND)
        return described(image)

    async def signedUrl(self, options: object = None) -> str:
        """A URL at which whoever has it gets the image, whether there is one or not.

        Args:
            options: `variant`, any name: all of them show the file as it was uploaded; `expiresIn`, in seconds.

        Raises:
            ImagesError: an option is not valid.
            BindingError: there is no server that could deliver the image.
        """
        with thrown_by("SIGNED_URL"):
            values = hosted_options("signedUrl", options)
            values.allow("variant", "expiresIn", "keyName")
            return await self._public.signed_url(self._id, values)

    async def delete(self) -> bool:
        """Remove it. Whether there was one."""
        return is_text(self._id) and await self._store.delete(self._id)


def _taken(operation: Operation, image_id: str) -> ImagesError:
    return ImagesError(f"IMAGES_{operation}_ERROR {EXISTS}: Resource already exists: {image_id}", EXISTS)


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
