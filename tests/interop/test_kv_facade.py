"""The facade of a KV namespace: over both channels of our proxy, and over the proxy Worker that npm wrangler ships.

There the namespace is Miniflare's simulator, bound as Cloudflare's deployment binds it (runtime.mjs, "raw").
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from proxying import serving

from capnweb_py.bindings.kv import KvError, KvKey, KvListResult, KvNamespace, KvValue
from capnweb_py.remote import connect_env
from capnweb_py.web import ReadableStream

from .runtime import cloudflare_proxy

pytestmark = pytest.mark.anyio

MIB: Final = 1024 * 1024


@pytest.fixture(scope="module")
def our_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config: Path = tmp_path_factory.mktemp("kv") / "capnweb.toml"
    config.write_text('[bindings.KV]\ntype = "kv_namespace"\n')
    with serving(config) as server:
        yield server.url


@pytest.fixture(scope="module")
def cloudflare_url(node: str) -> Iterator[str]:
    with cloudflare_proxy(node, kvNamespaces={"KV": {"id": "kv"}}) as url:
        yield url


@pytest.fixture(params=["http", "rpc", "cloudflare"])
async def kv(request: pytest.FixtureRequest) -> AsyncIterator[KvNamespace]:
    way: str = request.param
    url: str = request.getfixturevalue("cloudflare_url" if way == "cloudflare" else "our_url")
    channel = "rpc" if way == "rpc" else "http"
    async with connect_env(url, bindings={"KV": "kv_namespace"}, channel=channel) as env:
        yield env.KV


@pytest.fixture
def key() -> str:
    """A key that no other test has, and that no address may be confused by."""
    return f"a/b?ü%2F #{secrets.token_hex(8)}"


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(stream: ReadableStream[bytes] | None) -> bytes:
    assert stream is not None
    return b"".join([chunk async for chunk in stream])


async def thrown(coroutine: Any) -> str:
    with pytest.raises(KvError) as error:
        await coroutine
    assert str(error.value.status) in str(error.value)
    return str(error.value)


async def test_a_value_is_read_as_every_type(kv: KvNamespace, key: str) -> None:
    await kv.put(key, '{"a": [1, null, "ü"]}')
    assert await kv.get(key) == '{"a": [1, null, "ü"]}'
    assert await kv.get(key, "text") == '{"a": [1, null, "ü"]}'
    assert await kv.get(key, "json") == {"a": [1, None, "ü"]}
    assert await kv.get(key, "bytes") == '{"a": [1, null, "ü"]}'.encode()
    assert await read(await kv.get(key, "stream")) == '{"a": [1, null, "ü"]}'.encode()
    assert await kv.get(key, cache_ttl=60) is not None


async def test_what_is_not_there_is_none(kv: KvNamespace, key: str) -> None:
    assert await kv.get(key) is None
    assert await kv.get(key, "stream") is None
    assert await kv.get_with_metadata(key) == KvValue(None)
    await kv.delete(key)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("", b""),
        ("ü€\U0001f600", "ü€\U0001f600".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abc")[1:], b"bc"),
    ],
)
async def test_text_and_bytes_are_stored(kv: KvNamespace, key: str, value: Any, stored: bytes) -> None:
    await kv.put(key, value)
    assert await kv.get(key, "bytes") == stored


async def test_streams_are_stored(kv: KvNamespace, key: str) -> None:
    await kv.put(key, pieces(b"one ", b"two"))
    assert await kv.get(key) == "one two"
    await kv.put(key, ReadableStream(pieces()))
    assert await kv.get(key) == ""
    assert await read(await kv.get(key, "stream")) == b""


@pytest.mark.parametrize("kv", ["http", "rpc"], indirect=True)
async def test_a_stream_that_fails_changes_nothing(kv: KvNamespace, key: str) -> None:
    """The simulator may take a request that breaks off for one that has ended."""

    async def failing() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("the source broke")

    await kv.put(key, "before")
    with pytest.raises(RuntimeError, match="the source broke"):
        await kv.put(key, failing())
    assert await kv.get(key) == "before"


async def test_what_is_no_utf_8_is_read_with_replacements(kv: KvNamespace, key: str) -> None:
    await kv.put(key, b"a\xffb")
    assert await kv.get(key) == "a\ufffdb"


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_largest_value_fits(kv: KvNamespace, key: str, streamed: bool) -> None:
    value = secrets.token_bytes(MIB) * 25
    await kv.put(
        key, pieces(*(value[start : start + MIB] for start in range(0, len(value), MIB))) if streamed else value
    )
    whole = await kv.get(key, "bytes")
    assert whole is not None
    assert hashlib.sha256(whole).digest() == hashlib.sha256(value).digest()
    received = hashlib.sha256()
    stream = await kv.get(key, "stream")
    assert stream is not None
    async for chunk in stream:
        received.update(chunk)
    assert received.digest() == hashlib.sha256(value).digest()
    await kv.delete(key)
    assert await kv.get(key) is None


async def test_a_value_too_large_is_refused(kv: KvNamespace, key: str) -> None:
    message = "KV PUT failed: 413 Value length of 26214401 exceeds limit of 26214400."
    assert await thrown(kv.put(key, bytes(25 * MIB + 1))) == message
    assert await thrown(kv.put(key, pieces(*[bytes(MIB)] * 25, b"x"))) == message
    assert await kv.get(key) is None


async def test_metadata_comes_with_the_value(kv: KvNamespace, key: str) -> None:
    for metadata in ({"a": [1, "ü€\U0001f600"]}, "text", 0, False, [None], {"del": "\x7f\t\n"}, {"lone": "\ud800"}):
        await kv.put(key, b"v", metadata=metadata)
        assert await kv.get_with_metadata(key) == KvValue("v", metadata)
        assert (await kv.list(prefix=key)).keys == [KvKey(key, None, metadata)]
    found = await kv.get_with_metadata(key, "stream")
    assert (await read(found.value), found.metadata) == (b"v", {"lone": "\ud800"})
    await kv.put(key, "v")
    assert await kv.get_with_metadata(key, "bytes") == KvValue(b"v", None)


async def test_metadata_has_a_limit(kv: KvNamespace, key: str) -> None:
    await kv.put(key, "v", metadata="ü" * 511)
    message = "KV PUT failed: 413 Metadata length of 1026 exceeds limit of 1024."
    assert await thrown(kv.put(key, "v", metadata="ü" * 512)) == message


async def test_expirations_are_listed(kv: KvNamespace, key: str) -> None:
    later = int(time.time()) + 5000
    await kv.put(key, "v", expiration=later)
    assert (await kv.list(prefix=key)).keys == [KvKey(key, later)]
    await kv.put(key, "v", expiration=later, expiration_ttl=100_000)
    listed = (await kv.list(prefix=key)).keys[0].expiration
    assert listed is not None
    assert 0 <= listed - (later + 95_000) < 30
    assert await kv.get(key) == "v"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expiration_ttl": 59}, "Invalid expiration_ttl of 59. Expiration TTL must be at least 60."),
        ({"expiration_ttl": 0}, "Invalid expiration_ttl of 0. Please specify integer greater than 0."),
        (
            {"expiration": 1000},
            "Invalid expiration of 1000. Please specify integer greater than the current number of seconds since the"
            " UNIX epoch.",
        ),
    ],
)
async def test_a_bad_expiration_is_refused(kv: KvNamespace, key: str, options: dict[str, int], message: str) -> None:
    assert await thrown(kv.put(key, "v", **options)) == f"KV PUT failed: 400 {message}"


async def test_listing_goes_page_by_page(kv: KvNamespace, key: str) -> None:
    names = [f"{key}{number}" for number in range(7)]
    for name in names:
        await kv.put(name, "")
    found = []
    cursor = None
    for size, complete in ((3, False), (3, False), (1, True)):
        page = await kv.list(prefix=key, limit=3, cursor=cursor)
        assert (len(page.keys), page.list_complete, page.cursor is None) == (size, complete, complete)
        found += [one.name for one in page.keys]
        cursor = page.cursor
    assert found == names
    assert (await kv.list(prefix=key, limit=0)).list_complete
    assert await kv.list(prefix=f"{key}-") == KvListResult([], list_complete=True)


async def test_bad_lists_are_refused(kv: KvNamespace) -> None:
    over = "KV GET failed: 400 Invalid key_count_limit of 1001. Please specify an integer less than 1000."
    assert await thrown(kv.list(limit=1001)) == over
    long = "KV GET failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512."
    assert await thrown(kv.list(prefix="p" * 513)) == long


async def test_many_values_are_read_at_a_time(kv: KvNamespace, key: str) -> None:
    one, other, none = f"{key}1", f"{key}2", f"{key}3"
    await kv.put(one, '{"a": 1}', metadata={"m": 1})
    await kv.put(other, "2")
    assert await kv.get([one, other, none]) == {one: '{"a": 1}', other: "2", none: None}
    assert await kv.get((one, other, none), "json") == {one: {"a": 1}, other: 2, none: None}
    assert await kv.get_with_metadata([one, other, none], "json", cache_ttl=30) == {
        one: KvValue({"a": 1}, {"m": 1}),
        other: KvValue(2),
        none: KvValue(None),
    }


async def test_bad_bulk_reads_are_refused(kv: KvNamespace, key: str) -> None:
    await kv.put(key, "no json")
    failed = "KV GET_BULK failed: 400"
    assert await thrown(kv.get([])) == f"{failed} You must request a minimum of 1 key"
    assert len(await kv.get([f"{key}{number}" for number in range(100)])) == 100
    many = [f"{key}{number}" for number in range(101)]
    assert await thrown(kv.get(many)) == f"{failed} You can request a maximum of 100 keys"
    wrong = f"{failed} At least one of the requested keys corresponds to a non-json value"
    assert await thrown(kv.get([key], "json")) == wrong
    assert (
        await thrown(kv.get_with_metadata([key], "bytes"))
        == f'{failed} "bytes" is not a valid type. Use "json" or "text"'
    )
    assert await thrown(kv.get([""])) == f"{failed} Key names must not be empty"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "Key name cannot be empty."),
        (".", '"." is not allowed as a key name.'),
        ("..", '".." is not allowed as a key name.'),
    ],
)
async def test_some_keys_are_none(kv: KvNamespace, name: str, message: str) -> None:
    for use in (kv.get(name), kv.get_with_metadata(name), kv.put(name, "v"), kv.delete(name)):
        with pytest.raises(TypeError) as error:
            await use
        assert str(error.value) == message


async def test_keys_have_a_limit(kv: KvNamespace) -> None:
    longest = "ü" * 256
    await kv.put(longest, "v")
    assert await kv.get(longest) == "v"
    long = "failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512."
    assert await thrown(kv.get(longest + "x")) == f"KV GET {long}"
    assert await thrown(kv.put(longest + "x", "v")) == f"KV PUT {long}"
    assert await thrown(kv.delete(longest + "x")) == f"KV DELETE {long}"


async def test_uses_that_are_wrong_are_told(kv: KvNamespace, key: str) -> None:
    await kv.put(key, "no json")
    with pytest.raises(json.JSONDecodeError):
        await kv.get(key, "json")
    with pytest.raises(TypeError, match='Possible types are "text"'):
        await kv.get(key, "blob")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"^value has to be a str, bytes, or an async iterable of bytes, not "):
        await kv.put(key, {"a": 1})  # type: ignore[arg-type]
    message = "KV GET failed: 400 Invalid cache_ttl of 5. Cache TTL must be at least 30."
    assert await thrown(kv.get(key, cache_ttl=5)) == message
    assert await kv.get(key) == "no json"
