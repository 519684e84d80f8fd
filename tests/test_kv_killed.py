"""Killing the proxy, or its Redis, in the middle of writes: what was acknowledged is there, and nobody hangs."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import anyio
import pytest
from proxying import start
from redis_server import redis_server

from capnweb_py import RpcError
from capnweb_py.backoff import Backoff
from capnweb_py.bindings.kv import KvError, KvNamespace
from capnweb_py.remote import connect_env

pytestmark = pytest.mark.anyio

CONFIG: Final = """
[bindings.KV]
type = "kv_namespace"
store = "{store}"
"""

# How many writers there are, and after how many acknowledged writes the killing begins.
WRITERS: Final = 8
ENOUGH: Final = 60

# In seconds: how long a call may take to fail when nobody is there any more.
PROMPT: Final = 20.0


def value_of(key: str) -> bytes:
    """A value that tells its key. Every fifth is of several chunks."""
    seed = hashlib.sha256(key.encode()).digest()
    return seed * (20_000 if int(key.rpartition("-")[2]) % 5 == 0 else 4)


class Writers:
    """Tasks that write one key after another, until that fails."""

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.enough = anyio.Event()

    async def write(self, kv: KvNamespace, name: str) -> None:
        for number in itertools.count():
            key = f"{name}-{number}"
            try:
                await kv.put(key, value_of(key))
            except (ConnectionError, RpcError):
                return
            self.acknowledged.append(key)
            if len(self.acknowledged) == ENOUGH:
                self.enough.set()


async def missing(kv: KvNamespace, keys: list[str]) -> list[str]:
    """The keys whose values are not there, or not whole; and those that are listed without one."""
    cursor = None
    listed: list[str] = []
    while True:
        page = await kv.list(cursor=cursor)
        listed += [key.name for key in page.keys]
        cursor = page.cursor
        if cursor is None:
            break
    return [key for key in {*listed, *keys} if await kv.get(key, "bytes") != value_of(key)]


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield "sqlite:///kv.sqlite3"
    else:
        with redis_server(tmp_path) as redis:
            yield redis.url


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_a_killed_proxy_has_lost_no_acknowledged_write(
    tmp_path: Path, store: str, channel: Literal["http", "rpc"]
) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text(CONFIG.format(store=store))
    server = start(config)
    writers = Writers()
    # Nobody comes back at this address: waiting for that is for other tests.
    async with connect_env(server.url, channel=channel, backoff=Backoff(patience=0)) as env:
        with anyio.fail_after(PROMPT * 2):
            async with anyio.create_task_group() as tasks:
                for number in range(WRITERS):
                    tasks.start_soon(writers.write, env.KV, f"w{number}")
                await writers.enough.wait()
                server.process.kill()
    server.ended()
    again = start(config)
    try:
        async with connect_env(again.url) as env:
            assert await missing(env.KV, writers.acknowledged) == []
    finally:
        again.process.terminate()
        again.ended()
    if store.startswith("sqlite"):
        with sqlite3.connect(tmp_path / ".capnweb" / "kv.sqlite3") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


async def test_a_killed_redis_has_lost_no_acknowledged_write(tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    writers = Writers()
    with redis_server(tmp_path) as redis:
        config.write_text(CONFIG.format(store=redis.url))
        server = start(config)
        try:
            async with connect_env(server.url) as env:
                with anyio.fail_after(PROMPT * 2):
                    async with anyio.create_task_group() as tasks:
                        for number in range(WRITERS):
                            tasks.start_soon(writers.write, env.KV, f"w{number}")
                        await writers.enough.wait()
                        redis.kill()
                    with pytest.raises(KvError, match="KV GET failed: 500 The namespace's Redis failed"):
                        await env.KV.get("k")
                redis.start()
                # The same proxy finds it again by itself.
                assert await missing(env.KV, writers.acknowledged) == []
        finally:
            server.process.terminate()
            server.ended()
