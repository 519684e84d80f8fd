"""The embedded store of hosted images: what it keeps, in which order, and what a crash leaves of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from proxy_server.stores import images_files
from proxy_server.stores.images import Changes, Draft, HostedImage, Position, Selection
from proxy_server.stores.images_files import FileImageStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "images"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[FileImageStore]:
    opened = FileImageStore(path)
    yield opened
    await opened.aclose()


def image(image_id: str, uploaded: int = 0, **known: object) -> HostedImage:
    return HostedImage(image_id, uploaded, f"{image_id}.png", **known)  # type: ignore[arg-type]


async def content(store: FileImageStore, image_id: str) -> bytes | None:
    stream = await store.data(image_id)
    return None if stream is None else b"".join([piece async for piece in stream])


async def ids(store: FileImageStore, **selection: object) -> list[str]:
    return [image.id for image in await store.select(Selection(**{"limit": 10, **selection}))]  # type: ignore[arg-type]


def files(path: Path) -> list[Path]:
    return sorted(path.iterdir())


async def test_a_file_that_was_read_stays_at_its_end(store: FileImageStore) -> None:
    await store.add(image("a"), b"x")
    stream = await store.data("a")
    assert stream is not None
    pieces = aiter(stream)
    assert [await anext(pieces, b"") for _ in range(3)] == [b"x", b"", b""]


async def test_nothing_is_made_before_it_is_needed(path: Path) -> None:
    await FileImageStore(path).aclose()
    assert not path.parent.exists()


async def test_an_image_is_kept_with_all_that_is_known_of_it(store: FileImageStore) -> None:
    kept = image("a/ü", 5, require_signed_urls=True, meta={"k": [1, None, "ü"]}, creator="me")
    data = bytes(range(256)) * 1000
    assert await store.add(kept, data)
    assert await store.details("a/ü") == kept
    assert await content(store, "a/ü") == data


async def test_what_was_added_is_there_after_a_restart(path: Path, store: FileImageStore) -> None:
    await store.add(image("a"), b"data")
    # Not closed: as after the end of its process.
    again = FileImageStore(path)
    assert await again.details("a") == image("a")
    assert await content(again, "a") == b"data"
    await again.aclose()


async def test_an_id_is_given_once_and_the_first_image_stays(path: Path, store: FileImageStore) -> None:
    assert await store.add(image("a", 1), b"first")
    assert not await store.add(image("a", 2), b"second")
    assert await store.details("a") == image("a", 1)
    assert await content(store, "a") == b"first"
    assert len(files(path)) == 1


async def test_what_there_is_not(store: FileImageStore) -> None:
    assert await store.details("a") is None
    assert await store.data("a") is None
    assert await store.update("a", Changes(creator="me")) is None
    assert not await store.delete("a")


@pytest.mark.parametrize("image_id", ["../../escaped", "/etc/passwd", "..", "a\0b", "x" * 1024, "con", "a'b\"; --"])
async def test_no_id_is_a_path(path: Path, store: FileImageStore, image_id: str) -> None:
    before = {file for file in path.parent.parent.rglob("*") if not file.is_relative_to(path.parent)}
    await store.add(image(image_id), b"data")
    assert await content(store, image_id) == b"data"
    assert all(len(file.name) == 32 and file.name.isalnum() for file in files(path))
    assert {file for file in path.parent.parent.rglob("*") if not file.is_relative_to(path.parent)} == before


async def test_changes_leave_alone_what_they_do_not_name(store: FileImageStore) -> None:
    await store.add(image("a", meta={"k": 1}, creator="me"), b"data")
    await store.add(image("b", meta={"k": 1}, creator="me"), b"data")
    assert await store.update("a", Changes()) == image("a", meta={"k": 1}, creator="me")
    assert await store.update("a", Changes(meta={})) == image("a", creator="me")
    assert await store.update("a", Changes(creator="you")) == image("a", creator="you")
    changed = await store.update("a", Changes(require_signed_urls=True))
    assert changed == image("a", creator="you", require_signed_urls=True) == await store.details("a")
    assert await store.details("b") == image("b", meta={"k": 1}, creator="me")


async def test_deleting_removes_the_file_too(path: Path, store: FileImageStore) -> None:
    await store.add(image("a"), b"data")
    assert await store.delete("a")
    assert not await store.delete("a")
    assert await store.details("a") is None
    assert files(path) == []


async def test_deleting_does_not_disturb_who_reads(store: FileImageStore) -> None:
    data = bytes(200_000)
    await store.add(image("a"), data)
    stream = await store.data("a")
    assert stream is not None
    await store.delete("a")
    assert b"".join([piece async for piece in stream]) == data


async def test_a_stream_says_how_long_it_is_and_reads_in_pieces(store: FileImageStore) -> None:
    await store.add(image("a"), bytes(200_000))
    stream = await store.data("a")
    assert stream is not None
    assert stream.length == 200_000
    pieces = [len(piece) async for piece in stream]
    assert max(pieces) == 65_536


async def test_a_stream_that_is_not_read_holds_no_file(store: FileImageStore) -> None:
    await store.add(image("a"), bytes(200_000))
    opened = len(os.listdir("/proc/self/fd"))
    closed = await store.data("a")
    dropped = await store.data("a")
    assert closed is not None
    assert dropped is not None
    assert len(os.listdir("/proc/self/fd")) == opened + 2
    await closed.aclose()
    del dropped
    assert len(os.listdir("/proc/self/fd")) == opened


async def test_a_list_is_in_the_order_of_uploads(store: FileImageStore) -> None:
    for name, uploaded in (("c", 1), ("a", 2), ("b", 2), ("d", 3)):
        await store.add(image(name, uploaded, creator="me" if name in "ad" else None), b"")
    assert await ids(store) == ["c", "a", "b", "d"]
    assert await ids(store, newest_first=True) == ["d", "b", "a", "c"]
    assert await ids(store, limit=2) == ["c", "a"]
    assert await ids(store, after=Position(2, "a")) == ["b", "d"]
    assert await ids(store, after=Position(2, "a"), newest_first=True) == ["c"]
    assert await ids(store, creator="me") == ["a", "d"]
    assert await ids(store, creator="me", after=Position(2, "b")) == ["d"]
    # The image at the position need not be there any more.
    await store.delete("a")
    assert await ids(store, after=Position(2, "a")) == ["b", "d"]


async def test_a_crash_before_the_row_leaves_nothing_that_can_be_seen(
    path: Path, store: FileImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.add(image("kept"), b"kept")

    async def crash(*_arguments: object) -> None:
        raise SystemExit("the process ends here")

    monkeypatch.setattr(images_files.SqliteFile, "run", crash)
    monkeypatch.setattr(images_files.FileImageStore, "_discard_without_row", crash)
    with pytest.raises(SystemExit):
        await store.add(image("a"), b"half")
    monkeypatch.undo()
    assert len(files(path)) == 2
    for file in files(path):
        os.utime(file, (0, 0))
    again = FileImageStore(path)
    assert await ids(again) == ["kept"]
    assert await content(again, "kept") == b"kept"
    assert len(files(path)) == 1
    await again.aclose()


async def test_the_file_of_an_upload_that_is_under_way_is_left_alone(path: Path, store: FileImageStore) -> None:
    await store.add(image("a"), b"data")
    (path / ("0" * 32)).write_bytes(b"of another process")
    again = FileImageStore(path)
    assert await ids(again) == ["a"]
    assert len(files(path)) == 2
    await again.aclose()


async def test_an_upload_that_fails_leaves_no_file(
    path: Path, store: FileImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.add(image("a"), b"data")

    def full(file: Path, data: bytes) -> None:
        file.write_bytes(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images_files, "_write", full)
    with pytest.raises(OSError, match="No space left on device"):
        await store.add(image("b"), b"data")
    assert len(files(path)) == 1
    assert await store.details("b") is None


async def test_two_stores_of_one_folder_see_each_others_images(path: Path, store: FileImageStore) -> None:
    other = FileImageStore(path)
    outcomes: list[bool] = []

    async def add(through: FileImageStore) -> None:
        outcomes.append(await through.add(image("a"), b"data"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(add, store)
        tasks.start_soon(add, other)
    assert sorted(outcomes) == [False, True]
    assert await store.details("a") == await other.details("a") == image("a")
    assert len(files(path)) == 1
    await other.aclose()


# Drafts


def draft(image_id: str, ticket: str = "ticket", expires: int = 1 << 62) -> Draft:
    return Draft(HostedImage(image_id, 1, None, creator="me", draft=True), ticket, expires)


async def test_a_draft_is_known_and_not_listed_and_has_no_bytes(store: FileImageStore) -> None:
    assert await store.reserve(draft("a"))
    assert await store.details("a") == draft("a").image == await store.drafted("ticket")
    assert await store.data("a") is None
    assert await ids(store) == []


async def test_a_draft_becomes_an_image_once(path: Path, store: FileImageStore) -> None:
    await store.reserve(draft("a"))
    filled = HostedImage("a", 7, "x.png", creator="me")
    assert await store.fill("ticket", "x.png", 7, b"first") == filled == await store.details("a")
    assert await store.drafted("ticket") is None
    assert await store.fill("ticket", "x.png", 8, b"second") is None
    assert (await content(store, "a"), await ids(store), len(files(path))) == (b"first", ["a"], 1)


async def test_of_two_uploads_at_a_time_one_is_kept(path: Path, store: FileImageStore) -> None:
    await store.reserve(draft("a"))
    filled: list[HostedImage | None] = []

    async def fill(data: bytes) -> None:
        filled.append(await store.fill("ticket", "x.png", 7, data))

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(fill, bytes([number]))
    assert filled.count(None) == 4
    assert len(files(path)) == 1


async def test_the_id_of_a_draft_is_taken_until_it_expires(store: FileImageStore) -> None:
    assert await store.add(image("old"), b"data")
    assert not await store.reserve(draft("old"))
    assert await store.reserve(draft("a"))
    assert not await store.reserve(draft("a", "another ticket"))
    assert not await store.add(image("a"), b"data")
    assert await store.reserve(draft("b", "over", expires=1))
    assert await store.add(image("b"), b"data")


async def test_a_draft_that_has_expired_is_none(path: Path, store: FileImageStore) -> None:
    assert await store.reserve(draft("a", expires=1))
    assert await store.details("a") is None
    assert await store.drafted("ticket") is None
    assert await store.fill("ticket", "x.png", 7, b"data") is None
    assert not await store.delete("a")
    assert files(path) == []


async def test_a_draft_is_changed_and_deleted(store: FileImageStore) -> None:
    await store.reserve(draft("a"))
    changed = await store.update("a", Changes(meta={"k": 1}))
    assert changed is not None
    assert (changed.draft, changed.meta) == (True, {"k": 1})
    assert await store.delete("a")
    assert await store.fill("ticket", "x.png", 7, b"data") is None


async def test_the_key_of_a_store_stays_the_same(path: Path, store: FileImageStore) -> None:
    again = FileImageStore(path)
    assert await again.signing_key() == await store.signing_key()
    assert len(await again.signing_key()) == 32
    await again.aclose()
