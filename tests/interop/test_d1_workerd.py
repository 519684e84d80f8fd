"""D1 of a real workerd: one Worker over our proxy, and over Miniflare's own simulator, whose answers must be the same.

The simulator is the oracle: a Durable Object over the SQLite of the Workers runtime, which is what D1 itself is. What
it answers otherwise for a reason is left out where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import pytest
from anyio import to_thread
from proxying import serving

from capnweb_py.remote import connect_env

from .runtime import Worker, workerd

SCRIPT: Final = "d1_worker.mjs"


@attrs.frozen
class Both:
    """The same Worker twice."""

    ours: Worker
    simulator: Worker

    def run(self, scenario: str, **arguments: Any) -> Any:
        """What a scenario comes to, on both."""
        ours, simulated = self.ours.run(scenario, **arguments), self.simulator.run(scenario, **arguments)
        assert ours == simulated
        return ours

    def each(self, *statements: Any) -> list[Any]:
        """What statements come to, on both. Each is SQL, for `all`, or [method, sql, params, ...arguments]."""
        listed = [["all", statement] if isinstance(statement, str) else statement for statement in statements]
        ours = [_comparable(result, *statement) for result, statement in self._each(self.ours, listed)]
        simulated = [_comparable(result, *statement) for result, statement in self._each(self.simulator, listed)]
        together = zip(listed, ours, simulated, strict=True)
        assert [(statement, mine, theirs) for statement, mine, theirs in together if mine != theirs] == []
        return ours

    def _each(self, worker: Worker, statements: list[Any]) -> Iterator[tuple[Any, Any]]:
        return zip(worker.run("each", statements=statements), statements, strict=True)


def _comparable(result: Any, _method: str, sql: str, *_params: Any) -> Any:
    """The simulator takes a change of the schema for none where the file does not grow."""
    if sql.startswith(("CREATE", "ALTER", "DROP", "ANALYZE", "REINDEX")) and isinstance(result.get("value"), dict):
        del result["value"]["meta"]["changed_db"]
    return result


@pytest.fixture
def both(node: str, tmp_path: Path) -> Iterator[Both]:
    """With an empty database each."""
    config = tmp_path / "capnweb.toml"
    config.write_text(f'[server]\nstate_dir = "{tmp_path}"\n[bindings.DB]\ntype = "d1"\n')
    with serving(config) as server:
        remote = {"DB": {"id": "DB", "remoteProxyConnectionString": server.url}}
        with (
            workerd(node, SCRIPT, d1Databases=remote) as ours,
            workerd(node, SCRIPT, d1Databases={"DB": "db"}) as simulator,
        ):
            yield Both(ours, simulator)


def messages(results: list[Any]) -> list[str]:
    return [result["message"] for result in results]


def test_rows_by_every_method(both: Both) -> None:
    results = both.each(
        ["run", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT UNIQUE, age REAL, photo BLOB)"],
        ["run", "INSERT INTO users (name, age, photo) VALUES (?, ?, ?)", ["Ada", 36, [1, 2]]],
        ["run", "INSERT INTO users (name) VALUES (?1), (?2) RETURNING id, name", ["Bo", "Cy"]],
        ["all", "SELECT * FROM users ORDER BY id"],
        ["raw", "SELECT * FROM users ORDER BY id"],
        ["raw", "SELECT id, id AS id FROM users", [], {"columnNames": True}],
        ["raw", "SELECT id FROM users WHERE 0", [], {"columnNames": True}],
        ["first", "SELECT * FROM users ORDER BY id"],
        ["first", "SELECT * FROM users ORDER BY id", [], "name"],
        ["first", "SELECT * FROM users ORDER BY id", [], "nothing"],
        ["first", "SELECT * FROM users WHERE 0"],
        ["first", "SELECT * FROM users WHERE 0", [], "nothing"],
        ["first", "SELECT NULL AS n", [], "n"],
        ["run", "UPDATE users SET age = age + 1"],
        ["run", "DELETE FROM users WHERE id > 1"],
        "SELECT 1 AS a, 2 AS a",
        "SELECT 1; SELECT 2 AS b",
        ["all", "INSERT INTO users (name) VALUES ('Di'); SELECT ? AS x", [5]],
        "DROP TABLE users",
    )
    assert results[3]["value"]["results"][0] == {"id": 1, "name": "Ada", "age": 36, "photo": [1, 2]}
    assert results[9]["message"] == "D1_COLUMN_NOTFOUND: Column not found (nothing)"


def test_values_that_are_bound(both: Both) -> None:
    values = both.run("values")
    assert values[1]["value"] == {"v": 1, "t": "real"}
    assert values[11]["value"] == {"v": [0, 255], "t": "blob"}


def test_values_that_cannot_be_bound(both: Both) -> None:
    assert both.run("types")[0]["message"] == "D1_TYPE_ERROR: Type 'undefined' not supported for value 'undefined'"


def test_values_that_json_cannot_hold(both: Both) -> None:
    both.each(
        "SELECT 9223372036854775807 AS a, 9007199254740993 AS b, -9223372036854775808 AS c, 9007199254740991 AS d",
        "SELECT 9e999 AS a, -9e999 AS b, 1e300 AS c, 1.0 AS d, -0.0 AS e, 0.1 AS f, 12345678901234567890.0 AS g",
        "SELECT x'' AS a, x'00ff' AS b, '' AS c, char(0) AS d, char(8232) AS e, NULL AS f",
    )


def test_errors_of_sqlite(both: Both) -> None:
    results = both.each(
        "CREATE TABLE p (a INTEGER PRIMARY KEY, b UNIQUE, c NOT NULL DEFAULT 1, CHECK (b <> 'bad'))",
        "CREATE TABLE k (a REFERENCES p (a))",
        "CREATE TABLE s (a INTEGER) STRICT",
        "INSERT INTO p (b) VALUES ('x')",
        "INSERT INTO p (b) VALUES ('x')",
        "INSERT INTO p (a) VALUES (1)",
        "INSERT INTO p (c) VALUES (NULL)",
        "INSERT INTO p (b) VALUES ('bad')",
        "INSERT INTO p (a) VALUES ('text')",
        "INSERT INTO k VALUES (9)",
        "INSERT INTO s VALUES ('text')",
        "INSERT INTO p VALUES (1)",
        "CREATE TABLE p (a)",
        "SELECT * FROM missing",
        "SELECT nothing FROM p",
        "SELEC 1",
        "SELECT 1 FROM",
        "SELECT 'open",
        "SELECT nothing(1)",
        "SELECT abs(-9223372036854775808)",
        "SELECT json_extract('{', '$.a')",
        "SELECT sum(a) FROM p WHERE sum(a) > 1",
        "CREATE TRIGGER t BEFORE DELETE ON p BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        "DELETE FROM p",
    )
    assert results[4]["message"] == (
        "D1_ERROR: UNIQUE constraint failed: p.b: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)"
    )
    assert results[13] == {
        "name": "Error",
        "message": "D1_ERROR: no such table: missing: SQLITE_ERROR",
        "cause": "no such table: missing: SQLITE_ERROR",
    }


def test_texts_without_a_statement_and_parameters_that_do_not_fit(both: Both) -> None:
    both.each(
        "",
        "  \n ",
        "-- nothing",
        "\n -- nothing",
        "SELECT 1;",
        "SELECT 1; -- nothing",
        ";",
        "SELECT ?",
        ["all", "SELECT 1", [1]],
        ["all", "SELECT ?", [1, 2]],
        ["all", "SELECT ?2 AS a", [1, 2]],
        ["all", "SELECT ?2 AS a", [1]],
        ["all", "SELECT :a AS a, @b AS b", [1, 2]],
        ["all", "SELECT ?; SELECT ?", [1]],
    )


# VACUUM is refused by a transaction that is always there; the rest by the rules of the runtime.
FORBIDDEN: Final = [
    "ATTACH 'other.db' AS other",
    "DETACH main",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "END",
    "SAVEPOINT a",
    "RELEASE a",
    "ROLLBACK TO a",
    "VACUUM",
    "VACUUM INTO '/tmp/other.db'",
    "CREATE TEMP TABLE t (a)",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE TEMP TRIGGER r AFTER INSERT ON main.t BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE v USING dbstat",
    "CREATE VIRTUAL TABLE v USING fts4(a)",
    "CREATE TABLE _cf_mine (a)",
    "SELECT * FROM _cf_METADATA",
    "DROP TABLE _cf_METADATA",
    "DELETE FROM sqlite_master",
    "UPDATE sqlite_master SET sql = ''",
    "SELECT load_extension('evil')",
    "SELECT sqlite_version()",
    "SELECT sqlite_compileoption_get(1)",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('/tmp/x', 'x')",
    "SELECT edit('x')",
    "SELECT * FROM dbstat",
    "SELECT * FROM sqlite_dbpage",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM generate_series(1, 2)",
    "PRAGMA journal_mode",
    "PRAGMA journal_mode = OFF",
    "PRAGMA user_version",
    "PRAGMA writable_schema = 1",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA database_list",
    "PRAGMA compile_options",
    "PRAGMA wal_checkpoint",
    "PRAGMA cache_size = 1000000",
    "PRAGMA mmap_size = 0",
    "PRAGMA table_info(_cf_METADATA)",
]


def test_what_is_forbidden(both: Both) -> None:
    both.each("CREATE TABLE t (a)")
    assert all("message" in result for result in both.each(*FORBIDDEN))


def test_what_is_allowed(both: Both) -> None:
    results = both.each(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b)",
        "CREATE INDEX i ON t (b)",
        "CREATE VIEW v AS SELECT b FROM t",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET b = upper(b) WHERE a = new.a; END",
        "INSERT INTO t (b) VALUES ('one'), ('two') RETURNING a",
        "SELECT * FROM v",
        "INSERT INTO t (a, b) VALUES (1, 'again') ON CONFLICT (a) DO UPDATE SET b = excluded.b",
        "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5) SELECT sum(x) AS s FROM c",
        "SELECT a, row_number() OVER (ORDER BY b) AS n FROM t",
        "CREATE VIRTUAL TABLE f USING fts5(body)",
        "INSERT INTO f VALUES ('a quick fox'), ('a slow dog')",
        "SELECT body, highlight(f, 0, '<', '>') AS h FROM f WHERE f MATCH 'quick' ORDER BY bm25(f)",
        """SELECT value FROM json_each('[1, "a", null]')""",
        """SELECT json_extract('{"a": [1]}', '$.a[0]') AS e, '{"a": 2}' ->> 'a' AS f""",
        "PRAGMA table_info(t)",
        "PRAGMA table_xinfo(t)",
        "PRAGMA index_list(t)",
        "PRAGMA index_info(i)",
        "PRAGMA foreign_key_list(t)",
        "PRAGMA foreign_key_check",
        "PRAGMA foreign_keys",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA foreign_keys",
        "PRAGMA defer_foreign_keys = ON",
        "PRAGMA quick_check",
        "PRAGMA optimize",
        "SELECT name FROM pragma_table_info('t')",
        "ALTER TABLE t ADD COLUMN c DEFAULT 5",
        "ALTER TABLE t RENAME COLUMN c TO d",
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE u DROP COLUMN d",
        "SELECT sql FROM sqlite_master WHERE name = 'u'",
        "ANALYZE",
        "REINDEX",
        "EXPLAIN QUERY PLAN SELECT * FROM u WHERE b = 1",
        "SELECT length(randomblob(1000)) AS n, typeof(random()) AS t, date(0, 'unixepoch') AS d, round(2.5) AS r",
        "SELECT last_insert_rowid() AS l, changes() AS c",
        "DROP VIEW v",
        "DROP TABLE f",
    )
    assert [result for result in results if "value" not in result] == []


def test_limits(both: Both) -> None:
    columns = [f"c{number}" for number in range(101)]
    marks = ", ".join("?" * 101)
    both.each(
        f"CREATE TABLE wide ({', '.join(columns[:100])})",
        f"CREATE TABLE wider ({', '.join(columns)})",
        f"SELECT {', '.join(columns)}",
        ["all", f"SELECT {marks}", [1] * 101],
        ["all", f"SELECT max({marks[:-3]}) AS m", list(range(100))],
        "SELECT ?101",
        "SELECT ?0",
        "SELECT 'a' LIKE '" + "x" * 51 + "'",
        "SELECT 'a' LIKE '" + "x" * 50 + "' AS l",
        " UNION ".join(["SELECT 1"] * 6),
        "SELECT " + "(" * 101 + "1" + ")" * 101,
        "SELECT " + "+".join(["1"] * 102),
        "SELECT 1 -- " + "x" * 100_000,
        "SELECT length(randomblob(1000000)) AS n",
        "SELECT randomblob(3000000)",
        f"SELECT json_array({', '.join(['1'] * 128)})",
    )


def test_a_batch_is_one_transaction(both: Both) -> None:
    both.each("CREATE TABLE t (a UNIQUE)")
    assert both.run("batch", statements=[["INSERT INTO t VALUES (?)", ["x"]], ["SELECT * FROM t"]])["value"][1][
        "results"
    ] == [{"a": "x"}]
    assert (
        "UNIQUE"
        in both.run("batch", statements=[["INSERT INTO t VALUES ('y')"], ["INSERT INTO t VALUES ('x')"]])["message"]
    )
    both.run("batch", statements=[["INSERT INTO t VALUES ('z')"], ["SELECT * FROM missing"]])
    both.run("batch", statements=[])
    both.run("batch", statements=[["SELECT a FROM t"], ["SELECT count(*) AS n FROM t"]], session="first-primary")
    assert both.each("SELECT a FROM t")[0]["value"]["results"] == [{"a": "x"}]


def test_exec(both: Both) -> None:
    created = both.run("exec", sql="CREATE TABLE t (a);\nINSERT INTO t VALUES (1);\nINSERT INTO t VALUES (2); SELECT 1")
    assert created == {"value": {"count": 3, "duration": "number"}}
    assert both.run("exec", sql="INSERT INTO t VALUES (3)\nINSERT INTO missing VALUES (1)")["message"] == (
        "D1_EXEC_ERROR: Error in line 1: INSERT INTO t VALUES (3): no such table: missing: SQLITE_ERROR"
    )
    both.run("exec", sql="")
    both.run("exec", sql="SELECT 1\n\nSELECT 2\n")
    both.run("exec", sql="SELECT\n1")
    both.run("exec", sql="SELECT ?")
    assert both.each("SELECT count(*) AS n FROM t")[0]["value"]["results"] == [{"n": 2}]


def test_sessions(both: Both) -> None:
    assert both.run("sessions")["rows"] == [[1]]


def test_many_at_a_time(both: Both) -> None:
    assert both.run("together", count=50) == 50


def test_listings_of_tables(both: Both) -> None:
    """The runtime makes the platform's table with the first statement; here it is there before that."""
    both.each("CREATE TABLE t (a)", "CREATE INDEX i ON t (a)")
    [listed, *_rest] = both.each(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name",
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
        "SELECT name, type FROM pragma_table_list ORDER BY name",
    )
    assert [row["name"] for row in listed["value"]["results"]] == ["_cf_METADATA", "i", "t"]


def test_metadata(both: Both) -> None:
    both.each("CREATE TABLE t (a INTEGER PRIMARY KEY, b, c)", "CREATE INDEX i ON t (B)", "CREATE INDEX j ON t (c, b)")
    both.each("CREATE TABLE w (k PRIMARY KEY, v) WITHOUT ROWID")
    for sql in [
        "INSERT INTO t (b) VALUES (1), (2), (3)",
        "SELECT * FROM t",
        "SELECT * FROM t WHERE a = 2",
        "SELECT * FROM t NOT INDEXED WHERE b > 2",
        "UPDATE t SET b = b",
        "UPDATE t SET c = b",
        "INSERT INTO w VALUES (1, 2)",
        "UPDATE w SET v = 3",
        "DELETE FROM t WHERE a = 1",
    ]:
        ours, simulated = both.ours.run("meta", sql=sql), both.simulator.run("meta", sql=sql)
        for name in ["changes", "last_row_id", "changed_db", "size_after"]:
            assert ours[name] == simulated[name], (sql, name)
        assert set(simulated) <= set(ours)
        assert ours["rows_read"] == simulated["rows_read"], sql
        assert ours["rows_written"] == simulated["rows_written"], sql


def test_what_newer_runtimes_allow_and_the_simulator_does_not_yet(both: Both) -> None:
    statements = ["CREATE VIRTUAL TABLE g USING rtree(id, x0, x1)", "INSERT INTO g VALUES (1, 0, 1)"]
    listed = [["run", sql] for sql in [*statements, "SELECT id FROM g WHERE x0 < 0.5", "PRAGMA page_size"]]
    assert all("value" in result for result in both.ours.run("each", statements=listed))
    refused = both.ours.run("each", statements=[["run", "CREATE TABLE _CF_mine (a)"]])
    assert messages(refused) == ["D1_ERROR: not authorized: SQLITE_AUTH"]


def test_a_dump_is_a_database(both: Both) -> None:
    """The simulator has none; the runtime of D1's alpha version had."""
    both.ours.run("each", statements=[["run", "CREATE TABLE t (a)"]])
    assert both.ours.run("dump")["value"]["start"] == "SQLite format 3"


@pytest.mark.anyio
async def test_a_proxy_that_is_killed_has_lost_no_acknowledged_batch(node: str, tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text(f'[server]\nstate_dir = "{tmp_path}"\n[bindings.DB]\ntype = "d1"\n')
    ends: dict[str, Any] = {}
    with serving(config) as server:
        remote = {"DB": {"id": "DB", "remoteProxyConnectionString": server.url}}
        with workerd(node, SCRIPT, d1Databases=remote) as worker:

            async def write(name: str) -> None:
                ends[name] = await to_thread.run_sync(lambda: worker.run("untilFailure", name=name))

            async with connect_env(server.url) as env:
                await env.DB.exec("CREATE TABLE halves (key, filling)")
                count = env.DB.prepare("SELECT count(*) AS n FROM halves")
                async with anyio.create_task_group() as tasks:
                    for name in ["a", "b"]:
                        tasks.start_soon(write, name)
                    while await count.first("n") < 40:
                        pass
                    server.process.kill()
    with serving(config) as server:
        async with connect_env(server.url) as env:
            rows = await env.DB.prepare("SELECT key, count(*) FROM halves GROUP BY key").raw()
    assert {halves for _key, halves in rows} == {2}
    acknowledged = {f"{name}-{number}" for name, end in ends.items() for number in range(end["acknowledged"])}
    assert acknowledged <= {key for key, _halves in rows}
    assert [end["message"] for end in ends.values()] == ["Network connection lost."] * 2


def test_accesses(node: str, tmp_path: Path) -> None:
    """A Worker whose database is for reading, and then an overlay of it."""
    found: dict[str, list[Any]] = {}
    for access in ["full", "read", "overlay", "full"]:
        config = tmp_path / "capnweb.toml"
        config.write_text(f'[server]\nstate_dir = "{tmp_path}"\n[bindings.DB]\ntype = "d1"\naccess = "{access}"\n')
        with serving(config) as server:
            remote = {"DB": {"id": "DB", "remoteProxyConnectionString": server.url}}
            with workerd(node, SCRIPT, d1Databases=remote) as worker:
                if not found:
                    worker.run("exec", sql="CREATE TABLE t (a)")
                statements = [["run", "INSERT INTO t VALUES (1)"], ["first", "SELECT count(*) AS n FROM t", [], "n"]]
                found.setdefault(access, []).append(worker.run("each", statements=statements))
    assert found["read"][0][0]["message"] == (
        'D1_ERROR: The binding "DB" is read-only: its access is "read" in the configuration that serves it'
    )
    counts = {access: [count["value"] for _write, count in runs] for access, runs in found.items()}
    assert counts == {"full": [1, 2], "read": [1], "overlay": [2]}
