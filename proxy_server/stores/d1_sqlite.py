"""A D1 database in one file of SQLite: the embedded default.

The SQLite is that of APSW: of the same generation as D1's own, with its extended error codes and the places of errors,
whatever the operating system ships. One piece of work is done at a time, in a thread; each is a transaction. Whatever
has returned survives the death of the process (WAL, synchronous=NORMAL; a loss of power may take the last moments,
never the file).

D1 resets a database that does not answer in time. So does this: a statement that cannot be stopped is left to itself,
with its connection, and whatever comes next has a new one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import anyio
import apsw

from .d1 import MAX_QUERY_SECONDS, OVERLOADED, TIMED_OUT, D1Failure, Outcome, Statement
from .d1_connection import connect, failures
from .d1_database import BeforeRunning, Database
from .d1_dump import MAX_COPYING_SECONDS, Dump, copy_into
from .d1_rules import Rules
from .d1_sql import without_blanks
from .d1_thread import ConnectionThread, Lease, LeftBehindError

__all__ = ["SqliteD1"]

ResultT = TypeVar("ResultT")

# How many statements that could not be stopped may run beside the one whose turn it is.
_MAX_LEFT: Final = 3

# How many copies of the database may be there to be read.
_MAX_DUMPS: Final = 2


class SqliteD1:
    """One database file. Made by `open`."""

    def __init__(self, path: Path, read_only: bool) -> None:
        # Set before the first statement, by a store that is built on this one.
        self.before_running: BeforeRunning | None = None
        self._path = path
        self._read_only = read_only
        self._turn = anyio.Lock()
        self._open: tuple[ConnectionThread, Database] | None = None
        self._left: list[ConnectionThread] = []
        # How many dumps are made or read, and those that are read.
        self._dumps = 0
        self._read_dumps: list[Dump] = []
        self._is_closed = False

    @classmethod
    async def open(cls, path: Path, *, read_only: bool = False) -> SqliteD1:
        """Open a file, and make it with its folders where it is not there.

        Args:
            path: of the file.
            read_only: whether statements that write are refused.

        Raises:
            OSError: if the folder cannot be made.
            apsw.Error: if the file cannot be opened, or is no database.
        """
        store = cls(path, read_only)
        await store._connected()
        return store

    async def run(self, statements: Sequence[Statement], token: str | None = None) -> tuple[list[Outcome], str]:
        """As D1Store says. The bookmark has no use here: there is one copy, and it is always the latest."""
        present = without_blanks(statements)
        return await self._do(lambda database, lease: database.run(lease, present))

    async def in_transaction(self, work: Callable[[apsw.Connection, Rules], ResultT]) -> ResultT:
        """Do a piece of work in a transaction, for a store that is built on this one. Its SQL is under the rules, save
        for what it does while the rules are told that it is trusted."""

        def transact(database: Database, lease: Lease) -> ResultT:
            with database.transaction(lease):
                return work(database.connection, database.rules)

        return await self._do(transact)

    async def dump(self) -> AsyncIterator[bytes]:
        """As D1Store says: a copy is made first, beside the file, without the store's own table."""
        for unread in list(self._read_dumps):
            if self._dumps == _MAX_DUMPS:
                await unread.make_room()
        if self._dumps == _MAX_DUMPS:
            raise D1Failure(f"{OVERLOADED} At most {_MAX_DUMPS} dumps are read at a time: try again later.")
        self._dumps += 1
        try:
            dump = Dump(await self._copy(), self._dump_has_gone)
        except BaseException:
            self._dumps -= 1
            raise
        self._read_dumps.append(dump)
        return dump

    async def aclose(self) -> None:
        """Close the file, or have it closed when what cannot be stopped is through. Nothing may be done with it any
        more."""
        with anyio.CancelScope(shield=True):
            async with self._turn:
                self._is_closed = True
                if self._open is not None:
                    thread, database = self._open
                    self._open = None
                    await thread.end(database.close)

    async def _do(self, work: Callable[[Database, Lease], ResultT]) -> ResultT:
        """Do a piece of work when it is its turn."""
        async with self._turn:
            try:
                thread, database = await self._connected()
            except apsw.Error as error:
                raise D1Failure(f"the database cannot be opened again: {error}") from error
            lease = Lease(MAX_QUERY_SECONDS, database.connection.interrupt)
            try:
                return await thread.run_under(lease, partial(work, database, lease))
            except LeftBehindError:
                raise D1Failure(TIMED_OUT) from None
            finally:
                if thread.is_left:
                    self._open = None
                    self._left.append(thread)
                    thread.end_later(database.close)

    async def _connected(self) -> tuple[ConnectionThread, Database]:
        if self._is_closed:
            raise D1Failure("the database is closed")
        if self._open is None:
            self._left = [thread for thread in self._left if thread.is_alive()]
            if len(self._left) == _MAX_LEFT:
                raise D1Failure(OVERLOADED)
            thread = ConnectionThread(f"d1 {self._path.name}")
            try:
                database = await thread.run(partial(Database, self._path, self._read_only, self._look))
            except BaseException:
                thread.end_later()
                raise
            self._open = thread, database
        return self._open

    def _look(self, connection: apsw.Connection, rules: Rules) -> None:
        if self.before_running is not None:
            self.before_running(connection, rules)

    async def _copy(self) -> BinaryIO:
        """Copy the database, on a connection of its own: others go on meanwhile."""
        thread = ConnectionThread(f"d1 dump {self._path.name}")
        try:
            connection, rules = await thread.run(partial(connect, self._path, True))
            lease = Lease(MAX_COPYING_SECONDS, connection.interrupt)

            copies: list[BinaryIO] = []

            def copy() -> None:
                with failures(rules, lambda: TIMED_OUT):
                    copies.append(copy_into(self._path.parent, connection, lease.is_over))

            try:
                await thread.run_under(lease, copy)
                return copies.pop()
            except LeftBehindError:
                raise D1Failure(TIMED_OUT) from None
            finally:
                thread.end_later(*(file.close for file in copies), connection.close)
        finally:
            thread.end_later()

    def _dump_has_gone(self, dump: Dump) -> None:
        self._read_dumps.remove(dump)
        self._dumps -= 1
