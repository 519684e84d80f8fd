"""R2: a bucket of objects, as `env.BUCKET` of the Workers runtime is, in Python dress.

await env.ASSETS.put("a.txt", b"content", http_metadata=R2HttpMetadata(content_type="text/plain"))
async with await env.ASSETS.get("a.txt") as obj:
    async for chunk in obj: ...
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import attrs

from ..stub import RpcStub
from ..values import TypedArray
from ..web import Blob, Headers, ReadableStream
from .arguments import check
from .channels import Channels
from .given import given
from .r2_channels import BucketChannel, Content, HttpBucket, RpcBucket
from .r2_objects import (
    R2Checksums,
    R2HttpMetadata,
    R2Object,
    R2ObjectBody,
    R2Objects,
    R2Range,
    R2UploadedPart,
)
from .r2_requests import R2Error, RangeError, bytes_of
from .written import sending

__all__ = [
    "R2Bucket",
    "R2Checksums",
    "R2Conditional",
    "R2Error",
    "R2HttpMetadata",
    "R2MultipartUpload",
    "R2Object",
    "R2ObjectBody",
    "R2Objects",
    "R2Range",
    "R2UploadedPart",
    "R2Value",
    "RangeError",
]

_IN_ONE_PIECE: TypeAlias = bytes | bytearray | memoryview | TypedArray
# What can be written. A stream's length has to be known: that of a ReadableStream with a `length`, or by the argument.
R2Value: TypeAlias = str | bytes | bytearray | memoryview | TypedArray | Blob | AsyncIterable[bytes] | None


@attrs.frozen
class R2Conditional:
    """On which object something is done.

    Attributes:
        etag_matches: the object's ETag, without quotes; "*" for any object.
        etag_does_not_match: not this ETag; "*" for no object.
        uploaded_before: written before then.
        uploaded_after: written after then.
        seconds_granularity: times are compared by the second.
    """

    etag_matches: str | None = None
    etag_does_not_match: str | None = None
    uploaded_before: datetime | None = None
    uploaded_after: datetime | None = None
    seconds_granularity: bool = False

    def to_options(self) -> dict[str, Any]:
        """By the names of the Workers API; those that there are."""
        return given(
            etagMatches=self.etag_matches,
            etagDoesNotMatch=self.etag_does_not_match,
            uploadedBefore=self.uploaded_before,
            uploadedAfter=self.uploaded_after,
            secondsGranularity=self.seconds_granularity or None,
        )


class R2Bucket:
    """The facade of a bucket. Every method may raise R2Error, and ConnectionError if the proxy cannot be reached."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._bucket: BucketChannel = HttpBucket(channels) if channels.preferred == "http" else RpcBucket(channels)

    @property
    def rpc(self) -> RpcStub:
        """The stub of the remote binding, with the methods that the Workers runtime's has."""
        return self._channels.rpc

    async def head(self, key: str) -> R2Object | None:
        """An object without its content; None if there is none."""
        check("key", key, str, "a str")
        return await self._bucket.head(key)

    async def get(
        self,
        key: str,
        *,
        range: R2Range | Headers | None = None,  # noqa: A002 - the option's name
        only_if: R2Conditional | Headers | None = None,
        ssec_key: bytes | str | None = None,
    ) -> R2ObjectBody | R2Object | None:
        """An object with its content, which is read as it arrives.

        Args:
            key: its name.
            range: a part of it, or Headers with a "range".
            only_if: what has to hold of it, or Headers with "if-match" and the like.
            ssec_key: what it is encrypted with.

        Returns:
            An R2ObjectBody; an R2Object if `only_if` does not hold; None if there is no object.

        Raises:
            TypeError: if an argument is not valid. RangeError, a ValueError: if the range is not.
        """
        check("key", key, str, "a str")
        check("ssec_key", ssec_key, bytes | str | None, "bytes or a str")
        options = given(
            range=_plain("range", range, R2Range), onlyIf=_plain("only_if", only_if, R2Conditional), ssecKey=ssec_key
        )
        return await self._bucket.get(key, options)

    async def put(
        self,
        key: str,
        value: R2Value,
        *,
        length: int | None = None,
        http_metadata: R2HttpMetadata | Headers | None = None,
        custom_metadata: Mapping[str, str] | None = None,
        only_if: R2Conditional | Headers | None = None,
        storage_class: str | None = None,
        md5: bytes | str | None = None,
        sha1: bytes | str | None = None,
        sha256: bytes | str | None = None,
        sha384: bytes | str | None = None,
        sha512: bytes | str | None = None,
        ssec_key: bytes | str | None = None,
    ) -> R2Object | None:
        """Write an object. Returns it, or None if `only_if` does not hold.

        Args:
            key: its name.
            value: its content.
            length: of an async iterable, in bytes.
            http_metadata: its HTTP headers, or Headers to take them from.
            custom_metadata: further names and values.
            only_if: what has to hold of the object that is there, or Headers with "if-match" and the like.
            storage_class: "Standard" or "InfrequentAccess".
            md5, sha1, sha256, sha384, sha512: one checksum that the content has to have, as bytes or hexadecimal.
            ssec_key: 32 bytes, or as many in lower case hexadecimal, to encrypt the content with. Without it nobody can
                read the object any more: the bucket does not keep it.

        Raises:
            TypeError: if an argument is not valid, or the length of the content is not known.
            ValueError: if the content has another length, or `ssec_key` is not 32 bytes.
            Exception: what a stream raises. Then nothing is written.
        """
        options = _described(key, http_metadata, custom_metadata, storage_class, ssec_key) | given(
            onlyIf=_plain("only_if", only_if, R2Conditional),
            md5=md5,
            sha1=sha1,
            sha256=sha256,
            sha384=sha384,
            sha512=sha512,
        )
        with sending(_content(value, length)) as content:
            return await self._bucket.put(key, content, options)

    async def delete(self, keys: str | Sequence[str]) -> None:
        """Delete an object, or up to 1000. It is no error if there are none."""
        check("keys", keys, str | Sequence, "a str, or a list of them")
        for key in () if isinstance(keys, str) else keys:
            check("each key", key, str, "a str")
        await self._bucket.delete(keys)

    async def list(
        self,
        *,
        prefix: str | None = None,
        delimiter: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        start_after: str | None = None,
        include: Sequence[str] = (),
    ) -> R2Objects:
        """A page of objects, in the order of their keys.

        Args:
            prefix: of the keys.
            delimiter: keys that have it behind the prefix are not listed, but what they begin with up to it, once.
            limit: how many at most; 1000 if it is not given. There may be fewer with `truncated` set.
            cursor: of the page before.
            start_after: only keys behind this one.
            include: "httpMetadata", "customMetadata".

        Raises:
            RangeError, a ValueError: if something else is to be included.
        """
        for name, text in (
            ("prefix", prefix),
            ("delimiter", delimiter),
            ("cursor", cursor),
            ("start_after", start_after),
        ):
            check(name, text, str | None, "a str")
        check("limit", limit, int | None, "a whole number")
        return await self._bucket.list(
            given(
                prefix=prefix,
                delimiter=delimiter,
                limit=limit,
                cursor=cursor,
                startAfter=start_after,
                include=[*include],
            )
        )

    async def create_multipart_upload(
        self,
        key: str,
        *,
        http_metadata: R2HttpMetadata | Headers | None = None,
        custom_metadata: Mapping[str, str] | None = None,
        storage_class: str | None = None,
        ssec_key: bytes | str | None = None,
    ) -> R2MultipartUpload:
        """Begin to upload an object in parts. Arguments are those of `put`; each part needs the same `ssec_key`."""
        options = _described(key, http_metadata, custom_metadata, storage_class, ssec_key)
        return R2MultipartUpload(self._bucket, key, await self._bucket.create_upload(key, options))

    def resume_multipart_upload(self, key: str, upload_id: str) -> R2MultipartUpload:
        """Go on with an upload in parts. Whether there is one shows when it is used."""
        return R2MultipartUpload(self._bucket, key, upload_id)

    def __repr__(self) -> str:
        return f"<R2 bucket {self._channels.name}>"


class R2MultipartUpload:
    """An object that is uploaded in parts, which may be done by several programs.

    Attributes:
        key: of the object.
        upload_id: for `resume_multipart_upload`.
    """

    def __init__(self, bucket: BucketChannel, key: str, upload_id: str) -> None:
        self._bucket = bucket
        self.key = key
        self.upload_id = upload_id

    async def upload_part(
        self, part_number: int, value: R2Value, *, length: int | None = None, ssec_key: bytes | str | None = None
    ) -> R2UploadedPart:
        """Upload a part: 5 MiB or more, all of one size, but for the last.

        Args:
            part_number: 1 to 10000.
            value: its content.
            length: of an async iterable, in bytes.
            ssec_key: what the upload was begun with.

        Raises:
            TypeError: if there is no part of that number, or the length of the content is not known.
            ValueError: if the content has another length.
            Exception: what a stream raises. Then nothing is written.
        """
        check("part_number", part_number, int, "a whole number")
        check("ssec_key", ssec_key, bytes | str | None, "bytes or a str")
        options = given(ssecKey=ssec_key)
        with sending(_content(value, length)) as content:
            etag = await self._bucket.upload_part(self.key, self.upload_id, part_number, content, options)
        return R2UploadedPart(part_number, etag)

    async def complete(self, parts: Iterable[R2UploadedPart]) -> R2Object:
        """Make the object of these parts."""
        parts = list(parts)
        for part in parts:
            check("each part", part, R2UploadedPart, "an R2UploadedPart")
        named = [{"partNumber": part.part_number, "etag": part.etag} for part in parts]
        return await self._bucket.complete_upload(self.key, self.upload_id, named)

    async def abort(self) -> None:
        """End the upload without an object, and delete its parts."""
        await self._bucket.abort_upload(self.key, self.upload_id)

    def __repr__(self) -> str:
        return f"<multipart upload of {self.key!r}>"


def _described(
    key: str,
    http_metadata: R2HttpMetadata | Headers | None,
    custom_metadata: Mapping[str, str] | None,
    storage_class: str | None,
    ssec_key: bytes | str | None,
) -> dict[str, Any]:
    """The options that say what an object is beside its content."""
    check("key", key, str, "a str")
    check("custom_metadata", custom_metadata, Mapping | None, "a dict")
    check("storage_class", storage_class, str | None, "a str")
    check("ssec_key", ssec_key, bytes | str | None, "bytes or a str")
    return given(
        httpMetadata=_plain("http_metadata", http_metadata, R2HttpMetadata),
        customMetadata=None if custom_metadata is None else dict(custom_metadata),
        storageClass=storage_class,
        ssecKey=ssec_key,
    )


def _plain(name: str, value: Any, kind: type) -> Any:
    """Options of a kind as a mapping; Headers as they are."""
    check(name, value, kind | Headers | None, f"an {kind.__name__} or Headers")
    return value if value is None or isinstance(value, Headers) else value.to_options()


def _content(value: R2Value, length: int | None) -> Content:
    check("length", length, int | None, "a whole number of bytes")
    if isinstance(value, AsyncIterable):
        stream = value if isinstance(value, ReadableStream) else ReadableStream(value)
        if length is not None:
            stream.length = length
        if stream.length is None:
            raise TypeError(
                "Provided readable stream must have a known length (request/response body or readable half of "
                "FixedLengthStream): give put() its length="
            )
        return stream
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Blob):
        return value.stream()
    if value is None:
        return b""
    check("value", value, _IN_ONE_PIECE, "a str, bytes, a Blob, an async iterable of bytes or None")
    return bytes_of(value) or b""
