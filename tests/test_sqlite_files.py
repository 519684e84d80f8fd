"""The SQLite files of the embedded stores."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from proxy_server.stores.sqlite import SqliteFile, use_wal

pytestmark = pytest.mark.anyio


def test_a_new_file_that_somebody_else_is_opening_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.sqlite3"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        closing(sqlite3.connect(path, timeout=0)) as mine,
    ):
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(time, "sleep", lambda _seconds: other.execute("COMMIT"))
        use_wal(mine)
        assert mine.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


async def test_a_file_that_is_no_database_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("no database" * 100)
    monkeypatch.setattr(time, "sleep", lambda _seconds: pytest.fail("it is tried again"))
    with pytest.raises(sqlite3.DatabaseError, match="file is not a database"):
        await SqliteFile.open(tmp_path / "text", "")
