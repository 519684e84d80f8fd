"""Listings of a bucket: what is asked for, grouped by a delimiter, and cut into pages that the runtime can read."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from capnweb_py.bindings.r2_requests import INCLUDES
from proxy_server.bindings.r2_requests import number, string
from proxy_server.stores.r2 import CHECKSUM_NAMES, ObjectInfo, Start
from proxy_server.stores.r2_errors import InvalidArgument
from proxy_server.stores.r2_rules import MAX_LISTED_KEYS, after_prefix, check_limit

__all__ = ["Page", "Query", "object_fields"]

# The numbers of checksums in answers, in the order of CHECKSUM_NAMES.
_CHECKSUM_NUMBERS: Final = {name: str(number) for number, name in enumerate(CHECKSUM_NAMES)}

# The numbers of what a list can include.
_HTTP: Final = INCLUDES["httpMetadata"]
_CUSTOM: Final = INCLUDES["customMetadata"]

# How large a page of a listing may be, as JSON. The runtime takes 1 MiB at most.
_MAX_PAGE_BYTES: Final = 800_000


@attrs.frozen
class Query:
    """What is listed."""

    prefix: str
    delimiter: str
    start: Start
    limit: int
    include: tuple[int, ...]

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Query:
        limit = number(request, "limit")
        limit = MAX_LISTED_KEYS if limit is None else limit
        check_limit(limit)
        start = Start(string(request, "startAfter"), False) if request.get("startAfter") else Start()
        if request.get("cursor"):
            # Of two places, the later one: behind a key is later than at it.
            start = max(start, _start_of(string(request, "cursor")), key=lambda one: (one.key, not one.inclusive))
        include = request.get("include")
        if include is None:
            # Old runtimes did not say, and were given everything.
            include = [] if request.get("newRuntime") else [_HTTP, _CUSTOM]
        if not isinstance(include, list):
            raise InvalidArgument
        return cls(string(request, "prefix", ""), string(request, "delimiter", ""), start, limit, tuple(include))


class Page:
    """A page of a listing while it grows, and where the next one begins."""

    def __init__(self, query: Query) -> None:
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
    if info.key_md5 is not None:
        fields["ssec"] = {"algorithm": "aes256", "keyMd5": info.key_md5}
    if part is not None:
        fields["range"] = {"offset": part[0], "length": part[1]}
    return fields
