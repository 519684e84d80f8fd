"""Buckets over buckets: one that is only read, and one whose writes stay with the reader.

An overlay reads the base with what is in a local bucket on top. A key that was deleted is remembered there: the base
still has it, and the overlay does not. Multipart uploads are the local bucket's alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterable, Sequence
from typing import NoReturn

from proxy_server.stores.r2 import (
    Conditions,
    Metadata,
    ObjectInfo,
    OpenObject,
    PutOptions,
    R2Store,
    RangeRequest,
    Start,
)
from proxy_server.stores.r2_bucket import Bucket
from proxy_server.stores.r2_errors import AccessDenied
from proxy_server.stores.r2_rules import MAX_LISTED_KEYS
from proxy_server.stores.sqlite import SqliteFile

__all__ = ["Overlay", "ReadOnly"]


class ReadOnly:
    """A store that refuses to write.

    Args:
        base: what is read.
        refusal: what is said to what would write.
    """

    def __init__(self, base: R2Store, refusal: str) -> None:
        self._base = base
        self._refusal = refusal

    async def head(self, key: str) -> ObjectInfo | None:
        return await self._base.head(key)

    async def get(
        self, key: str, only_if: Conditions | None, wanted: RangeRequest | None, encryption: bytes | None = None
    ) -> OpenObject:
        return await self._base.get(key, only_if, wanted, encryption)

    async def scan(self, prefix: str, start: Start, limit: int) -> list[ObjectInfo]:
        return await self._base.scan(prefix, start, limit)

    async def put(self, key: str, body: AsyncIterable[bytes], options: PutOptions) -> ObjectInfo:
        self._refuse()

    async def delete(self, keys: Sequence[str]) -> None:
        self._refuse()

    async def create_upload(self, key: str, metadata: Metadata, encryption: bytes | None = None) -> str:
        self._refuse()

    async def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterable[bytes],
        size: int | None = None,
        encryption: bytes | None = None,
    ) -> str:
        self._refuse()

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> ObjectInfo:
        self._refuse()

    async def abort_upload(self, key: str, upload_id: str) -> None:
        self._refuse()

    async def aclose(self) -> None:
        await self._base.aclose()

    def _refuse(self) -> NoReturn:
        raise AccessDenied(self._refusal)


class Overlay:
    """A store whose writes stay in a local one.

    Args:
        base: what is read where the local bucket says nothing. It is never written.
        local: the bucket that has what was written.
        index: the local bucket's, opened as an overlay's, for the keys that were deleted.
    """

    def __init__(self, base: R2Store, local: Bucket, index: SqliteFile) -> None:
        self._base = base
        self._local = local
        self._index = index

    async def head(self, key: str) -> ObjectInfo | None:
        return await (await self._store_of(key)).head(key)

    async def get(
        self, key: str, only_if: Conditions | None, wanted: RangeRequest | None, encryption: bytes | None = None
    ) -> OpenObject:
        return await (await self._store_of(key)).get(key, only_if, wanted, encryption)

    async def put(self, key: str, body: AsyncIterable[bytes], options: PutOptions) -> ObjectInfo:
        beneath = None
        if options.only_if is not None and await self._store_of(key) is self._base:
            beneath = await self._base.head(key)
        return await self._local.put(key, body, options, beneath)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._local.delete(keys)

    async def scan(self, prefix: str, start: Start, limit: int) -> list[ObjectInfo]:
        merged: list[ObjectInfo] = []
        batch = limit
        while True:
            found = await self._base.scan(prefix, start, batch)
            # All that the local bucket has up to where the base was read.
            end = found[-1].key if len(found) == batch else None
            hidden = await self._known([info.key for info in found])
            written = [info for info in await self._local.scan(prefix, start, batch) if end is None or info.key <= end]
            hidden |= {info.key for info in written}
            kept = [info for info in found if info.key not in hidden]
            merged += sorted(written + kept, key=lambda info: info.key)
            if end is None or len(merged) >= limit:
                return merged[:limit]
            start = Start(end, False)
            # Where much was deleted, a small page would ask the base often.
            batch = max(batch, min(2 * batch, MAX_LISTED_KEYS))

    async def create_upload(self, key: str, metadata: Metadata, encryption: bytes | None = None) -> str:
        return await self._local.create_upload(key, metadata, encryption)

    async def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterable[bytes],
        size: int | None = None,
        encryption: bytes | None = None,
    ) -> str:
        return await self._local.upload_part(key, upload_id, number, body, size, encryption)

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> ObjectInfo:
        return await self._local.complete_upload(key, upload_id, parts)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        await self._local.abort_upload(key, upload_id)

    async def aclose(self) -> None:
        await self._local.aclose()
        await self._base.aclose()

    async def _store_of(self, key: str) -> R2Store:
        return self._local if await self._known([key]) else self._base

    async def _known(self, keys: Sequence[str]) -> set[str]:
        """Which of these keys were written or deleted here. It costs what they are, however many others are."""
        there = "SELECT 1 FROM objects WHERE key = ?1 UNION ALL SELECT 1 FROM deleted WHERE key = ?1"

        def work(connection: sqlite3.Connection) -> set[str]:
            return {key for key in keys if connection.execute(there, (key,)).fetchone() is not None}

        return await self._index.read(work)
