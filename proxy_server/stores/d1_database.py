"""A D1 database while it is open: one connection, its transactions, and what is known of the statements that ran.

Everything here is done in the connection's own thread.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from .d1 import (
    MAX_RESULT_BYTES,
    NO_STATEMENT,
    ONLY_LAST_HAS_PARAMETERS,
    OUT_OF_MEMORY,
    TIMED_OUT,
    D1Failure,
    Meta,
    Outcome,
    SqlValue,
    Statement,
)
from .d1_connection import OWN_TABLE, connect, failures
from .d1_rules import DEFAULT_PRAGMAS, Rules
from .d1_sql import only_reads, pieces
from .d1_thread import Lease

__all__ = ["BeforeRunning", "Database"]

# Looks at a statement that is compiled and about to run. What it raises ends the transaction.
BeforeRunning = Callable[[apsw.Connection, Rules], None]

# What a statement leaves free, in bytes, where SQLite has its temporary files: sorted rows, and intermediate tables.
# And how often that is looked at, in seconds.
_RESERVED_BYTES: Final = 1_000_000_000
_LOOK_AT_DISK_EVERY: Final = 0.1

# How many instructions of SQLite's machine pass between two looks at the clock: about a tenth of a millisecond.
_STEPS: Final = 10_000

# How often, and after how many seconds each time, it is tried to write what another process is writing.
_BUSY_TRIES: Final = 1_000
_BUSY_PAUSE: Final = 0.01

# What a row, and a cell in it, take beside their texts and blobs, about.
_ROW_BYTES: Final = 56
_CELL_BYTES: Final = 32

_SIZE: Final = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
# How many indexes a table has, and how many with one of some columns. That of WITHOUT ROWID is the table itself.
_INDEXES: Final = (
    "SELECT count(*) FROM pragma_index_list(?1) AS i WHERE (i.origin <> 'pk' OR NOT"
    " (SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE))"
)
_INDEXES_OF_COLUMNS: Final = (
    "SELECT count(DISTINCT i.name) FROM pragma_index_list(?) AS i, pragma_index_info(i.name) AS c"
    " WHERE lower(c.name) IN ({})"
)
_RESERVED: Final = "SELECT count(*) FROM sqlite_schema WHERE lower(substr(name, 1, 4)) = '_cf_'"


class Database:
    """A connection and what is done with it.

    Args:
        path: of the file, which is made with its folders where it is not there.
        read_only: whether statements that write are refused.
        before_running: is shown each statement that is not the store's own.

    Raises:
        OSError: if the folder cannot be made.
        apsw.Error: if the file cannot be opened, or is no database.
    """

    def __init__(self, path: Path, read_only: bool, before_running: BeforeRunning | None) -> None:
        self.connection, self.rules = connect(path, read_only)
        self._before_running = before_running
        self._lease: Lease | None = None
        self._scanned = 0
        # How many bytes of rows the request has.
        self._held = 0
        self._next_look = math.inf
        self._has_filled_disk = False
        # How many names of the platform there were before a statement that alters one.
        self._reserved = 0
        self.connection.set_progress_handler(self.must_stop, _STEPS)
        self.connection.set_busy_handler(self._waits_for_others)
        self.connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._count)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def run(self, lease: Lease, statements: Sequence[Statement]) -> tuple[list[Outcome], str]:
        """Run statements in one transaction. Returns their outcomes, and the bookmark."""
        begin = "BEGIN" if all(only_reads(statement.sql) for statement in statements) else "BEGIN IMMEDIATE"
        with self.transaction(lease, begin):
            outcomes = [self._one(statement) for statement in statements]
            return outcomes, self._bookmark(any(outcome.meta["changed_db"] for outcome in outcomes))

    @contextmanager
    def transaction(self, lease: Lease, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        """What is done meanwhile is one transaction: it is committed at the end, or rolled back when that raises."""
        self._lease, self._held, self._has_filled_disk = lease, 0, False
        self._next_look = 0.0
        try:
            with failures(self.rules, self._why_interrupted):
                self._own(begin)
                try:
                    yield
                    lease.end(commit=True)
                    self._own("COMMIT")
                except BaseException:
                    lease.end(commit=False)
                    if self.connection.in_transaction:
                        self._own("ROLLBACK")
                    raise
                finally:
                    for name in self.rules.pragmas:
                        self._own(f"PRAGMA {name} = {DEFAULT_PRAGMAS[name]}")
                    self.rules.pragmas.clear()
        finally:
            self._lease = None

    def must_stop(self) -> bool:
        """Whether what runs has to end: it takes too long, or too much, or nobody waits for it any more."""
        if self.rules.trusted or self._lease is None:
            return False
        return self._lease.is_over() or self._fills_disk()

    def _fills_disk(self) -> bool:
        """Whether there is little space left for temporary files, which there was at the first look."""
        now = time.monotonic()
        if now >= self._next_look:
            is_little, is_first = _free_bytes() < _RESERVED_BYTES, self._next_look == 0.0
            self._has_filled_disk = is_little and not is_first
            self._next_look = math.inf if is_little and is_first else now + _LOOK_AT_DISK_EVERY
        return self._has_filled_disk

    def _why_interrupted(self) -> str:
        if self._has_filled_disk:
            return "database or disk is full: SQLITE_FULL"
        if self._lease is not None and self._lease.is_late():
            return TIMED_OUT
        return "the statement was interrupted: nobody waits for it"

    def _waits_for_others(self, times: int) -> bool:
        """Wait a little for another process that writes the same file. Returns whether to try again."""
        if times >= _BUSY_TRIES or (self._lease is not None and self._lease.is_over()):
            return False
        time.sleep(_BUSY_PAUSE)
        return True

    def _count(self, event: dict[str, Any]) -> None:
        status = event["stmt_status"]
        self._scanned += status["SQLITE_STMTSTATUS_FULLSCAN_STEP"] + status["SQLITE_STMTSTATUS_AUTOINDEX"]

    def _own(self, sql: str, *params: SqlValue) -> Any:
        """Run a statement of the store's own. Returns the first value of its last row."""
        with self.rules.trusting():
            value = None
            for row in self.connection.execute(sql, params):
                value = row[0]
            return value

    def _one(self, statement: Statement) -> Outcome:
        if self._lease is None or self._lease.is_over():  # short statements take too few steps for SQLite to ask
            raise apsw.InterruptError("interrupted")
        connection, start = self.connection, time.perf_counter()
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
            changed_db=bool(changed) or last_row_after != last_row_id or size_after != size or self.rules.defines,
            size_after=size_after,
            rows_read=self._rows_read(len(rows)),
            rows_written=self._rows_written(changed),
        )
        return Outcome(columns, rows, meta.to_json())

    def _step(self, sql: str) -> None:
        """Run a statement that is not the last of its text."""
        with self._cursor() as cursor:
            try:
                self._execute(cursor, sql, ())
            except apsw.BindingsError as error:
                raise D1Failure(ONLY_LAST_HAS_PARAMETERS) from error
        self._check_names()

    def _rows(self, sql: str, params: Sequence[SqlValue]) -> tuple[list[str], list[Sequence[SqlValue]]]:
        with self._cursor() as cursor:
            columns = self._execute(cursor, sql, params)
            rows: list[Sequence[SqlValue]] = []
            for row in cursor:
                self._held += _ROW_BYTES
                self._held += sum(_CELL_BYTES + (len(cell) if isinstance(cell, (str, bytes)) else 0) for cell in row)
                if self._held > MAX_RESULT_BYTES:
                    raise D1Failure(f"{OUT_OF_MEMORY} The result is larger than {MAX_RESULT_BYTES} bytes: use LIMIT.")
                rows.append(row)
        self._check_names()
        return columns, rows

    @contextmanager
    def _cursor(self) -> Iterator[apsw.Cursor]:
        """For one statement, which has ended with the block: the end of the transaction is not to meet it."""
        self.rules.begin()
        cursor = self.connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close(True)

    def _execute(self, cursor: apsw.Cursor, sql: str, params: Sequence[SqlValue]) -> list[str]:
        """Take the first step of a statement. Returns the names of its columns."""
        columns: list[str] | None = None

        def about_to_run(running: apsw.Cursor, _sql: str, _bindings: object) -> bool:
            nonlocal columns
            if running.has_vdbe:
                columns = [column[0] for column in running.get_description()]
                self._reserved = self._own(_RESERVED) if self.rules.altered else 0
                if self._before_running is not None:
                    self._before_running(self.connection, self.rules)
            return True

        cursor.exec_trace = about_to_run
        cursor.execute(sql, tuple(params))
        if columns is None:
            raise D1Failure(NO_STATEMENT)
        return columns

    def _check_names(self) -> None:
        """ALTER TABLE may not give a name of the platform: SQLite does not ask about the new name."""
        if self.rules.altered and self._own(_RESERVED) != self._reserved:
            raise D1Failure("not authorized: SQLITE_AUTH")

    def _size(self) -> int:
        size: int = self._own(_SIZE)
        return size

    def _rows_read(self, returned: int) -> int:
        """Of what a scan passed, SQLite counts each row but the first; of what an index found, nothing: at least the
        rows that came out were read."""
        scanned = self._scanned + 1 if self._scanned else 0
        return max(scanned, returned, 1) if self.rules.read or self.rules.updated else scanned

    def _rows_written(self, changes: int) -> int:
        """A row is written once more for each index of its table: for all of them where it is inserted, for those with
        a changed column where it is updated. A change of the schema is written once."""
        schema = int(self.rules.defines)
        if not changes:
            return schema
        indexes = sum(self._own(_INDEXES, table) for table in self.rules.inserted)
        for table in self.rules.updated.keys() - self.rules.inserted:
            columns = [column.lower() for column in self.rules.updated[table]]
            indexes += self._own(_INDEXES_OF_COLUMNS.format(", ".join("?" * len(columns))), table, *columns)
        return int(schema + changes * (1 + indexes))

    def _bookmark(self, wrote: bool) -> str:
        if wrote:
            self._own(f"UPDATE {OWN_TABLE} SET value = value + 1 WHERE key = 1")
        number = self._own(f"SELECT value FROM {OWN_TABLE} WHERE key = 1")
        identity = self._own(f"SELECT value FROM {OWN_TABLE} WHERE key = 2")
        return f"{number >> 32:08x}-{number & 0xFFFFFFFF:08x}-00000000-{identity}"


def _free_bytes() -> int:
    """How much space there is where SQLite makes its temporary files (sqlite.org/tempfiles.html)."""
    named = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp")
    return shutil.disk_usage(next((folder for folder in named if folder and os.path.isdir(folder)), ".")).free
