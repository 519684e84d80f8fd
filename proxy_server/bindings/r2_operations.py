"""R2's operations as the Workers runtime asks for them: requests and answers in JSON, the same on both channels.

The forms are those of workerd's src/workerd/api/r2-api.capnp. Here is what is checked of a request before a store sees
it, and how a listing is grouped and cut into pages.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterable, Mapping
from typing import Any, Final

import attrs

from proxy_server.stores.r2 import (
    CHECKSUM_NAMES,
    ByteRange,
    Conditions,
    Etag,
    InvalidArgument,
    Metadata,
    NoSuchKey,
    NotSupported,
    ObjectInfo,
    OpenObject,
    PutOptions,
    R2Store,
    RangeRequest,
    Start,
)
from proxy_server.stores.r2_rules import (
    MAX_DELETED_KEYS,
    MAX_LISTED_KEYS,
    MAX_PART_NUMBER,
    after_prefix,
    check_keys,
    check_limit,
    check_metadata,
)

__all__ = ["METHODS", "R2Operations", "object_fields", "read_request"]

METHODS: Final = frozenset(
    {
        "head",
        "get",
        "put",
        "list",
        "delete",
        "createMultipartUpload",
        "uploadPart",
        "completeMultipartUpload",
        "abortMultipartUpload",
    }
)

_STORAGE_CLASSES: Final = ("Standard", "InfrequentAccess")
_HTTP_FIELDS: Final = ("contentType", "contentLanguage", "contentDisposition", "contentEncoding", "cacheControl")

# The numbers of checksums in answers, in the order of CHECKSUM_NAMES.
_CHECKSUM_NUMBERS: Final = {name: str(number) for number, name in enumerate(CHECKSUM_NAMES)}

# The numbers of what a list can include.
_HTTP: Final = 0
_CUSTOM: Final = 1

# How large a page of a listing may be, as JSON. The runtime takes 1 MiB at most.
_MAX_PAGE_BYTES: Final = 800_000


def read_request(text: str | bytes) -> dict[str, Any]:
    """The request that a text is.

    Raises:
        InvalidArgument: if it is none.
    """
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidArgument from None
    if not isinstance(request, dict) or request.get("method") not in METHODS:
        raise InvalidArgument
    return request


class R2Operations:
    """The operations of one bucket. Each takes a request and may raise R2Error."""

    def __init__(self, store: R2Store) -> None:
        self._store = store

    async def head(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of an object. Raises NoSuchKey if there is none."""
        info = await self._store.head(_key(request))
        if info is None:
            raise NoSuchKey
        return object_fields(info, (0, info.size))

    async def get(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], OpenObject]:
        """The fields of an object, and it itself to be read."""
        _refuse_encryption(request)
        opened = await self._store.get(_key(request), _conditions(request), _range(request))
        return object_fields(opened.info, (opened.offset, opened.length)), opened

    async def put(self, request: Mapping[str, Any], body: AsyncIterable[bytes], size: int | None) -> dict[str, Any]:
        """Write an object. Returns its fields."""
        _refuse_encryption(request)
        options = PutOptions(_metadata(request), _conditions(request), _checksums(request), size)
        return object_fields(await self._store.put(_key(request), body, options))

    async def delete(self, request: Mapping[str, Any]) -> None:
        """Delete one object, or several."""
        keys = [_key(request)] if "object" in request else _strings(request, "objects")
        if len(keys) > MAX_DELETED_KEYS:
            raise InvalidArgument(f"You can delete at most {MAX_DELETED_KEYS} keys at a time, not {len(keys)}")
        check_keys(keys)
        await self._store.delete(keys)

    async def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A page of objects, and of prefixes that stand for several."""
        query = _Query.of(request)
        page = _Page(query)
        while True:
            room = query.limit + 1 - page.count
            batch = await self._store.scan(query.prefix, page.position, room)
            if not all(page.take(info) for info in batch) or len(batch) < room:
                return page.fields()

    async def create_upload(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Begin a multipart upload: {"uploadId"}."""
        _refuse_encryption(request)
        return {"uploadId": await self._store.create_upload(_key(request), _metadata(request))}

    async def upload_part(
        self, request: Mapping[str, Any], body: AsyncIterable[bytes], size: int | None
    ) -> dict[str, Any]:
        """Write a part: {"etag"}."""
        _refuse_encryption(request)
        number = _number(request, "partNumber") or 0
        if not 1 <= number <= MAX_PART_NUMBER:
            raise InvalidArgument
        etag = await self._store.upload_part(_key(request), _string(request, "uploadId"), number, body, size)
        return {"etag": etag}

    async def complete_upload(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object of parts. Returns its fields."""
        parts = request.get("parts")
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise InvalidArgument
        chosen = [(_number(part, "part") or 0, _string(part, "etag")) for part in parts]
        return object_fields(await self._store.complete_upload(_key(request), _string(request, "uploadId"), chosen))

    async def abort_upload(self, request: Mapping[str, Any]) -> None:
        """End an upload without an object."""
        await self._store.abort_upload(_key(request), _string(request, "uploadId"))


@attrs.frozen
class _Query:
    """What is listed."""

    prefix: str
    delimiter: str
    start: Start
    limit: int
    include: tuple[int, ...]

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> _Query:
        limit = _number(request, "limit")
        limit = MAX_LISTED_KEYS if limit is None else limit
        check_limit(limit)
        start = Start(_string(request, "startAfter"), False) if request.get("startAfter") else Start()
        if request.get("cursor"):
            # Of two places, the later one: behind a key is later than at it.
            start = max(start, _start_of(_string(request, "cursor")), key=lambda one: (one.key, not one.inclusive))
        include = request.get("include")
        if include is None:
            # Old runtimes did not say, and were given everything.
            include = [] if request.get("newRuntime") else [_HTTP, _CUSTOM]
        return cls(_string(request, "prefix", ""), _string(request, "delimiter", ""), start, limit, tuple(include))


class _Page:
    """A page of a listing while it grows, and where the next one begins."""

    def __init__(self, query: _Query) -> None:
        self._query = query
        self._objects: list[dict[str, Any]] = []
        self._prefixes: list[str] = []
        self._bytes = 0
        self._truncated = False
        self.position = query.start

    @property
    def count(self) -> int:
        return len(self._objects) + len(self._prefixes)

    def take(self, info: ObjectInfo) -> bool:
        """Take the next object. Returns whether the scan that it is from has more to say."""
        group = self._group(info.key)
        if info.key < self.position.key or (group and [group] == self._prefixes[-1:]):
            # Its group is on the page already.
            return True
        fields = None if group else self._fields(info)
        size = len(group.encode()) if group else len(json.dumps(fields, ensure_ascii=False).encode())
        if self.count == self._query.limit or (self.count and self._bytes + size > _MAX_PAGE_BYTES):
            self._truncated = True
            return False
        self._bytes += size
        if fields is not None:
            self._objects.append(fields)
            self.position = Start(info.key, False)
            return True
        self._prefixes.append(group)
        end = after_prefix(group)
        self.position = Start(info.key, False) if end is None else Start(end, True)
        return True

    def fields(self) -> dict[str, Any]:
        page: dict[str, Any] = {"objects": self._objects, "truncated": self._truncated}
        if self._truncated:
            page["cursor"] = _cursor_of(self.position)
        page["delimitedPrefixes"] = self._prefixes
        return page

    def _group(self, key: str) -> str:
        """The prefix that stands for a key; nothing if it stands for itself."""
        delimiter = self._query.delimiter
        if not delimiter:
            return ""
        at = key.find(delimiter, len(self._query.prefix))
        return "" if at < 0 else key[: at + len(delimiter)]

    def _fields(self, info: ObjectInfo) -> dict[str, Any]:
        fields = object_fields(info)
        if _HTTP not in self._query.include:
            del fields["httpFields"]
        if _CUSTOM not in self._query.include:
            del fields["customFields"]
        return fields


def _cursor_of(start: Start) -> str:
    return base64.urlsafe_b64encode(("=" if start.inclusive else ">").encode() + start.key.encode()).decode()


def _start_of(cursor: str) -> Start:
    try:
        text = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    if text[:1] not in {"=", ">"}:
        raise InvalidArgument("The cursor is not one that this bucket gave")
    return Start(text[1:], text[0] == "=")


def object_fields(info: ObjectInfo, part: tuple[int, int] | None = None) -> dict[str, Any]:
    """An object as the runtime reads it. `part` is the offset and the length of what is sent of it."""
    fields: dict[str, Any] = {
        "name": info.key,
        "version": info.version,
        "size": info.size,
        "etag": info.etag,
        "uploaded": info.uploaded,
        "httpFields": dict(info.metadata.http),
        "customFields": [{"k": name, "v": value} for name, value in info.metadata.custom.items()],
        "checksums": {_CHECKSUM_NUMBERS[name]: value for name, value in info.checksums.items()},
        "storageClass": info.metadata.storage_class,
    }
    if part is not None:
        fields["range"] = {"offset": part[0], "length": part[1]}
    return fields


def _string(request: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = request.get(name, default)
    if not isinstance(value, str):
        raise InvalidArgument
    try:
        value.encode()
    except UnicodeEncodeError:
        # What JavaScript makes of half a character.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def _strings(request: Mapping[str, Any], name: str) -> list[str]:
    values = request.get(name)
    if not isinstance(values, list):
        raise InvalidArgument
    return [_string({"": value}, "") for value in values]


def _number(fields: Mapping[str, Any], name: str) -> int | None:
    """A number. Large ones come as text: JSON of capnp has no 64 bits."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        raise InvalidArgument
    try:
        return int(value)
    except (ValueError, OverflowError):
        raise InvalidArgument from None


def _key(request: Mapping[str, Any]) -> str:
    key = _string(request, "object")
    check_keys([key])
    return key


def _refuse_encryption(request: Mapping[str, Any]) -> None:
    if request.get("ssec") is not None:
        raise NotSupported("This server does not encrypt with keys of its clients (ssecKey)")


def _metadata(request: Mapping[str, Any]) -> Metadata:
    written = _fields(request, "httpFields")
    http: dict[str, str | int] = {name: _string(written, name) for name in _HTTP_FIELDS if name in written}
    if (expiry := _number(written, "cacheExpiry")) is not None:
        http["cacheExpiry"] = expiry
    custom = {_string(pair, "k"): _string(pair, "v") for pair in request.get("customFields") or ()}
    check_metadata(custom)
    storage_class = _string(request, "storageClass", "Standard")
    if storage_class not in _STORAGE_CLASSES:
        raise InvalidArgument(f"The storage class is one of {', '.join(_STORAGE_CLASSES)}, not {storage_class}")
    return Metadata(http, custom, storage_class)


def _fields(request: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = request.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument
    return value


def _checksums(request: Mapping[str, Any]) -> dict[str, bytes]:
    """The given checksums: MD5 in base64, others in hexadecimal."""
    try:
        return {
            name: base64.b64decode(request[name]) if name == "md5" else bytes.fromhex(request[name])
            for name in CHECKSUM_NAMES
            if request.get(name) is not None
        }
    except (ValueError, TypeError):
        raise InvalidArgument from None


def _conditions(request: Mapping[str, Any]) -> Conditions | None:
    written = request.get("onlyIf")
    if written is None:
        return None
    fields = _fields(request, "onlyIf")
    return Conditions(
        _etags(fields, "etagMatches"),
        _etags(fields, "etagDoesNotMatch"),
        _number(fields, "uploadedBefore"),
        _number(fields, "uploadedAfter"),
        fields.get("secondsGranularity") is True,
    )


def _etags(fields: Mapping[str, Any], name: str) -> tuple[Etag, ...] | None:
    written = fields.get(name)
    if written is None:
        return None
    if not isinstance(written, list) or not written:
        raise InvalidArgument
    return tuple(_etag(one) for one in written)


def _etag(written: Any) -> Etag:
    kind = written.get("type") if isinstance(written, dict) else None
    if kind not in {"strong", "weak", "wildcard"}:
        raise InvalidArgument
    return Etag(kind, "" if kind == "wildcard" else _string(written, "value"))


def _range(request: Mapping[str, Any]) -> RangeRequest | None:
    if request.get("rangeHeader") is not None:
        return _string(request, "rangeHeader")
    if request.get("range") is None:
        return None
    written = _fields(request, "range")
    return ByteRange(_number(written, "offset"), _number(written, "length"), _number(written, "suffix"))
