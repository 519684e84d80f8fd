"""Stores of keys and values: one set of rules for all of them, on a clock that the test turns."""

from __future__ import annotations

import gc
import itertools
import secrets
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import coredis
import pytest
from redis_server import redis_server

from capnweb_py.web import ReadableStream
from proxy_server.stores import redis as redis_store
from proxy_server.stores.chunks import in_chunks
from proxy_server.stores.kv import CHUNK_BYTES, LOOSE_SECONDS, KvEntry, KvPage, KvRefusal, KvStore
from proxy_server.stores.kv_access import Overlay, ReadOnly
from proxy_server.stores.kv_redis import RedisKv
from proxy_server.stores.kv_sqlite import SqliteKv

pytestmark = [
    pytest.mark.anyio,
    # coredis does not close the streams between its own tasks.
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]

# More than two chunks, and no whole number of them.
LARGE: Final = secrets.token_bytes(2 * CHUNK_BYTES + 1000)


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


Opening = Callable[[], AbstractAsyncContextManager[KvStore]]


@pytest.fixture(scope="module", autouse=True)
def _no_garbage() -> Iterator[None]:
    """What coredis leaves behind goes while its warnings are ignored."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "redis", "overlay"])
def opening(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Opening:
    """What opens a store, and the same data each time."""
    kind: str = request.param
    identity = secrets.token_hex(8)
    redis_url = request.getfixturevalue("redis_url") if kind == "redis" else ""

    @asynccontextmanager
    async def open_store() -> AsyncIterator[KvStore]:
        async with anyio.create_task_group() as tasks:
            store: KvStore
            if kind == "redis":
                store = await RedisKv.open(redis_url, identity, tasks, clock)
            elif kind == "sqlite":
                store = await SqliteKv.open(tmp_path / "kv.sqlite3", clock)
            else:
                base = await SqliteKv.open(tmp_path / "base.sqlite3", clock)
                await base.put("hidden", b"below")
                store = Overlay(base, await SqliteKv.open(tmp_path / "overlay.sqlite3", clock))
                await store.delete("hidden")
            try:
                yield store
            finally:
                await store.aclose()

    return open_store


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def failing(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    raise ConnectionResetError("the client left")


async def content(entry: KvEntry | None) -> bytes | None:
    if entry is None or isinstance(entry.value, bytes):
        return None if entry is None else entry.value
    return b"".join([chunk async for chunk in entry.value])


async def names(store: KvStore, prefix: str = "", cursor: str | None = None, limit: int = 1000) -> list[str]:
    return [key.name for key in (await store.list(prefix, cursor, limit)).keys]


async def test_a_value_is_there_until_it_is_deleted(opening: Opening) -> None:
    async with opening() as store:
        assert await store.get("k") is None
        await store.put("k", b"first")
        assert await content(await store.get("k")) == b"first"
        await store.put("k", b"second")
        assert await content(await store.get("k")) == b"second"
        await store.delete("k")
        await store.delete("k")
        assert await store.get("k") is None


async def test_what_was_put_is_there_when_the_store_is_opened_again(opening: Opening) -> None:
    async with opening() as store:
        await store.put("k", b"v", 2_000_000, '{"a":1}')
        await store.put("large", pieces(LARGE))
    async with opening() as store:
        assert await store.get("k") == KvEntry(b"v", 2_000_000, '{"a":1}')
        assert await content(await store.get("large")) == LARGE


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, len(LARGE)])
async def test_a_stream_is_stored_whole(opening: Opening, size: int) -> None:
    data = LARGE[:size]
    async with opening() as store:
        await store.put("k", pieces(*(data[start : start + 1000] for start in range(0, size, 1000))), None, "1")
        entry = await store.get("k")
        assert entry is not None
        assert isinstance(entry.value, bytes) == (size <= CHUNK_BYTES)
        assert (await content(entry), entry.metadata) == (data, "1")


async def test_a_stream_that_breaks_off_changes_nothing(opening: Opening) -> None:
    async with opening() as store:
        await store.put("k", b"before")
        for chunks in ([b"a"], [LARGE]):
            with pytest.raises(ConnectionResetError):
                await store.put("k", failing(*chunks))
        with pytest.raises(ConnectionResetError):
            await store.put("new", failing(LARGE))
        assert (await content(await store.get("k")), await names(store)) == (b"before", ["k"])


async def test_a_stream_is_not_seen_before_its_end(opening: Opening) -> None:
    async with opening() as store:
        seen: list[bytes | None] = []

        async def watched() -> AsyncIterator[bytes]:
            yield LARGE
            seen.append(await content(await store.get("k")))

        await store.put("k", b"before")
        await store.put("k", watched())
        assert seen == [b"before"]


async def test_a_value_that_is_being_read_is_read_to_its_end(opening: Opening) -> None:
    async with opening() as store:
        for change in (lambda: store.put("k", b"other"), lambda: store.delete("k")):
            await store.put("k", pieces(LARGE))
            entry = await store.get("k")
            assert entry is not None
            assert not isinstance(entry.value, bytes)
            reader = aiter(entry.value)
            data = await anext(reader)
            await change()
            assert data + b"".join([chunk async for chunk in reader]) == LARGE


async def test_an_entry_is_gone_in_the_second_of_its_expiration(opening: Opening, clock: Clock) -> None:
    async with opening() as store:
        await store.put("small", b"v", 1_000_100)
        await store.put("large", pieces(LARGE), 1_000_100)
        clock.now = 1_000_099.9
        assert await names(store) == ["large", "small"]
        assert [key.expiration for key in (await store.list("", None, 10)).keys] == [1_000_100, 1_000_100]
        assert await content(await store.get("large")) == LARGE
        clock.now = 1_000_100.0
        assert await names(store) == []
        assert (await store.get("small"), await store.get("large")) == (None, None)


async def test_a_new_value_has_nothing_of_the_old_one(opening: Opening, clock: Clock) -> None:
    async with opening() as store:
        await store.put("k", pieces(LARGE), 1_000_100, "1")
        await store.put("k", b"new")
        assert await store.get("k") == KvEntry(b"new")
        clock.now += 1000
        await store.put("other", b"")
        assert await names(store) == ["k", "other"]


async def test_keys_are_in_the_order_of_their_bytes(opening: Opening) -> None:
    async with opening() as store:
        keys = ["b", "a", "ab", "B", "ü", "\U0001f600", "\uffff", "a\x00", "a b", "~"]
        for key in keys:
            await store.put(key, key.encode())
        assert await names(store) == sorted(keys, key=str.encode)
        assert await names(store, "a") == ["a", "a\x00", "a b", "ab"]
        assert await names(store, "ü") == ["ü"]
        assert await names(store, "none") == []


async def test_pages_follow_each_other(opening: Opening) -> None:
    async with opening() as store:
        keys = [f"k{number:02}" for number in range(10)]
        for key in [*keys, "other", "a"]:
            await store.put(key, b"")
        for limit in (1, 3, 5, 9):
            found: list[str] = []
            cursor = None
            for _ in itertools.count():
                page = await store.list("k", cursor, limit)
                found += [key.name for key in page.keys]
                assert len(page.keys) <= limit
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == keys
        assert (await store.list("k", None, 10)).cursor is None


async def test_keys_that_come_and_go_between_pages_move_no_others(opening: Opening) -> None:
    async with opening() as store:
        for key in "abcdef":
            await store.put(key, b"")
        page = await store.list("", None, 2)
        for key in "abd":
            await store.delete(key)
        await store.put("aa", b"too late")
        await store.put("bb", b"in time")
        assert await names(store, "", page.cursor) == ["bb", "c", "e", "f"]


async def test_expired_keys_take_no_place_in_a_page(opening: Opening, clock: Clock) -> None:
    async with opening() as store:
        for number in range(6):
            await store.put(f"k{number}", b"", 1_000_100 if number % 2 else None)
        clock.now = 1_000_200.0
        page = await store.list("", None, 2)
        assert [key.name for key in page.keys] == ["k0", "k2"]
        assert await names(store, "", page.cursor, 2) == ["k4"]


@pytest.mark.parametrize("cursor", ["@@@", "a", "ü", "_w=="])
async def test_a_cursor_that_is_none_is_refused(opening: Opening, cursor: str) -> None:
    async with opening() as store:
        with pytest.raises(KvRefusal, match="Invalid cursor") as refusal:
            await store.list("", cursor, 10)
        assert refusal.value.status == 400


async def test_writes_at_a_time_all_arrive(opening: Opening) -> None:
    async with opening() as store, anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(store.put, f"k{number:02}", pieces(LARGE[: CHUNK_BYTES + number]))
    async with opening() as store:
        for number in range(20):
            assert await content(await store.get(f"k{number:02}")) == LARGE[: CHUNK_BYTES + number]


# SQLite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kv.sqlite3"


def chunk_count(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        count: int = connection.execute("SELECT count(*) FROM chunks").fetchone()[0]
    connection.close()
    return count


async def test_values_that_were_replaced_are_swept_away_later(path: Path, clock: Clock) -> None:
    store = await SqliteKv.open(path, clock)
    for key in ("replaced", "deleted", "expired"):
        await store.put(key, pieces(LARGE), 1_000_100 if key == "expired" else None)
    with pytest.raises(ConnectionResetError):
        await store.put("broken", failing(LARGE))
    assert chunk_count(path) == 9
    await store.put("replaced", b"")
    await store.delete("deleted")
    clock.now += LOOSE_SECONDS - 1
    await store.put("other", b"")
    assert chunk_count(path) == 9
    clock.now += 1
    await store.put("other", b"")
    assert chunk_count(path) == 3
    clock.now += LOOSE_SECONDS
    await store.put("other", b"")
    assert chunk_count(path) == 0
    await store.aclose()


async def test_a_stream_goes_to_the_file_as_it_comes(path: Path, clock: Clock) -> None:
    store = await SqliteKv.open(path, clock)
    counts: list[int] = []

    async def watched() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(CHUNK_BYTES)
            counts.append(chunk_count(path))

    await store.put("k", watched())
    assert counts == [0, 2, 3, 4, 5]
    await store.aclose()


async def test_a_write_that_is_cancelled_leaves_nothing(path: Path, clock: Clock) -> None:
    store = await SqliteKv.open(path, clock)

    async def endless() -> AsyncIterator[bytes]:
        yield LARGE
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await store.put("k", endless())
    assert (chunk_count(path), await store.get("k")) == (0, None)
    await store.aclose()


@pytest.mark.parametrize("chunks", [2, 3])
async def test_a_stream_that_stops_for_too_long_is_refused(path: Path, clock: Clock, chunks: int) -> None:
    """Another write meanwhile has swept away what came before: neither the rest nor the key may be stored."""
    store = await SqliteKv.open(path, clock)

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(2 * CHUNK_BYTES)
        clock.now += LOOSE_SECONDS
        await store.put("other", b"")
        for _ in range(chunks - 2):
            yield bytes(CHUNK_BYTES)

    await store.put("k", b"before")
    async with aclosing(ReadableStream(slow())) as stream:
        with pytest.raises(KvRefusal, match="took too long") as refusal:
            await store.put("k", stream)
    assert (refusal.value.status, chunk_count(path), await store.get("k")) == (408, 0, KvEntry(b"before"))
    await store.aclose()


async def test_two_processes_may_share_a_file(path: Path, clock: Clock) -> None:
    one, other = await SqliteKv.open(path, clock), await SqliteKv.open(path, clock)
    await one.put("k", pieces(LARGE))
    assert await content(await other.get("k")) == LARGE
    await other.put("k", b"v")
    assert await one.get("k") == KvEntry(b"v")
    await one.aclose()
    await other.aclose()


# Redis


async def test_a_redis_that_is_not_there_is_told(anyio_backend: str) -> None:
    async with anyio.create_task_group() as tasks:
        with pytest.raises(ConnectionError, match="does not answer"):
            await RedisKv.open("redis://127.0.0.1:1/0", "kv", tasks)


async def test_namespaces_of_one_redis_are_apart(redis_url: str, clock: Clock) -> None:
    async with anyio.create_task_group() as tasks:
        one = await RedisKv.open(redis_url, "one", tasks, clock)
        other = await RedisKv.open(redis_url, "on:e}", tasks, clock)
        await one.put("k", b"v")
        assert await other.get("k") is None
        await one.delete("k")
        await one.aclose()
        await other.aclose()


async def test_a_redis_that_goes_away_fails_what_is_asked_until_it_is_back(tmp_path: Path, clock: Clock) -> None:
    async with anyio.create_task_group() as tasks:
        with redis_server(tmp_path) as redis:
            store = await RedisKv.open(redis.url, "kv", tasks, clock)
            await store.put("k", b"v")
            redis.kill()
            for _ in range(2):
                with anyio.fail_after(60), pytest.raises(KvRefusal, match="Redis failed") as refusal:
                    await store.get("k")
                assert refusal.value.status == 500
            redis.start()
            assert await store.get("k") == KvEntry(b"v")
            await store.aclose()


async def test_a_redis_without_memory_keeps_what_it_has(tmp_path: Path, clock: Clock) -> None:
    with redis_server(tmp_path) as redis:
        async with anyio.create_task_group() as tasks, coredis.Redis.from_url(redis.url) as client:
            store = await RedisKv.open(redis.url, "kv", tasks, clock)
            await store.put("k", pieces(LARGE))
            await client.config_set({"maxmemory": "1"})
            with pytest.raises(KvRefusal, match="OOM"):
                await store.put("k", b"new")
            async with aclosing(ReadableStream(pieces(LARGE))) as stream:
                with pytest.raises(KvRefusal, match="OOM"):
                    await store.put("k", stream)
            assert await content(await store.get("k")) == LARGE
            (blob,) = await client.keys("*:blob:*")
            assert await client.ttl(blob) == -1
            await store.delete("k")
            assert (await store.get("k"), await names(store)) == (None, [])
            assert 0 < await client.ttl(blob) <= LOOSE_SECONDS
            await store.aclose()


async def test_a_value_that_a_redis_has_lost_is_no_empty_one(redis_url: str, clock: Clock) -> None:
    async with anyio.create_task_group() as tasks, coredis.Redis.from_url(redis_url) as client:
        identity = secrets.token_hex(8)
        store = await RedisKv.open(redis_url, identity, tasks, clock)
        await store.put("small", b"v")
        await store.put("large", pieces(LARGE))
        await client.delete([*await client.keys(f"*{identity}*:blob:*"), f"{{capnweb:kv:{identity}}}:values"])
        for key in ("small", "large"):
            with pytest.raises(KvRefusal, match="has lost the value"):
                await store.get(key)
        await store.aclose()


@pytest.mark.parametrize("chunks", [2, 3])
async def test_a_stream_that_stops_for_too_long_is_refused_by_a_redis(
    redis_url: str, clock: Clock, chunks: int
) -> None:
    async with anyio.create_task_group() as tasks, coredis.Redis.from_url(redis_url) as client:
        identity = secrets.token_hex(8)
        store = await RedisKv.open(redis_url, identity, tasks, clock)

        async def slow() -> AsyncIterator[bytes]:
            yield bytes(2 * CHUNK_BYTES)
            (blob,) = await client.keys(f"*{identity}*:blob:*")
            assert 0 < await client.ttl(blob) <= LOOSE_SECONDS
            await client.delete([blob])
            for _ in range(chunks - 2):
                yield bytes(CHUNK_BYTES)

        await store.put("k", b"before")
        async with aclosing(ReadableStream(slow())) as stream:
            with pytest.raises(KvRefusal, match="took too long") as refusal:
                await store.put("k", stream)
        assert (refusal.value.status, await store.get("k")) == (408, KvEntry(b"before"))
        assert await client.keys(f"*{identity}*:blob:*") in ([], set())
        await store.aclose()


async def test_a_redis_that_does_not_answer_hangs_nobody(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "_TIMEOUT", 0.3)
    with redis_server(tmp_path) as redis:
        async with anyio.create_task_group() as tasks:
            store = await RedisKv.open(redis.url, "kv", tasks, clock)
            await store.put("k", b"v")
            redis.process.send_signal(signal.SIGSTOP)
            with anyio.fail_after(60), pytest.raises(KvRefusal, match="Redis failed"):
                await store.get("k")
            redis.process.send_signal(signal.SIGCONT)
            assert await store.get("k") == KvEntry(b"v")
            await store.aclose()


async def test_what_was_replaced_in_a_redis_goes_later(redis_url: str, clock: Clock) -> None:
    async with anyio.create_task_group() as tasks, coredis.Redis.from_url(redis_url) as client:
        identity = secrets.token_hex(8)
        store = await RedisKv.open(redis_url, identity, tasks, clock)
        await store.put("k", pieces(LARGE))
        (blob,) = await client.keys(f"*{identity}*:blob:*")
        assert await client.ttl(blob) == -1
        await store.put("k", b"v")
        assert 0 < await client.ttl(blob) <= LOOSE_SECONDS
        await store.put("k", pieces(LARGE))
        assert await client.hlen(f"{{capnweb:kv:{identity}}}:values") == 0
        await store.aclose()


async def test_nothing_is_left_in_a_redis_of_what_has_expired(redis_url: str, clock: Clock) -> None:
    async with anyio.create_task_group() as tasks, coredis.Redis.from_url(redis_url) as client:
        identity = secrets.token_hex(8)
        store = await RedisKv.open(redis_url, identity, tasks, clock)
        await store.put("small", b"v", 1_000_100)
        await store.put("large", pieces(LARGE), 1_000_100)
        await store.put("kept", b"v", 1_000_200)
        clock.now = 1_000_100.0
        await store.put("other", b"v")
        counts = [await client.hlen(f"{{capnweb:kv:{identity}}}:{name}") for name in ("entries", "values")]
        counts += [await client.zcard(f"{{capnweb:kv:{identity}}}:{name}") for name in ("names", "expirations")]
        assert counts == [2, 2, 2, 1]
        (blob,) = await client.keys(f"*{identity}*:blob:*")
        assert 0 < await client.ttl(blob) <= LOOSE_SECONDS
        await store.aclose()


@pytest.mark.parametrize("url", ["redis://", "redis://host/name", "http://host", "redis:host", "redis://host/0/1"])
def test_what_is_no_url_of_a_redis_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="redis://"):
        redis_store.check_url(url)


# Stores over stores


@pytest.fixture
async def below(path: Path, clock: Clock) -> AsyncIterator[SqliteKv]:
    """A store with some keys."""
    store = await SqliteKv.open(path, clock)
    for key in "abcdef":
        await store.put(key, key.encode(), None, '"below"')
    yield store
    await store.aclose()


@pytest.fixture
async def overlay(below: SqliteKv, tmp_path: Path, clock: Clock) -> AsyncIterator[Overlay]:
    local = await SqliteKv.open(tmp_path / "overlay.sqlite3", clock)
    yield Overlay(below, local)
    await local.aclose()


async def test_a_read_only_store_refuses_to_write(below: SqliteKv) -> None:
    store = ReadOnly(below, "it is for reading")
    changes: list[Callable[[], Awaitable[None]]] = [lambda: store.put("a", b"new"), lambda: store.delete("a")]
    for change in changes:
        with pytest.raises(KvRefusal, match="it is for reading") as refusal:
            await change()
        assert refusal.value.status == 403
    assert await store.get("a") == KvEntry(b"a", None, '"below"')
    assert await names(store) == list("abcdef")


async def test_what_an_overlay_writes_stays_in_it(overlay: Overlay, below: SqliteKv) -> None:
    await overlay.put("a", b"above")
    await overlay.put("ab", b"new")
    await overlay.delete("b")
    assert [await content(await overlay.get(key)) for key in ("a", "ab", "b", "c")] == [b"above", b"new", None, b"c"]
    assert await names(overlay) == ["a", "ab", "c", "d", "e", "f"]
    assert await names(below) == list("abcdef")
    assert await below.get("a") == KvEntry(b"a", None, '"below"')


async def test_an_overlay_sees_what_changes_below_unless_it_has_its_own(overlay: Overlay, below: SqliteKv) -> None:
    await overlay.delete("a")
    for key in ("a", "b", "g"):
        await below.put(key, b"changed")
    assert [await content(await overlay.get(key)) for key in "abg"] == [None, b"changed", b"changed"]


async def test_what_has_expired_in_an_overlay_does_not_show_what_is_below(overlay: Overlay, clock: Clock) -> None:
    await overlay.put("a", b"above", 1_000_100)
    clock.now = 1_000_100.0
    assert await overlay.get("a") is None
    assert await names(overlay) == list("bcdef")


async def test_an_overlay_lists_both_in_one_order(overlay: Overlay) -> None:
    for key in ("aa", "bb", "cc", "z", "0"):
        await overlay.put(key, b"", None, '"above"')
    for key in "bdef":
        await overlay.delete(key)
    await overlay.put("d", b"again")
    whole = ["0", "a", "aa", "bb", "c", "cc", "d", "z"]
    assert await names(overlay) == whole
    for limit in range(1, 9):
        found: list[str] = []
        cursor = None
        for _ in itertools.count():
            page = await overlay.list("", cursor, limit)
            assert len(page.keys) == min(limit, len(whole) - len(found))
            found += [key.name for key in page.keys]
            cursor = page.cursor
            if cursor is None:
                break
        assert found == whole


class Gappy(SqliteKv):
    """A store whose pages may be empty before the last, as those of the real service may."""

    async def list(self, prefix: str, cursor: str | None, limit: int) -> KvPage:
        if cursor is not None and cursor.startswith("gap "):
            return await super().list(prefix, cursor.removeprefix("gap "), limit)
        if cursor is not None:
            return KvPage([], f"gap {cursor}")
        return await super().list(prefix, cursor, limit)


async def test_an_overlay_goes_on_behind_an_empty_page(tmp_path: Path, clock: Clock) -> None:
    base = await Gappy.open(tmp_path / "base.sqlite3", clock)
    for key in "abcdef":
        await base.put(key, b"")
    overlay = Overlay(base, await SqliteKv.open(tmp_path / "overlay.sqlite3", clock))
    await overlay.put("cc", b"")
    await overlay.put("z", b"")
    first = await overlay.list("", None, 2)
    assert [key.name for key in first.keys] == ["a", "b"]
    assert await names(overlay, "", first.cursor) == ["c", "cc", "d", "e", "f", "z"]
    await overlay.aclose()


@pytest.mark.parametrize("cursor", ["W10=", "WzEsMl0=", "WyJhIiwgMV0=", "MQ=="])
async def test_a_cursor_of_another_store_is_refused_by_an_overlay(overlay: Overlay, cursor: str) -> None:
    with pytest.raises(KvRefusal, match="Invalid cursor"):
        await overlay.list("", cursor, 10)


async def test_chunks_have_one_size() -> None:
    assert [chunk async for chunk in in_chunks(pieces(b"abc", b"", b"defgh", b"ij"), 4)] == [b"abcd", b"efgh", b"ij"]
    assert [chunk async for chunk in in_chunks(pieces(), 4)] == []
