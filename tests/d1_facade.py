"""What the facade of D1 does, whatever is behind it: checks that are run over each channel, against each server.

They take an empty database. What is different from server to server stands in the tests themselves.
"""

from __future__ import annotations

from typing import Any

import pytest

from capnweb_py.bindings.d1 import D1Database, D1Error, D1Result, D1TypeError
from capnweb_py.values import UNDEFINED

__all__ = ["CHECKS"]


async def rows_come_as_records(db: D1Database) -> None:
    created = await db.prepare("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, photo BLOB)").run()
    assert (created.success, created.results) == (True, [])
    insert = db.prepare("INSERT INTO users (name, photo) VALUES (?1, ?2) RETURNING id")
    result = await insert.bind("Ada", b"\0\xff").run()
    assert result.results == [{"id": 1}]
    assert (result.meta["changes"], result.meta["last_row_id"], result.meta["changed_db"]) == (1, 1, True)
    await insert.bind("Bo", None).run()
    found = await db.prepare("SELECT * FROM users ORDER BY id").all()
    assert isinstance(found, D1Result)
    assert found.results == [{"id": 1, "name": "Ada", "photo": b"\0\xff"}, {"id": 2, "name": "Bo", "photo": None}]


async def first_gives_a_row_or_a_cell(db: D1Database) -> None:
    statement = db.prepare("SELECT 1 AS a, NULL AS b")
    assert await statement.first() == {"a": 1, "b": None}
    assert await statement.first("a") == 1
    assert await statement.first("b") is None
    assert await db.prepare("SELECT 1 AS a WHERE 0").first("a") is None
    assert await db.prepare("SELECT 1 AS a WHERE 0").first() is None
    with pytest.raises(D1Error, match=r"^D1_COLUMN_NOTFOUND: Column not found \(c\)$"):
        await statement.first("c")


async def raw_keeps_columns_of_the_same_name(db: D1Database) -> None:
    statement = db.prepare("SELECT 1 AS a, 2 AS a, x'01' AS b")
    assert await statement.raw() == [[1, 2, b"\x01"]]
    assert await statement.raw(column_names=True) == [["a", "a", "b"], [1, 2, b"\x01"]]
    assert (await statement.all()).results == [{"a": 2, "b": b"\x01"}]


async def values_keep_what_they_are(db: D1Database) -> None:
    values: list[Any] = [None, 1, -0.5, 2**53 - 1, "ü\U0001f600\0", "", b"", bytes(range(256))]
    for value in values:
        assert await db.prepare("SELECT ?").bind(value).first("?") == value
    assert await db.prepare("SELECT ?").bind(bytearray(b"ab")).first("?") == b"ab"
    assert await db.prepare("SELECT ?, ?").bind(True, False).raw() == [[1, 0]]
    assert await db.prepare("SELECT ?, ?").bind(float("inf"), float("nan")).raw() == [[None, None]]


async def numbers_are_doubles(db: D1Database) -> None:
    assert await db.prepare("SELECT typeof(?) AS t").bind(1).first("t") == "real"
    row = await db.prepare("SELECT 9223372036854775807 AS a, 9007199254740993 AS b, 2.0 AS c, 9e999 AS d").first()
    assert row == {"a": float(2**63), "b": float(2**53), "c": 2, "d": None}
    assert [type(value) for value in row.values()] == [float, float, int, type(None)]


async def what_cannot_be_bound_is_a_type_error(db: D1Database) -> None:
    statement = db.prepare("SELECT ?")
    for value, text in [
        (UNDEFINED, "value 1 has to be None, a number, a str or bytes, not Undefined"),
        (2**53, "Type 'bigint' not supported for value '9007199254740992'"),
        ({"a": 1}, "value 1 has to be None, a number, a str or bytes, not dict"),
        (print, "value 1 has to be None, a number, a str or bytes, not builtin_function_or_method"),
        ([1, 2], r"value 1 has to be None, a number, a str or bytes, not list: unpack it, as in bind\(\*values\)"),
    ]:
        with pytest.raises(D1TypeError, match=f"^D1_TYPE_ERROR: {text}") as caught:
            statement.bind(value)  # type: ignore[arg-type]
        assert isinstance(caught.value, TypeError)


async def errors_have_their_texts(db: D1Database) -> None:
    for sql, text in [
        ("SELECT * FROM missing", "D1_ERROR: no such table: missing: SQLITE_ERROR"),
        ("SELEC 1", 'D1_ERROR: near "SELEC": syntax error at offset 0: SQLITE_ERROR'),
        ("", "D1_ERROR: No SQL statements detected."),
        ("SELECT ?", "D1_ERROR: Wrong number of parameter bindings for SQL query."),
        ("ATTACH 'x' AS y", "D1_ERROR: not authorized: SQLITE_AUTH"),
    ]:
        with pytest.raises(D1Error) as caught:
            await db.prepare(sql).all()
        assert str(caught.value) == text
    await db.exec("CREATE TABLE t (a UNIQUE)\nINSERT INTO t VALUES (1)")
    with pytest.raises(D1Error) as caught:
        await db.prepare("INSERT INTO t VALUES (?)").bind(1).run()
    assert str(caught.value) == (
        "D1_ERROR: UNIQUE constraint failed: t.a: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)"
    )


async def a_batch_is_one_transaction(db: D1Database) -> None:
    await db.exec("CREATE TABLE t (a UNIQUE)")
    insert = db.prepare("INSERT INTO t VALUES (?)")
    done = await db.batch([insert.bind("x"), insert.bind("y"), db.prepare("SELECT count(*) AS n FROM t")])
    assert [result.meta["changes"] for result in done] == [1, 1, 0]
    assert done[2].results == [{"n": 2}]
    with pytest.raises(D1Error, match="UNIQUE constraint failed"):
        await db.batch([insert.bind("z"), insert.bind("x")])
    with pytest.raises(D1Error, match="No SQL statements detected"):
        await db.batch([])
    assert await db.prepare("SELECT a FROM t ORDER BY a").raw() == [["x"], ["y"]]


async def exec_runs_lines(db: D1Database) -> None:
    done = await db.exec("CREATE TABLE t (a);\nINSERT INTO t VALUES (1); INSERT INTO t VALUES (2)\n")
    assert done.count == 2
    assert done.duration >= 0
    with pytest.raises(D1Error) as caught:
        await db.exec("INSERT INTO t VALUES (3)\nINSERT INTO missing VALUES (1)")
    assert str(caught.value) == (
        "D1_EXEC_ERROR: Error in line 1: INSERT INTO t VALUES (3): no such table: missing: SQLITE_ERROR"
    )
    assert await db.prepare("SELECT count(*) AS n FROM t").first("n") == 2


async def sessions_have_bookmarks(db: D1Database) -> None:
    session = db.with_session("first-primary")
    assert session.bookmark is None
    await session.prepare("CREATE TABLE t (a)").run()
    first = session.bookmark
    assert first
    await session.batch([session.prepare("INSERT INTO t VALUES (1)")])
    second = session.bookmark
    assert second
    assert first < second
    later = db.with_session(second)
    assert later.bookmark == second
    assert await later.prepare("SELECT a FROM t").raw() == [[1]]
    unconstrained = db.with_session()
    await unconstrained.prepare("SELECT 1").all()
    assert unconstrained.bookmark is not None
    assert db.bookmark is None


CHECKS = [
    rows_come_as_records,
    first_gives_a_row_or_a_cell,
    raw_keeps_columns_of_the_same_name,
    values_keep_what_they_are,
    numbers_are_doubles,
    what_cannot_be_bound_is_a_type_error,
    errors_have_their_texts,
    a_batch_is_one_transaction,
    exec_runs_lines,
    sessions_have_bookmarks,
]
