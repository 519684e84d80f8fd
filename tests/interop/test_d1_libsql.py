"""D1 on a real libSQL server: the facade as on a file, a real workerd, and what never reaches the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from d1_facade import CHECKS
from proxying import serving

from capnweb_py.bindings.d1 import D1Database, D1Error
from capnweb_py.remote import connect_env

from .libsql import libsql_server
from .runtime import workerd
from .test_d1_workerd import FORBIDDEN, SCRIPT

pytestmark = pytest.mark.anyio

CONFIG = """
[server]
state_dir = "{folder}"
[bindings.DB]
type = "d1"
store = "libsql+http://{address}"
[bindings.LOOK]
type = "d1"
store = "libsql+http://{address}"
access = "read"
[bindings.TRY]
type = "d1"
store = "libsql+http://{address}"
access = "overlay"
"""


@pytest.fixture
def address(node: str, tmp_path: Path) -> Iterator[str]:
    with libsql_server(tmp_path) as address:
        yield address


@pytest.fixture
def url(address: str, tmp_path: Path) -> Iterator[str]:
    """The connection string of a proxy over an empty database on a server."""
    config = tmp_path / "capnweb.toml"
    config.write_text(CONFIG.format(folder=tmp_path, address=address))
    with serving(config) as server:
        yield server.url


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_facade(url: str, check: Callable[[D1Database], Awaitable[None]]) -> None:
    async with connect_env(url) as env:
        await check(env.DB)


def test_a_real_runtime(node: str, url: str) -> None:
    with workerd(node, SCRIPT, d1Databases={"DB": {"id": "DB", "remoteProxyConnectionString": url}}) as worker:
        assert worker.run("together", count=20) == 20
        assert worker.run("sessions")["rows"] == [[1]]
        [refused, *_rest] = worker.run("each", statements=[["all", "SELECT readfile('/etc/passwd')"]])
        assert refused["message"] == "D1_ERROR: no such function: readfile at offset 7: SQLITE_ERROR"


async def test_what_is_forbidden_never_reaches_the_server(url: str, tmp_path: Path) -> None:
    async with connect_env(url) as env:
        await env.DB.exec("CREATE TABLE t (a)")
        for sql in FORBIDDEN:
            with pytest.raises(D1Error):
                await env.DB.prepare(sql).all()
        with pytest.raises(D1Error, match=r"exceeded timeout|database or disk is full"):
            await env.DB.exec(
                "CREATE TABLE e AS WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
            )


async def test_the_counts_are_the_servers(url: str) -> None:
    async with connect_env(url) as env:
        await env.DB.exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b)\nCREATE INDEX i ON t (b)")
        inserted = await env.DB.prepare("INSERT INTO t (b) VALUES (1), (2), (3)").run()
        assert (inserted.meta["changes"], inserted.meta["rows_written"], inserted.meta["last_row_id"]) == (3, 6, 3)
        assert (await env.DB.prepare("SELECT b FROM t").run()).meta["rows_read"] == 3


async def test_another_proxys_changes_of_the_schema_are_seen(url: str) -> None:
    async with connect_env(url) as env:
        await env.LOOK.prepare("SELECT 1").all()
        await env.DB.exec("CREATE TABLE t (a)\nINSERT INTO t VALUES (1)")
        assert await env.LOOK.prepare("SELECT a FROM t").raw() == [[1]]
        await env.DB.exec("ALTER TABLE t ADD COLUMN b DEFAULT 2")
        assert await env.LOOK.prepare("SELECT b FROM t").raw() == [[2]]


async def test_definitions_and_their_use_in_one_transaction(url: str) -> None:
    async with connect_env(url) as env:
        await env.DB.batch(
            [
                env.DB.prepare("CREATE VIRTUAL TABLE f USING fts5(body)"),
                env.DB.prepare("INSERT INTO f VALUES ('a fox')"),
            ]
        )
        assert await env.DB.prepare("SELECT body FROM f WHERE f MATCH 'fox'").raw() == [["a fox"]]
        with pytest.raises(D1Error, match="no such table: missing"):
            await env.DB.batch([env.DB.prepare("CREATE TABLE gone (a)"), env.DB.prepare("SELECT * FROM missing")])
        with pytest.raises(D1Error, match="no such table: gone"):
            await env.DB.prepare("SELECT * FROM gone").all()


async def test_accesses(url: str) -> None:
    async with connect_env(url) as env:
        await env.DB.exec("CREATE TABLE t (a)\nINSERT INTO t VALUES (1)")
        with pytest.raises(D1Error, match="is read-only"):
            await env.LOOK.prepare("DELETE FROM t").run()
        await env.TRY.prepare("INSERT INTO t VALUES (2)").run()
        assert await env.TRY.prepare("SELECT a FROM t").raw() == [[1], [2]]
        assert await env.DB.prepare("SELECT a FROM t").raw() == [[1]]


async def test_a_server_that_dies_loses_nothing_that_was_answered(node: str, tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    with libsql_server(tmp_path) as address:
        config.write_text(CONFIG.format(folder=tmp_path, address=address))
        port = int(address.rpartition(":")[2])
        proxy = serving(config)
        server = proxy.__enter__()
        async with connect_env(server.url) as env:
            await env.DB.exec("CREATE TABLE t (a)\nINSERT INTO t VALUES (1)")
    try:
        async with connect_env(server.url) as env:
            with pytest.raises(D1Error, match="Network connection lost"):
                await env.DB.prepare("SELECT a FROM t").raw()
        with libsql_server(tmp_path, port):
            async with connect_env(server.url) as env:
                assert await env.DB.prepare("SELECT a FROM t").raw() == [[1]]
    finally:
        proxy.__exit__(None, None, None)
