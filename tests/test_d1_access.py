"""D1 with access = "read" or "overlay": what is seen, what stays here, and what is refused."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final, Literal

import anyio
import apsw
import hypothesis
import pytest
from d1_files import rows
from hypothesis import strategies as st
from proxying import ROOT, fetch, http_scope, proxy, serving

from capnweb_py.remote import connect_env
from proxy_server.bindings import parse_binding
from proxy_server.bindings.d1 import over, overlay_path
from proxy_server.bindings.d1_http import D1Service
from proxy_server.stores import d1_overlay
from proxy_server.stores.d1 import READ_ONLY, D1Failure, D1Store, Outcome, Statement
from proxy_server.stores.d1_access import ReadOnly
from proxy_server.stores.d1_overlay import Overlay
from proxy_server.stores.d1_rules import Rules
from proxy_server.stores.d1_sql import only_reads
from proxy_server.stores.d1_sqlite import SqliteD1
from proxy_server.tables import ConfigError, Table

pytestmark = pytest.mark.anyio

SCHEMA = """
CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, loud TEXT AS (upper(name)));
CREATE TABLE posts (user REFERENCES users (id) ON DELETE CASCADE, text);
CREATE TABLE other (a, b, PRIMARY KEY (a)) WITHOUT ROWID;
CREATE VIEW wrote AS SELECT name, text FROM users JOIN posts ON user = id;
CREATE TABLE log (line);
CREATE TRIGGER logged AFTER INSERT ON users BEGIN INSERT INTO log VALUES (new.name); END;
CREATE TABLE notes (user REFERENCES users (id));
INSERT INTO users (id, name) VALUES (7, 'Ada'), (9, 'Bo'), (20, 'gone');
DELETE FROM users WHERE id = 20;
DELETE FROM log WHERE line = 'gone';
INSERT INTO notes VALUES (9);
INSERT INTO posts VALUES (7, 'hello'), (7, 'again'), (9, 'hi');
INSERT INTO other VALUES ('k', 1);
"""


class Spy:
    """A database that notes what it is asked."""

    def __init__(self, store: D1Store) -> None:
        self._store = store
        self.asked: list[str] = []

    async def run(self, statements: Sequence[Statement], token: str | None = None) -> tuple[list[Outcome], str]:
        self.asked += [statement.sql for statement in statements]
        return await self._store.run(statements, token)

    async def dump(self) -> AsyncIterator[bytes]:
        return await self._store.dump()

    async def aclose(self) -> None:
        await self._store.aclose()


@asynccontextmanager
async def overlaid(folder: Path, schema: str = SCHEMA) -> AsyncIterator[tuple[Overlay, SqliteD1, Spy]]:
    """An overlay, the database below it, and what that is asked by it."""
    base = await SqliteD1.open(folder / "base.sqlite3")
    await base.run([Statement(schema)])
    spy = Spy(ReadOnly(base))
    overlay = Overlay(spy, await SqliteD1.open(overlay_path(folder, "DB")))
    try:
        yield overlay, base, spy
    finally:
        await overlay.aclose()


def throw_away(folder: Path) -> None:
    for file in folder.glob("overlay-d1-DB.sqlite3*"):
        file.unlink()


async def test_an_overlay_shows_remote_rows_with_local_writes_on_top(tmp_path: Path) -> None:
    async with overlaid(tmp_path) as (overlay, base, _spy):
        await rows(overlay, "INSERT INTO users (name) VALUES ('Cy')")
        await rows(overlay, "UPDATE users SET name = 'Eve' WHERE id = 7")
        assert await rows(overlay, "SELECT id, name, loud FROM users ORDER BY id") == [
            (7, "Eve", "EVE"),
            (9, "Bo", "BO"),
            (21, "Cy", "CY"),
        ]
        assert await rows(base, "SELECT id, name FROM users ORDER BY id") == [(7, "Ada"), (9, "Bo")]


async def test_an_overlay_only_selects_and_only_what_is_used(tmp_path: Path) -> None:
    async with overlaid(tmp_path) as (overlay, _base, spy):
        await rows(overlay, "SELECT 1")
        await rows(overlay, "SELECT * FROM other")
        await rows(overlay, "DELETE FROM other")
        await rows(overlay, "SELECT * FROM other")
        assert all(sql.startswith("SELECT ") for sql in spy.asked)
        assert sum('FROM "other"' in sql for sql in spy.asked) == 1
        assert not any('FROM "users"' in sql for sql in spy.asked)


async def test_views_triggers_and_foreign_keys_bring_their_tables(tmp_path: Path) -> None:
    async with overlaid(tmp_path) as (overlay, _base, _spy):
        assert await rows(overlay, "SELECT name, count(*) FROM wrote GROUP BY name") == [("Ada", 2), ("Bo", 1)]
    (tmp_path / "second").mkdir()
    async with overlaid(tmp_path / "second") as (overlay, base, _spy):
        await rows(overlay, "DELETE FROM users WHERE id = 7")
        assert await rows(overlay, "SELECT text FROM posts") == [("hi",)]
        for sql in ["INSERT INTO posts VALUES (7, 'nobody')", "DELETE FROM users WHERE id = 9"]:
            with pytest.raises(D1Failure, match="FOREIGN KEY"):
                await rows(overlay, sql)
        await rows(overlay, "INSERT INTO users (name) VALUES ('Di')")
        assert await rows(overlay, "SELECT line FROM log") == [("Ada",), ("Bo",), ("Di",)]
        assert await rows(base, "SELECT count(*) FROM posts") == [(3,)]


async def test_values_come_over_exactly(tmp_path: Path) -> None:
    schema = (
        "CREATE TABLE v (x); INSERT INTO v (rowid, x) VALUES (5, 9223372036854775807), (6, -9007199254740993),"
        " (7, 0.1), (8, 2.0), (9, 9e999), (10, 'int'), (11, x'00ff'), (12, NULL), (13, ''),"
        " (14, 'a' || char(0) || 'b'), (15, 1e300)"
    )
    async with overlaid(tmp_path, schema) as (overlay, base, _spy):
        query = "SELECT rowid, x, typeof(x), length(x) FROM v ORDER BY rowid"
        assert await rows(overlay, query) == await rows(base, query)


async def test_a_transaction_that_needs_a_table_begins_again_and_runs_once(tmp_path: Path) -> None:
    async with overlaid(tmp_path) as (overlay, _base, _spy):
        await overlay.run(
            [
                Statement("CREATE TABLE mine (a); INSERT INTO mine VALUES (1); INSERT INTO mine SELECT b FROM other"),
                Statement("INSERT INTO mine SELECT count(*) FROM users"),
            ]
        )
        assert await rows(overlay, "SELECT a FROM mine") == [(1,), (1,), (2,)]


async def test_the_schema_is_changed_here_alone(tmp_path: Path) -> None:
    async with overlaid(tmp_path) as (overlay, base, _spy):
        with pytest.raises(D1Failure, match="FOREIGN KEY"):
            await rows(overlay, "DROP TABLE users")
        await rows(overlay, "ALTER TABLE other ADD COLUMN c DEFAULT 5")
        await rows(overlay, "CREATE INDEX texts ON posts (text)")
        await rows(overlay, "DROP TABLE posts")
        assert await rows(overlay, "SELECT * FROM other") == [("k", 1, 5)]
        with pytest.raises(D1Failure, match="no such table: posts"):
            await rows(overlay, "SELECT * FROM posts")
        assert await rows(base, "SELECT * FROM other") == [("k", 1)]
        assert await rows(base, "SELECT count(*) FROM posts") == [(3,)]


async def test_an_overlay_lasts_until_its_file_is_thrown_away(tmp_path: Path) -> None:
    async with overlaid(tmp_path) as (overlay, _base, _spy):
        await rows(overlay, "UPDATE other SET b = 2")
    base = await SqliteD1.open(tmp_path / "base.sqlite3")
    overlay = Overlay(base, await SqliteD1.open(overlay_path(tmp_path, "DB")))
    await rows(base, "UPDATE other SET b = 3")
    assert await rows(overlay, "SELECT b FROM other") == [(2,)]
    await overlay.aclose()
    throw_away(tmp_path)
    base = await SqliteD1.open(tmp_path / "base.sqlite3")
    overlay = Overlay(base, await SqliteD1.open(overlay_path(tmp_path, "DB")))
    assert await rows(overlay, "SELECT b FROM other") == [(3,)]
    await overlay.aclose()


# Uses a fresh overlay for the first time, one after another, beside somebody who does the same.
SHARER: Final = """
import sys
from pathlib import Path
from subprocess import PIPE
import anyio
from proxy_server.stores.d1 import Statement
from proxy_server.stores.d1_overlay import Overlay
from proxy_server.stores.d1_sqlite import SqliteD1

async def main():
    base, folder, name = *map(Path, sys.argv[1:3]), sys.argv[3]
    for number in range(10):
        overlay = Overlay(await SqliteD1.open(base, read_only=True), await SqliteD1.open(folder / f"{number}.sqlite3"))
        print("ready", flush=True)
        sys.stdin.readline()
        await overlay.run([Statement("INSERT INTO users (name) VALUES (?)", [name])])
        await overlay.run([Statement("DELETE FROM other")])
        await overlay.run([Statement("INSERT INTO other VALUES (?, 1)", [name])])
        await overlay.aclose()

anyio.run(main)
"""


def test_two_processes_may_use_an_overlay_for_the_first_time_at_once(tmp_path: Path) -> None:
    base = tmp_path / "base.sqlite3"
    with contextlib.closing(apsw.Connection(str(base))) as connection:
        connection.execute(SCHEMA)
    commands = [[sys.executable, "-c", SHARER, str(base), str(tmp_path), name] for name in ("Cy", "Di")]
    processes = [subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT) for command in commands]
    for _ in range(10):
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    for number in range(10):
        with contextlib.closing(apsw.Connection(str(tmp_path / f"{number}.sqlite3"))) as connection:
            names = connection.execute("SELECT name FROM users ORDER BY name").fetchall()
            others = connection.execute("SELECT a FROM other").fetchall()
        assert names == [("Ada",), ("Bo",), ("Cy",), ("Di",)]
        assert ("k",) not in others


async def test_an_overlay_refuses_what_it_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = "CREATE VIRTUAL TABLE texts USING fts5(body); CREATE TABLE many (a); INSERT INTO many VALUES (1), (2), (3)"
    monkeypatch.setattr(d1_overlay, "MAX_TABLE_ROWS", 2)
    async with overlaid(tmp_path, schema) as (overlay, _base, _spy):
        with pytest.raises(D1Failure, match="the table texts is a virtual one, which an overlay cannot hold"):
            await rows(overlay, "SELECT * FROM texts")
        with pytest.raises(D1Failure, match="the table many is too large for an overlay: at most 2 rows"):
            await rows(overlay, "SELECT * FROM many")
        with pytest.raises(D1Failure, match="an overlay cannot be dumped"):
            await overlay.dump()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        " -- a comment\n/* DELETE */ select replace('a', 'b', 'c')",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "WITH a AS (SELECT replace('x', 'y', 'z')) SELECT * FROM a",
        "VALUES (1)",
        "EXPLAIN SELECT 1",
        "EXPLAIN QUERY PLAN SELECT 'INSERT'",
        "PRAGMA table_info(t)",
        "PRAGMA table_list",
        "SELECT 1; SELECT 2;",
        """SELECT ';DELETE FROM t' AS "; DROP TABLE t" """,
    ],
)
def test_what_only_reads(sql: str) -> None:
    assert only_reads(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "replace into t values (1)",
        "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
        "WITH a AS (SELECT 1) REPLACE INTO t SELECT * FROM a",
        "WITH a AS (SELECT 1) DELETE FROM t",
        "WITH a AS (SELECT 1) UPDATE t SET a = 1",
        "SELECT 1; DELETE FROM t",
        "SELECT 'open; ' ; DROP TABLE t",
        "/* SELECT */ DELETE FROM t",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA foreign_keys(OFF)",
        "PRAGMA optimize",
        "PRAGMA user_version = 1",
        "CREATE TABLE t (a)",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END",
        "VACUUM",
        "ANALYZE",
        "ATTACH 'x' AS y",
        "EXPLAIN DELETE FROM t",
        "; DELETE FROM t",
        "\0; DELETE FROM t",
        # To SQLite, $a(') is the name of a parameter, and no string begins in it.
        "SELECT $a('), 1; DELETE FROM t; --')",
        "SELECT @a::b('), 1; DELETE FROM t; --')",
    ],
)
def test_what_may_write(sql: str) -> None:
    assert not only_reads(sql)


PIECES: Final = [
    *("SELECT 1", "SELECT", "VALUES (1)", "WITH a AS (SELECT 1)", "EXPLAIN", "PRAGMA", "table_info(t)", "optimize"),
    *("DELETE FROM t", "REPLACE INTO t VALUES (1)", "INSERT INTO t SELECT 1", "replace(1, 2, 3)", "BEGIN", "END"),
    *(
        ";",
        "'",
        '"',
        "`",
        "[",
        "]",
        "--",
        "\n",
        "/*",
        "*/",
        "$a",
        "@b",
        ":c",
        "::",
        "(",
        ")",
        ",",
        " ",
        "x",
        "=",
        "?",
        "\0",
    ),
]


@hypothesis.settings(max_examples=2000)
@hypothesis.given(st.sampled_from([" ", ""]), st.lists(st.sampled_from(PIECES), min_size=1, max_size=12))
def test_nothing_that_only_reads_is_a_write_to_sqlite(between: str, pieces: list[str]) -> None:
    sql = between.join(pieces)
    if not only_reads(sql):
        return
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t (a)")
    rules = Rules(read_only=True)
    rules.trusted = False
    connection.authorizer = rules
    before = apsw.allow_missing_dict_bindings(True)
    with contextlib.suppress(apsw.Error, ValueError):
        connection.execute(sql, {}).fetchall()
    apsw.allow_missing_dict_bindings(before)
    connection.close()
    assert rules.refusal != READ_ONLY, sql


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_over_a_remote_binding(tmp_path: Path, channel: Literal["http", "rpc"]) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text(f'[server]\nstate_dir = "{tmp_path}/remote"\n[bindings.DB]\ntype = "d1"\n')
    with serving(config) as server:
        async with connect_env(server.url, channel=channel) as env, anyio.create_task_group() as tasks:
            await env.DB.exec("CREATE TABLE t (a, b)\nINSERT INTO t VALUES (1, x'0102')")
            await env.DB.exec("CREATE TABLE large (a)\nINSERT INTO large VALUES (9223372036854775807), (0.1), (9e999)")
            opened = {
                access: await over(env.DB, access, "DB", tmp_path)(tasks) for access in ["full", "read", "overlay"]
            }
            stores = {access: service._store for access, service in opened.items() if isinstance(service, D1Service)}
            assert await rows(stores["read"], "SELECT a, a, b FROM t") == [(1, 1, b"\x01\x02")]
            with pytest.raises(D1Failure, match="is read-only"):
                await rows(stores["read"], "DELETE FROM t")
            await rows(stores["overlay"], "INSERT INTO t VALUES (?, ?)", 2.5, b"\xff")
            assert await rows(stores["overlay"], "SELECT * FROM t") == [(1, b"\x01\x02"), (2.5, b"\xff")]
            exact = await rows(stores["overlay"], "SELECT CAST(a AS TEXT), typeof(a) FROM large")
            assert exact == [("9223372036854775807", "integer"), ("0.1", "real"), ("Inf", "real")]
            await rows(stores["full"], "INSERT INTO t VALUES (?, ?)", "x", None)
            with pytest.raises(D1Failure, match="no such table: missing: SQLITE_ERROR"):
                await rows(stores["full"], "SELECT * FROM missing")
            assert await env.DB.prepare("SELECT a FROM t").raw() == [[1], ["x"]]
            dumped = b"".join([chunk async for chunk in await stores["read"].dump()])
            assert dumped.startswith(b"SQLite format 3")
            with pytest.raises(D1Failure, match="an overlay cannot be dumped"):
                await stores["overlay"].dump()
            for binding in opened.values():
                await binding.aclose()


def test_an_access_that_is_none_is_an_error(tmp_path: Path) -> None:
    table = Table({"type": "d1", "access": "reed"}, tmp_path / "capnweb.toml", "bindings.DB")
    with pytest.raises(ConfigError, match=r'bindings\.DB\.access: "reed" is no access: did you mean "read"\?'):
        parse_binding(table, tmp_path)


async def test_an_overlay_of_the_servers_own(tmp_path: Path) -> None:
    def declaration(access: str) -> Any:
        table = {"type": "d1", "id": "app", "access": access}
        return parse_binding(Table(table, tmp_path / "capnweb.toml", "bindings.DB"), tmp_path)

    async def ask(app: Any, binding: str, sql: str) -> bytes:
        scope = http_scope(binding, method="POST", headers=[("mf-url", "http://d1/query"), ("content-length", "9")])
        return (await fetch(app, scope, b'{"sql":"' + sql.encode() + b'"}')).body

    async with proxy(DB=declaration("full"), TRY=declaration("overlay")) as app:
        await ask(app, "DB", "CREATE TABLE t (a)")
        assert b'"success":true' in await ask(app, "TRY", "INSERT INTO t VALUES (1)")
        assert b'"n":1' in await ask(app, "TRY", "SELECT count(*) AS n FROM t")
        assert b'"n":0' in await ask(app, "DB", "SELECT count(*) AS n FROM t")
