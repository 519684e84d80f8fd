"""What a store of an R2 bucket is: the operations that a binding needs, and what they take and give.

What they refuse is in r2_errors.py. No store knows how a request came in, and no binding which store it has.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias

import attrs

from capnweb_py.bindings.r2_requests import CHECKSUMS
from capnweb_py.web import ReadableStream

__all__ = [
    "CHECKSUM_NAMES",
    "ByteRange",
    "Conditions",
    "Etag",
    "Metadata",
    "ObjectInfo",
    "OpenObject",
    "PutOptions",
    "R2Store",
    "RangeRequest",
    "Start",
]

# The checksums that an object can have: R2's names, and those that its errors use.
CHECKSUM_NAMES: Final = {name: title for name, title, _ in CHECKSUMS}


@attrs.frozen
class Metadata:
    """What its writer says of an object.

    Attributes:
        http: contentType, contentLanguage, contentDisposition, contentEncoding, cacheControl, and cacheExpiry in
            milliseconds since 1970; those that were given.
        custom: the writer's own names and values.
        storage_class: "Standard" or "InfrequentAccess".
    """

    http: Mapping[str, str | int] = attrs.field(factory=dict)
    custom: Mapping[str, str] = attrs.field(factory=dict)
    storage_class: str = "Standard"


@attrs.frozen
class ObjectInfo:
    """An object without its content.

    Attributes:
        key: its name.
        version: changes with each write.
        size: in bytes.
        etag: without quotes: the MD5 of the content in hex; of a multipart object that of its parts, and their number.
            Of encrypted content it is as good as random.
        uploaded: in milliseconds since 1970.
        metadata: its writer's.
        checksums: in hex, by the keys of CHECKSUM_NAMES; those that are known.
        key_md5: of the key that the content is encrypted with, in base64; None if it is not.
    """

    key: str
    version: str
    size: int
    etag: str
    uploaded: int
    metadata: Metadata
    checksums: Mapping[str, str]
    key_md5: str | None = None


@attrs.frozen
class Etag:
    """One of the ETags of a condition. A wildcard has no value."""

    kind: Literal["strong", "weak", "wildcard"]
    value: str = ""


@attrs.frozen
class Conditions:
    """On which object an operation is done; times in milliseconds since 1970 (RFC 9110, section 13)."""

    etag_matches: tuple[Etag, ...] | None = None
    etag_does_not_match: tuple[Etag, ...] | None = None
    uploaded_before: int | None = None
    uploaded_after: int | None = None
    seconds_granularity: bool = False


@attrs.frozen
class ByteRange:
    """A part of an object: from an offset, or its last bytes."""

    offset: int | None = None
    length: int | None = None
    suffix: int | None = None


# A range, or the text of a Range header.
RangeRequest: TypeAlias = ByteRange | str


@attrs.frozen
class PutOptions:
    """What a put says besides the content.

    Attributes:
        metadata: the object's.
        only_if: what has to hold of the object that is there.
        checksums: what the content's have to be, by the keys of CHECKSUM_NAMES.
        size: of the content in bytes, where it is known.
        encryption: 32 bytes to encrypt the content with, which are not kept (SSE-C).
    """

    metadata: Metadata = attrs.field(factory=Metadata)
    only_if: Conditions | None = None
    checksums: Mapping[str, bytes] = attrs.field(factory=dict)
    size: int | None = None
    encryption: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen
class OpenObject:
    """An object that is being read. Its body has to be read to its end, or closed.

    Attributes:
        info: of the object.
        offset: where the body begins.
        length: of the body.
        body: the content.
    """

    info: ObjectInfo
    offset: int
    length: int
    body: ReadableStream[bytes]


@attrs.frozen
class Start:
    """Where a scan begins: at a key, or behind it. Keys are in the order of their code points."""

    key: str = ""
    inclusive: bool = True


class R2Store(Protocol):
    """The objects of one bucket. Every method may raise R2Error.

    An object or a part is encrypted where `encryption`, a key of 32 bytes, is given, and read with the same one. An
    upload is as it was begun: each part of it needs the key then, and `complete_upload` does not.
    """

    async def head(self, key: str) -> ObjectInfo | None:
        """An object, or None if there is none."""

    async def get(
        self, key: str, only_if: Conditions | None, wanted: RangeRequest | None, encryption: bytes | None = None
    ) -> OpenObject:
        """Open an object.

        Raises:
            NoSuchKey, KeyRequired, WrongKey, EncryptionNotApplicable, InvalidRange.
            PreconditionFailed, with the object.
        """

    async def put(self, key: str, body: AsyncIterable[bytes], options: PutOptions) -> ObjectInfo:
        """Write an object. Readers see the old one whole until they see the new one whole.

        Raises:
            PreconditionFailed, BadDigest, EntityTooLarge, IncompleteBody.
            NotSupported: if it is to be encrypted, and nothing here can.
            What `body` raises; nothing is written then.
        """

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. It is no error if there are none."""

    async def scan(self, prefix: str, start: Start, limit: int) -> list[ObjectInfo]:
        """The first `limit` objects from `start` on whose keys have the prefix, in order. Fewer: there are no more."""

    async def create_upload(self, key: str, metadata: Metadata, encryption: bytes | None = None) -> str:
        """Begin a multipart upload, and return its id."""

    async def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterable[bytes],
        size: int | None = None,
        encryption: bytes | None = None,
    ) -> str:
        """Write a part, in the place of one of the same number, and return its ETag. `size` is its length, if known.

        Raises:
            NoSuchUpload, EntityTooLarge, IncompleteBody, KeyRequired, WrongKey, EncryptionNotApplicable, NotSupported.
        """

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> ObjectInfo:
        """Make an object of parts, each named by number and ETag.

        Raises:
            NoSuchUpload, InvalidPart, EntityTooSmall, BadUpload, InternalError.
        """

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """End an upload without an object. One that has ended already stays as it is."""

    async def aclose(self) -> None:
        """Release what the store holds."""
