"""What a D1 database is to its binding: statements in, outcomes out, several statements as one transaction.

A store speaks SQLite's SQL and its values: None, int, float, str and bytes. What of them travels, and in which form,
is the binding's matter. Limits are those of Cloudflare's documentation (developers.cloudflare.com/d1/platform/limits).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Protocol, TypeAlias

import attrs

from proxy_server.declined import Declined

__all__ = [
    "MAX_COLUMNS",
    "MAX_DATABASE_BYTES",
    "MAX_PARAMETERS",
    "MAX_PATTERN_BYTES",
    "MAX_QUERY_SECONDS",
    "MAX_RESULT_BYTES",
    "MAX_SQL_BYTES",
    "MAX_STATEMENTS",
    "MAX_VALUE_BYTES",
    "NO_STATEMENT",
    "ONLY_LAST_HAS_PARAMETERS",
    "OUT_OF_MEMORY",
    "OVERLOADED",
    "READ_ONLY",
    "TIMED_OUT",
    "WRONG_PARAMETERS",
    "D1Failure",
    "D1Store",
    "D1Unreachable",
    "Meta",
    "Outcome",
    "SqlValue",
    "Statement",
]

SqlValue: TypeAlias = int | float | str | bytes | None

MAX_PARAMETERS: Final = 100
MAX_SQL_BYTES: Final = 100_000
MAX_COLUMNS: Final = 100
MAX_VALUE_BYTES: Final = 2_000_000
MAX_PATTERN_BYTES: Final = 50
MAX_QUERY_SECONDS: Final = 30.0
MAX_DATABASE_BYTES: Final = 10_000_000_000

# Our own: how many statements one request may have, and how much its results may take in memory, in bytes, about.
MAX_STATEMENTS: Final = 10_000
MAX_RESULT_BYTES: Final = 100_000_000

# What D1 says of a text that has no SQL in it.
NO_STATEMENT: Final = "SQL code did not contain a statement."
# What it says when time is up.
TIMED_OUT: Final = "D1 DB storage operation exceeded timeout which caused object to be reset."
# What it says of results that are too large.
OUT_OF_MEMORY: Final = "D1 DB's isolate exceeded its memory limit and was reset."
# What it says of a database that has too much to do.
OVERLOADED: Final = "D1 DB is overloaded. Too many requests queued."
# What it says of parameters that are more, or fewer, than the statement has.
WRONG_PARAMETERS: Final = "Wrong number of parameter bindings for SQL query."
# What it says of parameters that are not in the last of several.
ONLY_LAST_HAS_PARAMETERS: Final = (
    "When executing multiple SQL statements in a single call, only the last statement can have parameters."
)
# What a database that is for reading says of a statement that writes.
READ_ONLY: Final = "the database is for reading: a statement that writes is refused"


class D1Failure(Declined):
    """A statement failed, and with it the transaction that it was in. The message is D1's, without a prefix."""


class D1Unreachable(D1Failure):
    """The database cannot be reached."""

    status = 500


@attrs.frozen
class Statement:
    """SQL, and the values for its parameters, by position."""

    sql: str
    params: Sequence[SqlValue] = ()


@attrs.frozen
class Meta:
    """What is known of a statement that has run (Workers binding API, "Return objects").

    Attributes:
        duration: in milliseconds.
        changes: rows inserted, updated and deleted, those of triggers and foreign keys included.
        last_row_id: of the last row that was inserted into a table with rowids.
        changed_db: whether something was written.
        size_after: of the database, in bytes.
        rows_read: an estimate.
        rows_written: an estimate.
    """

    duration: float
    changes: int
    last_row_id: int
    changed_db: bool
    size_after: int
    rows_read: int
    rows_written: int
    served_by: str = "capnweb_py.db"

    def to_json(self) -> dict[str, Any]:
        """As the runtime hands it to a Worker."""
        fields = attrs.asdict(self)
        return {**fields, "served_by_primary": True, "timings": {"sql_duration_ms": self.duration}, "total_attempts": 1}


@attrs.frozen
class Outcome:
    """What came of a statement: the names of its columns, which may be the same, its rows, and what is known of it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[SqlValue]]
    meta: dict[str, Any]


class D1Store(Protocol):
    """A database."""

    async def run(self, statements: Sequence[Statement], token: str | None = None) -> tuple[list[Outcome], str]:
        """Run statements in one transaction: all of them, or none.

        Args:
            statements: one or more. The text of one may hold several, of which the last alone has parameters, and gives
                the outcome.
            token: a bookmark: what is read is no older than that; or the name of a constraint.

        Returns:
            The outcomes, and the bookmark after them.

        Raises:
            D1Failure: a statement failed; nothing of any of them has happened.
        """

    async def dump(self) -> AsyncIterator[bytes]:
        """The whole database as a SQLite file.

        Raises:
            D1Failure: it cannot be had.
        """

    async def aclose(self) -> None:
        """Release what the store holds."""
