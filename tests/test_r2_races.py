"""Operations of R2 that meet: what was acknowledged is there and can be read, and an upload ends once."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from buckets import S3, Azure, azure_server, body, content, files, objects, overlay, put, s3_server

from proxy_server.stores import r2_files
from proxy_server.stores.r2 import Conditions, Etag, Metadata, ObjectInfo, Start
from proxy_server.stores.r2_bucket import Bucket
from proxy_server.stores.r2_errors import InvalidPart, NoSuchUpload, PreconditionFailed, R2Error
from proxy_server.stores.r2_objects import ObjectRecords
from proxy_server.stores.r2_parts import Part, Record, Upload

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def azure() -> Iterator[Azure]:
    with azure_server() as server:
        yield server


@pytest.fixture(params=["files", "s3", "azure"])
async def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bucket]:
    """An empty bucket of each kind."""
    if request.param == "files":
        async with files(tmp_path / "bucket") as store:
            yield store
    else:
        server: S3 | Azure = request.getfixturevalue(request.param)
        name = f"bucket-{uuid4().hex}"
        server.make_bucket(name)
        async with objects(server, name) as store:
            yield store


async def begun(bucket: Bucket) -> tuple[str, str]:
    """An upload of "m" with one part, and the ETag of that."""
    upload = await bucket.create_upload("m", Metadata())
    return upload, await bucket.upload_part("m", upload, 1, body(b"part"))


def when_the_parts_are_read(bucket: Bucket, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Have something happen when the next completion has read the parts."""
    records: Any = bucket._records
    read = records.parts

    async def parts(upload: Upload) -> list[Part]:
        records.parts = read
        found: list[Part] = await read(upload)
        await meanwhile()
        return found

    records.parts = parts


async def seen(bucket: Bucket) -> bytes | None:
    return None if await bucket.head("m") is None else await content(bucket, "m")


async def test_an_upload_that_is_aborted_while_it_is_completed_has_no_object(bucket: Bucket) -> None:
    upload, part = await begun(bucket)
    when_the_parts_are_read(bucket, lambda: bucket.abort_upload("m", upload))
    with pytest.raises(NoSuchUpload):
        await bucket.complete_upload("m", upload, [(1, part)])
    assert await seen(bucket) is None


async def test_an_upload_is_completed_once(bucket: Bucket) -> None:
    upload, part = await begun(bucket)

    async def complete_and_replace() -> None:
        await bucket.complete_upload("m", upload, [(1, part)])
        await put(bucket, "m", b"newer")

    when_the_parts_are_read(bucket, complete_and_replace)
    with pytest.raises(NoSuchUpload):
        await bucket.complete_upload("m", upload, [(1, part)])
    assert await seen(bucket) == b"newer"


async def test_a_part_that_is_replaced_while_its_upload_is_completed(bucket: Bucket) -> None:
    upload, part = await begun(bucket)
    when_the_parts_are_read(bucket, lambda: bucket.upload_part("m", upload, 1, body(b"other")))
    if isinstance(bucket._records, ObjectRecords):
        await bucket.complete_upload("m", upload, [(1, part)])
        assert await seen(bucket) == b"part"
    else:
        with pytest.raises(InvalidPart):
            await bucket.complete_upload("m", upload, [(1, part)])
        assert await seen(bucket) is None


async def test_a_part_that_is_late_for_its_upload_is_refused_and_harms_nothing(bucket: Bucket) -> None:
    upload, part = await begun(bucket)

    async def completing() -> AsyncIterator[bytes]:
        yield b"late"
        await bucket.complete_upload("m", upload, [(1, part)])

    with pytest.raises(NoSuchUpload):
        await bucket.upload_part("m", upload, 1, completing())
    assert await seen(bucket) == b"part"


async def test_a_part_that_loses_against_the_completion_in_an_object_store(s3: S3) -> None:
    s3.make_bucket(name := f"bucket-{uuid4().hex}")
    async with objects(s3, name) as bucket:
        upload, part = await begun(bucket)
        records: Any = bucket._records
        is_open, asked = records._is_open, itertools.count()

        def open_at_first(upload: Upload) -> bool:
            return next(asked) == 0 or is_open(upload)

        await bucket.complete_upload("m", upload, [(1, part)])
        records._is_open = open_at_first
        with pytest.raises(NoSuchUpload):
            await bucket.upload_part("m", upload, 1, body(b"late"))
        assert await seen(bucket) == b"part"
        assert list(records._names("uploads")) == [next(iter(records._names(f"uploads/{upload}")))]
        assert len(list(records._names("blobs"))) == 1


async def test_a_completion_that_fails_midway_can_be_repeated_or_is_refused(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the server is killed there."""

    def fail(*_args: object, **_said: object) -> Any:
        raise OSError("on purpose")

    upload, part = await begun(bucket)
    with monkeypatch.context() as patched:
        patched.setattr(ObjectRecords, "swap", fail)
        patched.setattr(r2_files, "_put", fail)
        with pytest.raises(OSError, match="on purpose"):
            await bucket.complete_upload("m", upload, [(1, part)])
    await put(bucket, "m", b"another's")
    if isinstance(bucket._records, ObjectRecords):
        with pytest.raises(NoSuchUpload):
            await bucket.complete_upload("m", upload, [(1, part)])
        assert await seen(bucket) == b"another's"
    else:
        await bucket.complete_upload("m", upload, [(1, part)])
        assert await seen(bucket) == b"part"


async def test_whatever_meets_a_completion_leaves_an_object_that_can_be_read(bucket: Bucket) -> None:
    async def tried(operation: Awaitable[object]) -> None:
        try:
            await operation
        except R2Error as error:
            refused.append(type(error))

    refused: list[type[R2Error]] = []
    for _ in range(5):
        upload, part = await begun(bucket)
        async with anyio.create_task_group() as tasks:
            for operation in (
                bucket.complete_upload("m", upload, [(1, part)]),
                bucket.complete_upload("m", upload, [(1, part)]),
                bucket.upload_part("m", upload, 1, body(b"other")),
                bucket.abort_upload("m", upload),
                put(bucket, "m", b"put"),
                bucket.delete(["m"]),
            ):
                tasks.start_soon(tried, operation)
        assert await seen(bucket) in {None, b"part", b"put"}
    assert set(refused) <= {NoSuchUpload, InvalidPart}


# Overlays


async def test_what_is_deleted_right_after_it_was_put_stays_deleted(tmp_path: Path) -> None:
    async with files(tmp_path / "base") as base, overlay(base, tmp_path / "overlay") as store:
        await put(base, "a", b"base")
        write = store._local.put

        async def put_and_deleted(*args: Any) -> ObjectInfo:
            info = await write(*args)
            await store.delete(["a"])
            return info

        store._local.put = put_and_deleted  # type: ignore[method-assign, assignment]
        await put(store, "a", b"over")
        assert await store.head("a") is None


async def test_what_is_put_while_it_is_deleted_hides_the_base(tmp_path: Path) -> None:
    async with files(tmp_path / "base") as base, overlay(base, tmp_path / "overlay") as store:
        await put(base, "a", b"base")
        remove = store._local.delete

        async def put_and_delete(keys: list[str]) -> None:
            await put(store, "a", b"over")
            await remove(keys)

        store._local.delete = put_and_delete  # type: ignore[method-assign, assignment]
        await store.delete(["a"])
        assert await store.head("a") is None


async def test_a_condition_is_not_about_an_object_of_the_base_that_is_deleted_meanwhile(tmp_path: Path) -> None:
    async with files(tmp_path / "base") as base, overlay(base, tmp_path / "overlay") as store:
        info = await put(base, "a", b"base")
        records: Any = store._local._records
        read = records.get

        async def deleted_then(key: str) -> Record | None:
            records.get = read
            record: Record | None = await read(key)
            await store.delete([key])
            return record

        records.get = deleted_then
        with pytest.raises(PreconditionFailed):
            await put(store, "a", b"over", only_if=Conditions(etag_matches=(Etag("strong", info.etag),)))
        assert await store.head("a") is None


async def test_reads_and_listings_beside_writes_never_show_what_was_replaced(tmp_path: Path) -> None:
    """The base's object was deleted once: whatever is written and deleted since, nobody sees it."""
    async with files(tmp_path / "base") as base, overlay(base, tmp_path / "overlay") as store:
        old = await put(base, "a", b"base")
        await store.delete(["a"])

        async def write(number: int) -> None:
            await put(store, "a", b"%d" % number)
            await store.delete(["a"])

        async def look() -> None:
            for _ in range(10):
                found = [await store.head("a"), *await store.scan("", Start(), 10)]
                assert old.version not in [info.version for info in found if info is not None]

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(write, number)
                tasks.start_soon(look)
        assert await store.head("a") is None
