"""The facade of a bucket: the same use over both channels of our proxy, and against the proxy Worker of Wrangler.

That Worker has the bucket as it is when it is deployed: "raw", the service of Miniflare's simulator behind the binding.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from proxying import serving

from capnweb_py.bindings.r2 import (
    R2Bucket,
    R2Conditional,
    R2Error,
    R2HttpMetadata,
    R2Object,
    R2ObjectBody,
    R2Range,
    R2UploadedPart,
    RangeError,
)
from capnweb_py.remote import connect_env
from capnweb_py.web import Blob, Headers, ReadableStream

from .runtime import cloudflare_proxy

pytestmark = pytest.mark.anyio

MIB: Final = 1024 * 1024
KEY: Final = bytes(range(32))
HTTP: Final = R2HttpMetadata(
    "text/plain", "fi", "inline", "gzip", "no-store", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
)


@pytest.fixture(scope="module")
def our_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("r2")
    config = folder / "capnweb.toml"
    config.write_text(f'[server]\nstate_dir = "{folder}/state"\n[bindings.BUCKET]\ntype = "r2_bucket"\n')
    with serving(config) as server:
        yield server.url


@pytest.fixture(scope="module")
def cloudflare_url(node: str) -> Iterator[str]:
    with cloudflare_proxy(node, r2Buckets={"BUCKET": {"id": "bucket"}}) as url:
        yield url


@pytest.fixture(params=["http", "rpc", "cloudflare"])
def way(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
async def bucket(request: pytest.FixtureRequest, way: str) -> AsyncIterator[R2Bucket]:
    """An empty bucket."""
    url: str = request.getfixturevalue("cloudflare_url" if way == "cloudflare" else "our_url")
    channel: Any = "rpc" if way == "rpc" else "http"
    async with connect_env(url, bindings={"BUCKET": "r2_bucket"}, channel=channel) as env:
        keys = [obj.key for obj in (await env.BUCKET.list()).objects]
        await env.BUCKET.delete(keys)
        yield env.BUCKET


async def content(bucket: R2Bucket, key: str, **options: Any) -> bytes:
    obj = await bucket.get(key, **options)
    assert isinstance(obj, R2ObjectBody)
    return await obj.bytes()


async def pieces(size: int, byte: bytes = b"x") -> AsyncIterator[bytes]:
    for start in range(0, size, MIB):
        yield byte * min(MIB, size - start)


async def test_what_is_put_is_got(bucket: R2Bucket) -> None:
    put = await bucket.put("ä/b", b"content", http_metadata=HTTP, custom_metadata={"Name": "ü"})
    assert put is not None
    async with await bucket.get("ä/b") as obj:  # type: ignore[union-attr]
        assert isinstance(obj, R2ObjectBody)
        chunks = [chunk async for chunk in obj]
    assert b"".join(chunks) == b"content"
    assert (obj.key, obj.size, obj.version, obj.etag) == ("ä/b", 7, put.version, put.etag)
    assert (obj.http_metadata, obj.custom_metadata, obj.storage_class) == (HTTP, {"Name": "ü"}, "Standard")
    assert obj.checksums.md5 == hashlib.md5(b"content", usedforsecurity=False).digest()
    assert obj.http_etag == f'"{obj.checksums.md5.hex()}"'
    assert abs(obj.uploaded - datetime.now(UTC)) < timedelta(minutes=1)
    assert obj.range == R2Range(0, 7)


async def test_head_is_the_object_without_its_content(bucket: R2Bucket) -> None:
    put = await bucket.put("a", "text")
    head = await bucket.head("a")
    assert type(head) is R2Object
    assert put is not None
    assert (head.version, head.http_metadata, head.custom_metadata) == (put.version, R2HttpMetadata(), {})


async def test_what_is_not_there_is_none(bucket: R2Bucket) -> None:
    assert await bucket.head("none") is None
    assert await bucket.get("none") is None
    await bucket.delete("none")


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("ü", "ü".encode()),
        ("", b""),
        (None, b""),
        (bytearray(b"\0\xff"), b"\0\xff"),
        (memoryview(b"view"), b"view"),
        (Blob(b"blob", "a/b"), b"blob"),
        # Over RPC, what is larger than a message goes as a stream.
        (b"x" * 70_000, b"x" * 70_000),
    ],
    ids=["text", "empty", "none", "bytearray", "view", "blob", "large"],
)
async def test_values(bucket: R2Bucket, value: Any, stored: bytes) -> None:
    await bucket.put("a", value)
    assert await content(bucket, "a") == stored


async def test_readers(bucket: R2Bucket) -> None:
    await bucket.put("a", '{"a": [1]}', http_metadata=R2HttpMetadata(content_type="application/json"))
    first, second, third = [await bucket.get("a") for _ in range(3)]
    assert isinstance(first, R2ObjectBody)
    assert isinstance(second, R2ObjectBody)
    assert isinstance(third, R2ObjectBody)
    assert not first.body_used
    assert await first.json() == {"a": [1]}
    assert first.body_used
    with pytest.raises(TypeError, match="Body has already been used"):
        await first.text()
    assert await second.text() == '{"a": [1]}'
    blob = await third.blob()
    assert (blob.type, await blob.text()) == ("application/json", '{"a": [1]}')


async def test_streams_there_and_back(bucket: R2Bucket) -> None:
    size = 3 * MIB + 3
    await bucket.put("large", pieces(size), length=size)
    obj = await bucket.get("large")
    assert isinstance(obj, R2ObjectBody)
    assert obj.size == size
    received = 0
    async for chunk in obj:
        assert chunk.strip(b"x") == b""
        received += len(chunk)
    assert received == size


async def test_a_stream_needs_a_length(bucket: R2Bucket) -> None:
    with pytest.raises(TypeError, match="must have a known length"):
        await bucket.put("a", pieces(3))
    await bucket.put("a", ReadableStream(pieces(3), length=3))
    assert await content(bucket, "a") == b"xxx"


async def test_a_stream_that_fails_writes_nothing(bucket: R2Bucket) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * MIB
        raise LookupError("on purpose")

    await bucket.put("a", "old")
    with pytest.raises(Exception, match="on purpose"):
        await bucket.put("a", failing(), length=2 * MIB)
    assert await content(bucket, "a") == b"old"


async def test_ranges(bucket: R2Bucket) -> None:
    await bucket.put("a", "0123456789")
    assert await content(bucket, "a", range=R2Range(offset=2, length=3)) == b"234"
    assert await content(bucket, "a", range=R2Range(offset=8)) == b"89"
    assert await content(bucket, "a", range=R2Range(length=2)) == b"01"
    assert await content(bucket, "a", range=R2Range(suffix=3)) == b"789"
    assert await content(bucket, "a", range=Headers({"Range": "bytes=1-2"})) == b"12"
    obj = await bucket.get("a", range=R2Range(suffix=3))
    assert isinstance(obj, R2ObjectBody)
    assert (obj.range, obj.size) == (R2Range(7, 3), 10)
    await obj.aclose()


async def test_bad_ranges(bucket: R2Bucket) -> None:
    await bucket.put("a", "0123456789")
    with pytest.raises(R2Error, match=r"^get: The requested range is not satisfiable \(10039\)$") as caught:
        await bucket.get("a", range=R2Range(offset=11))
    assert (caught.value.code, caught.value.action) == (10039, "get")
    with pytest.raises(
        RangeError, match=r"^Invalid range. Starting offset \(-1\) must be greater than or equal to 0.$"
    ):
        await bucket.get("a", range=R2Range(offset=-1))
    with pytest.raises(TypeError, match=r"^Suffix is incompatible with offset.$"):
        await bucket.get("a", range=R2Range(offset=1, suffix=1))


async def test_an_option_of_another_type_is_told_by_its_name(bucket: R2Bucket) -> None:
    untyped: Any = bucket
    with pytest.raises(TypeError, match=r"^range has to be an R2Range or Headers, not dict$"):
        await untyped.get("a", range={"offset": 3})
    with pytest.raises(TypeError, match=r"^only_if has to be an R2Conditional or Headers, not str$"):
        await untyped.put("a", "text", only_if="etag")
    with pytest.raises(TypeError, match=r"^http_metadata has to be an R2HttpMetadata or Headers, not dict$"):
        await untyped.create_multipart_upload("a", http_metadata={"contentType": "text/plain"})


async def test_conditions(bucket: R2Bucket) -> None:
    put = await bucket.put("a", "one")
    assert put is not None
    assert await content(bucket, "a", only_if=R2Conditional(etag_matches=put.etag)) == b"one"
    unmet = await bucket.get("a", only_if=R2Conditional(etag_does_not_match=put.etag))
    assert type(unmet) is R2Object
    assert (unmet.etag, unmet.range) == (put.etag, R2Range(0, 3))
    unmodified = await bucket.get("a", only_if=Headers({"If-None-Match": f'"{put.etag}"'}))
    assert type(unmodified) is R2Object
    later = put.uploaded + timedelta(minutes=1)
    assert type(await bucket.get("a", only_if=R2Conditional(uploaded_after=later))) is R2Object
    assert await content(bucket, "a", only_if=R2Conditional(uploaded_before=later)) == b"one"
    assert await bucket.put("a", "two", only_if=R2Conditional(etag_does_not_match="*")) is None
    assert await content(bucket, "a") == b"one"
    with pytest.raises(TypeError, match=r'^Conditional ETag should not be wrapped in quotes \("x"\).$'):
        await bucket.get("a", only_if=R2Conditional(etag_matches='"x"'))


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
async def test_etags_in_headers(bucket: R2Bucket, header: str) -> None:
    put = await bucket.put("a", "one")
    assert put is not None
    for text in (f'"x" , {put.http_etag}', f",, {put.http_etag},", '"x", *', f"{put.http_etag}, bare"):
        obj = await bucket.get("a", only_if=Headers({header: text}))
        assert isinstance(obj, R2ObjectBody) == (header == "If-Match")
    for text, message in (
        (f'"{put.etag}', "Unclosed double quote for Etag"),
        ('"x" "y"', "Comma was expected to separate etags. Encountered a double quote character '\"' instead. This"),
        ('"x" W/"y"', "Comma was expected to separate etags. Encountered a weak quotation character 'W' instead. This"),
        ('"x" *', "Comma was expected to separate etags. Encountered a wildcard character '*' instead."),
        (f"W/{put.etag}", "Weak etags must start with W/ and their value must be quoted"),
        (put.etag, f"Invalid ETag in {header.lower()} header"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            await bucket.get("a", only_if=Headers({header: text}))


async def test_checksums(bucket: R2Bucket) -> None:
    digest = hashlib.sha256(b"content").digest()
    put = await bucket.put("a", "content", sha256=digest)
    assert put is not None
    assert put.checksums.sha256 == digest
    assert await bucket.put("a", "content", sha256=digest.hex())
    with pytest.raises(R2Error) as caught:
        await bucket.put("a", "other", sha256=digest)
    assert caught.value.code == 10037
    assert str(caught.value) == (
        "put: The SHA-256 checksum you specified did not match what we received.\n"
        f"You provided a SHA-256 checksum with value: {digest.hex()}\n"
        f"Actual SHA-256 was: {hashlib.sha256(b'other').hexdigest()} (10037)"
    )
    with pytest.raises(TypeError, match=r"^SHA-1 is 20 bytes, not 2$"):
        await bucket.put("a", "content", sha1=b"ab")
    with pytest.raises(TypeError, match=r"^You cannot specify multiple hashing algorithms.$"):
        await bucket.put("a", "content", sha256=digest, sha1=bytes(20))


async def test_encryption_with_a_key_of_the_writers(bucket: R2Bucket, way: str) -> None:
    put = await bucket.put("a", "content", ssec_key=KEY)
    assert await content(bucket, "a", ssec_key=KEY.hex()) == b"content"
    upload = await bucket.create_multipart_upload("m", ssec_key=KEY)
    obj = await upload.complete([await upload.upload_part(1, "parts", ssec_key=KEY)])
    assert await content(bucket, "m", ssec_key=KEY) == b"parts"
    for bad, message in ((b"short", "must be 32 bytes in length"), ("AB" * 32, "has invalid format")):
        with pytest.raises(ValueError, match=rf"^SSE-C Key {message}$"):
            await bucket.get("a", ssec_key=bad)
    with pytest.raises(TypeError, match=r"^ssec_key has to be bytes or a str, not int$"):
        await bucket.get("a", ssec_key=1)  # type: ignore[arg-type]
    if way == "cloudflare":
        # The simulator behind it takes the keys and encrypts nothing.
        return
    md5 = base64.b64encode(hashlib.md5(KEY, usedforsecurity=False).digest()).decode()
    assert put is not None
    assert [each.ssec_key_md5 for each in (put, obj, await bucket.head("a"))] == [md5] * 3  # type: ignore[union-attr]
    with pytest.raises(
        R2Error, match=r"^get: The object was stored using a form of Server Side Encryption.*\(10029\)$"
    ):
        await bucket.get("a")
    with pytest.raises(R2Error, match=r"^get: The provided encryption parameters did not match.*\(10003\)$"):
        await bucket.get("a", ssec_key=bytes(32))


async def test_listing(bucket: R2Bucket) -> None:
    for key in ("a", "b/1", "b/2", "c"):
        await bucket.put(key, key, custom_metadata={"key": key})
    page = await bucket.list(limit=2, delimiter="/")
    assert ([obj.key for obj in page.objects], page.delimited_prefixes, page.truncated) == (["a"], ["b/"], True)
    rest = await bucket.list(limit=2, delimiter="/", cursor=page.cursor)
    assert ([obj.key for obj in rest.objects], rest.truncated, rest.cursor) == (["c"], False, None)
    assert [obj.key for obj in (await bucket.list(prefix="b/", start_after="b/1")).objects] == ["b/2"]


async def test_a_listing_includes_what_is_asked_for(bucket: R2Bucket) -> None:
    await bucket.put("a", "x", http_metadata=R2HttpMetadata(content_type="a/b"), custom_metadata={"a": "1"})
    [plain] = (await bucket.list()).objects
    assert (plain.http_metadata, plain.custom_metadata) == (None, None)
    [custom] = (await bucket.list(include=["customMetadata"])).objects
    assert (custom.http_metadata, custom.custom_metadata) == (None, {"a": "1"})
    with pytest.raises(TypeError, match="Did you forget to add 'httpMetadata' to `include` when listing"):
        custom.write_http_metadata(Headers())
    [http] = (await bucket.list(include=["httpMetadata"])).objects
    headers = Headers()
    http.write_http_metadata(headers)
    assert headers == Headers({"content-type": "a/b"})
    with pytest.raises(RangeError, match=r"^Unsupported include value nonsense$"):
        await bucket.list(include=["nonsense"])


async def test_deleting(bucket: R2Bucket) -> None:
    for key in ("a", "b", "c"):
        await bucket.put(key, key)
    await bucket.delete("a")
    await bucket.delete(["b", "none"])
    assert [obj.key for obj in (await bucket.list()).objects] == ["c"]


async def test_multipart(bucket: R2Bucket) -> None:
    upload = await bucket.create_multipart_upload("m", http_metadata=HTTP, custom_metadata={"a": "1"})
    first = await upload.upload_part(1, pieces(5 * MIB), length=5 * MIB)
    last = await bucket.resume_multipart_upload("m", upload.upload_id).upload_part(2, "end")
    assert await bucket.head("m") is None
    obj = await upload.complete([first, last])
    md5s = [hashlib.md5(data, usedforsecurity=False).digest() for data in (b"x" * 5 * MIB, b"end")]
    assert obj.etag == hashlib.md5(b"".join(md5s), usedforsecurity=False).hexdigest() + "-2"
    assert (obj.size, obj.http_metadata, obj.custom_metadata) == (5 * MIB + 3, HTTP, {"a": "1"})
    assert await content(bucket, "m", range=R2Range(offset=5 * MIB - 2, length=4)) == b"xxen"


async def test_multipart_errors(bucket: R2Bucket) -> None:
    upload = await bucket.create_multipart_upload("m")
    part = await upload.upload_part(1, "small")
    second = await upload.upload_part(2, "small")
    with pytest.raises(R2Error, match=r"^completeMultipartUpload: Your proposed upload is smaller.* \(10011\)$"):
        await upload.complete([part, second])
    with pytest.raises(R2Error, match=r"^completeMultipartUpload: One or more of the specified parts.* \(10025\)$"):
        await upload.complete([R2UploadedPart(1, "wrong")])
    with pytest.raises(
        TypeError, match=r"^Part number must be between 1 and 10000 \(inclusive\). Actual value was: 0$"
    ):
        await upload.upload_part(0, "x")
    await upload.abort()
    await upload.abort()
    with pytest.raises(R2Error, match=r"^uploadPart: The specified multipart upload does not exist. \(10024\)$"):
        await upload.upload_part(1, "x")


async def test_a_key_that_is_too_long(bucket: R2Bucket) -> None:
    for use in (bucket.head, bucket.get, bucket.delete):
        with pytest.raises(R2Error, match=r"^\w+: The specified object name is not valid. \(10020\)$"):
            await use("k" * 1025)
    with pytest.raises(R2Error, match=r"^put: The specified object name is not valid. \(10020\)$"):
        await bucket.put("k" * 1025, pieces(3 * MIB), length=3 * MIB)


async def test_a_limit_that_is_none(bucket: R2Bucket) -> None:
    with pytest.raises(R2Error, match=r"^list: MaxKeys params must be positive integer <= 1000. \(10022\)$"):
        await bucket.list(limit=1001)


async def test_arguments_of_other_types(bucket: R2Bucket) -> None:
    with pytest.raises(TypeError, match="value has to be a str, bytes"):
        await bucket.put("a", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="key has to be a str, not int"):
        await bucket.head(1)  # type: ignore[arg-type]
