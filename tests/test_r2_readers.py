"""Who reads a bucket: how many files that takes, and that whoever leaves leaves nothing open or on disk."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from buckets import content, files, put, read
from listening import proxy_server_in

from capnweb_py.remote import connect_env
from proxy_server.stores import r2_reading
from proxy_server.stores.r2 import Metadata, OpenObject
from proxy_server.stores.r2_bucket import Bucket
from proxy_server.stores.r2_files import FileReader

pytestmark = pytest.mark.anyio

KIB = 1024
MIB = 1024 * KIB
KEY = bytes(range(32))
TABLE = {"type": "r2_bucket", "bucket_name": "bucket"}


@pytest.fixture
async def bucket(tmp_path: Path) -> AsyncIterator[Bucket]:
    async with files(tmp_path / "bucket") as store:
        yield store


def count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def opened_by(bucket: Bucket) -> list[FileReader]:
    """Fills with the files that are opened."""
    opened: list[FileReader] = []
    blobs: Any = bucket._blobs
    open_file = blobs.open

    def noted(blob_id: str, offset: int, length: int) -> FileReader:
        opened.append(open_file(blob_id, offset, length))
        return opened[-1]

    blobs.open = noted
    return opened


def count_open(opened: list[FileReader]) -> int:
    return sum(not each._file.closed for each in opened)


@pytest.mark.parametrize("encryption", [None, KEY], ids=["plain", "encrypted"])
async def test_many_readers_have_few_files_open_and_read_all(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, encryption: bytes | None
) -> None:
    monkeypatch.setattr(r2_reading, "_MAX_OPEN", 3)
    opened = opened_by(bucket)
    stored = b"".join(number.to_bytes(4, "big") for number in range(50 * KIB))
    await put(bucket, "a", stored, encryption=encryption)
    readers: list[OpenObject] = []
    for _ in range(10):
        readers.append(await bucket.get("a", None, "bytes=5-199999", encryption))
        assert count_open(opened) <= 3
    found = [b""] * len(readers)
    iterators = [aiter(reader.body) for reader in readers]
    while any(len(each) < 199_995 for each in found):
        for place, iterator in enumerate(iterators):
            found[place] += await anext(iterator, b"")
        assert count_open(opened) <= 3
    assert found == [stored[5:200_000]] * len(readers)
    for reader in readers:
        await reader.body.aclose()
    assert count_open(opened) == 0


async def test_what_is_replaced_is_read_on_by_who_had_to_close_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(r2_reading, "_MAX_OPEN", 1)
    await put(bucket, "a", b"x" * MIB)
    readers = [await bucket.get("a", None, None) for _ in range(3)]
    await bucket.delete(["a"])
    assert [await read(reader.body) for reader in readers] == [b"x" * MIB] * 3
    assert count_files(tmp_path / "bucket" / "blobs") == 0


async def test_an_object_of_several_parts_is_read_with_one_file_open(bucket: Bucket) -> None:
    upload = await bucket.create_upload("m", Metadata())
    opened = opened_by(bucket)

    async def part(number: int) -> tuple[int, str]:
        async def sent() -> AsyncIterator[bytes]:
            yield bytes([number]) * 5 * MIB

        return number, await bucket.upload_part("m", upload, number, sent())

    await bucket.complete_upload("m", upload, [await part(1), await part(2)])
    reader = await bucket.get("m", None, None)
    async for _ in reader.body:
        assert count_open(opened) <= 1
    assert (len(opened), count_open(opened)) == (2, 0)
    assert len(await content(bucket, "m")) == 10 * MIB


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reader_whose_task_is_cancelled_twice_leaves_nothing(
    bucket: Bucket, tmp_path: Path, anyio_backend: str
) -> None:
    """As at the end of a session: no shield of anyio's holds `task.cancel()` back."""
    opened = opened_by(bucket)
    await put(bucket, "a", b"x" * MIB)
    reader = await bucket.get("a", None, None)
    await bucket.delete(["a"])
    closing = asyncio.create_task(reader.body.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert count_open(opened) == 0
    # What was to be deleted is, by whoever writes or reads next.
    await bucket.delete(["other"])
    assert count_files(tmp_path / "bucket" / "blobs") == 0


async def test_a_reader_that_is_lost_sight_of_leaves_nothing(bucket: Bucket, tmp_path: Path) -> None:
    opened = opened_by(bucket)
    await put(bucket, "a", b"x" * MIB)
    reader = await bucket.get("a", None, None)
    del reader
    gc.collect()
    assert count_open(opened) == 0
    await bucket.delete(["a"])
    assert count_files(tmp_path / "bucket" / "blobs") == 0


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_a_client_that_leaves_objects_unread_leaves_nothing_on_the_disk(tmp_path: Path, channel: Any) -> None:
    blobs = tmp_path / ".capnweb" / "r2-bucket" / "blobs"
    async with proxy_server_in(tmp_path, BUCKET=TABLE) as url, connect_env(url) as env:
        await env.BUCKET.put("a", b"x" * 3 * MIB)
        async with connect_env(url, channel=channel) as leaving:
            unread = [await leaving.BUCKET.get("a") for _ in range(60)]
            await env.BUCKET.put("a", b"new")
        assert len(unread) == 60
        with anyio.fail_after(20):
            while count_files(blobs) > 1:
                await env.BUCKET.delete("other")
        assert await (await env.BUCKET.get("a")).text() == "new"
