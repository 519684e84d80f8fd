"""A database that is seen through a local one: reads see the remote rows with the local writes on top.

The overlay is a local copy that is made as it is needed: first the schema, then each table, whole, when a statement
first uses it. From then on the table is the local one: what others write is not seen, and nothing that is written here
leaves. The remote database is only ever sent SELECTs. Several processes may share an overlay: what one of them has
copied, the others find in the state that is kept beside the copies.

A statement is compiled against the local copy, and SQLite's authorizer tells its tables, through views, triggers and
foreign keys. If one is not here yet, the transaction is rolled back before the statement runs, the table is fetched,
and everything begins again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Final

import anyio
import apsw

from .d1 import D1Failure, D1Store, Outcome, SqlValue, Statement
from .d1_copying import Copy, copy_schema, exact, has_sequences, insert, layouts_of, read_state
from .d1_rules import Rules
from .d1_sql import quoted
from .d1_sqlite import SqliteD1

__all__ = ["MAX_TABLE_BYTES", "MAX_TABLE_ROWS", "Overlay"]

# How large a remote table may be that is copied. A larger one is refused, and stays untouched.
MAX_TABLE_ROWS: Final = 100_000
MAX_TABLE_BYTES: Final = 50_000_000

_SCHEMA: Final = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
_KINDS: Final = "SELECT name, type FROM pragma_table_list WHERE schema = 'main'"


class _AbsentError(Exception):
    """A statement needs tables that are not here yet."""

    def __init__(self, tables: set[str]) -> None:
        super().__init__()
        self.tables = tables


class Overlay:
    """A local database over a remote one.

    Args:
        base: the remote one. It is only read, and closed with the overlay.
        local: where the copies and the writes are.
    """

    def __init__(self, base: D1Store, local: SqliteD1) -> None:
        self._base = base
        self._local = local
        self._turn = anyio.Lock()
        self._begun = False
        # The tables that are not copied, in lower case, as SQLite compares names.
        self._absent: set[str] = set()
        self._refused: set[str] = set()
        local.before_running = self._look

    async def run(self, statements: Sequence[Statement], token: str | None = None) -> tuple[list[Outcome], str]:
        """As D1Store says. The bookmark is of the overlay, and means nothing to the remote database."""
        async with self._turn:
            if not self._begun:
                await self._begin()
            while True:
                try:
                    return await self._local.run(statements)
                except _AbsentError as absent:
                    await self._fetch(absent.tables)
                except D1Failure as failure:
                    raise self._explained(failure) from None

    async def dump(self) -> AsyncIterator[bytes]:
        raise D1Failure("an overlay cannot be dumped: of the remote database, it holds only the tables that were used")

    async def aclose(self) -> None:
        await self._local.aclose()
        await self._base.aclose()

    def _explained(self, failure: D1Failure) -> D1Failure:
        text = str(failure)
        for name in self._refused:
            if text.lower().startswith(f"no such table: {name}:"):
                return D1Failure(f"the table {name} is a virtual one, which an overlay cannot hold")
        return failure

    def _look(self, _connection: apsw.Connection, rules: Rules) -> None:
        """Raise _AbsentError if the statement that is about to run needs tables that are not here. In the thread."""
        if rules.trusted or not self._absent:
            return
        needed = {name.lower() for name in rules.read | rules.written}
        if absent := needed & self._absent:
            raise _AbsentError(absent)

    async def _begin(self) -> None:
        """Copy the schema, where that has not been done."""
        state = await self._local.in_transaction(read_state)
        if state is None:
            schema, kinds = await self._select([_SCHEMA, _KINDS])
            virtual = {str(name) for name, kind in kinds if kind in {"virtual", "shadow"}}
            entries = [(str(kind), str(name), str(sql)) for kind, name, sql in schema if not _is_internal(str(name))]
            entries = [entry for entry in entries if entry[1] not in virtual]
            state = await self._local.in_transaction(lambda db, rules: copy_schema(db, rules, entries, virtual))
        self._absent = {name for name, copied in state.items() if copied == 0}
        self._refused = {name for name, copied in state.items() if copied < 0}
        self._begun = True

    async def _fetch(self, tables: set[str]) -> None:
        """Copy tables, as they are at one moment."""
        layouts = await self._local.in_transaction(lambda db, rules: layouts_of(db, rules, tables))
        if layouts:
            copies = await self._select(
                f"SELECT {', '.join(map(exact, columns))} FROM {quoted(name)} LIMIT {MAX_TABLE_ROWS + 1}"
                for name, columns in layouts.items()
            )
            sequences = await self._sequences(layouts)
            contents: list[Copy] = [(*layout, rows) for layout, rows in zip(layouts.items(), copies, strict=True)]
            for name, _columns, rows in contents:
                _check_size(name, rows)
            await self._local.in_transaction(lambda db, rules: insert(db, rules, contents, sequences))
        self._absent -= tables

    async def _sequences(self, names: Collection[str]) -> list[tuple[str, int]]:
        """Where the AUTOINCREMENT of tables has come to."""
        if not await self._local.in_transaction(has_sequences):
            return []
        [rows] = await self._select(["SELECT name, 'i' || seq FROM sqlite_sequence"])
        return [(str(name), int(str(seq)[1:])) for name, seq in rows if str(name).lower() in names]

    async def _select(self, queries: Iterable[str]) -> list[Sequence[Sequence[SqlValue]]]:
        outcomes, _bookmark = await self._base.run([Statement(query) for query in queries])
        return [outcome.rows for outcome in outcomes]


def _is_internal(name: str) -> bool:
    return name.lower().startswith(("_cf_", "sqlite_"))


def _check_size(name: str, rows: Sequence[Sequence[SqlValue]]) -> None:
    size = sum(len(cell) for row in rows for cell in row if isinstance(cell, (str, bytes)))
    if len(rows) > MAX_TABLE_ROWS or size > MAX_TABLE_BYTES:
        raise D1Failure(
            f"the table {name} is too large for an overlay: at most {MAX_TABLE_ROWS} rows and {MAX_TABLE_BYTES} bytes"
            " are copied"
        )
