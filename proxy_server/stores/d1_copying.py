"""The work of an overlay on its local database: making tables as they are elsewhere, and filling them.

Each function is a piece of work in a transaction, in the thread of the database: it is given the connection and the
rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import apsw

from .d1 import SqlValue
from .d1_rules import Rules
from .d1_sql import quoted

__all__ = ["Copy", "State", "copy_schema", "exact", "has_sequences", "insert", "layouts_of", "read_state"]

# Of each table, by its name in lower case: whether it is copied.
State: TypeAlias = dict[str, int]
# A table, its columns as `layouts_of` gives them, and its rows, as `exact` has them sent.
Copy: TypeAlias = tuple[str, list[str], Sequence[Sequence[SqlValue]]]

# Which tables are copied, by their names: 1, or 0 for those that are not yet, and -1 for those that cannot be.
_STATE: Final = "CREATE TABLE IF NOT EXISTS _cf_OVERLAY (name TEXT PRIMARY KEY COLLATE NOCASE, copied INTEGER)"
# In this order, since each may need those before.
_ORDER: Final = ("table", "view", "index", "trigger")

# A cell on its way, so that it arrives exactly: integers and reals as text, with a letter before what is text.
_CELL: Final = (
    "CASE typeof({0}) WHEN 'integer' THEN 'i' || {0} WHEN 'real' THEN 'r' || quote({0})"
    " WHEN 'text' THEN 't' || {0} ELSE {0} END"
)
_READERS: Final[dict[str, Callable[[str], SqlValue]]] = {"i": int, "r": float, "t": str}


_COLUMNS: Final = "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)"


def read_state(connection: apsw.Connection, rules: Rules) -> State | None:
    """Which tables there are; None before the schema is copied."""
    with rules.trusting():
        connection.execute(_STATE)
        state = {name.lower(): copied for name, copied in connection.execute("SELECT name, copied FROM _cf_OVERLAY")}
    return state or None


def copy_schema(
    connection: apsw.Connection, rules: Rules, entries: list[tuple[str, str, str]], virtual: set[str]
) -> State:
    """Make tables, views, indexes and triggers, unless another process has done so meanwhile.

    Args:
        entries: of each its type, its name, and its SQL.
        virtual: the tables that cannot be copied.

    Returns:
        Which tables there are.
    """
    if (made := read_state(connection, rules)) is not None:
        return made
    for kind in _ORDER:
        for _kind, _name, sql in (entry for entry in entries if entry[0] == kind):
            rules.begin()
            connection.execute(sql)
    # The empty name stands for a schema that has been copied, and may have no tables.
    state = {"": 1, **{name: 0 for kind, name, _sql in entries if kind == "table"}, **dict.fromkeys(virtual, -1)}
    with rules.trusting():
        connection.executemany("INSERT INTO _cf_OVERLAY VALUES (?, ?)", state.items())
    return {name.lower(): copied for name, copied in state.items()}


def exact(column: str) -> str:
    """The expression that has a column sent so that its values arrive exactly."""
    return _CELL.format(column)


def layouts_of(connection: apsw.Connection, rules: Rules, tables: set[str]) -> dict[str, list[str]]:
    """The columns of those tables that are to be copied, by name: not of those that another process has copied
    meanwhile."""
    state = read_state(connection, rules) or {}
    return {table: _columns_of(connection, rules, table) for table in sorted(tables) if state.get(table) == 0}


def _columns_of(connection: apsw.Connection, rules: Rules, table: str) -> list[str]:
    """Quoted: none that are generated, and the rowid where no column is one."""
    with rules.trusting():
        info: list[tuple[Any, ...]] = connection.execute(_COLUMNS, (table,)).fetchall()
        without_rowid = connection.execute("SELECT wr FROM pragma_table_list WHERE name = ?", (table,)).get
    columns = [quoted(name) for name, _type, _pk, hidden in info if hidden == 0]
    named = any(pk and kind.upper() == "INTEGER" for _name, kind, pk, _hidden in info)
    has_own = not without_rowid and not named and "rowid" not in {name.lower() for name, *_rest in info}
    return ["rowid", *columns] if has_own else columns


def has_sequences(connection: apsw.Connection, rules: Rules) -> bool:
    """Whether a table has AUTOINCREMENT."""
    with rules.trusting():
        return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").get)


def insert(
    connection: apsw.Connection,
    rules: Rules,
    contents: list[Copy],
    sequences: list[tuple[str, int]],
) -> None:
    """Fill tables with copies, as they are: no trigger fires, and nothing is checked again. A table that another
    process has filled meanwhile is left alone: it may have written to it."""
    state = read_state(connection, rules) or {}
    contents = [copy for copy in contents if state.get(copy[0].lower()) == 0]
    filled = {table.lower() for table, _columns, _rows in contents}
    switches = (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, apsw.SQLITE_DBCONFIG_ENABLE_FKEY)
    with rules.trusting():
        for switch in switches:
            connection.config(switch, 0)
        connection.execute("PRAGMA ignore_check_constraints = ON")
        try:
            for table, columns, rows in contents:
                marks = ", ".join("?" * len(columns))
                sql = f"INSERT INTO {quoted(table)} ({', '.join(columns)}) VALUES ({marks})"
                connection.executemany(sql, ([_cell(cell) for cell in row] for row in rows))
                connection.execute("UPDATE _cf_OVERLAY SET copied = 1 WHERE name = ?", (table,))
            for name, number in ((name, number) for name, number in sequences if name.lower() in filled):
                connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
                connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number))
        finally:
            connection.execute("PRAGMA ignore_check_constraints = OFF")
            for switch in switches:
                connection.config(switch, 1)


def _cell(cell: SqlValue) -> SqlValue:
    return _READERS[cell[0]](cell[1:]) if isinstance(cell, str) else cell
