"""The whole of a D1 database as a SQLite file, in chunks: a copy that nobody sees, of which each reader has one."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Final

import apsw
from anyio import to_thread

from .d1 import D1Failure
from .d1_connection import OWN_TABLE

__all__ = ["MAX_COPYING_SECONDS", "PATIENCE", "Dump", "copy_into"]

# How long, in seconds, copying may take.
MAX_COPYING_SECONDS: Final = 600.0

# For how long, in seconds, nobody may read of a dump whose place another one needs.
PATIENCE: Final = 60.0

_PREFIX: Final = "d1-dump-"
_CHUNK_BYTES: Final = 65_536
_PAGES_AT_ONCE: Final = 1_000


def copy_into(folder: Path, connection: apsw.Connection, must_stop: Callable[[], bool]) -> BinaryIO:
    """Copy a database into a file that has no name any more when it is there: it goes when it is closed.

    Args:
        folder: where it is.
        connection: of the database. The copy has not the store's own table.
        must_stop: whether to give up. It is asked again and again.

    Returns:
        The file, at its beginning.

    Raises:
        apsw.InterruptError: it was given up.
    """
    _remove_leftovers(folder)
    descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
    os.close(descriptor)
    try:
        copy = apsw.Connection(name)
        try:
            with copy.backup("main", connection, "main") as backup:
                while not backup.done:
                    if must_stop():
                        raise apsw.InterruptError("interrupted")
                    backup.step(_PAGES_AT_ONCE)
            copy.execute(f"PRAGMA journal_mode = DELETE; DROP TABLE {OWN_TABLE}").fetchall()
        finally:
            copy.close()
        return open(name, "rb")
    finally:
        os.unlink(name)


def _remove_leftovers(folder: Path) -> None:
    """Of copies in whose making a process was killed."""
    for file in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else was faster
            if file.stat().st_mtime < time.time() - 2 * MAX_COPYING_SECONDS:
                file.unlink()


class Dump(AsyncIterator[bytes]):
    """A copy of a database, in chunks. It is gone when it has been read, or is closed.

    Args:
        file: the copy.
        gone: is called then.
    """

    def __init__(self, file: BinaryIO, gone: Callable[[Dump], object]) -> None:
        self._file = file
        self._gone: Callable[[Dump], object] | None = gone
        # Since when nobody reads of it; None while somebody does.
        self._resting_since: float | None = time.monotonic()
        self._given_up = False

    async def __anext__(self) -> bytes:
        if self._given_up:
            raise D1Failure(f"The dump was not read for {PATIENCE:g} s, and another one was asked for.")
        self._resting_since = None
        try:
            if self._gone is not None and (chunk := await to_thread.run_sync(self._file.read, _CHUNK_BYTES)):
                return chunk
        finally:
            self._resting_since = time.monotonic()
        await self.aclose()
        raise StopAsyncIteration

    async def make_room(self) -> None:
        """Let go of the copy if nobody has read of it for PATIENCE: who goes on reading is told so."""
        if self._resting_since is not None and time.monotonic() - self._resting_since >= PATIENCE:
            self._given_up = True
            await self.aclose()

    async def aclose(self) -> None:
        """Let go of the copy. Safe to do twice."""
        gone, self._gone = self._gone, None
        if gone is not None:
            gone(self)
            self._file.close()
