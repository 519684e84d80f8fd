"""R2's operations as the Workers runtime asks for them: requests and answers in JSON, the same on both channels."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from proxy_server.bindings.r2_listing import Page, Query, object_fields
from proxy_server.bindings.r2_requests import (
    checksums_of,
    conditions_of,
    encryption_of,
    key_of,
    metadata_of,
    number,
    objects,
    range_of,
    string,
    strings,
)
from proxy_server.channels import LOG
from proxy_server.stores.r2 import OpenObject, PutOptions, R2Store
from proxy_server.stores.r2_errors import InternalError, InvalidArgument, NoSuchKey
from proxy_server.stores.r2_rules import MAX_DELETED_KEYS, MAX_PART_NUMBER, check_keys

__all__ = ["R2Operations", "failures_refused"]


@contextmanager
def failures_refused() -> Iterator[None]:
    """Have what a store fails with, which clients can do nothing about, be what R2 says of itself then."""
    try:
        yield
    except ConnectionError:
        # The client's own connection.
        raise
    except (OSError, sqlite3.Error) as error:
        LOG.exception("the store of a bucket failed")
        raise InternalError from error


class R2Operations:
    """The operations of one bucket. Each takes a request and may raise R2Error."""

    def __init__(self, store: R2Store) -> None:
        self._store = store

    async def head(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of an object. Raises NoSuchKey if there is none."""
        info = await self._store.head(key_of(request))
        if info is None:
            raise NoSuchKey
        return object_fields(info, (0, info.size))

    async def get(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], OpenObject]:
        """The fields of an object, and it itself to be read."""
        opened = await self._store.get(
            key_of(request), conditions_of(request), range_of(request), encryption_of(request)
        )
        return object_fields(opened.info, (opened.offset, opened.length)), opened

    async def put(self, request: Mapping[str, Any], body: AsyncIterable[bytes], size: int | None) -> dict[str, Any]:
        """Write an object. Returns its fields."""
        conditions, checksums = conditions_of(request), checksums_of(request)
        options = PutOptions(metadata_of(request), conditions, checksums, size, encryption_of(request))
        return object_fields(await self._store.put(key_of(request), body, options))

    async def delete(self, request: Mapping[str, Any]) -> None:
        """Delete one object, or several."""
        keys = [key_of(request)] if "object" in request else strings(request, "objects")
        if len(keys) > MAX_DELETED_KEYS:
            raise InvalidArgument(f"You can delete at most {MAX_DELETED_KEYS} keys at a time, not {len(keys)}")
        check_keys(keys)
        await self._store.delete(keys)

    async def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A page of objects, and of prefixes that stand for several."""
        query = Query.of(request)
        page = Page(query)
        while True:
            room = query.limit + 1 - page.count
            batch = await self._store.scan(query.prefix, page.position, room)
            if not all(page.take(info) for info in batch) or len(batch) < room:
                return page.fields()

    async def create_upload(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Begin a multipart upload: {"uploadId"}."""
        encryption = encryption_of(request)
        return {"uploadId": await self._store.create_upload(key_of(request), metadata_of(request), encryption)}

    async def upload_part(
        self, request: Mapping[str, Any], body: AsyncIterable[bytes], size: int | None
    ) -> dict[str, Any]:
        """Write a part: {"etag"}."""
        place = number(request, "partNumber") or 0
        if not 1 <= place <= MAX_PART_NUMBER:
            raise InvalidArgument
        upload_id, encryption = string(request, "uploadId"), encryption_of(request)
        return {"etag": await self._store.upload_part(key_of(request), upload_id, place, body, size, encryption)}

    async def complete_upload(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object of parts. Returns its fields."""
        chosen = [(number(part, "part") or 0, string(part, "etag")) for part in objects(request, "parts")]
        return object_fields(await self._store.complete_upload(key_of(request), string(request, "uploadId"), chosen))

    async def abort_upload(self, request: Mapping[str, Any]) -> None:
        """End an upload without an object."""
        await self._store.abort_upload(key_of(request), string(request, "uploadId"))
