"""The facade of D1 against a real proxy server, over both of its channels."""

from __future__ import annotations

import re
import sqlite3
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from d1_facade import CHECKS
from proxying import ROOT, serving

from capnweb_py.bindings.d1 import D1Database, D1Error
from capnweb_py.remote import connect_env

pytestmark = pytest.mark.anyio


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "capnweb.toml"
    path.write_text(
        f'[server]\nstate_dir = "{tmp_path}"\n[bindings.DB]\ntype = "d1"\nid = "../app"\n'
        '[bindings.LOOK]\ntype = "d1"\nid = "../app"\naccess = "read"\n'
    )
    return path


@pytest.fixture
def url(config: Path) -> Iterator[str]:
    """The connection string of a server with an empty database, DB, and LOOK, the same for reading."""
    with serving(config) as server:
        yield server.url


@pytest.fixture(params=["http", "rpc"])
def channel(request: pytest.FixtureRequest) -> Literal["http", "rpc"]:
    chosen: Literal["http", "rpc"] = request.param
    return chosen


@pytest.fixture
async def db(url: str, channel: Literal["http", "rpc"]) -> AsyncIterator[D1Database]:
    async with connect_env(url, channel=channel) as env:
        yield env.DB


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_facade(db: D1Database, check: Callable[[D1Database], Awaitable[None]]) -> None:
    await check(db)


async def test_a_dump_is_a_database_without_the_platforms_tables(db: D1Database, tmp_path: Path) -> None:
    await db.exec("CREATE TABLE t (a)\nINSERT INTO t VALUES ('x')")
    dumped = tmp_path / "dumped.sqlite3"
    dumped.write_bytes(await db.dump())
    with sqlite3.connect(dumped) as copy:
        assert copy.execute("SELECT a FROM t").fetchall() == [("x",)]
        assert copy.execute("SELECT name FROM sqlite_schema").fetchall() == [("t",)]
    copy.close()


async def test_a_dump_can_be_read_in_chunks(db: D1Database) -> None:
    await db.exec("CREATE TABLE t (a)")
    await db.prepare("INSERT INTO t VALUES (zeroblob(300000))").run()
    chunks = [len(chunk) async for chunk in await db.dump_stream()]
    assert max(chunks) <= 65536 < sum(chunks)


async def test_a_file_is_in_the_state_directory_whatever_its_id_says(db: D1Database, config: Path) -> None:
    await db.exec("SELECT 1")
    assert (config.parent / "d1-%2e%2e%2fapp.sqlite3").exists()


async def test_calls_at_the_same_time_wait_for_each_other(db: D1Database) -> None:
    await db.exec("CREATE TABLE t (n)\nINSERT INTO t VALUES (0)")
    statement = db.prepare("UPDATE t SET n = n + 1")
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(statement.run)
    assert await db.prepare("SELECT n FROM t").first("n") == 50


async def test_a_binding_for_reading_refuses_writes(url: str, channel: Literal["http", "rpc"]) -> None:
    async with connect_env(url, channel=channel) as env:
        await env.DB.exec("CREATE TABLE t (a)\nINSERT INTO t VALUES (1)")
        assert await env.LOOK.prepare("SELECT a FROM t").raw() == [[1]]
        for sql in [
            "INSERT INTO t VALUES (2)",
            "WITH x AS (SELECT 1) DELETE FROM t",
            "DROP TABLE t",
            "PRAGMA optimize",
        ]:
            with pytest.raises(D1Error, match='is read-only: its access is "read" in the configuration'):
                await env.LOOK.prepare(sql).run()
        with pytest.raises(D1Error, match='is read-only: its access is "read" in the configuration'):
            await env.LOOK.exec("SELECT 1\nDELETE FROM t")
        assert await env.DB.prepare("SELECT count(*) AS n FROM t").first("n") == 1


async def test_what_was_answered_survives_the_death_of_the_server(config: Path) -> None:
    with serving(config) as server:
        async with connect_env(server.url) as env:
            await env.DB.exec("CREATE TABLE t (a)\nINSERT INTO t VALUES (1)")
            server.process.kill()
    with serving(config) as server:
        async with connect_env(server.url) as env:
            assert await env.DB.prepare("SELECT a FROM t").raw() == [[1]]


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_the_documentations_examples_run(url: str, channel: Literal["http", "rpc"]) -> None:
    text = (ROOT / "docs" / "bindings" / "d1.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    async with connect_env(url, channel=channel) as env:
        for block in blocks:
            namespace: dict[str, Any] = {}
            exec("async def example(env):\n" + textwrap.indent(block, "    "), namespace)
            await namespace["example"](env)
