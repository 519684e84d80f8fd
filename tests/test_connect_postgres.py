"""A real PostgreSQL behind a connect binding: a driver's connections through a forwarded port, and bytes by hand."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import psycopg
import pytest
from anyio.streams.buffered import BufferedByteStream
from postgres import PASSWORD, USER, Postgres, postgres
from proxying import serving

from capnweb_py.bindings.tunnel import TunnelError
from capnweb_py.remote import connect_env

pytestmark = pytest.mark.anyio

ROWS: Final = 200_000

CONFIG: Final = """
[bindings.DB]
type = "hyperdrive"
allow = ["{address}"]
connection_string = {{ env = "TEST_DB" }}

[bindings.ANY]
type = "connect"
allow = ["127.0.0.1:*"]
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def url(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A proxy server with the database as a Hyperdrive binding."""
    config: Path = tmp_path_factory.mktemp("postgres") / "capnweb.toml"
    config.write_text(CONFIG.format(address=database.address))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_DB", database.connection_string)
        with serving(config) as server:
            yield server.url


@pytest.fixture(params=["http", "rpc"])
def channel(request: pytest.FixtureRequest) -> Literal["http", "rpc"]:
    name: Literal["http", "rpc"] = request.param
    return name


def query(port: int, text: str) -> list[Any]:
    """What a query gives on a connection of its own."""
    with psycopg.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname=USER) as connection:
        return connection.execute(text).fetchall()


async def test_a_driver_logs_in_and_asks(url: str, database: Postgres, channel: Any) -> None:
    async with connect_env(url, channel=channel) as env, env.DB.forward(database.address) as port:
        assert await anyio.to_thread.run_sync(query, port, "select 6 * 7, 'ü'") == [(42, "ü")]


async def test_many_rows_arrive_whole(url: str, database: Postgres, channel: Any) -> None:
    asked = f"select i, repeat('x', 50) from generate_series(1, {ROWS}) as i"
    async with connect_env(url, channel=channel) as env, env.DB.forward(database.address) as port:
        rows = await anyio.to_thread.run_sync(query, port, asked)
    assert (len(rows), rows[-1]) == (ROWS, (ROWS, "x" * 50))


async def test_connections_at_a_time_are_apart(url: str, database: Postgres, channel: Any) -> None:
    answers: dict[int, Any] = {}

    async def ask(port: int, number: int) -> None:
        answers[number] = await anyio.to_thread.run_sync(query, port, f"select {number}, pg_sleep(0.2)::text")

    async with (
        connect_env(url, channel=channel) as env,
        env.DB.forward(database.address) as port,
        anyio.create_task_group() as tasks,
    ):
        for number in range(5):
            tasks.start_soon(ask, port, number)
    assert answers == {number: [(number, "")] for number in range(5)}


async def test_a_wrong_password_is_the_databases_to_refuse(url: str, database: Postgres) -> None:
    def log_in(port: int) -> None:
        psycopg.connect(host="127.0.0.1", port=port, user=USER, password="wrong", dbname=USER)

    async with connect_env(url) as env, env.DB.forward(database.address) as port:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await anyio.to_thread.run_sync(log_in, port)


async def test_a_connection_that_the_database_ends_is_the_drivers_error(
    url: str, database: Postgres, channel: Any
) -> None:
    def end_itself(port: int) -> None:
        query(port, "select pg_terminate_backend(pg_backend_pid())")

    async with connect_env(url, channel=channel) as env, env.DB.forward(database.address) as port:
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            await anyio.to_thread.run_sync(end_itself, port)
        assert await anyio.to_thread.run_sync(query, port, "select 1") == [(1,)]


async def test_a_database_that_is_killed_in_mid_query_is_the_drivers_error(url: str, channel: Any) -> None:
    """And nobody's hanging: the end comes through the tunnel as it would from the database itself."""
    with postgres() as database:
        async with connect_env(url, channel=channel) as env, env.ANY.forward(database.address) as port:
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.to_thread.run_sync, kill_the_sleeping, database)
                    with pytest.raises(psycopg.OperationalError, match="server closed the connection unexpectedly"):
                        await anyio.to_thread.run_sync(query, port, "select pg_sleep(600)")
                # It starts again by itself.
                while await anyio.to_thread.run_sync(answers_not, port):
                    pass


def answers_not(port: int) -> bool:
    """Whether a database takes no query yet."""
    try:
        return query(port, "select 1") != [(1,)]
    except psycopg.OperationalError:
        return True


def kill_the_sleeping(database: Postgres) -> None:
    """Kill the process of the database in which a query sleeps, as soon as it does."""
    asked = "select pid from pg_stat_activity where query like 'select pg_sleep%' and wait_event = 'PgSleep'"
    while not (found := query(database.port, asked)):
        pass
    os.kill(found[0][0], signal.SIGKILL)


async def test_the_connection_string_is_the_databases(url: str, database: Postgres, channel: Any) -> None:
    async with connect_env(url, channel=channel) as env:
        assert await env.DB.connection_string() == database.connection_string


async def test_bytes_by_hand(url: str, database: Postgres, channel: Any) -> None:
    """PostgreSQL, section "Message Formats": a startup message is answered with a request for SASL."""
    settings = f"user\0{USER}\0database\0{USER}\0\0".encode()
    startup = struct.pack("!ii", 8 + len(settings), 3 << 16) + settings
    async with connect_env(url, channel=channel) as env, env.DB.connect(database.address) as raw:
        stream = BufferedByteStream(raw)
        await stream.send(startup)
        kind, _length, method = struct.unpack("!cii", await stream.receive_exactly(9))
        assert (kind, method) == (b"R", 10)


async def test_what_is_not_on_the_list_stays_out_of_reach(url: str, channel: Any) -> None:
    async with connect_env(url, channel=channel) as env:
        with pytest.raises(TunnelError, match=r"refused: 127\.0\.0\.1:1 is not on the binding's allow-list"):
            async with env.DB.connect("127.0.0.1:1") as stream:
                await stream.receive()
