"""What a bucket's methods give: objects with and without content, pages of listings, and what is known of an object."""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final, Self

import attrs

from ..web import Blob, Headers, ReadableStream
from .given import given
from .r2_requests import CHECKSUMS, HTTP_METADATA

__all__ = [
    "R2Checksums",
    "R2HttpMetadata",
    "R2Object",
    "R2ObjectBody",
    "R2Objects",
    "R2Range",
    "R2UploadedPart",
    "date_of",
    "object_from_fields",
    "object_from_rpc",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen
class R2HttpMetadata:
    """HTTP headers of an object."""

    content_type: str | None = None
    content_language: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    cache_control: str | None = None
    cache_expiry: datetime | None = None

    def to_options(self) -> dict[str, Any]:
        """By the names of the Workers API; those that there are."""
        pairs = zip(HTTP_METADATA, attrs.astuple(self), strict=True)
        return {name: value for name, value in pairs if value is not None}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """What `to_options` made."""
        return cls(*(options.get(name) for name in HTTP_METADATA))


@attrs.frozen
class R2Checksums:
    """The checksums that are known of an object."""

    md5: bytes | None = None
    sha1: bytes | None = None
    sha256: bytes | None = None
    sha384: bytes | None = None
    sha512: bytes | None = None


@attrs.frozen
class R2Range:
    """A part of an object, in bytes: from an offset, or its last ones."""

    offset: int | None = None
    length: int | None = None
    suffix: int | None = None

    def to_options(self) -> dict[str, int]:
        """By the names of the Workers API; those that there are."""
        return given(**attrs.asdict(self))


@attrs.frozen
class R2Object:
    """An object without its content.

    Attributes:
        key: its name.
        version: changes with each write.
        size: in bytes.
        etag: without quotes; `http_etag` has them.
        uploaded: when it was written.
        checksums: those that are known.
        http_metadata: its HTTP headers. None in a listing that does not include them.
        custom_metadata: the writer's own names and values. None in a listing that does not include them.
        range: what part of it was asked for.
        storage_class: "Standard" or "InfrequentAccess".
        ssec_key_md5: of the key that the content is encrypted with, in base64. None if it is not.
    """

    key: str
    version: str
    size: int
    etag: str
    uploaded: datetime
    checksums: R2Checksums = R2Checksums()
    http_metadata: R2HttpMetadata | None = None
    custom_metadata: Mapping[str, str] | None = None
    range: R2Range | None = None
    storage_class: str = "Standard"
    ssec_key_md5: str | None = None

    @property
    def http_etag(self) -> str:
        """The ETag in quotes, for a header."""
        return f'"{self.etag}"'

    def write_http_metadata(self, headers: Headers) -> None:
        """Set the headers that the object's HTTP metadata say.

        Raises:
            TypeError: if the object is of a listing without them.
        """
        if self.http_metadata is None:
            raise TypeError(
                f"HTTP metadata unknown for key `{self.key}`. "
                "Did you forget to add 'httpMetadata' to `include` when listing?"
            )
        for name, value in self.http_metadata.to_options().items():
            text = format_datetime(value, usegmt=True) if isinstance(value, datetime) else value
            headers[HTTP_METADATA[name]] = text


@attrs.frozen
class R2ObjectBody(R2Object):
    """An object with its content, which is read once: `async for chunk in obj`, or one of the methods.

    One that is not read to its end is closed: `await obj.aclose()`, or `async with obj:`.
    """

    body: ReadableStream[builtins.bytes] = attrs.field(kw_only=True)

    @property
    def body_used(self) -> bool:
        """Whether reading has begun."""
        return self.body.locked

    def __aiter__(self) -> AsyncIterator[builtins.bytes]:
        return aiter(self.body)

    async def bytes(self) -> builtins.bytes:
        """All of the content.

        Raises:
            TypeError: if it was read before.
        """
        if self.body.locked:
            raise TypeError(
                "Body has already been used. It can only be used once. Use tee() first if you need to read it twice."
            )
        try:
            return b"".join([bytes(chunk) async for chunk in self.body])
        finally:
            await self.body.aclose()

    async def text(self) -> str:
        """All of the content as UTF-8 text; what is malformed reads as U+FFFD."""
        return (await self.bytes()).decode("utf-8", "replace").removeprefix("\ufeff")

    async def json(self) -> Any:
        """All of the content as a JSON value. Raises json.JSONDecodeError if it is none."""
        return json.loads(await self.text())

    async def blob(self) -> Blob:
        """All of the content, with its type."""
        kind = None if self.http_metadata is None else self.http_metadata.content_type
        return Blob(await self.bytes(), kind or "")

    async def aclose(self) -> None:
        """Stop reading."""
        await self.body.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


@attrs.frozen
class R2Objects:
    """A page of a listing.

    Attributes:
        objects: in the order of their keys.
        truncated: whether there are more.
        cursor: what to go on with, if there are.
        delimited_prefixes: what stands for the keys that the delimiter divides.
    """

    objects: list[R2Object]
    truncated: bool
    cursor: str | None
    delimited_prefixes: list[str]


@attrs.frozen
class R2UploadedPart:
    """A part of a multipart upload, for `complete`."""

    part_number: int
    etag: str


def object_from_fields(
    fields: Mapping[str, Any], body: ReadableStream[builtins.bytes] | None = None, *, listed: bool = False
) -> R2Object:
    """An object of the fields that the HTTP protocol has. In a listing, metadata that are missing are unknown."""
    http, custom = fields.get("httpFields"), fields.get("customFields")
    if not listed:
        http, custom = http or {}, custom or []
    if http is not None and "cacheExpiry" in http:
        http = {**http, "cacheExpiry": date_of(int(http["cacheExpiry"]))}
    numbers = fields.get("checksums") or {}
    digests = [numbers.get(str(number)) for number in range(len(CHECKSUMS))]
    values: dict[str, Any] = {
        "key": fields["name"],
        "version": fields["version"],
        "size": int(fields["size"]),
        "etag": fields["etag"],
        "uploaded": date_of(int(fields["uploaded"])),
        "checksums": R2Checksums(*(None if digest is None else bytes.fromhex(digest) for digest in digests)),
        "http_metadata": None if http is None else R2HttpMetadata.from_options(http),
        "custom_metadata": None if custom is None else {pair["k"]: pair["v"] for pair in custom},
        "range": _range(fields.get("range")),
        "storage_class": fields.get("storageClass") or "Standard",
        "ssec_key_md5": (fields.get("ssec") or {}).get("keyMd5"),
    }
    return R2Object(**values) if body is None else R2ObjectBody(**values, body=body)


def object_from_rpc(fields: Mapping[str, Any], *, listed: bool = False) -> R2Object:
    """An object of the properties that it has in JavaScript."""
    http, custom = fields.get("httpMetadata"), fields.get("customMetadata")
    if not listed:
        http, custom = http or {}, custom or {}
    values: dict[str, Any] = {
        "key": fields["key"],
        "version": fields["version"],
        "size": fields["size"],
        "etag": fields["etag"],
        "uploaded": fields["uploaded"],
        "checksums": R2Checksums(**{name: bytes(value) for name, value in fields["checksums"].items()}),
        "http_metadata": None if http is None else R2HttpMetadata.from_options(http),
        "custom_metadata": custom,
        "range": _range(fields.get("range")),
        "storage_class": fields["storageClass"],
        "ssec_key_md5": fields.get("ssecKeyMd5"),
    }
    body = fields.get("body")
    return R2Object(**values) if body is None else R2ObjectBody(**values, body=body)


def _range(fields: Mapping[str, Any] | None) -> R2Range | None:
    return None if fields is None else R2Range(int(fields["offset"]), int(fields["length"]))


def date_of(milliseconds: int) -> datetime:
    """A date of so many milliseconds since 1970."""
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        # JavaScript's dates go further.
        return datetime.max.replace(tzinfo=UTC)
