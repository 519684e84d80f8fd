"""SQL that is checked here before it is run elsewhere: against a local copy of the schema, without any rows.

Another SQLite server knows nothing of D1's rules: its functions may read files, and its errors have other texts. So
each statement is compiled here first, under D1's rules and limits. What is refused here never leaves, and has D1's
text.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import apsw
import attrs

from .d1 import MAX_VALUE_BYTES, NO_STATEMENT, ONLY_LAST_HAS_PARAMETERS, TIMED_OUT, D1Failure, SqlValue, Statement
from .d1_connection import connect, failures
from .d1_rules import is_pragma_table
from .d1_sql import pieces

__all__ = ["Checked", "Guard", "SchemaEntry"]

# A type, as sqlite_schema has it, a name, and SQL.
SchemaEntry: TypeAlias = tuple[str, str, str]


# How long a check may take, and how large the copy may become: a table that is made of a query runs that, too.
_MAX_SECONDS: Final = 2.0
_MAX_PAGES: Final = 16_384


@attrs.frozen
class Checked:
    """A statement that may run.

    Attributes:
        sql: one statement alone.
        params: the values for its parameters, as many as there are.
        reads: whether it only reads.
        defines: whether it changes the schema.
    """

    sql: str
    params: Sequence[SqlValue]
    reads: bool
    defines: bool


class Guard:
    """A copy of a schema, and D1's rules. Not for several threads at a time.

    Args:
        entries: the schema, in the order in which it was made.
        read_only: whether statements that write are refused.
    """

    def __init__(self, entries: Sequence[SchemaEntry], *, read_only: bool) -> None:
        self._connection, self._rules = connect(Path(":memory:"), read_only)
        self._deadline = math.inf
        with self._rules.trusting():
            self._connection.execute(f"PRAGMA max_page_count = {_MAX_PAGES}").fetchall()
        self._connection.set_progress_handler(self._is_late, 10_000)
        shadows: set[str] = set()
        with self._rules.trusting():
            for _kind, name, sql in entries:
                if name.lower().startswith(("_cf_", "sqlite_")) or name in shadows:
                    continue
                self._connection.execute(sql)
                if sql.upper().startswith("CREATE VIRTUAL"):
                    listed = self._connection.execute("SELECT name FROM pragma_table_list WHERE type = 'shadow'")
                    shadows |= {shadow for (shadow,) in listed}

    def close(self) -> None:
        """Let go of the copy."""
        self._connection.close()

    def check(self, statements: Sequence[Statement]) -> list[list[Checked]]:
        """Check statements that are to run in one transaction. Of each text, the parts.

        Raises:
            D1Failure: one of them would be refused by D1.
        """
        self._deadline = time.monotonic() + _MAX_SECONDS
        with failures(self._rules, lambda: TIMED_OUT), self._undone():
            return [list(self._parts(statement)) for statement in statements]

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _parts(self, statement: Statement) -> Iterator[Checked]:
        *first, last = pieces(statement.sql)
        for piece in first:
            try:
                yield self._one(piece, ())
            except apsw.BindingsError as error:
                raise D1Failure(ONLY_LAST_HAS_PARAMETERS) from error
        if any(len(value) > MAX_VALUE_BYTES for value in statement.params if isinstance(value, (str, bytes))):
            raise D1Failure("string or blob too big: SQLITE_TOOBIG")
        yield self._one(last, statement.params)

    def _one(self, sql: str, params: Sequence[SqlValue]) -> Checked:
        reads: bool | None = None
        defines = False

        def about_to_run(running: apsw.Cursor, _sql: str, _bindings: object) -> bool:
            nonlocal reads, defines
            reads = running.is_readonly if running.has_vdbe else None
            defines = not running.is_explain and self._rules.defines
            # What changes the schema is done here as well, for the statements that follow. There are no rows to change.
            return defines

        self._rules.begin()
        cursor = self._connection.cursor()
        cursor.exec_trace = about_to_run
        try:
            cursor.execute(sql, tuple(params)).fetchall()
        except apsw.ExecTraceAbort:
            pass
        if reads is None:
            raise D1Failure(NO_STATEMENT)
        self._refuse_what_is_only_noticed_later(sql)
        return Checked(sql, params, reads, defines)

    def _refuse_what_is_only_noticed_later(self, sql: str) -> None:
        """SQLite asks about some things when a statement runs, which it does not here."""
        if sql.lstrip()[:6].upper() == "VACUUM":
            raise D1Failure("cannot VACUUM from within a transaction: SQLITE_ERROR")
        pragmas = [table for table in self._rules.read if table.lower().startswith("pragma_")]
        if not all(is_pragma_table(table) for table in pragmas):
            raise D1Failure("not authorized: SQLITE_AUTH")

    @contextmanager
    def _undone(self) -> Iterator[None]:
        with self._rules.trusting():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._deadline = math.inf
            if self._connection.in_transaction:
                with self._rules.trusting():
                    self._connection.execute("ROLLBACK")
