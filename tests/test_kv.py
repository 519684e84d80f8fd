"""The KV binding without a runtime: its requests on a clock that the test turns, its configuration, and what is put
before a store."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import sqlite3
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

import anyio
import httpx2
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from proxying import ROOT, serving

from capnweb_py import open_session
from capnweb_py.bindings.channels import ProxyAddress
from capnweb_py.bindings.kv import KvError, KvKey, KvNamespace, KvValue
from capnweb_py.remote import Env, connect_env
from capnweb_py.web import ReadableStream, Request, Response
from proxy_server.bindings import Opener, parse_binding
from proxy_server.bindings.kv import KvBinding, over, overlay_path
from proxy_server.bindings.kv_rules import MAX_BULK_KEYS
from proxy_server.stores.kv_sqlite import SqliteKv
from proxy_server.tables import ConfigError, Table

pytestmark = pytest.mark.anyio

NOW: Final = 1_000_000


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def binding(tmp_path: Path, clock: Clock) -> AsyncIterator[KvBinding]:
    namespace = KvBinding(await SqliteKv.open(tmp_path / "kv.sqlite3", clock), clock)
    yield namespace
    await namespace.aclose()


async def ask(
    binding: KvBinding, method: str, path: str, *, body: bytes | None = None, metadata: str | None = None
) -> Response:
    headers = {} if metadata is None else {"CF-KV-Metadata": metadata}
    return await binding.fetch(Request(f"https://fake-host/{path}", method=method, headers=headers, body=body))


async def put(binding: KvBinding, key: str, query: str = "", body: bytes = b"v") -> Response:
    return await ask(binding, "PUT", f"{quote(key, safe='')}?urlencoded=true{query}", body=body)


async def listed(binding: KvBinding) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = (await (await ask(binding, "GET", "")).json())["keys"]
    return keys


# Expirations


async def test_a_key_goes_when_its_ttl_is_over(binding: KvBinding, clock: Clock) -> None:
    assert (await put(binding, "k", "&expiration_ttl=60")).status == 200
    clock.now += 59.9
    assert await listed(binding) == [{"name": "k", "expiration": NOW + 60}]
    found = await ask(binding, "GET", "k?urlencoded=true")
    assert (await found.bytes(), found.headers["CF-Expiration"]) == (b"v", str(NOW + 60))
    clock.now = NOW + 60.0
    assert await listed(binding) == []
    assert (await ask(binding, "GET", "k?urlencoded=true")).status == 404


async def test_a_key_goes_at_its_expiration(binding: KvBinding, clock: Clock) -> None:
    assert (await put(binding, "k", f"&expiration={NOW + 60}")).status == 200
    clock.now += 60
    assert (await ask(binding, "GET", "k?urlencoded=true")).status == 404


async def test_a_put_without_expiration_keeps_the_key(binding: KvBinding, clock: Clock) -> None:
    await put(binding, "k", "&expiration_ttl=60")
    await put(binding, "k")
    clock.now += 1000
    assert await listed(binding) == [{"name": "k"}]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("expiration_ttl=59", "Invalid expiration_ttl of 59. Expiration TTL must be at least 60."),
        ("expiration_ttl=", "Invalid expiration_ttl of . Please specify integer greater than 0."),
        ("expiration_ttl=x", "Invalid expiration_ttl of x. Please specify integer greater than 0."),
        (
            f"expiration={NOW}",
            f"Invalid expiration of {NOW}. Please specify integer greater than the current number of seconds since the"
            " UNIX epoch.",
        ),
        (
            f"expiration={NOW + 59}",
            f"Invalid expiration of {NOW + 59}. Expiration times must be at least 60 seconds in the future.",
        ),
    ],
)
async def test_an_expiration_is_a_minute_away_at_least(binding: KvBinding, query: str, problem: str) -> None:
    refused = await put(binding, "k", f"&{query}")
    assert (refused.status, refused.status_text, await refused.text()) == (400, problem, problem)
    assert await listed(binding) == []


# What is wrong in a request


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("GET", "%80?urlencoded=true", 400, "Could not URL-decode key name"),
        ("PUT", "", 400, "Key names must not be empty"),
        ("DELETE", "%252e?urlencoded=true", 200, ""),
        ("GET", f"{'k' * 513}?urlencoded=true", 414, "UTF-8 encoded length of 513 exceeds key length limit of 512."),
        ("GET", "?key_count_limit=0", 400, "Invalid key_count_limit of 0. Please specify an integer greater than 0."),
        ("GET", "?key_count_limit=x", 400, "Invalid key_count_limit of NaN. Please specify an integer greater than 0."),
        ("GET", "?cursor=@", 400, "Invalid cursor"),
        ("GET", "k?cache_ttl=x", 400, "Invalid cache_ttl of NaN. Cache TTL must be at least 30."),
        ("GET", f"k?cache_ttl={'9' * 5000}", 404, "Not Found"),
        ("POST", "k", 405, "POST /k is nothing that a KV namespace answers"),
    ],
)
async def test_bad_requests_are_refused(binding: KvBinding, method: str, path: str, status: int, problem: str) -> None:
    answer = await ask(binding, method, path)
    assert (answer.status, await answer.text()) == (status, problem)


async def test_metadata_is_json(binding: KvBinding) -> None:
    assert (await ask(binding, "PUT", "k", metadata="{")).status == 400
    assert (await ask(binding, "PUT", "k", metadata="NaN")).status == 400
    assert (await ask(binding, "PUT", "k", metadata="[" * 1000)).status == 400
    assert (await ask(binding, "GET", "k")).status == 404


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"keys": "k"}', b'{"keys": [1]}', b'{"keys": {}}', b'{"keys": [""]}'],
)
async def test_bad_bulk_requests_are_refused(binding: KvBinding, body: bytes) -> None:
    assert (await ask(binding, "POST", "bulk/get", body=body)).status == 400


async def test_a_bulk_request_too_large_is_refused(binding: KvBinding) -> None:
    keys = ["\x01" * 512] * MAX_BULK_KEYS
    assert (await ask(binding, "POST", "bulk/get", body=json.dumps({"keys": keys}).encode())).status == 200
    assert (await ask(binding, "POST", "bulk/get", body=b" " * 600_000)).status == 413


async def test_values_that_json_cannot_say_are_told_as_javascript_does(binding: KvBinding) -> None:
    await put(binding, "k", body=b'{"large": 1e999, "lone": "\\ud800"}')
    answer = await ask(binding, "POST", "bulk/get", body=b'{"keys": ["k"], "type": "json"}')
    assert await answer.json() == {"k": {"large": None, "lone": "\ud800"}}


async def test_reasons_that_no_status_line_can_hold_are_written_otherwise(binding: KvBinding) -> None:
    asked = json.dumps({"keys": ["k"], "type": "ü\r\nSet-Cookie: a=b" + "x" * 1000})
    refused = await ask(binding, "POST", "bulk/get", body=asked.encode())
    assert refused.status_text.startswith('"???Set-Cookie: a=bxx')
    assert len(refused.status_text) == 512


async def test_the_largest_of_streams_is_not_read_to_its_end(binding: KvBinding) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield bytes(1024 * 1024)

    with anyio.fail_after(60):
        refused = await binding.fetch(Request("https://fake-host/k", method="PUT", body=endless()))
    assert (refused.status, read) == (413, 101)


# Configuration


def parsed(tmp_path: Path, **keys: Any) -> Opener:
    table = Table({"type": "kv_namespace", **keys}, tmp_path / "capnweb.toml", "bindings.CACHE")
    return parse_binding(table, tmp_path / "state").open


@asynccontextmanager
async def opened(opener: Opener) -> AsyncIterator[KvBinding]:
    async with anyio.create_task_group() as tasks:
        binding = cast(KvBinding, await opener(tasks))
        try:
            yield binding
        finally:
            await binding.aclose()


@pytest.mark.parametrize(
    ("keys", "file"),
    [
        ({}, "state/kv-CACHE.sqlite3"),
        ({"id": "../etc"}, "state/kv-..%2Fetc.sqlite3"),
        ({"store": "sqlite:///my%20cache.db"}, "state/my cache.db"),
    ],
)
async def test_the_data_is_in_a_file_of_the_state_directory(tmp_path: Path, keys: dict[str, str], file: str) -> None:
    async with opened(parsed(tmp_path, **keys)) as binding:
        assert (await put(binding, "k")).status == 200
    assert (tmp_path / file).is_file()


async def test_the_data_may_be_in_a_file_anywhere(tmp_path: Path) -> None:
    async with opened(parsed(tmp_path, store=f"sqlite:///{tmp_path}/elsewhere.db")) as binding:
        await put(binding, "k")
    assert (tmp_path / "elsewhere.db").is_file()


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"store": "mysql://host"}, "stores with mysql: are not known here"),
        ({"store": "cache.db"}, "stores with cache.db: are not known here"),
        ({"store": "sqlite://cache.db"}, 'a store of SQLite is written "sqlite:///FILE"'),
        ({"store": "sqlite:///"}, 'a store of SQLite is written "sqlite:///FILE"'),
        ({"store": "redis://:a-password@"}, 'a store of Redis is written "redis://'),
        ({"access": "write"}, '"write" is no access'),
        ({"bucket": "b"}, "unknown key"),
    ],
)
def test_what_is_wrong_in_the_table_is_told(tmp_path: Path, keys: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        parsed(tmp_path, **keys)
    assert "a-password" not in str(error.value)


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "kv-CACHE.sqlite3").write_bytes(b"no database at all" * 100)
    async with anyio.create_task_group() as tasks:
        with pytest.raises(sqlite3.DatabaseError):
            await parsed(tmp_path)(tasks)


# Access


async def test_a_namespace_that_is_read_refuses_writes(tmp_path: Path) -> None:
    async with opened(parsed(tmp_path)) as full:
        await put(full, "k")
    async with opened(parsed(tmp_path, access="read")) as binding:
        for method in ("PUT", "DELETE"):
            refused = await ask(binding, method, "k", body=b"new" if method == "PUT" else None)
            problem = 'The binding "CACHE" is read-only: its access is "read" in the configuration that serves it'
            assert (refused.status, refused.status_text) == (403, problem)
        assert await (await ask(binding, "GET", "k")).bytes() == b"v"


async def test_an_overlay_keeps_its_writes_in_a_file_of_its_own(tmp_path: Path) -> None:
    async with opened(parsed(tmp_path)) as full:
        await put(full, "below")
    async with opened(parsed(tmp_path, access="overlay")) as binding:
        await put(binding, "above")
        await ask(binding, "DELETE", "below")
    assert overlay_path(tmp_path / "state", "CACHE").is_file()
    async with opened(parsed(tmp_path, access="overlay")) as binding:
        assert await listed(binding) == [{"name": "above"}]
    async with opened(parsed(tmp_path)) as full:
        assert await listed(full) == [{"name": "below"}]


# Namespaces of one server: each test has its own.
NAMES: Final = [f"KV{number}" for number in range(120)]
UNUSED: Final = iter(NAMES)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server of all tests has its configuration and its data."""
    made: Path = tmp_path_factory.mktemp("kv")
    return made


@pytest.fixture(scope="module")
def url(directory: Path) -> Iterator[str]:
    """The connection string of a proxy server with many namespaces."""
    config = directory / "capnweb.toml"
    config.write_text("".join(f'[bindings.{name}]\ntype = "kv_namespace"\n' for name in NAMES))
    with serving(config) as server:
        yield server.url


@pytest.fixture
def name() -> str:
    """The name of a namespace that nobody else uses."""
    return next(UNUSED)


@pytest.fixture(params=["http", "rpc"])
async def remote(request: pytest.FixtureRequest, url: str, name: str) -> AsyncIterator[KvNamespace]:
    """The facade of a namespace of a proxy server."""
    async with connect_env(url, channel=request.param) as env:
        yield env[name]


async def test_an_overlay_over_a_remote_namespace(remote: KvNamespace, tmp_path: Path) -> None:
    for number in range(4):
        await remote.put(f"k{number}", f"remote {number}", metadata={"n": number})
    async with opened(over(remote, "overlay", "KV", tmp_path / "local")) as binding:
        await put(binding, "k0", body=b"local 0")
        await put(binding, "k4", body=b"local 4")
        await ask(binding, "DELETE", "k1")
        names = [key["name"] for key in await listed(binding)]
        assert names == ["k0", "k2", "k3", "k4"]
        found = await ask(binding, "GET", "k2")
        assert (await found.text(), found.headers["CF-KV-Metadata"]) == ("remote 2", '{"n":2}')
        assert await (await ask(binding, "GET", "k0")).text() == "local 0"
        assert (await ask(binding, "GET", "k1")).status == 404
        page = await (await ask(binding, "GET", "?key_count_limit=2")).json()
        rest = await (await ask(binding, "GET", f"?cursor={quote(page['cursor'])}")).json()
        assert [key["name"] for key in [*page["keys"], *rest["keys"]]] == names
    assert await remote.get_with_metadata("k1") == KvValue("remote 1", {"n": 1})
    assert [key.name for key in (await remote.list()).keys] == ["k0", "k1", "k2", "k3"]


async def test_read_access_to_a_remote_namespace(remote: KvNamespace, tmp_path: Path) -> None:
    await remote.put("k", "remote")
    async with opened(over(remote, "read", "KV", tmp_path / "local")) as binding:
        assert (await put(binding, "k")).status == 403
        assert await (await ask(binding, "GET", "k")).text() == "remote"
        refused = await ask(binding, "GET", "?key_count_limit=1&cursor=@")
        assert (refused.status, refused.status_text) == (400, "Invalid cursor")
    assert not (tmp_path / "local").exists()


async def test_full_access_to_a_remote_namespace(remote: KvNamespace, tmp_path: Path) -> None:
    async with opened(over(remote, "full", "KV", tmp_path / "local")) as binding:
        await put(binding, "gone")
        await put(binding, "k", body=bytes(1024 * 1024))
        await ask(binding, "DELETE", "gone")
    assert (await remote.list()).keys == [KvKey("k")]
    assert await remote.get("k", "bytes") == bytes(1024 * 1024)


# On the wire


async def test_the_reason_is_in_the_status_line(url: str, name: str) -> None:
    async with httpx2.AsyncClient() as client:
        wrapped = {"MF-Binding": name, "MF-URL": "https://fake-host/k?expiration_ttl=5"}
        for _ in range(2):
            refused = await client.put(url, headers=wrapped)
            problem = "Invalid expiration_ttl of 5. Expiration TTL must be at least 60."
            assert (refused.status_code, refused.reason_phrase) == (400, problem)
            usual = await client.get(url, headers=wrapped | {"MF-URL": "https://fake-host/"})
            assert (usual.status_code, usual.reason_phrase) == (200, "OK")


async def test_a_reason_is_that_of_one_response(url: str, name: str) -> None:
    """The third request is none, and the server answers it by itself."""
    server = httpx2.URL(url)
    head = f"GET {server.path} HTTP/1.1\r\nHost: h\r\nMF-Binding: {name}\r\nMF-URL: https://fake-host/%s\r\n\r\n"
    async with await anyio.connect_tcp(server.host, server.port or 80) as socket:
        answers = BufferedByteReceiveStream(socket)
        for request, status, body in (
            (head % "k", b"404 Not Found", b"Not Found"),
            (head % "?cursor=@", b"400 Invalid cursor", b"Invalid cursor"),
            ("no request\r\n\r\n", b"400 Bad Request", b""),
        ):
            await socket.send(request.encode())
            answer = await answers.receive_until(b"\r\n\r\n", 10_000)
            assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
            assert await answers.receive_exactly(len(body)) == body


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
async def test_a_client_that_leaves_in_the_middle_of_a_write_changes_nothing(
    url: str, name: str, directory: Path, framing: str
) -> None:
    server = httpx2.URL(url)
    async with connect_env(url) as env:
        await env[name].put("k", "before")
        head = f"PUT {server.path} HTTP/1.1\r\nHost: h\r\nMF-Binding: {name}\r\nMF-URL: https://fake-host/k\r\n{framing}\r\n\r\n"
        for _ in range(5):
            async with await anyio.connect_tcp(server.host, server.port or 80) as socket:
                await socket.send(head.encode() + b"7a120\r\n" + bytes(500_000))
        await env[name].put("other", bytes(1_000_000))
        assert await env[name].get("k") == "before"
        with contextlib.closing(sqlite3.connect(directory / ".capnweb" / f"kv-{name}.sqlite3")) as connection:
            kept = "SELECT count(DISTINCT blob), (SELECT count(*) FROM loose) FROM chunks"
            with anyio.fail_after(60):  # until the server has heard that they left
                while connection.execute(kept).fetchall() != [(1, 0)]:
                    await env[name].get("k")


async def test_a_refusal_is_an_error_with_its_parts(remote: KvNamespace) -> None:
    with pytest.raises(KvError) as error:
        await remote.list(cursor="@")
    assert (str(error.value), error.value.status, error.value.text) == (
        "KV GET failed: 400 Invalid cursor",
        400,
        "Invalid cursor",
    )


# Arguments


@pytest.mark.parametrize(
    ("use", "problem"),
    [
        (lambda kv: kv.get(5), "key has to be a str, or a list of them, not int"),
        (lambda kv: kv.get(["k", 5]), "each key has to be a str, not int"),
        (lambda kv: kv.get("k", cache_ttl="60"), "cache_ttl has to be a whole number of seconds, not str"),
        (lambda kv: kv.delete(None), "key has to be a str, not None"),
        (lambda kv: kv.put("k", 5), "value has to be a str, bytes, or an async iterable of bytes, not int"),
        (lambda kv: kv.put("k", "v", expiration=2e9), "expiration has to be a whole number of seconds since 1970"),
        (lambda kv: kv.list(limit="5"), "limit has to be a whole number, not str"),
        (lambda kv: kv.list(prefix=b"k"), "prefix has to be a str, not bytes"),
    ],
)
async def test_an_argument_of_a_wrong_type_is_named(
    remote: KvNamespace, use: Callable[[Any], Awaitable[object]], problem: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(problem)):
        await use(remote)


@pytest.mark.parametrize("ttl", ["60s", "3600", 3600.5, 1e9, True, timedelta(milliseconds=90_500)])
async def test_a_ttl_is_a_whole_number_of_seconds(remote: KvNamespace, ttl: Any) -> None:
    with pytest.raises(TypeError, match="expiration_ttl has to be a whole number of seconds"):
        await remote.put("k", "v", expiration_ttl=ttl)
    assert await remote.get("k") is None


async def test_a_value_that_is_known_to_be_too_large_takes_no_room(remote: KvNamespace, directory: Path) -> None:
    files = directory / ".capnweb"
    await remote.put("k", "v")
    before = sum(file.stat().st_size for file in files.iterdir())
    value = bytes(26 * 1024 * 1024)

    async def pieces() -> AsyncIterator[bytes]:
        yield value

    for body in (value, ReadableStream(pieces(), length=len(value))):
        with pytest.raises(KvError, match=r"^KV PUT failed: 413 Value length of 27262976 exceeds limit of 26214400.$"):
            await remote.put("k", body)
    assert sum(file.stat().st_size for file in files.iterdir()) - before < 1024 * 1024


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_a_peer_without_a_facade_leaves_nothing_of_such_a_value(tmp_path: Path, channel: str) -> None:
    path = tmp_path / "kv.sqlite3"
    binding = KvBinding(await SqliteKv.open(path))
    value = bytes(26 * 1024 * 1024)
    if channel == "http":
        assert (await put(binding, "k", body=value)).status == 413
    else:
        with pytest.raises(Exception, match="KV PUT failed: 413 Value length of 27262976"):
            await cast(Any, binding.rpc_main()).put("k", value)
    await binding.aclose()
    assert path.stat().st_size < 1024 * 1024


async def test_a_ttl_may_be_a_timedelta(remote: KvNamespace) -> None:
    before = time.time()
    await remote.put("k", "v", expiration_ttl=timedelta(days=100))
    [key] = (await remote.list()).keys
    assert key.expiration is not None
    assert int(before) <= key.expiration - 100 * 86_400 <= time.time()


# The document


async def test_the_examples_of_the_document_run(remote: KvNamespace) -> None:
    text = (ROOT / "docs" / "bindings" / "kv.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 7
    scope: dict[str, Any] = {}
    exec(f"async def examples(env):\n{textwrap.indent(''.join(blocks), '    ')}", scope)
    await scope["examples"](Env({"CACHE": remote}))


# Ownership


async def test_nothing_is_left_of_uses_over_rpc(url: str, name: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(100_000)

    async def failing() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("the source broke")

    async with open_session(ProxyAddress(url).rpc_url(name)) as session:
        kv = session.remote_main
        await kv.list()
        before = session.stats()
        for _ in range(5):
            await kv.put("k", ReadableStream(pieces()), {"metadata": {"a": 1}})
            for problem in (
                lambda: kv.put("k", ReadableStream(failing())),
                lambda: kv.put("", ReadableStream(pieces())),
            ):
                with pytest.raises((RuntimeError, TypeError)):
                    await problem()
            found = await kv.getWithMetadata("k", "stream")
            assert sum([len(chunk) async for chunk in found["value"]]) == 400_000
            unread = await kv.get("k", "stream")
            await unread.aclose()
        del found, unread
        with anyio.fail_after(60):
            while session.stats() != before:
                await kv.list()
                gc.collect()
