"""Keys and values in a SQLite file.

A value of one chunk is in its key's row. A larger one is a blob: chunks in rows of their own, written before the key
names it. What is being written, or has been replaced while somebody may read it, is "loose": a blob that is remembered
with the time and swept away later, so that neither a crash nor a reader leaves anything behind.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import anyio

from capnweb_py.web import ReadableStream
from proxy_server.stores.chunks import in_chunks
from proxy_server.stores.kv import (
    LOOSE_SECONDS,
    TOO_SLOW,
    Clock,
    KvBody,
    KvEntry,
    KvKey,
    KvPage,
    KvRefusal,
    behind,
    cursor_after,
    key_of,
)
from proxy_server.stores.sqlite import SqliteFile

__all__ = ["SqliteKv"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    key BLOB PRIMARY KEY, expiration INTEGER, metadata TEXT, blob INTEGER, value BLOB
);
CREATE INDEX IF NOT EXISTS entries_by_expiration ON entries (expiration) WHERE expiration IS NOT NULL;
CREATE TABLE IF NOT EXISTS loose (blob INTEGER PRIMARY KEY AUTOINCREMENT, since REAL NOT NULL);
CREATE INDEX IF NOT EXISTS loose_by_since ON loose (since);
CREATE TABLE IF NOT EXISTS chunks (
    blob INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (blob, number)
);
"""


class SqliteKv:
    """A KvStore. Made by `open`."""

    def __init__(self, file: SqliteFile, clock: Clock) -> None:
        self._file = file
        self._clock = clock

    @classmethod
    async def open(cls, path: Path, clock: Clock = time.time) -> SqliteKv:
        """Open a file, and make it where it is not there.

        Raises:
            OSError: if its folder cannot be made.
            sqlite3.Error: if it cannot be opened, or is no database.
        """
        return cls(await SqliteFile.open(path, _SCHEMA), clock)

    async def get(self, key: str) -> KvEntry | None:
        now = self._clock()

        def find(connection: sqlite3.Connection) -> tuple[int | None, str | None, int | None, bytes, int] | None:
            row = connection.execute(
                "SELECT expiration, metadata, blob, value FROM entries"
                " WHERE key = ? AND (expiration IS NULL OR expiration > ?)",
                (key.encode(), now),
            ).fetchone()
            if row is None or row[2] is None:
                return None if row is None else (*row, 0)
            size: int = connection.execute("SELECT sum(length(data)) FROM chunks WHERE blob = ?", row[2:3]).fetchone()[
                0
            ]
            return (*row, size)

        found = await self._file.read(find)
        if found is None:
            return None
        expiration, metadata, blob, value, size = found
        body = value if blob is None else ReadableStream(self._chunks(blob), length=size)
        return KvEntry(body, expiration, metadata)

    async def _chunks(self, blob: int) -> AsyncGenerator[bytes, None]:
        def read(connection: sqlite3.Connection) -> tuple[bytes] | None:
            found: tuple[bytes] | None = connection.execute(
                "SELECT data FROM chunks WHERE blob = ? AND number = ?", (blob, number)
            ).fetchone()
            return found

        number = 0
        while (row := await self._file.read(read)) is not None:
            yield row[0]
            number += 1

    async def put(self, key: str, body: KvBody, expiration: int | None = None, metadata: str | None = None) -> None:
        if isinstance(body, bytes):
            await self._commit(key, (expiration, metadata, None, body))
            return
        async with aclosing(in_chunks(body)) as chunks:
            first, second = await anext(chunks, b""), await anext(chunks, None)
            if second is None:
                await self._commit(key, (expiration, metadata, None, first))
                return
            blob = await self._file.run(self._new_blob)
            try:
                await self._write(blob, 0, first)
                await self._write(blob, 1, second)
                number = 2
                async for chunk in chunks:
                    await self._write(blob, number, chunk)
                    number += 1
                await self._commit(key, (expiration, metadata, blob, None))
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._file.run(lambda connection: self._drop_unfinished(connection, blob))
                raise

    async def _write(self, blob: int, number: int, chunk: bytes) -> None:
        def insert(connection: sqlite3.Connection) -> None:
            if connection.execute("UPDATE loose SET since = ? WHERE blob = ?", (self._clock(), blob)).rowcount == 0:
                raise KvRefusal(*TOO_SLOW)
            connection.execute("INSERT INTO chunks VALUES (?, ?, ?)", (blob, number, chunk))

        await self._file.run(insert)

    def _new_blob(self, connection: sqlite3.Connection) -> int:
        blob = connection.execute("INSERT INTO loose (since) VALUES (?)", (self._clock(),)).lastrowid
        assert blob is not None, "a row was inserted"
        return blob

    def _drop_unfinished(self, connection: sqlite3.Connection, blob: int) -> None:
        """Remove the chunks of a blob, unless a key names it: its writer was cancelled behind the last step."""
        for _ in connection.execute("SELECT 1 FROM loose WHERE blob = ?", (blob,)).fetchall():
            _drop(connection, blob)

    async def _commit(self, key: str, entry: tuple[int | None, str | None, int | None, bytes | None]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            tied = connection.execute("DELETE FROM loose WHERE blob = ?", (entry[2],)).rowcount
            if entry[2] is not None and not tied:
                raise KvRefusal(*TOO_SLOW)
            self._tidy(connection)
            self._release(connection, "key = ?", key.encode())
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (key.encode(), *entry))

        await self._file.run(write)

    async def delete(self, key: str) -> None:
        await self._file.run(lambda connection: self._release(connection, "key = ?", key.encode()))

    def _release(self, connection: sqlite3.Connection, condition: str, value: bytes | float) -> None:
        """Remove entries; their blobs are loose from now on."""
        removed = connection.execute(f"DELETE FROM entries WHERE {condition} RETURNING blob", (value,)).fetchall()
        for (blob,) in removed:
            if blob is not None:
                connection.execute("INSERT INTO loose VALUES (?, ?)", (blob, self._clock()))

    def _tidy(self, connection: sqlite3.Connection) -> None:
        """Remove what has expired, and blobs that have been loose for long enough."""
        self._release(connection, "expiration <= ?", self._clock())
        oldest = self._clock() - LOOSE_SECONDS
        for (blob,) in connection.execute("SELECT blob FROM loose WHERE since <= ?", (oldest,)).fetchall():
            _drop(connection, blob)

    async def list(self, prefix: str, cursor: str | None, limit: int) -> KvPage:
        start = prefix.encode()
        after = b"" if cursor is None else key_of(cursor).encode()
        now = self._clock()

        def find(connection: sqlite3.Connection) -> list[tuple[bytes, int | None, str | None]]:
            end = behind(start)
            return connection.execute(
                "SELECT key, expiration, metadata FROM entries"
                f" WHERE key >= ? AND key > ? {'' if end is None else 'AND key < ?'}"
                " AND (expiration IS NULL OR expiration > ?) ORDER BY key LIMIT ?",
                (start, after, *([] if end is None else [end]), now, limit + 1),
            ).fetchall()

        rows = await self._file.read(find)
        keys = [KvKey(key.decode(), expiration, metadata) for key, expiration, metadata in rows[:limit]]
        return KvPage(keys, cursor_after(keys[-1].name) if len(rows) > limit else None)

    async def aclose(self) -> None:
        await self._file.aclose()


def _drop(connection: sqlite3.Connection, blob: int) -> None:
    connection.execute("DELETE FROM chunks WHERE blob = ?", (blob,))
    connection.execute("DELETE FROM loose WHERE blob = ?", (blob,))
