"""A D1 database in one file of SQLite: the embedded default.

The SQLite is that of APSW: of the same generation as D1's own, with its extended error codes and the places of errors,
whatever the operating system ships. One piece of work is done at a time, in a thread; each is a transaction. Whatever
has returned survives the death of the process (WAL, synchronous=NORMAL; a loss of power may take the last moments,
never the file).
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
import apsw
from anyio import from_thread, to_thread

from .d1 import MAX_QUERY_SECONDS, NO_STATEMENT, ONLY_LAST_HAS_PARAMETERS, D1Failure, Meta, Outcome, SqlValue, Statement
from .d1_connection import OWN_TABLE, connect, failures
from .d1_rules import DEFAULT_PRAGMAS, Rules
from .d1_sql import only_reads, pieces, without_blanks

__all__ = ["MAX_RESULT_BYTES", "SqliteD1"]

ResultT = TypeVar("ResultT")

# How much one statement may return, in bytes, about. It is held in memory whole, here and wherever it goes. Our own
# limit.
MAX_RESULT_BYTES: Final = 100_000_000

# How many instructions of SQLite's machine pass between two looks at the clock: about a tenth of a millisecond.
_STEPS: Final = 10_000
_CHUNK_BYTES: Final = 65_536
_BACKUP_PAGES: Final = 1_000

_SIZE: Final = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
_RESERVED: Final = "SELECT count(*) FROM sqlite_schema WHERE lower(substr(name, 1, 4)) = '_cf_'"


class SqliteD1:
    """One database file. Made by `open`."""

    def __init__(self, connection: apsw.Connection, rules: Rules) -> None:
        self._connection = connection
        self._rules = rules
        self._limiter = anyio.CapacityLimiter(1)
        # Looks at a statement that is compiled and about to run, in the thread. What it raises ends the transaction.
        self.before_running: Callable[[apsw.Connection, Rules], None] | None = None
        self._deadline = math.inf
        self._scanned = 0
        # How many names of the platform there were before a statement that alters one.
        self._reserved = 0
        connection.set_progress_handler(self._must_stop, _STEPS)
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._count)

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
        return await to_thread.run_sync(lambda: cls(*connect(path, read_only)))

    async def run(self, statements: Sequence[Statement], token: str | None = None) -> tuple[list[Outcome], str]:
        """As D1Store says. The bookmark has no use here: there is one copy, and it is always the latest."""
        present = without_blanks(statements)

        def work() -> tuple[list[Outcome], str]:
            begin = "BEGIN" if all(only_reads(statement.sql) for statement in present) else "BEGIN IMMEDIATE"
            with self._transaction(begin):
                outcomes = [self._one(statement) for statement in present]
                return outcomes, self._bookmark(any(outcome.meta["changed_db"] for outcome in outcomes))

        return await self._in_thread(work)

    async def dump(self) -> AsyncIterator[bytes]:
        """As D1Store says: a copy is made first, in a temporary folder, without the store's own table."""
        folder = await to_thread.run_sync(lambda: tempfile.TemporaryDirectory(prefix="d1-dump-"))
        copy = Path(folder.name) / "dump.sqlite3"

        def make() -> None:
            other = apsw.Connection(str(copy))
            try:
                with other.backup("main", self._connection, "main") as backup:
                    while not backup.done:
                        backup.step(_BACKUP_PAGES)
                other.execute(f"DROP TABLE {OWN_TABLE}")
                other.execute("PRAGMA journal_mode = DELETE").fetchall()
                other.execute("VACUUM")
            finally:
                other.close()

        try:
            await self._in_thread(make)
            file = await anyio.open_file(copy, "rb")
        except BaseException:
            folder.cleanup()
            raise

        return _DumpFile(folder, file)

    async def aclose(self) -> None:
        """Close the file. Nothing may be done with it any more."""
        await to_thread.run_sync(self._connection.close, limiter=self._limiter)

    async def in_transaction(self, work: Callable[[apsw.Connection, Rules], ResultT]) -> ResultT:
        """Do a piece of work in a transaction, for a store that is built on this one. Its SQL is under the rules, save
        for what it does while the rules are told that it is trusted."""

        def transact() -> ResultT:
            with self._transaction("BEGIN IMMEDIATE"):
                return work(self._connection, self._rules)

        return await self._in_thread(transact)

    async def _in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        def timed() -> ResultT:
            self._deadline = time.monotonic() + MAX_QUERY_SECONDS
            try:
                return work()
            finally:
                self._deadline = math.inf

        try:
            return await to_thread.run_sync(timed, limiter=self._limiter)
        except D1Failure:
            # It may have been interrupted because the task is cancelled.
            await anyio.lowlevel.checkpoint_if_cancelled()
            raise

    # From here on, in the thread.

    def _must_stop(self) -> bool:
        """Whether what runs has to end: it takes too long, or nobody waits for it any more."""
        if self._rules.trusted:
            return False
        try:
            from_thread.check_cancelled()
        except BaseException:
            return True
        return time.monotonic() > self._deadline

    def _count(self, event: dict[str, Any]) -> None:
        status = event["stmt_status"]
        self._scanned += status["SQLITE_STMTSTATUS_FULLSCAN_STEP"] + status["SQLITE_STMTSTATUS_AUTOINDEX"]

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with failures(self._rules, lambda: time.monotonic() > self._deadline):
            self._own(begin)
            try:
                yield
                self._own("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._own("ROLLBACK")
                raise
            finally:
                for name in self._rules.pragmas:
                    self._own(f"PRAGMA {name} = {DEFAULT_PRAGMAS[name]}")
                self._rules.pragmas.clear()

    def _own(self, sql: str, *params: SqlValue) -> Any:
        """Run a statement of the store's own. Returns the first value of its last row."""
        with self._rules.trusting():
            value = None
            for row in self._connection.execute(sql, params):
                value = row[0]
            return value

    def _one(self, statement: Statement) -> Outcome:
        if self._must_stop():  # short statements take too few steps for SQLite to ask
            raise apsw.InterruptError("interrupted")
        connection, start = self._connection, time.perf_counter()
        changes, last_row_id = connection.total_changes(), connection.last_insert_rowid()
        size, self._scanned = self._size(), 0
        *first, last = pieces(statement.sql)
        for piece in first:
            self._step(piece)
        columns, rows = self._rows(last, statement.params)
        changed, last_row_after, size_after = (
            connection.total_changes() - changes,
            connection.last_insert_rowid(),
            self._size(),
        )
        meta = Meta(
            duration=round((time.perf_counter() - start) * 1000, 4),
            changes=changed,
            last_row_id=last_row_after,
            changed_db=bool(changed) or last_row_after != last_row_id or size_after != size or self._rules.defines,
            size_after=size_after,
            rows_read=self._rows_read(len(rows)),
            rows_written=self._rows_written(changed),
        )
        return Outcome(columns, rows, meta.to_json())

    def _step(self, sql: str) -> None:
        """Run a statement that is not the last of its text."""
        self._rules.begin()
        cursor = self._connection.cursor()

        try:
            self._execute(cursor, sql, ())
        except apsw.BindingsError as error:
            raise D1Failure(ONLY_LAST_HAS_PARAMETERS) from error
        cursor.close(True)
        self._check_names()

    def _execute(self, cursor: apsw.Cursor, sql: str, params: Sequence[SqlValue]) -> list[str]:
        """Take the first step of a statement. Returns the names of its columns."""
        columns: list[str] | None = None

        def about_to_run(running: apsw.Cursor, _sql: str, _bindings: object) -> bool:
            nonlocal columns
            if running.has_vdbe:
                columns = [column[0] for column in running.get_description()]
                self._reserved = self._own(_RESERVED) if self._rules.altered else 0
                if self.before_running is not None:
                    self.before_running(self._connection, self._rules)
            return True

        cursor.exec_trace = about_to_run
        cursor.execute(sql, tuple(params))
        if columns is None:
            raise D1Failure(NO_STATEMENT)
        return columns

    def _rows(self, sql: str, params: Sequence[SqlValue]) -> tuple[list[str], list[Sequence[SqlValue]]]:
        self._rules.begin()
        cursor = self._connection.cursor()
        columns = self._execute(cursor, sql, params)
        rows: list[Sequence[SqlValue]] = []
        held = 0
        for row in cursor:
            held += sum(16 + (len(cell) if isinstance(cell, (str, bytes)) else 0) for cell in row)
            if held > MAX_RESULT_BYTES:
                raise D1Failure(f"the result is larger than {MAX_RESULT_BYTES} bytes: use LIMIT")
            rows.append(row)
        self._check_names()
        return columns, rows

    def _check_names(self) -> None:
        """ALTER TABLE may not give a name of the platform: SQLite does not ask about the new name."""
        if self._rules.altered and self._own(_RESERVED) != self._reserved:
            raise D1Failure("not authorized: SQLITE_AUTH")

    def _size(self) -> int:
        size: int = self._own(_SIZE)
        return size

    def _rows_read(self, returned: int) -> int:
        """Of what a scan passed, SQLite counts each row but the first; of what an index found, nothing: at least the
        rows that came out were read."""
        scanned = self._scanned + 1 if self._scanned else 0
        return max(scanned, returned, 1) if self._rules.read else scanned

    def _rows_written(self, changes: int) -> int:
        """An inserted row is written once more for each index of its table, a change of the schema once."""
        schema = int(self._rules.defines)
        if not changes:
            return schema
        indexes = sum(self._own("SELECT count(*) FROM pragma_index_list(?)", name) for name in self._rules.inserted)
        return int(schema + changes * (1 + indexes))

    def _bookmark(self, wrote: bool) -> str:
        if wrote:
            self._own(f"UPDATE {OWN_TABLE} SET value = value + 1 WHERE key = 1")
        number = self._own(f"SELECT value FROM {OWN_TABLE} WHERE key = 1")
        identity = self._own(f"SELECT value FROM {OWN_TABLE} WHERE key = 2")
        return f"{number >> 32:08x}-{number & 0xFFFFFFFF:08x}-00000000-{identity}"


class _DumpFile(AsyncIterator[bytes]):
    """A copy of a database, in chunks. Its folder is removed when it has been read, or is closed."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], file: anyio.AsyncFile[bytes]) -> None:
        self._folder = folder
        self._file = file

    async def __anext__(self) -> bytes:
        if chunk := await self._file.read(_CHUNK_BYTES):
            return chunk
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Remove the copy. Safe to do twice."""
        await self._file.aclose()
        await to_thread.run_sync(self._folder.cleanup)
