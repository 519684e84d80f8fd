"""D1 databases in files, for tests of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy_server.stores.d1 import D1Store, Statement
from proxy_server.stores.d1_sqlite import SqliteD1

__all__ = ["empty_database", "rows"]


@asynccontextmanager
async def empty_database(folder: Path) -> AsyncIterator[SqliteD1]:
    """A new database, `db.sqlite3` in a folder."""
    store = await SqliteD1.open(folder / "db.sqlite3")
    try:
        yield store
    finally:
        await store.aclose()


async def rows(store: D1Store, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """The rows of one statement."""
    [outcome], _bookmark = await store.run([Statement(sql, params)])
    return [tuple(row) for row in outcome.rows]
