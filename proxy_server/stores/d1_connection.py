"""A connection to SQLite, as D1 has one: its limits and its rules, and what its errors say.

What is set is what the Workers runtime sets (workerd, src/workerd/util/sqlite.c++, setupSecurity and dbErrorMessage).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from .d1 import (
    MAX_COLUMNS,
    MAX_DATABASE_BYTES,
    MAX_PARAMETERS,
    MAX_PATTERN_BYTES,
    MAX_SQL_BYTES,
    MAX_VALUE_BYTES,
    TIMED_OUT,
    D1Failure,
)
from .d1_rules import MODULES, Rules

__all__ = ["OWN_TABLE", "connect", "failures"]

# How long, in milliseconds, to wait for another process that writes the same file.
_BUSY_TIMEOUT: Final = 10_000

# D1's documented limits, and what the runtime sets beside them.
_LIMITS: Final = {
    apsw.SQLITE_LIMIT_LENGTH: MAX_VALUE_BYTES,
    apsw.SQLITE_LIMIT_SQL_LENGTH: MAX_SQL_BYTES,
    apsw.SQLITE_LIMIT_COLUMN: MAX_COLUMNS,
    apsw.SQLITE_LIMIT_VARIABLE_NUMBER: MAX_PARAMETERS,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: MAX_PATTERN_BYTES,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 100,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 5,
    apsw.SQLITE_LIMIT_VDBE_OP: 25_000,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 127,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 10,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}

# The store's own table. It counts the transactions that wrote: the last one's number is the bookmark.
OWN_TABLE: Final = "_cf_METADATA"
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS {OWN_TABLE} (key INTEGER PRIMARY KEY, value BLOB);
INSERT OR IGNORE INTO {OWN_TABLE} VALUES (1, 0), (2, lower(hex(randomblob(16))));
"""


def connect(path: Path, read_only: bool) -> tuple[apsw.Connection, Rules]:
    """Open a file, and make it with its folders where it is not there. Returns the connection and its authorizer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a cache of statements: one that was compiled for the store itself is not to be used for others.
    connection = apsw.Connection(str(path), statementcachesize=0)
    try:
        connection.set_busy_timeout(_BUSY_TIMEOUT)
        connection.execute(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON"
        ).fetchall()
        connection.execute(_SCHEMA)
        connection.set_last_insert_rowid(0)
        page_size = next(connection.execute("PRAGMA page_size"))[0]
        connection.execute(f"PRAGMA max_page_count = {MAX_DATABASE_BYTES // page_size}").fetchall()
        rules = Rules(read_only)
        rules.trusted = False
        connection.drop_modules(MODULES)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        for limit, value in _LIMITS.items():
            connection.limit(limit, value)
        connection.authorizer = rules
    except BaseException:
        connection.close()
        raise
    return connection, rules


@contextmanager
def failures(rules: Rules, is_late: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Have SQLite's errors raised as D1 tells them.

    Args:
        rules: of the connection.
        is_late: whether a statement that was interrupted was so because time is up.
    """
    try:
        yield
    except apsw.BindingsError as error:
        raise D1Failure("Wrong number of parameter bindings for SQL query.") from error
    except apsw.InterruptError as error:
        raise D1Failure(TIMED_OUT if is_late() else "the statement was interrupted: nobody waits for it") from error
    except apsw.Error as error:
        raise D1Failure(rules.refusal or _text_of(error)) from error
    except UnicodeError as error:
        raise D1Failure(f"a text is not valid Unicode: {error}") from error


def _text_of(error: apsw.Error) -> str:
    """What the runtime says of an error: the text, the place, the code's name, and the extended code's."""
    result, extended = getattr(error, "result", apsw.SQLITE_ERROR), getattr(error, "extendedresult", None)
    offset = getattr(error, "error_offset", -1)
    place = f" at offset {offset}" if offset is not None and offset >= 0 else ""
    text = f"{error}{place}: {apsw.mapping_result_codes[result & 0xFF]}"
    if extended in (None, result):
        return text
    return f"{text} (extended: {apsw.mapping_extended_result_codes[extended]})"
