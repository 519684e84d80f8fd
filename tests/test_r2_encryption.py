"""Objects that are encrypted with keys of their writers: what is kept of them, and who can read it."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from buckets import S3, STORES, Azure, azure_server, body, empty_store, files, put, read, s3_server

from proxy_server.stores.r2 import ByteRange, Metadata, R2Store, RangeRequest, Start
from proxy_server.stores.r2_errors import BadDigest, EncryptionNotApplicable, KeyRequired, NotSupported, WrongKey
from proxy_server.stores.r2_files import FileBlobs
from proxy_server.stores.r2_parts import Blob
from proxy_server.stores.r2_sealing import SealedReader

pytestmark = pytest.mark.anyio

KIB = 1024
MIB = 1024 * 1024
KEY = bytes(range(32))
KEY_MD5 = base64.b64encode(hashlib.md5(KEY, usedforsecurity=False).digest()).decode()
OTHER = bytes(32)


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


def bytes_of(size: int) -> bytes:
    """Content of which no two places look the same."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


def only_blob(folder: Path) -> Path:
    """The file with the content of a bucket that has one object."""
    [path] = (path for path in (folder / "blobs").rglob("*") if path.is_file())
    return path


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def decrypted(store: R2Store, key: str, wanted: RangeRequest | None = None, encryption: bytes = KEY) -> bytes:
    return await read((await store.get(key, None, wanted, encryption)).body)


@pytest.mark.parametrize("size", [0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 128 * KIB, 300 * KIB + 7])
async def test_what_is_encrypted_is_read_with_the_key(store: R2Store, size: int) -> None:
    content = bytes_of(size)
    info = await put(store, "a", content, encryption=KEY)
    assert (info.size, info.key_md5) == (size, KEY_MD5)
    assert await store.head("a") == info
    assert [listed.key_md5 for listed in await store.scan("", Start(), 10)] == [KEY_MD5]
    assert await decrypted(store, "a") == content


async def test_ranges_of_what_is_encrypted(store: R2Store) -> None:
    content = bytes_of(200 * KIB)
    await put(store, "a", content, encryption=KEY)
    chunk = 64 * KIB
    for first, last in [
        (0, 0),
        (chunk - 1, chunk),
        (chunk, 2 * chunk - 1),
        (5, 3 * chunk + 5),
        (len(content) - 1, len(content) - 1),
    ]:
        assert await decrypted(store, "a", f"bytes={first}-{last}") == content[first : last + 1]
    assert await decrypted(store, "a", ByteRange(suffix=70_000)) == content[-70_000:]


async def test_nothing_is_read_without_the_key(store: R2Store) -> None:
    await put(store, "a", b"content", encryption=KEY)
    with pytest.raises(KeyRequired):
        await store.get("a", None, None)
    with pytest.raises(WrongKey):
        await store.get("a", None, None, OTHER)
    await put(store, "plain", b"content")
    with pytest.raises(EncryptionNotApplicable):
        await store.get("plain", None, None, KEY)
    await put(store, "a", b"plain again")
    assert await read((await store.get("a", None, None)).body) == b"plain again"


async def test_a_multipart_upload_is_encrypted_part_by_part(store: R2Store) -> None:
    upload = await store.create_upload("m", Metadata(), KEY)
    with pytest.raises(KeyRequired):
        await store.upload_part("m", upload, 1, body(b"x"))
    with pytest.raises(WrongKey):
        await store.upload_part("m", upload, 1, body(b"x"), None, OTHER)
    content = bytes_of(5 * MIB)
    first = await store.upload_part("m", upload, 1, body(content), None, KEY)
    last = await store.upload_part("m", upload, 2, body(b"end"), None, KEY)
    info = await store.complete_upload("m", upload, [(1, first), (2, last)])
    assert info.key_md5 == KEY_MD5
    assert await decrypted(store, "m", ByteRange(offset=5 * MIB - 70_000)) == content[-70_000:] + b"end"
    with pytest.raises(KeyRequired):
        await store.get("m", None, None)
    plain = await store.create_upload("m", Metadata())
    with pytest.raises(EncryptionNotApplicable):
        await store.upload_part("m", plain, 1, body(b"x"), None, KEY)


async def test_a_checksum_is_of_what_was_sent(store: R2Store) -> None:
    digest = hashlib.sha256(b"content").digest()
    info = await put(store, "a", b"content", encryption=KEY, checksums={"sha256": digest})
    assert info.checksums == {"sha256": digest.hex()}
    with pytest.raises(BadDigest):
        await put(store, "a", b"other", encryption=KEY, checksums={"sha256": digest})


async def test_neither_content_nor_key_is_in_the_folder(tmp_path: Path) -> None:
    content = b"nobody may read this" * 10_000
    async with files(tmp_path) as bucket:
        infos = [await put(bucket, "a", content, encryption=KEY) for _ in range(2)]
        upload = await bucket.create_upload("m", Metadata(), KEY)
        await bucket.upload_part("m", upload, 1, body(content), None, KEY)
        kept = everything_in(tmp_path)
    assert len(kept) > 2 * len(content)
    md5 = hashlib.md5(content, usedforsecurity=False)
    secrets = [b"nobody may", KEY, KEY.hex().encode(), base64.b64encode(KEY), md5.digest(), md5.hexdigest().encode()]
    assert [secret for secret in secrets if secret in kept] == []
    assert infos[0].etag != infos[1].etag


@pytest.mark.parametrize("damage", ["changed", "cut off", "chunk left out", "chunks exchanged"])
async def test_content_that_was_damaged_is_not_read(tmp_path: Path, damage: str) -> None:
    sealed = 64 * KIB + 16
    async with files(tmp_path) as bucket:
        await put(bucket, "a", bytes_of(3 * 64 * KIB), encryption=KEY)
        path = only_blob(tmp_path)
        kept = path.read_bytes()
        path.write_bytes(
            {
                "changed": bytes([kept[0] ^ 1]) + kept[1:],
                "cut off": kept[: 2 * sealed],
                "chunk left out": kept[sealed:],
                "chunks exchanged": kept[sealed : 2 * sealed] + kept[:sealed] + kept[2 * sealed :],
            }[damage]
        )
        with pytest.raises(OSError, match="encrypted content was damaged"):
            await decrypted(bucket, "a")


async def test_content_is_not_read_as_if_it_were_shorter(tmp_path: Path) -> None:
    async with files(tmp_path) as bucket:
        await put(bucket, "a", bytes_of(2 * 64 * KIB), encryption=KEY)
    path = only_blob(tmp_path)
    blobs = FileBlobs(tmp_path)
    reader = SealedReader(blobs, Blob(path.name, 64 * KIB), KEY, 0, 64 * KIB)
    with pytest.raises(OSError, match="encrypted content was damaged"):
        reader.read()
    reader.close()
    blobs.close()


async def test_a_server_that_cannot_encrypt_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    async with files(tmp_path) as bucket:
        with pytest.raises(NotSupported, match=r"capnweb-py\[encryption\]"):
            await put(bucket, "a", b"content", encryption=KEY)
        assert await bucket.head("a") is None
