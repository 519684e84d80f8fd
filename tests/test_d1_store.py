"""The embedded database of D1: what statements may not leave behind, dumps, large answers; and requests that are none.

What SQL is answered, and with which texts, is compared with the runtime's own in interop/test_d1_workerd.py.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from d1_files import empty_database, rows
from proxying import Reply, fetch, http_scope, proxy

from capnweb_py import RemoteError, memory_pair
from capnweb_py.web import ReadableStream
from proxy_server.bindings import BindingError, d1_http, d1_rpc, parse_binding
from proxy_server.stores import d1_dump
from proxy_server.stores.d1 import D1Failure, Statement
from proxy_server.stores.d1_sql import split
from proxy_server.stores.d1_sqlite import SqliteD1
from proxy_server.tables import ConfigError, Table

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteD1]:
    """An empty database."""
    async with empty_database(tmp_path) as opened:
        yield opened


async def test_a_pragma_holds_for_its_transaction(store: SqliteD1) -> None:
    await rows(store, "CREATE TABLE t (a CHECK (a > 0))")
    await store.run([Statement("PRAGMA ignore_check_constraints = ON"), Statement("INSERT INTO t VALUES (-1)")])
    with pytest.raises(D1Failure, match="CHECK constraint failed"):
        await rows(store, "INSERT INTO t VALUES (-1)")


async def test_a_pragma_of_a_transaction_that_failed_is_gone_too(store: SqliteD1) -> None:
    await rows(store, "CREATE TABLE t (a CHECK (a > 0))")
    with pytest.raises(D1Failure, match="no such table"):
        await store.run([Statement("PRAGMA ignore_check_constraints = ON"), Statement("SELECT * FROM missing")])
    with pytest.raises(D1Failure, match="CHECK constraint failed"):
        await rows(store, "INSERT INTO t VALUES (-1)")


async def test_a_table_does_not_get_a_name_of_the_platform_by_being_renamed(store: SqliteD1) -> None:
    await rows(store, "CREATE TABLE t (a)")
    with pytest.raises(D1Failure, match="not authorized: SQLITE_AUTH"):
        await rows(store, "ALTER TABLE t RENAME TO _cf_mine")
    assert await rows(store, "SELECT * FROM t") == []
    await rows(store, "ALTER TABLE t RENAME TO u")


async def test_sql_makes_no_file(store: SqliteD1, tmp_path: Path) -> None:
    outside = tmp_path / "outside.db"
    for sql in [f"ATTACH '{outside}' AS o", f"VACUUM INTO '{outside}'", f"PRAGMA temp_store_directory = '{tmp_path}'"]:
        with pytest.raises(D1Failure):
            await rows(store, sql)
    assert set(os.listdir(tmp_path)) <= {"db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm"}


@pytest.mark.parametrize("read", [False, True])
async def test_a_dump_leaves_no_file_behind_read_or_not(store: SqliteD1, tmp_path: Path, read: bool) -> None:
    before = set(os.listdir(tmp_path))
    stream = ReadableStream(await store.dump())
    assert set(os.listdir(tmp_path)) == before
    if read:
        async for _ in stream:
            pass
    await stream.aclose()


async def test_a_slow_reader_of_a_dump_holds_up_nobody_but_a_third_one(store: SqliteD1) -> None:
    dumps = [await store.dump(), await store.dump()]
    await rows(store, "CREATE TABLE t (a)")
    with pytest.raises(D1Failure, match=r"^D1 DB is overloaded.* At most 2 dumps are read at a time"):
        await store.dump()
    for dump in dumps:
        await ReadableStream(dump).aclose()
    await ReadableStream(await store.dump()).aclose()


async def test_a_dump_that_nobody_reads_makes_room(store: SqliteD1, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up, kept = await store.dump(), await store.dump()
    with monkeypatch.context() as patch:
        patch.setattr(d1_dump, "PATIENCE", 0)
        third = await store.dump()
    with pytest.raises(D1Failure, match="The dump was not read for 60 s, and another one was asked for"):
        await anext(given_up)
    for dump in (kept, third):
        assert (await anext(dump)).startswith(b"SQLite format 3")
    with pytest.raises(D1Failure, match="At most 2 dumps are read at a time"):
        await store.dump()
    for dump in (given_up, kept, third):
        await ReadableStream(dump).aclose()
    await ReadableStream(await store.dump()).aclose()


async def test_what_a_killed_process_left_of_a_dump_is_removed_by_a_later_one(store: SqliteD1, tmp_path: Path) -> None:
    for name, age in [("d1-dump-old", 7200), ("d1-dump-new", 60)]:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    await ReadableStream(await store.dump()).aclose()
    assert {name for name in os.listdir(tmp_path) if name.startswith("d1-dump")} == {"d1-dump-new"}


async def test_the_bookmark_grows_with_what_is_written_and_only_then(store: SqliteD1) -> None:
    async def bookmark(sql: str) -> str:
        return (await store.run([Statement(sql)]))[1]

    bookmarks = [
        await bookmark(sql)
        for sql in [
            "SELECT 1",
            "CREATE TABLE t (a)",
            "SELECT * FROM t",
            "INSERT INTO t VALUES (1)",
            "ALTER TABLE t RENAME TO u",
        ]
    ]
    assert bookmarks == sorted(bookmarks)
    assert bookmarks[1] == bookmarks[2]
    assert len(set(bookmarks)) == 4


async def test_two_servers_may_share_a_file(store: SqliteD1, tmp_path: Path) -> None:
    other = await SqliteD1.open(tmp_path / "db.sqlite3")
    await rows(store, "CREATE TABLE t (n)")
    await rows(store, "INSERT INTO t VALUES (0)")

    async def add(to: SqliteD1) -> None:
        for _ in range(20):
            await rows(to, "UPDATE t SET n = n + 1")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(add, store)
        tasks.start_soon(add, other)
    await other.aclose()
    assert await rows(store, "SELECT n FROM t") == [(40,)]


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("", []),
        (" \n", []),
        ("a", ["a"]),
        ("a;", ["a"]),
        ("a; b ;", ["a", " b "]),
        (";", [""]),
        ("';' ; \"a;b\" ; `;` ; [;]", ["';' ", ' "a;b" ', " `;` ", " [;]"]),
        ("'it''s;' ; x", ["'it''s;' ", " x"]),
        ("a -- ; b\n; c /* ; */ d", ["a -- ; b\n", " c /* ; */ d"]),
        ("a; -- b", ["a", " -- b"]),
        ("'open; b", ["'open; b"]),
        ("$a(';) ; b", ["$a(';) ", " b"]),
        (
            "CREATE TRIGGER t AFTER INSERT ON u BEGIN SELECT 1; SELECT CASE 1 WHEN 1 THEN 2 END; END; b",
            ["CREATE TRIGGER t AFTER INSERT ON u BEGIN SELECT 1; SELECT CASE 1 WHEN 1 THEN 2 END; END", " b"],
        ),
        ("CREATE TABLE trigger_ (a); b", ["CREATE TABLE trigger_ (a)", " b"]),
    ],
)
def test_where_statements_end(sql: str, statements: list[str]) -> None:
    assert list(split(sql)) == statements


async def ask(app: Any, body: bytes, url: str = "http://d1/query", method: str = "POST") -> Reply:
    length = [("content-length", str(len(body)))] if body else []
    return await fetch(app, http_scope("DB", method=method, headers=[("mf-url", url), *length]), body)


def declaration(folder: Path, **table: Any) -> Any:
    return parse_binding(Table({"type": "d1", **table}, folder / "capnweb.toml", "bindings.DB"), folder)


async def test_requests_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy(DB=declaration(tmp_path)) as app:
        assert (await ask(app, b"", method="GET")).status == 404
        assert (await ask(app, b"", url="http://d1/other")).status == 404
        for body, text in [
            (b"", "the request is not JSON"),
            (b"{", "the request is not JSON"),
            (b"[" * 100_000, "the request is not JSON"),
            (b"1", 'a query is an object with "sql"'),
            (b"{}", 'a query is an object with "sql"'),
            (b'{"sql": 1}', 'a query is an object with "sql"'),
            (b'{"sql": "SELECT 1", "params": 1}', 'the "params" of a query are an array'),
            (b'{"sql": "SELECT ?", "params": [{}]}', "a parameter is a number"),
            (b'{"sql": "SELECT ?", "params": [["a"]]}', "a parameter is a number"),
            (b"[]", "No SQL statements detected."),
        ]:
            answer = json.loads((await ask(app, body)).body)
            assert (answer["success"], text in answer["error"]) == (False, True), body
        marks = json.dumps({"sql": "SELECT 1", "params": [1] * 1001}).encode()
        assert b"Wrong number of parameter bindings" in (await ask(app, marks)).body
        monkeypatch.setattr(d1_http, "MAX_BRACKETS", 2)
        assert b"The request has more than 2 brackets" in (await ask(app, b'[{"sql": "SELECT 1", "params": []}]')).body
        monkeypatch.setattr(d1_http, "MAX_REQUEST_BYTES", 10)
        assert b"The request is larger than 10 bytes" in (await ask(app, b'{"sql": "SELECT 1"}')).body


async def test_results_as_objects_where_no_format_is_asked_for(tmp_path: Path) -> None:
    async with proxy(DB=declaration(tmp_path)) as app:
        answer = json.loads((await ask(app, b'{"sql": "SELECT 1 AS a, 2 AS a"}')).body)
        assert answer[0]["results"] == [{"a": 2}]


LARGE: Final = (
    "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {count})"
    " SELECT x AS a, 'ü' AS b, {blob} AS c FROM c"
)


@pytest.mark.parametrize(("count", "blob"), [(2500, "x'00ff'"), (3, "zeroblob(400000)"), (1000, "NULL"), (2001, "1.5")])
async def test_a_large_answer_comes_in_pieces_and_is_the_same(tmp_path: Path, count: int, blob: str) -> None:
    cell = {"x'00ff'": [0, 255], "zeroblob(400000)": [0] * 400_000, "NULL": None, "1.5": 1.5}[blob]
    expected = [[x, "ü", cell] for x in range(1, count + 1)]
    body = json.dumps(
        [{"sql": "SELECT 1 AS a"}, {"sql": LARGE.format(count=count, blob=blob)}, {"sql": "SELECT 2 AS a"}]
    )
    async with proxy(DB=declaration(tmp_path)) as app:
        reply = await ask(app, body.encode())
        tabular = await ask(app, body.encode(), url="http://d1/query?resultsFormat=ROWS_AND_COLUMNS")
    assert ("content-type", "application/json") in reply.headers
    first, large, last = json.loads(reply.body)
    assert (first["results"], last["results"]) == ([{"a": 1}], [{"a": 2}])
    assert large["results"] == [dict(zip("abc", row, strict=True)) for row in expected]
    assert (large["success"], large["meta"]["changes"]) == (True, 0)
    assert json.loads(tabular.body)[1]["results"] == {"columns": ["a", "b", "c"], "rows": expected}


async def test_a_result_that_no_message_holds_is_refused_on_the_rpc_channel(
    store: SqliteD1, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(d1_rpc, "MAX_MESSAGE_BYTES", 1000)
    async with memory_pair(None, d1_rpc.D1Target(store)) as (client, _server):
        database = client.remote_main
        assert await database.prepare("SELECT length(zeroblob(200)) AS n").first("n") == 200
        with pytest.raises(RemoteError, match="larger than 1000 bytes, which is more than a message holds"):
            await database.prepare("SELECT zeroblob(300)").all()
        answer = await database.query({"queries": [{"sql": "SELECT zeroblob(300)"}]})
        assert answer["error"].message.startswith("the result is larger than 1000 bytes")


async def test_a_store_is_named_by_its_url(tmp_path: Path) -> None:
    async with proxy(DB=declaration(tmp_path, store="sqlite:///mine.db")) as app:
        await ask(app, b'{"sql": "SELECT 1"}')
    assert (tmp_path / "mine.db").exists()
    absolute = tmp_path / "elsewhere" / "mine.db"
    async with proxy(DB=declaration(tmp_path / "state", store=f"sqlite:///{absolute}")) as app:
        await ask(app, b'{"sql": "SELECT 1"}')
    assert absolute.exists()


@pytest.mark.parametrize("url", ["sqlite:///", "mysql://host/db", "mine.db"])
def test_a_store_of_another_kind_is_an_error(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"bindings\.DB\.store: "):
        declaration(tmp_path, store=url)


async def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database" * 100)
    async with anyio.create_task_group() as tasks:
        with pytest.raises(BindingError, match=r"text\.db cannot be opened: file is not a database"):
            await declaration(tmp_path, store="sqlite:///text.db").open(tasks)


def test_a_token_is_in_an_environment_variable_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("D1_TEST_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"bindings\.DB\.token_env: there is no environment variable D1_TEST_TOKEN"):
        declaration(tmp_path, store="libsql://host", token_env="D1_TEST_TOKEN")
    monkeypatch.setenv("D1_TEST_TOKEN", "secret")
    declaration(tmp_path, store="libsql://host", token_env="D1_TEST_TOKEN")
