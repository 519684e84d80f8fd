"""Killing the proxy in the middle of D1's batches: each is there whole or not at all, what was acknowledged is, and
nobody hangs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import anyio
import apsw
import pytest
from proxying import Server, start

from capnweb_py import RpcError, SessionClosed
from capnweb_py.bindings.d1 import D1Database
from capnweb_py.errors import AnswerLost
from capnweb_py.remote import connect_env

pytestmark = pytest.mark.anyio

CONFIG: Final = """
[bindings.DB]
type = "d1"
store = "sqlite:///app.db"
[bindings.OTHER]
type = "d1"
"""

# How many writers there are, and after how many acknowledged batches the killing begins.
WRITERS: Final = 4
ENOUGH: Final = 40

# In seconds: how long a call may take to fail when nobody is there any more.
PROMPT: Final = 20.0

ENDLESS: Final = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"

# What whoever used the proxy is told.
CLEAR: Final = re.compile("^(the binding 'DB' of the proxy at .+ cannot be reached: .+|the connection was lost)$")


class Writers:
    """Tasks that move cents from one account to another, noting each move, until that fails."""

    def __init__(self, database: D1Database) -> None:
        self._database = database
        self.acknowledged: list[str] = []
        self.enough = anyio.Event()
        self.failures: list[str] = []

    async def set_up(self) -> None:
        await self._database.exec(
            "CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INTEGER)\n"
            "INSERT INTO accounts VALUES ('a', 0), ('b', 0)\nCREATE TABLE moves (key TEXT PRIMARY KEY, filling BLOB)"
        )

    async def write(self, name: str) -> None:
        prepare = self._database.prepare
        for number in itertools.count():
            key = f"{name}-{number}"
            batch = [
                prepare("UPDATE accounts SET cents = cents - 1 WHERE name = 'a'"),
                prepare("INSERT INTO moves VALUES (?, zeroblob(20000))").bind(key),
                prepare("UPDATE accounts SET cents = cents + 1 WHERE name = 'b'"),
            ]
            try:
                await self._database.batch(batch)
            except RpcError as error:
                self.failures.append(str(error))
                return
            self.acknowledged.append(key)
            if len(self.acknowledged) == ENOUGH:
                self.enough.set()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "capnweb.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def server(config: Path) -> Iterator[Server]:
    """To be killed."""
    server = start(config)
    yield server
    server.process.kill()
    server.ended()


def kept(config: Path) -> set[str]:
    """The moves that are in the database, which is whole."""
    connection = apsw.Connection(str(config.parent / ".capnweb" / "app.db"))
    try:
        keys = {key for (key,) in connection.execute("SELECT key FROM moves")}
        assert connection.execute("SELECT name, cents FROM accounts ORDER BY name").fetchall() == [
            ("a", -len(keys)),
            ("b", len(keys)),
        ]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return keys
    finally:
        connection.close()


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_a_killed_proxy_has_lost_no_acknowledged_batch_and_kept_no_half_of_one(
    config: Path, server: Server, channel: Literal["http", "rpc"]
) -> None:
    async with connect_env(server.url, channel=channel) as env:
        writers = Writers(env.DB)
        await writers.set_up()
        with anyio.fail_after(PROMPT * 2):
            async with anyio.create_task_group() as tasks:
                for number in range(WRITERS):
                    tasks.start_soon(writers.write, f"w{number}")
                await writers.enough.wait()
                server.process.kill()
    server.process.wait()
    assert len(writers.failures) == WRITERS
    assert [text for text in writers.failures if not CLEAR.search(text)] == []
    assert set(writers.acknowledged) <= kept(config)
    again = start(config)
    try:
        async with connect_env(again.url, channel=channel) as env:
            assert await env.DB.prepare("SELECT count(*) AS n FROM moves").first("n") == len(kept(config))
    finally:
        again.process.terminate()
        again.ended()


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_a_statement_in_the_midst_of_which_the_proxy_is_killed_fails_clearly_and_has_not_happened(
    config: Path, server: Server, channel: Literal["http", "rpc"]
) -> None:
    async with connect_env(server.url, channel=channel) as env:
        writers = Writers(env.DB)
        await writers.set_up()
        insert = env.DB.prepare("INSERT INTO moves VALUES ('half', NULL)")
        failures: list[AnswerLost | SessionClosed] = []

        async def run() -> None:
            try:
                await env.DB.batch([insert, env.DB.prepare(ENDLESS)])
            except (AnswerLost, SessionClosed) as error:
                failures.append(error)

        with anyio.fail_after(PROMPT * 2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                # The statement has begun when it holds the lock that another connection wants.
                while not await anyio.to_thread.run_sync(is_locked, config):
                    await env.OTHER.prepare("SELECT 1").run()
                server.process.kill()
    [failure] = failures
    assert failure.may_have_run
    assert CLEAR.search(str(failure))
    assert kept(config) == set()


def is_locked(config: Path) -> bool:
    """Whether somebody writes the database."""
    connection = apsw.Connection(str(config.parent / ".capnweb" / "app.db"))
    try:
        connection.execute("BEGIN IMMEDIATE; ROLLBACK")
    except apsw.BusyError:
        return True
    finally:
        connection.close()
    return False
