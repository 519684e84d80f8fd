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
    OUT_OF_MEMORY,
    WRONG_PARAMETERS,
    D1Failure,
)
from .d1_functions import install
from .d1_rules import MODULES, Rules
from .sqlite import use_wal

__all__ = ["OWN_TABLE", "connect", "failures"]

# How long, in milliseconds, to wait for another process that writes the same file.
_BUSY_TIMEOUT: Final = 10_000

# How much memory SQLite may take in this process, in bytes: from the first on it has smaller caches, past the second
# statements fail. The runtime sets the same two (the first is its own), against statements that hold many large values
# at a time.
_SOFT_HEAP_LIMIT: Final = 128 << 20
_HARD_HEAP_LIMIT: Final = 512 << 20

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

# The store's own table, which the runtime has as well, with this SQL, and shows in listings. Here it counts the
# transactions that wrote: the last one's number is the bookmark.
OWN_TABLE: Final = "_cf_METADATA"
_IS_MADE: Final = f"SELECT 1 FROM sqlite_schema WHERE name = '{OWN_TABLE}'"
_SCHEMA: Final = f"""
CREATE TABLE {OWN_TABLE} (
        key INTEGER PRIMARY KEY,
        value BLOB
      );
INSERT INTO {OWN_TABLE} VALUES (1, 0), (2, lower(hex(randomblob(16))));
"""


def connect(path: Path, read_only: bool) -> tuple[apsw.Connection, Rules]:
    """Open a file, and make it with its folders where it is not there. Returns the connection and its authorizer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if apsw.hard_heap_limit(-1) == 0:  # a program that uses APSW for more may have set its own
        apsw.soft_heap_limit(_SOFT_HEAP_LIMIT)
        apsw.hard_heap_limit(_HARD_HEAP_LIMIT)
    # Without a cache of statements: one that was compiled for the store itself is not to be used for others.
    connection = apsw.Connection(str(path), statementcachesize=0)
    try:
        connection.set_busy_timeout(_BUSY_TIMEOUT)
        use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON").fetchall()
        if not connection.execute(_IS_MADE).get:  # what is made already is opened without waiting for who writes
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute(_IS_MADE).get:
                connection.execute(_SCHEMA)
            connection.execute("COMMIT")
            connection.set_last_insert_rowid(0)
        page_size = next(connection.execute("PRAGMA page_size"))[0]
        connection.execute(f"PRAGMA max_page_count = {MAX_DATABASE_BYTES // page_size}").fetchall()
        install(connection)
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
def failures(rules: Rules, why_interrupted: Callable[[], str]) -> Iterator[None]:
    """Have SQLite's errors raised as D1 tells them.

    Args:
        rules: of the connection.
        why_interrupted: what to say of a statement that was interrupted.
    """
    try:
        yield
    except apsw.BindingsError as error:
        raise D1Failure(WRONG_PARAMETERS) from error
    except apsw.InterruptError as error:
        raise D1Failure(why_interrupted()) from error
    except apsw.NoMemError as error:
        raise D1Failure(OUT_OF_MEMORY) from error
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
