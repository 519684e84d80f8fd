"""What a request of D1 may take of time, memory and disk; and what becomes of a statement that cannot be stopped."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import anyio
import attrs
import pytest
from d1_files import empty_database, rows

from proxy_server.stores import d1_database, d1_guard, d1_sql, d1_sqlite, d1_thread
from proxy_server.stores.d1 import D1Failure, Statement
from proxy_server.stores.d1_guard import Guard
from proxy_server.stores.d1_rules import Rules
from proxy_server.stores.d1_sqlite import SqliteD1

pytestmark = pytest.mark.anyio

ENDLESS: Final = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteD1]:
    """An empty database."""
    async with empty_database(tmp_path) as opened:
        yield opened


async def test_a_statement_that_takes_too_long_is_interrupted(store: SqliteD1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d1_sqlite, "MAX_QUERY_SECONDS", 0.05)
    with pytest.raises(D1Failure, match="exceeded timeout which caused object to be reset"):
        await store.run([Statement("CREATE TABLE t (a)"), Statement(ENDLESS)])
    assert await rows(store, "SELECT name FROM sqlite_master WHERE name = 't'") == []


async def test_a_statement_that_nobody_waits_for_any_more_is_interrupted(store: SqliteD1) -> None:
    begun, loop_thread = anyio.Event(), threading.get_ident()
    token = anyio.lowlevel.current_token()

    def started(*_: object) -> None:
        assert threading.get_ident() != loop_thread
        anyio.from_thread.run_sync(begun.set, token=token)

    store.before_running = started
    with anyio.fail_after(25):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rows, store, ENDLESS)
            await begun.wait()
            tasks.cancel_scope.cancel()
    store.before_running = None
    assert await rows(store, "SELECT 1") == [(1,)]


@attrs.frozen
class Stuck:
    """Statements that cannot be stopped, as a function of SQLite's that takes minutes cannot."""

    begun: anyio.Event
    release: threading.Event


@pytest.fixture
async def stuck(store: SqliteD1, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stuck]:
    """Statements that read the table `stuck` are, until they are released."""
    found, token = Stuck(anyio.Event(), threading.Event()), anyio.lowlevel.current_token()

    def wait(_connection: object, rules: Rules) -> None:
        if "stuck" in rules.read:
            anyio.from_thread.run_sync(found.begun.set, token=token)
            found.release.wait()

    await rows(store, "CREATE TABLE stuck (a)")
    monkeypatch.setattr(d1_sqlite, "MAX_QUERY_SECONDS", 0.05)
    monkeypatch.setattr(d1_thread, "_GRACE", 0.05)
    store.before_running = wait
    yield found
    found.release.set()


async def test_a_statement_that_cannot_be_stopped_is_left_and_never_commits(store: SqliteD1, stuck: Stuck) -> None:
    await rows(store, "CREATE TABLE t (a)")
    threads = set(threading.enumerate())
    with pytest.raises(D1Failure, match="exceeded timeout which caused object to be reset"):
        await store.run([Statement("INSERT INTO t VALUES (1)"), Statement("SELECT * FROM stuck")])
    assert await rows(store, "SELECT * FROM t") == []
    stuck.release.set()
    [left] = [thread for thread in threads if thread.name.startswith("d1 ")]
    await anyio.to_thread.run_sync(left.join)
    assert await rows(store, "SELECT * FROM t") == []
    await rows(store, "INSERT INTO t VALUES (2)")


async def test_too_many_statements_that_cannot_be_stopped_are_too_much_to_do(store: SqliteD1, stuck: Stuck) -> None:
    for _ in range(3):
        with pytest.raises(D1Failure, match="exceeded timeout"):
            await rows(store, "SELECT * FROM stuck")
    with pytest.raises(D1Failure, match=r"^D1 DB is overloaded. Too many requests queued.$"):
        await rows(store, "SELECT 1")


async def test_whoever_leaves_and_whoever_closes_waits_for_no_statement_that_cannot_be_stopped(
    store: SqliteD1, stuck: Stuck
) -> None:
    with anyio.fail_after(25):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rows, store, "SELECT * FROM stuck")
            await stuck.begun.wait()
            tasks.cancel_scope.cancel()
        await store.aclose()
    with pytest.raises(D1Failure, match="the database is closed"):
        await rows(store, "SELECT 1")


async def test_a_statement_that_fills_the_disk_with_temporary_files_is_stopped(
    store: SqliteD1, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([10**12])
    monkeypatch.setattr(d1_database, "_free_bytes", lambda: next(free, 10**6))
    with pytest.raises(D1Failure, match=r"^database or disk is full: SQLITE_FULL$"):
        await rows(store, ENDLESS)
    assert await rows(store, "SELECT 1") == [(1,)]


async def test_a_statement_that_holds_many_large_values_at_a_time_is_stopped(store: SqliteD1) -> None:
    values = [", ".join(f"?1 || {number}{column}" for number in range(100)) for column in range(4)]
    with pytest.raises(D1Failure, match=r"^D1 DB's isolate exceeded its memory limit and was reset.$"):
        await rows(store, f"SELECT {', '.join(f'length(max({some}))' for some in values)}", "x" * 1_900_000)
    assert await rows(store, "SELECT 1") == [(1,)]


async def test_a_request_has_so_many_statements(store: SqliteD1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d1_sql, "MAX_STATEMENTS", 2)
    await store.run([Statement("SELECT 1")] * 2)
    with pytest.raises(D1Failure, match="a request has at most 2 statements, not 3"):
        await store.run([Statement("SELECT 1")] * 3)


async def test_a_result_that_is_too_large_is_refused(store: SqliteD1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d1_database, "MAX_RESULT_BYTES", 1000)
    with pytest.raises(D1Failure, match=r"exceeded its memory limit.* The result is larger than 1000 bytes: use LIMIT"):
        await rows(store, "SELECT zeroblob(600) UNION ALL SELECT zeroblob(600)")
    with pytest.raises(D1Failure, match=r"The result is larger than 1000 bytes: use LIMIT"):
        await store.run([Statement("SELECT zeroblob(600)")] * 2)


async def test_a_value_is_at_most_two_megabytes(store: SqliteD1) -> None:
    assert await rows(store, "SELECT length(?)", b"x" * 1_999_999) == [(1_999_999,)]
    with pytest.raises(D1Failure, match="string or blob too big: SQLITE_TOOBIG"):
        await rows(store, "SELECT length(?)", b"x" * 2_000_001)


async def test_a_check_that_takes_too_long_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of statements for another server: a table that is made of a query runs that here, too."""
    monkeypatch.setattr(d1_guard, "_MAX_SECONDS", 0.05)
    guard = Guard([], read_only=False)
    with pytest.raises(D1Failure, match="exceeded timeout which caused object to be reset"):
        guard.check([Statement(f"CREATE TABLE t AS {ENDLESS}")])
    guard.close()
