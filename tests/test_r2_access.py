"""Buckets that are only read, and overlays: over a bucket of this process, and over one behind a facade."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from buckets import body, content, files, overlay, put, read
from proxying import serving

from capnweb_py.bindings.r2 import R2Bucket
from capnweb_py.remote import connect_env
from capnweb_py.web import ReadableStream, Request
from proxy_server.bindings import Binding
from proxy_server.bindings.r2 import over
from proxy_server.stores.r2 import ByteRange, Conditions, Etag, Metadata, ObjectInfo, PutOptions, R2Store, Start
from proxy_server.stores.r2_access import Overlay, ReadOnly
from proxy_server.stores.r2_errors import AccessDenied, NoSuchKey, PreconditionFailed, R2Error
from proxy_server.stores.r2_remote import RemoteBucket

pytestmark = pytest.mark.anyio

KEYS = ["a", "b/1", "b/2", "c"]


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("r2")
    config = folder / "capnweb.toml"
    config.write_text(f'[server]\nstate_dir = "{folder}/state"\n[bindings.BUCKET]\ntype = "r2_bucket"\n')
    with serving(config) as server:
        yield server.url


@asynccontextmanager
async def facade(url: str) -> AsyncIterator[R2Bucket]:
    """A facade of an empty bucket behind a proxy."""
    async with connect_env(url) as env:
        await env.BUCKET.delete([obj.key for obj in (await env.BUCKET.list()).objects])
        yield env.BUCKET


@pytest.fixture(params=["files", "remote"])
async def base(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[R2Store]:
    """A store with KEYS, whose content is their names."""
    if request.param == "files":
        async with files(tmp_path / "base") as bucket:
            for key in KEYS:
                await put(bucket, key, key.encode(), custom={"key": key})
            yield bucket
    else:
        async with facade(request.getfixturevalue("server_url")) as remote:
            for key in KEYS:
                await remote.put(key, key, custom_metadata={"key": key})
            yield RemoteBucket(remote)


class Unclosed:
    """A base that its overlay does not close."""

    def __init__(self, base: R2Store) -> None:
        self.head, self.get, self.scan = base.head, base.get, base.scan

    async def aclose(self) -> None:
        """It is the fixture's."""


@pytest.fixture
async def over_base(base: R2Store, tmp_path: Path) -> AsyncIterator[Overlay]:
    async with overlay(Unclosed(base), tmp_path / "overlay") as store:  # type: ignore[arg-type]
        yield store


async def keys(store: R2Store, prefix: str = "", start: str = "", limit: int = 1000) -> list[str]:
    return [info.key for info in await store.scan(prefix, Start(start), limit)]


async def test_a_bucket_that_is_only_read(base: R2Store) -> None:
    store = ReadOnly(base, "it is for reading")
    assert await content(store, "a") == b"a"
    assert await keys(store) == KEYS
    for write in (
        put(store, "a", b"new"),
        store.delete(["a"]),
        store.create_upload("a", Metadata()),
        store.upload_part("a", "id", 1, body(b"x")),
        store.complete_upload("a", "id", []),
        store.abort_upload("a", "id"),
    ):
        with pytest.raises(AccessDenied, match="it is for reading"):
            await write
    assert await content(store, "a") == b"a"


async def test_what_is_not_written_is_the_bases(over_base: Overlay) -> None:
    assert await content(over_base, "a") == b"a"
    info = await over_base.head("b/1")
    assert info is not None
    assert info.metadata.custom == {"key": "b/1"}
    opened = await over_base.get("b/1", None, ByteRange(suffix=1))
    assert await read(opened.body) == b"1"
    with pytest.raises(NoSuchKey):
        await over_base.get("none", None, None)


async def test_writes_stay_in_the_overlay(base: R2Store, over_base: Overlay) -> None:
    await put(over_base, "a", b"mine")
    await put(over_base, "new", b"mine")
    await over_base.delete(["c", "b/1"])
    upload = await over_base.create_upload("m", Metadata())
    part = await over_base.upload_part("m", upload, 1, body(b"parts"))
    await over_base.complete_upload("m", upload, [(1, part)])
    assert await keys(over_base) == ["a", "b/2", "m", "new"]
    assert (await content(over_base, "a"), await content(over_base, "m")) == (b"mine", b"parts")
    assert await keys(base) == KEYS
    assert await content(base, "a") == b"a"


async def test_what_is_deleted_is_not_there(over_base: Overlay) -> None:
    await over_base.delete(["a"])
    assert await over_base.head("a") is None
    with pytest.raises(NoSuchKey):
        await over_base.get("a", None, None)
    await put(over_base, "a", b"again")
    assert await content(over_base, "a") == b"again"


async def test_pages_merge_both(over_base: Overlay) -> None:
    for key in ("0", "b/15", "b/3", "d"):
        await put(over_base, key)
    await over_base.delete(["b/1"])
    merged = ["0", "a", "b/15", "b/2", "b/3", "c", "d"]
    for limit in range(1, 9):
        found: list[str] = []
        while True:
            page = await over_base.scan("", Start(found[-1], False) if found else Start(), limit)
            found += [info.key for info in page]
            if len(page) < limit:
                break
        assert found == merged
    assert await keys(over_base, "b/") == ["b/15", "b/2", "b/3"]
    assert await keys(over_base, "", "b/2") == ["b/2", "b/3", "c", "d"]


async def test_a_listing_costs_what_it_shows_however_much_was_deleted(tmp_path: Path) -> None:
    statements: list[str] = []
    scans: list[int] = []
    names = [f"{number:04}" for number in range(100)]
    async with files(tmp_path / "base") as base:
        async with anyio.create_task_group() as tasks:
            for name in [*names, "\x00", "z"]:
                tasks.start_soon(put, base, name)
        scan = base.scan

        async def counted(prefix: str, start: Start, limit: int) -> list[ObjectInfo]:
            scans.append(limit)
            return await scan(prefix, start, limit)

        base.scan = counted  # type: ignore[method-assign]
        async with overlay(Unclosed(base), tmp_path / "overlay") as store:  # type: ignore[arg-type]
            await store.delete(["\x00", *names, *(f"never {number}" for number in range(5000))])
            store._index._connection.set_trace_callback(statements.append)
            assert await keys(store, limit=1) == ["z"]
    # The base is asked for more and more at a time, and the deleted keys are asked for those of its pages.
    assert scans == [1, 2, 4, 8, 16, 32, 64]
    assert sum("deleted" in statement for statement in statements) == 102


async def test_conditions_are_about_what_is_seen(over_base: Overlay) -> None:
    new = Conditions(etag_does_not_match=(Etag("wildcard"),))
    info = await over_base.head("a")
    assert info is not None
    with pytest.raises(PreconditionFailed):
        await put(over_base, "a", b"mine", only_if=new)
    await put(over_base, "a", b"mine", only_if=Conditions(etag_matches=(Etag("strong", info.etag),)))
    with pytest.raises(PreconditionFailed):
        await put(over_base, "a", b"mine", only_if=Conditions(etag_matches=(Etag("strong", info.etag),)))
    with pytest.raises(PreconditionFailed):
        await over_base.get("c", Conditions(etag_matches=(Etag("strong", "other"),)), None)
    await over_base.delete(["c"])
    await put(over_base, "c", b"mine", only_if=new)


async def test_an_overlay_is_kept(tmp_path: Path) -> None:
    async with files(tmp_path / "base") as base:
        for key in KEYS:
            await put(base, key)
    for _ in range(2):
        async with files(tmp_path / "base") as base, overlay(Unclosed(base), tmp_path / "overlay") as store:  # type: ignore[arg-type]
            await store.delete(["a"])
            await put(store, "new")
            assert await keys(store) == ["b/1", "b/2", "c", "new"]


async def test_a_remote_bucket_is_written(server_url: str) -> None:
    async with facade(server_url) as remote:
        store = RemoteBucket(remote)
        metadata = Metadata({"contentType": "a/b", "cacheExpiry": 5000}, {"a": "1"}, "InfrequentAccess")
        info = await store.put("a", body(b"one"), PutOptions(metadata, size=3))
        assert (await store.head("a"), await content(store, "a")) == (info, b"one")
        for granularity in (True, False):
            new = Conditions(etag_does_not_match=(Etag("wildcard"),), seconds_granularity=granularity)
            with pytest.raises(PreconditionFailed):
                await store.put("a", body(b"two"), PutOptions(only_if=new, size=3))
        upload = await store.create_upload("m", Metadata())
        part = await store.upload_part("m", upload, 1, body(b"parts"), 5)
        await store.complete_upload("m", upload, [(1, part)])
        assert await keys(store) == ["a", "m"]
        await store.delete(["a"])
        assert await keys(store) == ["m"]


async def test_a_remote_bucket_encrypts(server_url: str) -> None:
    async with facade(server_url) as remote:
        store = RemoteBucket(remote)
        key = bytes(range(32))
        info = await put(store, "a", b"one", size=3, encryption=key)
        upload = await store.create_upload("m", Metadata(), key)
        part = await store.upload_part("m", upload, 1, body(b"parts"), 5, key)
        await store.complete_upload("m", upload, [(1, part)])
        assert [listed.key_md5 for listed in await store.scan("", Start(), 10)] == [info.key_md5] * 2
        for name, stored in (("a", b"one"), ("m", b"parts")):
            assert await read((await store.get(name, None, None, key)).body) == stored
            with pytest.raises(R2Error, match="Server Side Encryption"):
                await store.get(name, None, None)


@pytest.mark.parametrize("access", ["full", "read", "overlay"])
async def test_a_binding_over_a_remote_one(server_url: str, tmp_path: Path, access: str) -> None:
    async with facade(server_url) as remote:
        await remote.put("a", "there")
        async with anyio.create_task_group() as tasks:
            binding: Binding = await over(remote, access, "BUCKET", tmp_path)(tasks)
            answers = [await put_over_http(binding), (await remote.head("b")) is not None]
            await binding.aclose()
    assert answers == {"full": [200, True], "read": [403, False], "overlay": [200, False]}[access]
    assert names_in(tmp_path) == ({"overlay-r2_bucket-BUCKET"} if access == "overlay" else set())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def put_over_http(binding: Binding) -> int:
    """Put "b" as the runtime does. Returns the status."""
    text = b'{"version":1,"method":"put","object":"b"}'
    sent = ReadableStream(body(text + b"content"), length=len(text) + 7)
    headers = {"CF-R2-Metadata-Size": str(len(text))}
    return (await binding.fetch(Request("https://fake-host/", method="PUT", headers=headers, body=sent))).status
