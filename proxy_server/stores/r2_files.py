"""A bucket in a folder: content in files, and what the keys mean in SQLite.

    index.sqlite3       records, uploads and parts; in an overlay, the keys that are deleted there
    blobs/ab/abcd...    content, each file under a random name: a key is never a path
    incoming/abcd...    content that is being written
    in-use              locked by each process that has the bucket open

A file is written under "incoming", synced and renamed before the index refers to it. What a crash leaves behind is in
the table "unreferenced", and is deleted when the bucket is opened; where it is open already, when that is a day old.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Final

import anyio.to_thread

from proxy_server.stores.in_use import InUse
from proxy_server.stores.r2 import Start
from proxy_server.stores.r2_bucket import Bucket
from proxy_server.stores.r2_errors import InvalidPart, NoSuchUpload
from proxy_server.stores.r2_parts import ABORTED, COMPLETED, OPEN, Blob, Part, Record, Upload
from proxy_server.stores.r2_rules import after_prefix
from proxy_server.stores.sqlite import SqliteFile

__all__ = ["INDEX", "open_files"]

INDEX: Final = "index.sqlite3"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, version TEXT NOT NULL, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, metadata TEXT NOT NULL, created INTEGER NOT NULL, state INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT NOT NULL, number INTEGER NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL, md5 BLOB NOT NULL,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unreferenced (blob TEXT PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deleted (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""

# Where another process may be writing it, what a crash has left is deleted when it is this old, in milliseconds.
_LEFT_OVER: Final = 24 * 3600 * 1000
# An upload that nobody completes is aborted when it is this old (Cloudflare's default: seven days).
_UPLOAD_AGE: Final = 7 * 24 * 3600 * 1000

# How much is read at a time.
_CHUNK_BYTES: Final = 256 * 1024


async def open_files(folder: Path, *, overlay: bool = False) -> tuple[Bucket, SqliteFile]:
    """Open the bucket in a folder, which is made where it is not there. Closing the bucket closes the index, too.

    Args:
        folder: where it is.
        overlay: whether it keeps in mind which keys were deleted.

    Raises:
        OSError: if the folder cannot be made.
        sqlite3.Error: if the index cannot be opened.
    """
    async with AsyncExitStack() as undo:
        blobs = await anyio.to_thread.run_sync(FileBlobs, folder)
        undo.callback(blobs.close)
        index = await SqliteFile.open(folder / INDEX, _SCHEMA)
        undo.push_async_callback(index.aclose)
        records = SqliteRecords(index, overlay=overlay)
        left_over = await records.left_over(0 if blobs.in_use.alone else _LEFT_OVER)
        await anyio.to_thread.run_sync(blobs.delete, left_over)
        await records.forget(left_over)
        await anyio.to_thread.run_sync(blobs.in_use.share)
        undo.pop_all()
        return Bucket(blobs, records), index


class FileBlobs:
    """Blobs, a file each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.in_use = InUse(folder)
        self._blobs = folder / "blobs"
        self._incoming = folder / "incoming"
        self._blobs.mkdir(exist_ok=True)
        self._incoming.mkdir(exist_ok=True)

    def create(self, blob_id: str) -> FileWriter:
        return FileWriter(self._incoming / blob_id, self._path(blob_id))

    def open(self, blob_id: str, offset: int, length: int) -> FileReader:
        return FileReader(self._path(blob_id), offset, length)

    def delete(self, blob_ids: Sequence[str]) -> None:
        for blob_id in blob_ids:
            self._path(blob_id).unlink(missing_ok=True)
            (self._incoming / blob_id).unlink(missing_ok=True)

    def close(self) -> None:
        self.in_use.close()

    def _path(self, blob_id: str) -> Path:
        return self._blobs / blob_id[:2] / blob_id


class FileWriter:
    """A file that is being written."""

    def __init__(self, incoming: Path, final: Path) -> None:
        self._incoming = incoming
        self._final = final
        self._file: IO[bytes] = incoming.open("xb")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def commit(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._final.parent.mkdir(exist_ok=True)
        self._incoming.rename(self._final)
        _sync_folder(self._final.parent)

    def discard(self) -> None:
        self._file.close()
        self._incoming.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have a new name in a folder survive a loss of power, where folders can be synced."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class FileReader:
    """A part of a file that is being read."""

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self._file = path.open("rb")
        self._file.seek(offset)
        self._left = length

    def read(self) -> bytes:
        data = self._file.read(min(_CHUNK_BYTES, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


class SqliteRecords:
    """Records in SQLite, whose own order of texts is that of code points."""

    def __init__(self, file: SqliteFile, *, overlay: bool) -> None:
        self._file = file
        self._overlay = overlay

    async def left_over(self, age: int) -> list[str]:
        """Give up uploads that are too old. Returns the blobs that nothing has referred to for so many milliseconds."""

        def work(connection: sqlite3.Connection) -> list[str]:
            now = _now()
            old = "SELECT id FROM uploads WHERE created < ?"
            connection.execute(
                f"INSERT OR IGNORE INTO unreferenced SELECT blob, 0 FROM parts WHERE upload IN ({old})",
                (now - _UPLOAD_AGE,),
            )
            connection.execute(f"DELETE FROM parts WHERE upload IN ({old})", (now - _UPLOAD_AGE,))
            connection.execute(
                "UPDATE uploads SET state = ? WHERE state = ? AND created < ?", (ABORTED, OPEN, now - _UPLOAD_AGE)
            )
            rows = connection.execute("SELECT blob FROM unreferenced WHERE since <= ?", (now - age,))
            return [blob for (blob,) in rows]

        return await self._file.run(work)

    async def announce(self, blob_id: str) -> None:
        await self._file.run(lambda connection: _unreference(connection, [blob_id]))

    async def forget(self, blob_ids: Sequence[str]) -> None:
        await self._file.run(lambda connection: _reference(connection, blob_ids))

    async def get(self, key: str) -> Record | None:
        def work(connection: sqlite3.Connection) -> Record | None:
            row = connection.execute("SELECT record FROM objects WHERE key = ?", (key,)).fetchone()
            return None if row is None else Record.from_json(key, row[0])

        return await self._file.read(work)

    async def swap(self, key: str, old: Record | None, new: Record, *, beneath: bool = False) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute("SELECT version FROM objects WHERE key = ?", (key,)).fetchone()
            if (None if row is None else row[0]) != (None if old is None else old.info.version):
                return False
            if old is None and beneath and connection.execute("SELECT 1 FROM deleted WHERE key = ?", (key,)).fetchone():
                return False
            _put(connection, old, new)
            return True

        return await self._file.run(work)

    async def remove(self, keys: Sequence[str]) -> list[Record]:
        def work(connection: sqlite3.Connection) -> list[Record]:
            removed = []
            for key in keys:
                row = connection.execute("DELETE FROM objects WHERE key = ? RETURNING record", (key,)).fetchone()
                if row is not None:
                    removed.append(Record.from_json(key, row[0]))
            _unreference(connection, [blob.id for record in removed for blob in record.blobs])
            if self._overlay:
                connection.executemany("INSERT OR IGNORE INTO deleted VALUES (?)", [(key,) for key in keys])
            return removed

        return await self._file.run(work)

    async def scan(self, prefix: str, start: Start, limit: int) -> list[Record]:
        condition = "key >= ?" if start.inclusive else "key > ?"
        lowest, end = start.key, after_prefix(prefix)
        if prefix > start.key:
            condition, lowest = "key >= ?", prefix

        def work(connection: sqlite3.Connection) -> list[Record]:
            rows = connection.execute(
                f"SELECT key, record FROM objects WHERE {condition} AND (? IS NULL OR key < ?) ORDER BY key LIMIT ?",
                (lowest, end, end, limit),
            )
            return [Record.from_json(key, text) for key, text in rows if key.startswith(prefix)]

        return await self._file.read(work)

    async def add_upload(self, upload: Upload) -> None:
        row = (upload.id, upload.key, json.dumps(upload.described()), upload.created, upload.state)
        await self._file.run(lambda connection: connection.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", row))

    async def upload(self, upload_id: str) -> Upload | None:
        def work(connection: sqlite3.Connection) -> Upload | None:
            row = connection.execute(
                "SELECT key, metadata, created, state FROM uploads WHERE id = ?", (upload_id,)
            ).fetchone()
            if row is None:
                return None
            key, described, created, state = row
            return Upload.from_described(upload_id, key, json.loads(described), created, state)

        return await self._file.read(work)

    async def complete(self, upload: Upload, parts: Sequence[Part], new: Record) -> list[str]:
        def work(connection: sqlite3.Connection) -> list[str]:
            if not _is_open(connection, upload):
                raise NoSuchUpload
            uploaded = _end(connection, upload, COMPLETED)
            if not {part.blob.id for part in parts} <= uploaded:
                raise InvalidPart
            row = connection.execute("SELECT record FROM objects WHERE key = ?", (upload.key,)).fetchone()
            old = None if row is None else Record.from_json(upload.key, row[0])
            unused = [*(uploaded - {blob.id for blob in new.blobs})]
            _unreference(connection, unused)
            _put(connection, old, new)
            return unused if old is None else unused + [blob.id for blob in old.blobs]

        return await self._file.run(work)

    async def abort(self, upload: Upload) -> list[str]:
        def work(connection: sqlite3.Connection) -> list[str]:
            if not _is_open(connection, upload):
                return []
            unused = [*_end(connection, upload, ABORTED)]
            _unreference(connection, unused)
            return unused

        return await self._file.run(work)

    async def add_part(self, upload: Upload, part: Part) -> list[str]:
        def work(connection: sqlite3.Connection) -> list[str]:
            if not _is_open(connection, upload):
                raise NoSuchUpload
            place = (upload.id, part.number)
            replaced = connection.execute("SELECT blob FROM parts WHERE upload = ? AND number = ?", place).fetchall()
            connection.execute(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?)",
                (*place, part.blob.id, part.blob.size, part.digest),
            )
            _reference(connection, [part.blob.id])
            unused = [blob for (blob,) in replaced]
            _unreference(connection, unused)
            return unused

        return await self._file.run(work)

    async def parts(self, upload: Upload) -> list[Part]:
        def work(connection: sqlite3.Connection) -> list[Part]:
            rows = connection.execute(
                "SELECT number, blob, size, md5 FROM parts WHERE upload = ? ORDER BY number", (upload.id,)
            )
            return [Part(number, Blob(blob, size), digest) for number, blob, size, digest in rows]

        return await self._file.read(work)

    async def aclose(self) -> None:
        await self._file.aclose()


def _put(connection: sqlite3.Connection, old: Record | None, new: Record) -> None:
    """Put a record in the place of the one that is there."""
    if old is not None:
        _unreference(connection, [blob.id for blob in old.blobs])
    _reference(connection, [blob.id for blob in new.blobs])
    key = new.info.key
    connection.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (key, new.info.version, new.to_json()))
    connection.execute("DELETE FROM deleted WHERE key = ?", (key,))


def _is_open(connection: sqlite3.Connection, upload: Upload) -> bool:
    row = connection.execute("SELECT state FROM uploads WHERE id = ?", (upload.id,)).fetchone()
    return row is not None and row[0] == OPEN


def _end(connection: sqlite3.Connection, upload: Upload, state: int) -> set[str]:
    """Say how an upload has ended. Returns the blobs of its parts, which are forgotten."""
    connection.execute("UPDATE uploads SET state = ? WHERE id = ?", (state, upload.id))
    rows = connection.execute("DELETE FROM parts WHERE upload = ? RETURNING blob", (upload.id,)).fetchall()
    return {blob for (blob,) in rows}


def _unreference(connection: sqlite3.Connection, blob_ids: Sequence[str]) -> None:
    now = _now()
    connection.executemany("INSERT OR IGNORE INTO unreferenced VALUES (?, ?)", [(each, now) for each in blob_ids])


def _reference(connection: sqlite3.Connection, blob_ids: Sequence[str]) -> None:
    connection.executemany("DELETE FROM unreferenced WHERE blob = ?", [(each,) for each in blob_ids])


def _now() -> int:
    return time.time_ns() // 1_000_000
