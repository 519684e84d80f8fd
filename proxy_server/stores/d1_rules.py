"""What SQL may do in a D1 database: the answer to each thing that SQLite asks about while it compiles a statement.

The rules are those of the Workers runtime (workerd, src/workerd/util/sqlite.c++, isAuthorized), which D1 runs on: SQL
cannot leave its file, nor touch the tables whose names begin with "_cf_".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import apsw

from .d1 import READ_ONLY

__all__ = ["DEFAULT_PRAGMAS", "MODULES", "NO_TRANSACTIONS", "Rules", "is_pragma_table"]

NO_TRANSACTIONS: Final = (
    "To execute a transaction, please use the state.storage.transaction() or state.storage.transactionSync() "
    "APIs instead of the SQL BEGIN TRANSACTION or SAVEPOINT statements. The JavaScript API is safer because it "
    "will automatically roll back on exceptions, and because it interacts correctly with Durable Objects' "
    "automatic atomic write coalescing."
)

# The virtual tables that SQL may use, by their modules.
MODULES: Final = ("fts5", "fts5vocab", "rtree", "rtree_i32", "json_each", "json_tree")
_CREATABLE_MODULES: Final = frozenset({"fts5", "fts5vocab", "rtree", "rtree_i32"})

_FUNCTION_NAMES: Final = """
    abs changes char coalesce concat concat_ws format glob hex ifnull iif instr last_insert_rowid length like
    likelihood likely load_extension lower ltrim max min nullif octet_length printf quote random randomblob
    replace round rtrim sign soundex substr substring total_changes trim typeof unhex unicode unlikely upper
    zeroblob date time datetime julianday unixepoch strftime timediff current_date current_time current_timestamp
    avg count group_concat string_agg sum total row_number rank dense_rank percent_rank cume_dist ntile lag lead
    first_value last_value nth_value acos acosh asin asinh atan atan2 atanh ceil cos cosh degrees exp floor ln log
    log2 mod pi pow radians sin sinh sqrt tan tanh trunc json jsonb json_array jsonb_array json_array_length
    json_extract jsonb_extract -> ->> json_insert jsonb_insert json_object jsonb_object json_patch jsonb_patch
    json_remove jsonb_remove json_replace jsonb_replace json_set jsonb_set json_type json_valid json_quote
    json_group_array jsonb_group_array json_group_object jsonb_group_object json_each json_tree match highlight
    bm25 snippet rtreecheck sqlite_rename_column sqlite_rename_table sqlite_rename_test sqlite_drop_column
    sqlite_rename_quotefix
"""
_FUNCTIONS: Final = frozenset(_FUNCTION_NAMES.split())

# Pragmas that SQL may set, with what they are when nobody has. D1's documentation: a pragma holds for its transaction.
DEFAULT_PRAGMAS: Final = {
    "case_sensitive_like": "OFF",
    "foreign_keys": "ON",
    "ignore_check_constraints": "OFF",
    "legacy_alter_table": "OFF",
    "recursive_triggers": "OFF",
    "reverse_unordered_selects": "OFF",
}
_BOOLEAN_PRAGMAS: Final = frozenset({*DEFAULT_PRAGMAS, "defer_foreign_keys"})
_BOOLEAN: Final = re.compile(r"""["']?(?:true|false|yes|no|on|off|1|0)""", re.IGNORECASE)
_PLAIN_PRAGMAS: Final = frozenset({"data_version", "page_size"})
_NAMED_PRAGMAS: Final = frozenset(
    {"table_info", "table_xinfo", "foreign_key_list", "index_info", "index_list", "index_xinfo"}
)
_OPTIONAL_PRAGMAS: Final = frozenset({"foreign_key_check", "quick_check"})

# Tables and views: what they are called comes first.
_NAMING_FIRST: Final = frozenset(
    {
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_DELETE,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_INSERT,
        apsw.SQLITE_READ,
        apsw.SQLITE_REINDEX,
        apsw.SQLITE_UPDATE,
    }
)
# Indexes and triggers: their own name, and the table's.
_NAMING_BOTH: Final = frozenset(
    {
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_TRIGGER,
    }
)
_WRITING: Final = (
    _NAMING_BOTH
    | (_NAMING_FIRST - {apsw.SQLITE_READ})
    | {
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_ANALYZE,
        apsw.SQLITE_CREATE_VTABLE,
        apsw.SQLITE_DROP_VTABLE,
    }
)


class Rules:
    """The authorizer of one connection, and what it has seen of the statements since `begin`.

    Args:
        read_only: whether what writes is refused as well.

    Attributes:
        refusal: why the last statement was refused, where there is a better text than SQLite's.
        read, written: the tables that were read, and written, by the statements since `begin`.
        inserted: those of the written ones into which rows were inserted.
        updated: of those whose rows were updated, the columns that were.
        altered: whether a table was altered.
        pragmas: the pragmas that were set.
    """

    def __init__(self, read_only: bool = False) -> None:
        self._read_only = read_only
        # Statements of the store's own.
        self.trusted = True
        self.begin()
        self.pragmas: set[str] = set()

    @contextmanager
    def trusting(self) -> Iterator[None]:
        """What is compiled meanwhile is the store's own."""
        before, self.trusted = self.trusted, True
        try:
            yield
        finally:
            self.trusted = before

    def begin(self) -> None:
        """A statement is about to be compiled."""
        self.refusal: str | None = None
        self.read: set[str] = set()
        self.written: set[str] = set()
        self.inserted: set[str] = set()
        self.updated: dict[str, set[str]] = {}
        self.altered = False

    @property
    def defines(self) -> bool:
        """Whether the statements since `begin` change the schema."""
        return "sqlite_master" in self.written or self.altered

    def __call__(
        self, action: int, first: str | None, second: str | None, database: str | None, _by: str | None
    ) -> int:
        if self.trusted:
            return apsw.SQLITE_OK
        if action in {apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_DETACH}:
            # SQLite puts the database first here.
            first, second, database = second, None, first
        allowed = self._allows(action, first or "", second, database)
        if allowed:
            self._note(action, first or "", second)
            allowed = not self._read_only or self._may_read_only(action, first or "", second)
        return apsw.SQLITE_OK if allowed else apsw.SQLITE_DENY

    def _allows(self, action: int, first: str, second: str | None, database: str | None) -> bool:
        if database not in {None, "main", "temp"}:
            return False
        if database == "temp":
            return action in {apsw.SQLITE_READ, apsw.SQLITE_UPDATE} and _is_free(first)
        if action in _NAMING_FIRST or action == apsw.SQLITE_ALTER_TABLE:
            return _is_free(first)
        if action in _NAMING_BOTH:
            return _is_free(first) and _is_free(second or "")
        if action in {apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE, apsw.SQLITE_ANALYZE}:
            return True
        if action == apsw.SQLITE_FUNCTION:
            return second in _FUNCTIONS
        if action == apsw.SQLITE_PRAGMA:
            return _allows_pragma(first, second)
        if action in {apsw.SQLITE_CREATE_VTABLE, apsw.SQLITE_DROP_VTABLE}:
            return (second or "").lower() in _CREATABLE_MODULES and _is_free(first)
        if action in {apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT}:
            self.refusal = NO_TRANSACTIONS
        # Other databases, and temporary tables, which would be files of their own.
        return False

    def _may_read_only(self, action: int, first: str, second: str | None) -> bool:
        setting = action == apsw.SQLITE_PRAGMA and (first == "optimize" or (first in _BOOLEAN_PRAGMAS and second))
        if action not in _WRITING and not setting:
            return True
        self.refusal = READ_ONLY
        return False

    def _note(self, action: int, first: str, second: str | None) -> None:
        if action == apsw.SQLITE_READ:
            self.read.add(first)
        elif action in {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}:
            self.written.add(first)
            if action == apsw.SQLITE_INSERT:
                self.inserted.add(first)
            elif action == apsw.SQLITE_UPDATE:
                self.updated.setdefault(first, set()).add(second or "")
        elif action in {apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_DROP_TABLE}:
            self.written.add(first)
            self.altered = self.altered or action == apsw.SQLITE_ALTER_TABLE
        elif action == apsw.SQLITE_CREATE_INDEX and second is not None:
            self.written.add(second)
        elif action == apsw.SQLITE_PRAGMA and second is not None and first in DEFAULT_PRAGMAS:
            self.pragmas.add(first)


def is_pragma_table(name: str) -> bool:
    """Whether a table is a pragma that may be read as one: `pragma_table_info`."""
    pragma = name.lower().removeprefix("pragma_")
    return pragma == "table_list" or pragma in _PLAIN_PRAGMAS | _NAMED_PRAGMAS | _OPTIONAL_PRAGMAS | _BOOLEAN_PRAGMAS


def _is_free(name: str) -> bool:
    """Whether a name is not one of the platform's own."""
    return name[:4].lower() != "_cf_"


def _allows_pragma(name: str, value: str | None) -> bool:
    if name == "table_list":
        return True
    if name in _PLAIN_PRAGMAS:
        return value is None
    if name in _BOOLEAN_PRAGMAS:
        return value is None or _BOOLEAN.match(value) is not None
    if name in _NAMED_PRAGMAS:
        return value is not None and _is_free(value)
    if name in _OPTIONAL_PRAGMAS:
        return value is None or _is_free(value)
    if name == "optimize":
        return value is None or re.fullmatch(r"-?\d{1,9}", value) is not None
    return False
