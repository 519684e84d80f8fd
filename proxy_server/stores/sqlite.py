"""SQLite for the embedded stores: one file, whose work is done in a thread, one piece at a time.

Whatever has returned is on disk, and stays there when the process is killed (WAL, synchronous=NORMAL keeps it from a
crash of the process; a loss of power may take the last moments, and never breaks the file).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import anyio
import anyio.to_thread

__all__ = ["SqliteFile", "use_wal"]

ResultT = TypeVar("ResultT")

# How long, in milliseconds, to wait for another process that writes the same file.
_BUSY_TIMEOUT: Final = 10_000

# How long, in seconds, until what is not waited for is tried again.
_PAUSE: Final = 0.01


class _Connection(Protocol):
    """One of the standard library, or of APSW."""

    def execute(self, statements: str, /) -> Any: ...


def use_wal(connection: _Connection) -> None:
    """Switch to WAL. SQLite waits for nobody there: of several processes that open a new file, all but one are told
    that it is locked, and try again here."""
    give_up = time.monotonic() + _BUSY_TIMEOUT / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
        time.sleep(_PAUSE)


class SqliteFile:
    """One database file. Made by `open`.

    Work is a function of the connection. Each piece is a transaction: it is committed when the function returns, and
    rolled back when it raises. A task that is cancelled meanwhile waits for the end of its piece.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._limiter = anyio.CapacityLimiter(1)

    @classmethod
    async def open(cls, path: Path, schema: str) -> SqliteFile:
        """Open a file, and make it with its folders where it is not there.

        Args:
            path: of the file.
            schema: statements that make the tables that are not there yet.

        Raises:
            OSError: if the folder cannot be made.
            sqlite3.Error: if the file cannot be opened, or is no database.
        """

        def connect() -> sqlite3.Connection:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}")
                use_wal(connection)
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(schema)
            except BaseException:
                connection.close()
                raise
            return connection

        return cls(await anyio.to_thread.run_sync(connect))

    async def run(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Do a piece of work that writes. Returns what it returns, once that is on disk."""
        return await self._in_transaction("BEGIN IMMEDIATE", work)

    async def read(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Do a piece of work that only reads: it waits for no other process's writing."""
        return await self._in_transaction("BEGIN", work)

    async def _in_transaction(self, begin: str, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        def transact() -> ResultT:
            self._connection.execute(begin)
            try:
                result = work(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return result

        return await anyio.to_thread.run_sync(transact, limiter=self._limiter)

    async def aclose(self) -> None:
        """Close the file. Nothing may be done with it any more."""
        await anyio.to_thread.run_sync(self._connection.close, limiter=self._limiter)
