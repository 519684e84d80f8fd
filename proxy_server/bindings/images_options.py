"""The options of hosted images, checked: what an id, metadata or a name may be, and how an image is described.

Rules and limits are those of Cloudflare's documentation: "Limits and formats", "Upload via custom path", and the schema
of the REST API.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from capnweb_py.values import UNDEFINED
from proxy_server.bindings.images_input import is_text, options_of
from proxy_server.imaging import ImagingError
from proxy_server.imaging.errors import BAD_OPTION
from proxy_server.imaging.fields import Fields
from proxy_server.stores.images import HostedImage

__all__ = [
    "DEFAULT_FILENAME",
    "MAX_CREATOR_LENGTH",
    "MAX_FILENAME_LENGTH",
    "MAX_HOSTED_BYTES",
    "MAX_ID_LENGTH",
    "MAX_META_BYTES",
    "check_signing",
    "described",
    "given_text",
    "hosted_options",
    "metadata",
    "new_id",
]

# "Limits and formats", hosted images.
MAX_HOSTED_BYTES: Final = 10_000_000
MAX_META_BYTES: Final = 1024

# "Upload via custom path", and the schema of the REST API.
MAX_ID_LENGTH: Final = 1024
MAX_FILENAME_LENGTH: Final = 255
MAX_CREATOR_LENGTH: Final = 1024

# Miniflare's, where nothing else is said.
DEFAULT_FILENAME: Final = "uploaded.jpg"
_VARIANTS: Final = ("public",)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def hosted_options(method: str, options: object) -> Fields:
    """The options of a method. What null means in metadata, and in a filter of it, is theirs to say."""
    values = options_of(method, options)
    for key in ("metadata", "filter", "metadataFilter"):
        if key in values:
            assert isinstance(options, dict), "it has a key"
            values[key] = options[key]
    return Fields(method, values)


def given_text(fields: Fields, key: str, longest: int) -> str | None:
    """A string that can be kept."""
    value = fields.values.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= longest or not is_text(value):
        raise fields.wrong(key, f"a string of 1 to {longest} characters")
    return value


def new_id(fields: Fields) -> str:
    """The id that the uploader wants, or a new UUID."""
    chosen = given_text(fields, "id", MAX_ID_LENGTH)
    if chosen is None:
        return str(uuid.uuid4())
    if chosen.startswith("/") or chosen.endswith("/"):
        raise fields.wrong("id", "a path that neither begins nor ends with a slash")
    if _UUID.fullmatch(chosen):
        raise fields.wrong("id", "something else than a UUID, which are the ids that are given to images without one")
    return chosen


def check_signing(fields: Fields, image_id: str) -> None:
    """Refuse `requireSignedURLs` for an image with an id of its uploader's."""
    if fields.flag("requireSignedURLs") and not _UUID.fullmatch(image_id):
        raise ImagingError(
            BAD_OPTION,
            f"{fields.where}.requireSignedURLs can't be true for an image with a custom id: leave one of the two out",
        )


def metadata(fields: Fields) -> Mapping[str, Any] | None:
    """The option `metadata`: what JSON can say, and not too much of it."""
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


def described(image: HostedImage) -> dict[str, object]:
    """What the Workers API calls ImageMetadata."""
    uploaded = (_EPOCH + timedelta(milliseconds=image.uploaded)).isoformat(timespec="milliseconds")
    known: dict[str, object] = {
        "id": image.id,
        "filename": image.filename,
        "uploaded": uploaded.replace("+00:00", "Z"),
        "requireSignedURLs": image.require_signed_urls,
        "meta": dict(image.meta),
        "variants": [*_VARIANTS],
        "draft": image.draft,
        "creator": image.creator,
    }
    return {key: value for key, value in known.items() if value is not None}
