"""Raw TCP from Python through Cloudflare's own proxy Worker: the client's side of the tunnel, and PostgreSQL.

The Worker is that of npm wrangler 4.116.0 ("wrangler-tunnel" in package.json), under the Miniflare that belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import anyio
import psycopg
import pytest
from anyio.abc import ByteStream
from listening import echo, everything, listening
from postgres import PASSWORD, USER, postgres

from capnweb_py import ProxyError
from capnweb_py.bindings.tunnel import TunnelError
from capnweb_py.remote import connect_env

from .runtime import cloudflare_tunnel

pytestmark = pytest.mark.anyio

BINDINGS: Final = {"DB": "vpc_network", "NONE": "vpc_network"}
SIZE: Final = 2 << 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """That Worker answers no close, and a client waits for the answer."""
    monkeypatch.setattr("capnweb_py.bindings.tunnel._CLOSE_TIMEOUT", 0.5)


@pytest.fixture(scope="module")
def url(node: str) -> Iterator[str]:
    with cloudflare_tunnel(node) as connection_string:
        yield connection_string


async def test_bytes_go_both_ways(url: str) -> None:
    data = bytes(range(256)) * (SIZE // 256)
    async with (
        listening(echo) as address,
        connect_env(url, bindings=BINDINGS) as env,
        env.DB.connect(address) as stream,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(stream.send, data)
        back = bytearray()
        while len(back) < len(data):
            back += await stream.receive()
        assert back == data


async def test_the_end_of_the_connection_is_the_end_of_the_stream(url: str) -> None:
    async def greet(stream: ByteStream) -> None:
        await stream.send(b"good bye")

    async with (
        listening(greet) as address,
        connect_env(url, bindings=BINDINGS) as env,
        env.DB.connect(address) as stream,
    ):
        assert await everything(stream) == b"good bye"


async def test_all_that_was_sent_before_the_end_arrives(url: str) -> None:
    received = b""
    over = anyio.Event()

    async def collect(stream: ByteStream) -> None:
        nonlocal received
        received = await everything(stream)
        over.set()

    async with listening(collect) as address, connect_env(url, bindings=BINDINGS) as env:
        async with env.DB.connect(address) as stream:
            await stream.send(b"all of it")
            await stream.send_eof()
        with anyio.fail_after(60):
            await over.wait()
    assert received == b"all of it"


async def test_an_error_has_the_reason_of_the_close(url: str) -> None:
    async with connect_env(url, bindings=BINDINGS) as env:
        with pytest.raises(TunnelError, match="Stream was cancelled"):
            async with env.DB.connect("127.0.0.1:1") as stream:
                await stream.receive()


async def test_a_binding_that_is_not_there_is_an_error(url: str) -> None:
    async with connect_env(url, bindings=BINDINGS) as env:
        with pytest.raises(ProxyError, match="has no binding 'NONE'"):
            async with env.NONE.connect("127.0.0.1:1"):
                pass


async def test_a_driver_of_postgresql_logs_in_and_asks(url: str) -> None:
    def ask(port: int) -> object:
        with psycopg.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname=USER) as connection:
            return connection.execute("select 6 * 7").fetchone()

    with postgres() as database:
        async with connect_env(url, bindings=BINDINGS) as env, env.DB.forward(database.address) as port:
            assert await anyio.to_thread.run_sync(ask, port) == (42,)
