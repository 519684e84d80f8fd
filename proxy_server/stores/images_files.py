"""Hosted images on this machine: what is known of them in a SQLite file, their bytes in a folder beside it.

An image is a row of the database, and its file has a name of the store's own: no id ever becomes a path. The file is
whole on disk before its row is written, and goes after its row: a crash leaves no half image, at worst a file without
a row, which the next opening removes.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final

import anyio
from anyio import to_thread

from capnweb_py.web import ReadableStream
from proxy_server.stores.images import Changes, Condition, HostedImage, Selection
from proxy_server.stores.sqlite import SqliteFile

__all__ = ["FileImageStore"]

# How much of a file is read at a time.
_PIECE_BYTES: Final = 65_536

# A file without a row that is older than this, in seconds, is of a process that ended before it wrote the row. A
# younger one may be of another process that is about to.
_ABANDONED_AFTER: Final = 3600.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY,
    uploaded INTEGER NOT NULL,
    filename TEXT NOT NULL,
    require_signed_urls INTEGER NOT NULL,
    meta TEXT NOT NULL,
    creator TEXT,
    file TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS images_in_order ON images (uploaded, id);
"""

_OPERATORS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

_COLUMNS: Final = "id, uploaded, filename, require_signed_urls, meta, creator"


class FileImageStore:
    """A store in one folder and one database. They are made when they are first needed, and several processes may use
    them at a time.

    Args:
        path: of both, without an ending: the database is at `path` with ".sqlite3" after it, the folder at `path`.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path
        self._opening = anyio.Lock()
        self._database: SqliteFile | None = None

    async def add(self, image: HostedImage, data: bytes) -> bool:
        database = await self._open()
        path = self._folder / secrets.token_hex(16)
        row = (*_row(image), path.name)

        def insert(connection: sqlite3.Connection) -> bool:
            statement = f"INSERT INTO images ({_COLUMNS}, file) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            return connection.execute(statement, row).rowcount == 1

        added = False
        try:
            await to_thread.run_sync(_write, path, data)
            added = await database.run(insert)
        finally:
            if not added:
                # A cancelled insert has ended by now, one way or the other.
                with anyio.CancelScope(shield=True):
                    await self._discard_without_row(database, path)
        return added

    async def details(self, image_id: str) -> HostedImage | None:
        database = await self._open()
        return await database.read(lambda connection: _find(connection, image_id))

    async def data(self, image_id: str) -> ReadableStream[bytes] | None:
        database = await self._open()

        def name(connection: sqlite3.Connection) -> str | None:
            found = connection.execute("SELECT file FROM images WHERE id = ?", (image_id,)).fetchone()
            return None if found is None else found[0]

        file_name = await database.read(name)
        if file_name is None:
            return None
        try:
            file = await to_thread.run_sync(open, self._folder / file_name, "rb")
        except FileNotFoundError:
            # Deleted since the row was read. Without its row the image is gone.
            if await database.read(name) is None:
                return None
            raise
        return ReadableStream(_OpenFile(file), length=os.fstat(file.fileno()).st_size)

    async def update(self, image_id: str, changes: Changes) -> HostedImage | None:
        database = await self._open()
        assignments: dict[str, object] = {}
        if changes.require_signed_urls is not None:
            assignments["require_signed_urls"] = int(changes.require_signed_urls)
        if changes.meta is not None:
            assignments["meta"] = _json(changes.meta)
        if changes.creator is not None:
            assignments["creator"] = changes.creator

        def change(connection: sqlite3.Connection) -> HostedImage | None:
            if assignments:
                settings = ", ".join(f"{column} = ?" for column in assignments)
                connection.execute(f"UPDATE images SET {settings} WHERE id = ?", (*assignments.values(), image_id))
            return _find(connection, image_id)

        return await database.run(change)

    async def delete(self, image_id: str) -> bool:
        database = await self._open()

        def remove(connection: sqlite3.Connection) -> str | None:
            gone = connection.execute("DELETE FROM images WHERE id = ? RETURNING file", (image_id,)).fetchall()
            return gone[0][0] if gone else None

        file_name = await database.run(remove)
        if file_name is None:
            return False
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_unlink, self._folder / file_name)
        return True

    async def select(self, selection: Selection) -> list[HostedImage]:
        database = await self._open()
        conditions: list[str] = []
        values: list[object] = []
        if selection.after is not None:
            conditions.append(f"(uploaded, id) {'<' if selection.newest_first else '>'} (?, ?)")
            values += [selection.after.uploaded, selection.after.id]
        if selection.creator is not None:
            conditions.append("creator = ?")
            values.append(selection.creator)
        for condition in selection.conditions:
            clause, operands = _clause(condition)
            conditions.append(clause)
            values += operands
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        order = "DESC" if selection.newest_first else "ASC"
        query = f"SELECT {_COLUMNS} FROM images {where} ORDER BY uploaded {order}, id {order} LIMIT ?"
        rows = await database.read(lambda connection: connection.execute(query, (*values, selection.limit)).fetchall())
        return [_image(row) for row in rows]

    async def aclose(self) -> None:
        async with self._opening:
            if self._database is not None:
                await self._database.aclose()
                self._database = None

    async def _open(self) -> SqliteFile:
        async with self._opening:
            if self._database is None:
                database = await SqliteFile.open(self._folder.with_name(f"{self._folder.name}.sqlite3"), _SCHEMA)
                try:
                    await to_thread.run_sync(_make_folder, self._folder)
                    await self._remove_abandoned(database)
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await database.aclose()
                    raise
                self._database = database
            return self._database

    async def _remove_abandoned(self, database: SqliteFile) -> None:
        """Remove the files of uploads that a crash cut short."""
        old = await to_thread.run_sync(_files_older_than, self._folder, _ABANDONED_AFTER)
        for path in old:
            await self._discard_without_row(database, path)

    async def _discard_without_row(self, database: SqliteFile, path: Path) -> None:
        def has_row(connection: sqlite3.Connection) -> bool:
            return connection.execute("SELECT 1 FROM images WHERE file = ?", (path.name,)).fetchone() is not None

        if not await database.read(has_row):
            await to_thread.run_sync(_unlink, path)


class _OpenFile:
    """The pieces of a file. Whoever reads it to the end, or closes it, closes the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece: bytes = await to_thread.run_sync(self._file.read, _PIECE_BYTES)
        if not piece:
            self._file.close()
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        self._file.close()


def _find(connection: sqlite3.Connection, image_id: str) -> HostedImage | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM images WHERE id = ?", (image_id,)).fetchone()
    return None if row is None else _image(row)


def _image(row: tuple[str, int, str, int, str, str | None]) -> HostedImage:
    image_id, uploaded, filename, require_signed_urls, meta, creator = row
    return HostedImage(image_id, uploaded, filename, bool(require_signed_urls), json.loads(meta), creator)


def _row(image: HostedImage) -> tuple[str, int, str, int, str, str | None]:
    signed = int(image.require_signed_urls)
    return image.id, image.uploaded, image.filename, signed, _json(image.meta), image.creator


def _clause(condition: Condition) -> tuple[str, list[object]]:
    """A condition as SQL, and the values of its placeholders."""
    path = "".join(["$", *(f'."{name}"' for name in condition.path)])
    first = condition.values[0]
    if isinstance(first, bool):
        return "json_type(meta, ?) = ?", [path, "true" if first else "false"]
    types = "('text')" if isinstance(first, str) else "('integer', 'real')"
    comparison = f"IN ({', '.join('?' * len(condition.values))})"
    if condition.operator != "in":
        comparison = f"{_OPERATORS[condition.operator]} ?"
    clause = f"json_type(meta, ?) IN {types} AND json_extract(meta, ?) {comparison}"
    return clause, [path, path, *condition.values]


def _json(meta: object) -> str:
    return json.dumps(meta, separators=(",", ":"))


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _files_older_than(folder: Path, seconds: float) -> list[Path]:
    latest = time.time() - seconds
    old = []
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < latest:
                old.append(path)
        except FileNotFoundError:
            continue  # another process was quicker
    return old
