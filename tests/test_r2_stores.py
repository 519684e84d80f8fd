"""Stores of R2: the same rules in a folder, in an object store, and in an overlay, on both event loops."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from buckets import (
    S3,
    STORES,
    Azure,
    azure_server,
    body,
    content,
    empty_store,
    files,
    objects,
    put,
    read,
    s3_server,
)

from proxy_server.stores.r2 import ByteRange, Conditions, Etag, Metadata, PutOptions, R2Store, Start
from proxy_server.stores.r2_errors import (
    BadDigest,
    EntityTooLarge,
    EntityTooSmall,
    IncompleteBody,
    InternalError,
    InvalidPart,
    InvalidRange,
    NoSuchKey,
    NoSuchUpload,
    PreconditionFailed,
)
from proxy_server.stores.r2_parts import Record

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
NEW = Conditions(etag_does_not_match=(Etag("wildcard"),))


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def azure() -> Iterator[Azure]:
    with azure_server() as server:
        yield server


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[R2Store]:
    """An empty store of each kind."""
    async with empty_store(request, tmp_path) as opened:
        yield opened


async def keys(store: R2Store, prefix: str = "", start: Start = Start(), limit: int = 1000) -> list[str]:  # noqa: B008
    return [info.key for info in await store.scan(prefix, start, limit)]


async def test_what_is_put_is_there(store: R2Store) -> None:
    metadata = Metadata({"contentType": "a/b", "cacheExpiry": 5}, {"Name": "ü"}, "InfrequentAccess")
    info = await store.put("ä/b", body(b"one ", b"two"), PutOptions(metadata))
    assert await store.head("ä/b") == info
    assert (info.size, info.metadata) == (7, metadata)
    assert info.etag == hashlib.md5(b"one two", usedforsecurity=False).hexdigest()
    assert info.checksums == {"md5": info.etag}
    assert await content(store, "ä/b") == b"one two"


async def test_what_is_not_there(store: R2Store) -> None:
    assert await store.head("none") is None
    with pytest.raises(NoSuchKey):
        await store.get("none", None, None)
    await store.delete(["none"])


async def test_an_object_is_replaced(store: R2Store) -> None:
    old = await put(store, "a", b"old", custom={"a": "1"})
    new = await put(store, "a", b"new")
    assert old.version != new.version
    assert (await content(store, "a"), await store.head("a")) == (b"new", new)


async def test_a_reader_of_what_is_replaced_reads_on(store: R2Store) -> None:
    await put(store, "a", b"x" * MIB)
    opened = await store.get("a", None, None)
    await put(store, "a", b"new")
    await store.delete(["a"])
    assert await read(opened.body) == b"x" * MIB


@pytest.mark.parametrize("kind", ["files", "s3"])
async def test_an_object_that_is_replaced_while_it_is_opened_is_the_new_one(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        if kind == "files":
            bucket = await stack.enter_async_context(files(tmp_path))
        else:
            server: S3 = request.getfixturevalue("s3")
            name = f"bucket-{uuid4().hex}"
            server.make_bucket(name)
            bucket = await stack.enter_async_context(objects(server, name))
        await put(bucket, "a", b"old")
        get = bucket._records.get

        async def replaced(key: str) -> Record | None:
            bucket._records.get = get  # type: ignore[method-assign]
            record = await get(key)
            await put(bucket, "a", b"new")
            return record

        bucket._records.get = replaced  # type: ignore[method-assign]
        assert await content(bucket, "a") == b"new"


async def test_content_that_is_lost_is_an_error(tmp_path: Path) -> None:
    async with files(tmp_path) as bucket:
        info = await put(bucket, "a", b"content")
        record = await bucket._records.get("a")
        assert record is not None
        bucket._blobs.delete([blob.id for blob in record.blobs])
        with pytest.raises(FileNotFoundError):
            await bucket.get("a", None, None)
        assert await bucket.head("a") == info


async def test_ranges(store: R2Store) -> None:
    await put(store, "a", b"0123456789")
    opened = await store.get("a", None, ByteRange(offset=2, length=3))
    assert (opened.offset, opened.length, await read(opened.body)) == (2, 3, b"234")
    assert await read((await store.get("a", None, "bytes=-2")).body) == b"89"
    with pytest.raises(InvalidRange):
        await store.get("a", None, ByteRange(offset=11))


async def test_an_empty_object(store: R2Store) -> None:
    await put(store, "a")
    assert await content(store, "a") == b""


async def test_conditions(store: R2Store) -> None:
    info = await put(store, "a", b"one", only_if=NEW)
    with pytest.raises(PreconditionFailed) as caught:
        await put(store, "a", b"two", only_if=NEW)
    assert caught.value.info == info
    with pytest.raises(PreconditionFailed):
        await store.get("a", Conditions(etag_matches=(Etag("strong", "other"),)), None)
    assert await content(store, "a") == b"one"


async def test_of_many_that_make_an_object_one_does(store: R2Store) -> None:
    made = []

    async def make(text: bytes) -> None:
        try:
            made.append(await put(store, "a", text, only_if=NEW))
        except PreconditionFailed:
            pass

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(make, b"%d" % number)
    assert [info.version for info in made] == [(await store.head("a")).version]  # type: ignore[union-attr]


async def test_a_wrong_checksum_writes_nothing(store: R2Store) -> None:
    await put(store, "a", b"old")
    with pytest.raises(BadDigest):
        await put(store, "a", b"new", checksums={"sha256": bytes(32)})
    assert await content(store, "a") == b"old"


async def test_a_body_that_fails_writes_nothing(store: R2Store) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * MIB
        raise LookupError("on purpose")

    await put(store, "a", b"old")
    with pytest.raises(LookupError):
        await store.put("a", failing(), PutOptions())
    with pytest.raises(IncompleteBody):
        await store.put("a", body(b"short"), PutOptions(size=6))
    assert await content(store, "a") == b"old"


async def test_a_put_that_was_done_though_its_keeper_said_no_is_done(tmp_path: Path) -> None:
    """As where the answer of an object store is lost, and the request repeated."""
    async with files(tmp_path) as bucket:
        records = bucket._records
        swap = records.swap

        async def unheard(key: str, old: Record | None, new: Record, *, beneath: bool = False) -> bool:
            await swap(key, old, new, beneath=beneath)
            return False

        records.swap = unheard  # type: ignore[method-assign]
        info = await put(bucket, "a", b"content", only_if=NEW)
        assert (await bucket.head("a"), await content(bucket, "a")) == (info, b"content")


@pytest.mark.parametrize("failing", ["delete", "swap"])
async def test_a_store_that_fails_in_a_put_loses_no_content(tmp_path: Path, failing: str) -> None:
    """Old content that cannot be deleted, and a record that was written though its keeper failed then."""
    async with files(tmp_path) as bucket:
        await put(bucket, "a", b"old")
        records, blobs = bucket._records, bucket._blobs
        swap = records.swap

        async def failing_swap(key: str, old: Record | None, new: Record, *, beneath: bool = False) -> bool:
            await swap(key, old, new, beneath=beneath)
            raise OSError("on purpose")

        def failing_delete(blob_ids: Sequence[str]) -> None:
            raise OSError("on purpose")

        if failing == "swap":
            records.swap = failing_swap  # type: ignore[method-assign]
        else:
            blobs.delete = failing_delete  # type: ignore[method-assign, assignment]
        with pytest.raises(OSError, match="on purpose"):
            await put(bucket, "a", b"new")
        assert await content(bucket, "a") == b"new"


async def test_a_put_that_is_cancelled_writes_nothing(store: R2Store) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * MIB
        scope.cancel()
        await anyio.sleep_forever()

    await put(store, "a", b"old")
    with anyio.CancelScope() as scope:
        await store.put("a", endless(), PutOptions())
    assert await content(store, "a") == b"old"


async def test_what_is_said_to_be_too_large_is_not_read(store: R2Store) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("it is read")
        yield b""

    with pytest.raises(EntityTooLarge):
        await store.put("a", unread(), PutOptions(size=5 * 1024**3 - 5 * MIB + 1))
    upload = await store.create_upload("m", Metadata())
    with pytest.raises(EntityTooLarge):
        await store.upload_part("m", upload, 1, unread(), 5 * 1024**3)


async def test_scanning(store: R2Store) -> None:
    names = [
        "",
        "!",
        "%",
        "/",
        "//",
        "../../x",
        ".",
        "..",
        "Z",
        "a",
        "a ",
        "a!",
        "a/",
        "a/1",
        "a/2",
        "a0",
        "b",
        "~",
        "~a",
    ]
    names += [
        "\x7f",
        "ä",
        "ä/ö",
        "\uffee",
        "\ufffd",
        "\ufffd3",
        "\uffff",
        "\U0001f600",
        "\U0001f600a",
        "\x00",
        "\x1f\x01",
    ]
    for name in names:
        await put(store, name, name.encode(), custom={"name": name})
    ordered = sorted(names)
    assert await keys(store) == ordered
    for info in await store.scan("", Start(), 1000):
        assert info.metadata.custom == {"name": info.key}
    for prefix in ("a", "a/", "/", "ä", "~", "none", "\x00", "\ufffd", "\U0001f600"):
        assert await keys(store, prefix) == [name for name in ordered if name.startswith(prefix)]
    for place, name in enumerate(ordered):
        assert await keys(store, "", Start(name, True), 3) == ordered[place : place + 3]
        assert await keys(store, "", Start(name, False), 3) == ordered[place + 1 : place + 4]
        assert await content(store, name) == name.encode()
    assert await keys(store, "a", Start("b")) == []
    assert await keys(store, "a", Start("Z"), 2) == ["a", "a "]


@pytest.mark.parametrize("kind", ["s3", "azure"])
async def test_a_listing_reads_no_record_that_is_known(kind: str, request: pytest.FixtureRequest) -> None:
    server: S3 | Azure = request.getfixturevalue(kind)
    name = f"bucket-{uuid4().hex}"
    server.make_bucket(name)
    async with objects(server, name) as store:
        info = await put(store, "a", b"content")
        store._records._read = None  # type: ignore[attr-defined]
        assert await store.scan("", Start(), 10) == [info]


async def test_deleting(store: R2Store) -> None:
    for name in "abc":
        await put(store, name)
    await store.delete(["a", "c", "none"])
    assert await keys(store) == ["b"]


async def test_a_multipart_upload(store: R2Store) -> None:
    upload = await store.create_upload("m", Metadata(custom={"a": "1"}))
    last = await store.upload_part("m", upload, 2, body(b"end"))
    first = await store.upload_part("m", upload, 1, body(b"x" * 5 * MIB))
    assert await store.head("m") is None
    info = await store.complete_upload("m", upload, [(1, first), (2, last)])
    assert info.etag.endswith("-2")
    assert (info.size, info.metadata.custom, info.checksums) == (5 * MIB + 3, {"a": "1"}, {})
    assert await read((await store.get("m", None, ByteRange(offset=5 * MIB - 2))).body) == b"xxend"
    assert await content(store, "m") == b"x" * 5 * MIB + b"end"
    with pytest.raises(NoSuchUpload):
        await store.complete_upload("m", upload, [(1, first), (2, last)])
    await store.abort_upload("m", upload)
    assert len(await content(store, "m")) == info.size


async def test_parts_that_are_refused(store: R2Store) -> None:
    upload = await store.create_upload("m", Metadata())
    old = await store.upload_part("m", upload, 1, body(b"old"))
    first = await store.upload_part("m", upload, 1, body(b"first"))
    second = await store.upload_part("m", upload, 2, body(b"second"))
    with pytest.raises(InvalidPart):
        await store.complete_upload("m", upload, [(1, old)])
    with pytest.raises(EntityTooSmall):
        await store.complete_upload("m", upload, [(1, first), (2, second)])
    await store.complete_upload("m", upload, [(1, first)])
    assert await content(store, "m") == b"first"


async def test_uploads_that_are_none(store: R2Store) -> None:
    upload = await store.create_upload("m", Metadata())
    for key, name in (("other", upload), ("m", "nonsense"), ("m", "../../x")):
        with pytest.raises(NoSuchUpload):
            await store.upload_part(key, name, 1, body(b"x"))
        with pytest.raises(InternalError):
            await store.complete_upload(key, name, [])
        with pytest.raises(InternalError):
            await store.abort_upload(key, name)
    await store.abort_upload("m", upload)
    await store.abort_upload("m", upload)
    with pytest.raises(NoSuchUpload):
        await store.upload_part("m", upload, 1, body(b"x"))
