"""A bucket behind a facade as a store: what an overlay on this side has for its base."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final

import attrs

from capnweb_py.bindings import r2 as facades
from capnweb_py.bindings.r2_requests import HTTP_METADATA
from capnweb_py.web import Headers, ReadableStream
from proxy_server.stores.r2 import (
    ByteRange,
    Conditions,
    Etag,
    Metadata,
    ObjectInfo,
    OpenObject,
    PutOptions,
    RangeRequest,
    Start,
)
from proxy_server.stores.r2_errors import InvalidArgument, NoSuchKey, PreconditionFailed, R2Error
from proxy_server.stores.r2_rules import holds

__all__ = ["RemoteBucket"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_INCLUDE: Final = ("httpMetadata", "customMetadata")


class _Relayed(R2Error):
    """What the remote bucket refused."""

    def __init__(self, error: facades.R2Error) -> None:
        super().__init__(str(error).removeprefix(f"{error.action}: ").removesuffix(f" ({error.code})"))
        self.code = error.code


@contextmanager
def _relayed() -> Iterator[None]:
    try:
        yield
    except facades.R2Error as error:
        raise _Relayed(error) from error


class RemoteBucket:
    """An R2Store. Closing it leaves the facade open."""

    def __init__(self, facade: facades.R2Bucket) -> None:
        self._facade = facade

    async def head(self, key: str) -> ObjectInfo | None:
        with _relayed():
            found = await self._facade.head(key)
        return None if found is None else _info(found)

    async def get(
        self, key: str, only_if: Conditions | None, wanted: RangeRequest | None, encryption: bytes | None = None
    ) -> OpenObject:
        with _relayed():
            found = await self._facade.get(key, range=_range(wanted), ssec_key=encryption)
        if found is None:
            raise NoSuchKey
        info = _info(found)
        if not isinstance(found, facades.R2ObjectBody):
            raise PreconditionFailed(info)
        if not holds(only_if, info):
            await found.aclose()
            raise PreconditionFailed(info)
        part = found.range or facades.R2Range(0, found.size)
        length = found.size if part.length is None else part.length
        return OpenObject(info, part.offset or 0, length, ReadableStream(found.body, length=length))

    async def put(self, key: str, body: AsyncIterable[bytes], options: PutOptions) -> ObjectInfo:
        said: dict[str, Any] = {**_options(options.metadata), **options.checksums}
        content = _sized(body, options.size)
        with _relayed():
            made = await self._facade.put(
                key, content, only_if=_only_if(options.only_if), ssec_key=options.encryption, **said
            )
        if made is None:
            raise PreconditionFailed
        return attrs.evolve(_info(made), metadata=options.metadata)

    async def delete(self, keys: Sequence[str]) -> None:
        with _relayed():
            await self._facade.delete(list(keys))

    async def scan(self, prefix: str, start: Start, limit: int) -> list[ObjectInfo]:
        found: list[ObjectInfo] = []
        if start.inclusive and start.key.startswith(prefix) and start.key:
            # What the facade lists begins behind a key.
            first = await self.head(start.key)
            found += [] if first is None else [first]
        cursor = None
        after = start.key or None
        while len(found) < limit:
            with _relayed():
                page = await self._facade.list(
                    prefix=prefix, start_after=after, cursor=cursor, limit=min(limit, 1000), include=_INCLUDE
                )
            found += [_info(obj) for obj in page.objects]
            cursor = page.cursor
            if not page.truncated:
                break
        return found[:limit]

    async def create_upload(self, key: str, metadata: Metadata, encryption: bytes | None = None) -> str:
        with _relayed():
            upload = await self._facade.create_multipart_upload(key, ssec_key=encryption, **_options(metadata))
        return upload.upload_id

    async def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterable[bytes],
        size: int | None = None,
        encryption: bytes | None = None,
    ) -> str:
        upload = self._facade.resume_multipart_upload(key, upload_id)
        with _relayed():
            return (await upload.upload_part(number, _sized(body, size), ssec_key=encryption)).etag

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> ObjectInfo:
        upload = self._facade.resume_multipart_upload(key, upload_id)
        with _relayed():
            return _info(await upload.complete([facades.R2UploadedPart(*part) for part in parts]))

    async def abort_upload(self, key: str, upload_id: str) -> None:
        with _relayed():
            await self._facade.resume_multipart_upload(key, upload_id).abort()

    async def aclose(self) -> None:
        """The facade is somebody else's."""


def _sized(body: AsyncIterable[bytes], size: int | None) -> ReadableStream[bytes]:
    if size is None:
        raise InvalidArgument("The length of what is written to a remote bucket has to be known")
    return ReadableStream(body, length=size)


def _info(obj: facades.R2Object) -> ObjectInfo:
    http = {} if obj.http_metadata is None else obj.http_metadata.to_options()
    if "cacheExpiry" in http:
        http["cacheExpiry"] = (http["cacheExpiry"] - _EPOCH) // _MILLISECOND
    return ObjectInfo(
        obj.key,
        obj.version,
        obj.size,
        obj.etag,
        (obj.uploaded - _EPOCH) // _MILLISECOND,
        Metadata(http, dict(obj.custom_metadata or {}), obj.storage_class),
        {name: digest.hex() for name, digest in attrs.asdict(obj.checksums).items() if digest is not None},
        obj.ssec_key_md5,
    )


def _options(metadata: Metadata) -> dict[str, Any]:
    http: Mapping[str, Any] = metadata.http
    if "cacheExpiry" in http:
        http = {**http, "cacheExpiry": _EPOCH + int(http["cacheExpiry"]) * _MILLISECOND}
    assert set(http) <= set(HTTP_METADATA), "the names are those of the Workers API"
    return {
        "http_metadata": facades.R2HttpMetadata.from_options(http),
        "custom_metadata": metadata.custom,
        "storage_class": metadata.storage_class,
    }


def _range(wanted: RangeRequest | None) -> facades.R2Range | Headers | None:
    if isinstance(wanted, ByteRange):
        return facades.R2Range(wanted.offset, wanted.length, wanted.suffix)
    return None if wanted is None else Headers({"range": wanted})


def _only_if(conditions: Conditions | None) -> facades.R2Conditional | Headers | None:
    """Conditions as the facade takes them. Only headers name several ETags, and they compare by the second."""
    if conditions is None:
        return None
    if not conditions.seconds_granularity:
        return facades.R2Conditional(
            None if conditions.etag_matches is None else _etag(conditions.etag_matches[0], quoted=False),
            None if conditions.etag_does_not_match is None else _etag(conditions.etag_does_not_match[0], quoted=False),
            _date(conditions.uploaded_before),
            _date(conditions.uploaded_after),
        )
    headers = Headers()
    for name, etags in (("if-match", conditions.etag_matches), ("if-none-match", conditions.etag_does_not_match)):
        if etags is not None:
            headers[name] = ", ".join(_etag(etag, quoted=True) for etag in etags)
    before, after = _date(conditions.uploaded_before), _date(conditions.uploaded_after)
    if before is not None:
        headers["if-unmodified-since"] = format_datetime(before, usegmt=True)
    if after is not None:
        headers["if-modified-since"] = format_datetime(after, usegmt=True)
    return headers


def _etag(etag: Etag, *, quoted: bool) -> str:
    if etag.kind == "wildcard":
        return "*"
    if not quoted:
        return etag.value
    return f'W/"{etag.value}"' if etag.kind == "weak" else f'"{etag.value}"'


def _date(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _EPOCH + milliseconds * _MILLISECOND
