"""Hosted images on this machine: what is known of them in a SQLite file, their bytes in a folder beside it.

An image is a row of the database (images_rows.py), and its file has a name of the store's own: no id ever becomes a
path. The file is whole on disk before its row is written, and goes after its row: a crash leaves no half image, at
worst a file without a row, which the next opening removes.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

import anyio
from anyio import to_thread

from capnweb_py.web import ReadableStream
from proxy_server.stores import images_rows
from proxy_server.stores.images import Changes, Draft, HostedImage, Selection
from proxy_server.stores.sqlite import SqliteFile

__all__ = ["FileImageStore"]

# How much of a file is read at a time.
_PIECE_BYTES: Final = 65_536

# A file without a row that is older than this, in seconds, is of a process that ended before it wrote the row. A
# younger one may be of another process that is about to.
_ABANDONED_AFTER: Final = 3600.0


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
        async with self._new_file(database, data) as name:
            return await database.run(lambda connection: images_rows.insert(connection, image, name))

    async def reserve(self, draft: Draft) -> bool:
        database = await self._open()
        return await database.run(lambda connection: images_rows.insert_draft(connection, draft))

    async def drafted(self, ticket: str) -> HostedImage | None:
        database = await self._open()
        return await database.read(lambda connection: images_rows.find_draft(connection, ticket))

    async def fill(self, ticket: str, filename: str, uploaded: int, data: bytes) -> HostedImage | None:
        database = await self._open()
        async with self._new_file(database, data) as name:
            return await database.run(
                lambda connection: images_rows.promote(connection, ticket, filename, uploaded, name)
            )

    async def details(self, image_id: str) -> HostedImage | None:
        database = await self._open()
        return await database.read(lambda connection: images_rows.find(connection, image_id))

    async def data(self, image_id: str) -> ReadableStream[bytes] | None:
        database = await self._open()

        def name(connection: sqlite3.Connection) -> str | None:
            return images_rows.find_file(connection, image_id)

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
        return await database.run(lambda connection: images_rows.change(connection, image_id, changes))

    async def delete(self, image_id: str) -> bool:
        database = await self._open()
        deleted, file_name = await database.run(lambda connection: images_rows.remove(connection, image_id))
        if file_name is not None:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(_unlink, self._folder / file_name)
        return deleted

    async def select(self, selection: Selection) -> list[HostedImage]:
        database = await self._open()
        return await database.read(lambda connection: images_rows.search(connection, selection))

    async def signing_key(self) -> bytes:
        database = await self._open()
        return await database.run(images_rows.signing_key)

    async def known_signing_key(self) -> bytes | None:
        database = await self._open()
        return await database.read(images_rows.known_signing_key)

    async def aclose(self) -> None:
        async with self._opening:
            if self._database is not None:
                await self._database.aclose()
                self._database = None

    async def _open(self) -> SqliteFile:
        async with self._opening:
            if self._database is None:
                path = self._folder.with_name(f"{self._folder.name}.sqlite3")
                database = await SqliteFile.open(path, images_rows.SCHEMA)
                try:
                    await to_thread.run_sync(_make_folder, self._folder)
                    await self._remove_abandoned(database)
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await database.aclose()
                    raise
                self._database = database
            return self._database

    @asynccontextmanager
    async def _new_file(self, database: SqliteFile, data: bytes) -> AsyncIterator[str]:
        """A file for whose name the block is to write a row. Without one, whatever happened, it goes again."""
        path = self._folder / secrets.token_hex(16)
        try:
            await to_thread.run_sync(_write, path, data)
            yield path.name
        finally:
            # A transaction that was cancelled has ended by now, one way or the other.
            with anyio.CancelScope(shield=True):
                await self._discard_without_row(database, path)

    async def _remove_abandoned(self, database: SqliteFile) -> None:
        """Remove the files of uploads that a crash cut short."""
        old = await to_thread.run_sync(_files_older_than, self._folder, _ABANDONED_AFTER)
        for path in old:
            await self._discard_without_row(database, path)

    async def _discard_without_row(self, database: SqliteFile, path: Path) -> None:
        if not await database.read(lambda connection: images_rows.has_file(connection, path.name)):
            await to_thread.run_sync(_unlink, path)


class _OpenFile:
    """The pieces of a file. Whoever reads it to the end, or closes it, closes the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._file.closed:
            raise StopAsyncIteration
        piece: bytes = await to_thread.run_sync(self._file.read, _PIECE_BYTES)
        if not piece:
            self._file.close()
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        self._file.close()


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
