"""The R2 binding of a running proxy: its configuration, requests that no runtime sends, and what a crash leaves."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from buckets import S3, s3_server
from listening import proxy_server_in
from proxying import Server, fetch, http_scope, proxy, serving, start

from capnweb_py.bindings.r2 import R2Error, R2UploadedPart
from capnweb_py.remote import connect_env
from proxy_server import platform_env
from proxy_server.bindings import BindingError, Declaration, parse_binding
from proxy_server.stores.r2_rules import after_prefix
from proxy_server.tables import ConfigError, Table

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
TABLE = {"type": "r2_bucket", "bucket_name": "bucket"}


def declaration(folder: Path, **keys: Any) -> Declaration:
    return parse_binding(
        Table({"type": "r2_bucket", **keys}, folder / "capnweb.toml", "bindings.BUCKET"), folder / "state"
    )


def config(folder: Path, text: str = "") -> Path:
    path = folder / "capnweb.toml"
    path.write_text(f'[server]\nstate_dir = "{folder}/state"\n[bindings.BUCKET]\ntype = "r2_bucket"\n{text}')
    return path


def wrapped(**headers: str) -> list[tuple[str, str]]:
    return [("mf-url", "https://fake-host/"), *((f"mf-header-{name}", value) for name, value in headers.items())]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


# Configuration


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"access": "none"}, '"none" is no access'),
        ({"store": "ftp://host/x"}, "stores with ftp: are not known here"),
        ({"store": "file://host/x"}, 'written "file:///FOLDER"'),
        ({"store": "file:///"}, 'written "file:///FOLDER"'),
        ({"stores": "file:///x"}, "unknown key"),
        ({"store": "s3://bucket", "store_options": {"nonsense": "x"}}, "s3://bucket is no store"),
    ],
)
def test_tables_that_are_not_valid(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        declaration(tmp_path, **keys)


async def test_names_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    async with proxy(BUCKET=declaration(tmp_path, id="../../out/..")):
        pass
    assert names_in(tmp_path) == {"state"}
    assert len(names_in(tmp_path / "state")) == 1


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with anyio.create_task_group() as tasks:
        with pytest.raises(BindingError, match="its bucket cannot be used"):
            await declaration(tmp_path, store=f"file://{tmp_path}/file/x").open(tasks)


# Requests that no runtime sends


@pytest.mark.parametrize(
    "request_text",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"method":"other"}',
        '{"method":[]}',
        '{"method":"head"}',
        '{"method":"head","object":1}',
        '{"method":"get","object":"a","range":[]}',
        '{"method":"get","object":"a","range":{"offset":"x"}}',
        '{"method":"get","object":"a","onlyIf":{"etagMatches":[]}}',
        '{"method":"get","object":"a","onlyIf":{"etagMatches":[{"type":"other"}]}}',
        '{"method":"get","object":"a","onlyIf":{"etagMatches":[{"type":[]}]}}',
        '{"method":"get","object":"a","onlyIf":{"etagMatches":"a"}}',
        '{"method":"get","object":"a","range":{"offset":Infinity}}',
        '{"method":"list","cursor":"nonsense"}',
        '{"method":"list","include":5}',
        '{"method":"list","limit":true}',
        "[" * 100_000,
    ],
)
async def test_malformed_reads(tmp_path: Path, request_text: str) -> None:
    async with proxy(BUCKET=declaration(tmp_path)) as app:
        reply = await fetch(app, http_scope("BUCKET", headers=wrapped(**{"cf-r2-request": request_text})))
    assert reply.status == 400
    assert json.loads(reply.header("cf-r2-error") or "")["v4code"] == 10029


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "{}"),
        ("x", "{}"),
        ("-1", "{}"),
        ("99999999999", "{}"),
        ("100", "{}"),
        ("2", "{}"),
        ("0", ""),
        (None, '{"method":"put","object":"a"}'),
        ("all", '{"method":"put","object":"a","customFields":[{"k":"a"}]}'),
        ("all", '{"method":"put","object":"a","customFields":{"a":"b"}}'),
        ("all", '{"method":"put","object":"a","customFields":["a"]}'),
        ("all", '{"method":"put","object":"a","sha1":"xyz"}'),
        ("all", '{"method":"put","object":"a","httpFields":{"contentType":1}}'),
        ("all", '{"method":"delete"}'),
        ("all", '{"method":"uploadPart","object":"a","uploadId":"x","partNumber":0}'),
        ("all", '{"method":"completeMultipartUpload","object":"a","uploadId":"x","parts":{}}'),
    ],
)
async def test_malformed_writes(tmp_path: Path, size: str | None, text: str) -> None:
    named = {} if size is None else {"cf-r2-metadata-size": str(len(text)) if size == "all" else size}
    headers = [*wrapped(**named), ("content-length", str(len(text)))]
    async with proxy(BUCKET=declaration(tmp_path)) as app:
        reply = await fetch(app, http_scope("BUCKET", method="PUT", headers=headers), text.encode())
    assert reply.status == 400
    assert json.loads(reply.header("cf-r2-error") or "")["v4code"] == 10029


async def test_a_line_break_in_a_message_stays_in_its_header(tmp_path: Path) -> None:
    text = json.dumps({"method": "put", "object": "a", "storageClass": "x\r\nSet-Cookie: a=b"})
    headers = [*wrapped(**{"cf-r2-metadata-size": str(len(text))}), ("content-length", str(len(text)))]
    async with proxy(BUCKET=declaration(tmp_path)) as app:
        reply = await fetch(app, http_scope("BUCKET", method="PUT", headers=headers), text.encode())
    assert reply.status == 400
    assert reply.header("set-cookie") is None
    assert "\n" not in (reply.header("cf-r2-error") or "\n")


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_dates_that_only_javascript_has(tmp_path: Path, channel: Any) -> None:
    text = json.dumps({"method": "put", "object": "a", "httpFields": {"cacheExpiry": "8640000000000000"}})
    async with proxy_server_in(tmp_path, BUCKET=TABLE) as url:
        headers = {**dict(wrapped(**{"cf-r2-metadata-size": str(len(text))})), "mf-binding": "BUCKET"}
        async with httpx2.AsyncClient() as client:
            assert (await client.put(url, headers=headers, content=text)).status_code == 200
        async with connect_env(url, channel=channel) as env:
            assert (await env.BUCKET.head("a")).http_metadata.cache_expiry.year == 9999


# Access


async def test_a_bucket_that_is_only_read(tmp_path: Path) -> None:
    async with proxy_server_in(tmp_path, ALL=TABLE, BUCKET={**TABLE, "access": "read"}) as url:
        async with connect_env(url) as env:
            await env.ALL.put("a", "there")
        for channel in ("http", "rpc"):
            async with connect_env(url, channel=channel) as env:  # type: ignore[arg-type]
                assert (await env.BUCKET.head("a")).size == 5
                problem = 'The binding "BUCKET" is read-only: its access is "read" in the configuration that serves it'
                for action, write in (
                    ("put", env.BUCKET.put("a", "new")),
                    ("delete", env.BUCKET.delete("a")),
                    ("createMultipartUpload", env.BUCKET.create_multipart_upload("a")),
                ):
                    with pytest.raises(R2Error, match=f"^{action}: {problem} .10003"):
                        await write


async def test_an_overlay_of_a_served_bucket(tmp_path: Path) -> None:
    async with (
        proxy_server_in(tmp_path, BASE=TABLE, BUCKET={**TABLE, "access": "overlay"}) as url,
        connect_env(url) as env,
    ):
        await env.BASE.put("a", "there")
        await env.BUCKET.delete("a")
        await env.BUCKET.put("b", "mine")
        assert [obj.key for obj in (await env.BUCKET.list()).objects] == ["b"]
        assert [obj.key for obj in (await env.BASE.list()).objects] == ["a"]
    assert (tmp_path / ".capnweb" / "overlay-r2_bucket-BUCKET").is_dir()


# Backends and crashes


def peak_memory(server: Server) -> int:
    """The most memory that a server has used, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux")
@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_bodies_are_never_whole_in_memory(tmp_path: Path, channel: Any) -> None:
    size = 50 * MIB

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // MIB):
            yield b"x" * MIB

    with serving(config(tmp_path)) as server:
        async with connect_env(server.url, channel=channel) as env:
            await env.BUCKET.put("warm", b"x" * MIB)
            before = peak_memory(server)
            await env.BUCKET.put("large", pieces(), length=size)
            received = 0
            async for chunk in await env.BUCKET.get("large"):
                received += len(chunk)
            assert received == size
            assert peak_memory(server) - before < 25 * MIB


@pytest.mark.parametrize("length", [2, 4], ids=["more than its length", "less than its length"])
@pytest.mark.parametrize("channel", ["http", "rpc"])
@pytest.mark.parametrize("place", ["behind a proxy", "here"])
async def test_content_of_another_length_is_not_written(tmp_path: Path, place: str, channel: Any, length: int) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    async with AsyncExitStack() as stack:
        if place == "here":
            env = await stack.enter_async_context(platform_env(config(tmp_path), channel=channel))
        else:
            server = stack.enter_context(serving(config(tmp_path)))
            env = await stack.enter_async_context(connect_env(server.url, channel=channel))
        bucket = env.BUCKET
        with pytest.raises(ValueError, match=r"the content .* its length(, 2| is 4)$"):
            await bucket.put("a", pieces(), length=length)
        assert await bucket.head("a") is None
        upload = await bucket.create_multipart_upload("a")
        with pytest.raises(ValueError, match=r"the content .* its length(, 2| is 4)$"):
            await upload.upload_part(1, pieces(), length=length)
        with pytest.raises(R2Error):
            await upload.complete([R2UploadedPart(1, "0" * 32)])


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_what_a_stream_raises_is_raised_by_what_writes_it(tmp_path: Path, channel: Any) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"ab"
        raise ZeroDivisionError("the source's own")

    with serving(config(tmp_path)) as server:
        async with connect_env(server.url, channel=channel) as env:
            with pytest.raises(ZeroDivisionError, match=r"^the source's own$"):
                await env.BUCKET.put("a", failing(), length=4)
            assert await env.BUCKET.head("a") is None


@pytest.fixture(scope="module")
def s3() -> Any:
    with s3_server() as server:
        yield server


async def test_a_bucket_in_an_object_store(tmp_path: Path, s3: S3) -> None:
    s3.make_bucket("served")
    table = {"type": "r2_bucket", "store": "s3://served/prefix", "store_options": s3.options}
    for _ in range(2):
        async with proxy_server_in(tmp_path, BUCKET=table) as url, connect_env(url) as env:
            await env.BUCKET.put("ä/b", b"x" * 9 * MIB)
            assert await (await env.BUCKET.get("ä/b")).bytes() == b"x" * 9 * MIB
    assert names_in(tmp_path) == set()


async def test_an_object_store_that_is_gone(tmp_path: Path) -> None:
    failed = []

    async def put(url: str, channel: Any) -> None:
        async with connect_env(url, channel=channel) as env:
            with pytest.raises(R2Error, match=r"^put: We encountered an internal error. Please try again. \(10001\)$"):
                await env.BUCKET.put("a", "x")
            failed.append(channel)

    async with AsyncExitStack() as stack:
        with s3_server() as store:
            store.make_bucket("gone")
            table = {"type": "r2_bucket", "store": "s3://gone", "store_options": store.options}
            url = await stack.enter_async_context(proxy_server_in(tmp_path, BUCKET=table))
            async with connect_env(url) as env:
                await env.BUCKET.head("a")
        # Both wait while the store is asked again.
        async with anyio.create_task_group() as tasks:
            for channel in ("http", "rpc"):
                tasks.start_soon(put, url, channel)
    assert sorted(failed) == ["http", "rpc"]


def write_to_one_that_dies(server: Server, folder: Path, **request: Any) -> Any:
    """Send a request with its content, and kill the server when some of that is in its folder."""
    text = json.dumps({"version": 1, **request}).encode()

    def pieces() -> Any:
        yield text + b"x" * MIB
        while not any(path.stat().st_size for path in (folder / "incoming").iterdir()):
            """The server is at it."""
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        yield b"x" * MIB

    headers = {**dict(wrapped(**{"cf-r2-metadata-size": str(len(text))})), "mf-binding": "BUCKET"}
    length = str(len(text) + 2 * MIB)
    return httpx2.put(server.url, headers={**headers, "content-length": length}, content=pieces(), timeout=60)


@pytest.mark.parametrize("method", ["put", "uploadPart"])
async def test_a_server_that_dies_in_a_write_keeps_what_was_there_and_nothing_else(tmp_path: Path, method: str) -> None:
    folder = tmp_path / "state" / "r2-BUCKET"
    server = start(config(tmp_path))
    try:
        async with connect_env(server.url) as env:
            await env.BUCKET.put("a", "acknowledged")
            upload = await env.BUCKET.create_multipart_upload("a")
            part = await upload.upload_part(1, "a part")
        request = {"method": method, "object": "a", "uploadId": upload.upload_id, "partNumber": 1}
        with pytest.raises(httpx2.HTTPError):
            write_to_one_that_dies(server, folder, **request)
    finally:
        server.process.kill()
        server.ended()
    assert count_files(folder / "incoming") == 1
    with serving(config(tmp_path)) as again:
        assert (count_files(folder / "incoming"), count_files(folder / "blobs")) == (0, 2)
        async with connect_env(again.url) as env:
            assert await (await env.BUCKET.get("a")).text() == "acknowledged"
            assert [obj.key for obj in (await env.BUCKET.list()).objects] == ["a"]
            await env.BUCKET.resume_multipart_upload("a", upload.upload_id).complete([part])
            assert await (await env.BUCKET.get("a")).text() == "a part"


async def test_a_client_that_leaves_in_a_put_leaves_nothing(tmp_path: Path) -> None:
    class LeftError(Exception):
        pass

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * MIB
        raise LeftError

    async with proxy_server_in(tmp_path, BUCKET=TABLE) as url, connect_env(url) as env:
        await env.BUCKET.put("a", "old")
        with pytest.raises(LeftError):
            await env.BUCKET.put("a", pieces(), length=2 * MIB)
        assert await (await env.BUCKET.get("a")).text() == "old"
    folder = tmp_path / ".capnweb" / "r2-bucket"
    assert (count_files(folder / "blobs"), count_files(folder / "incoming")) == (1, 0)


async def test_what_a_crash_left_is_deleted_by_the_next_who_is_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "r2-BUCKET"
    async with proxy(BUCKET=declaration(tmp_path)):
        for name in ("old", "young"):
            (folder / "incoming" / name).write_text("left")
        with sqlite3.connect(folder / "index.sqlite3") as index:
            index.execute("INSERT INTO unreferenced VALUES ('old', 0), ('young', ?)", (time.time_ns() // 1_000_000,))
        index.close()
        async with proxy(BUCKET=declaration(tmp_path)):
            # The first one may be writing it.
            assert names_in(folder / "incoming") == {"young"}
    async with proxy(BUCKET=declaration(tmp_path)):
        assert names_in(folder / "incoming") == set()


async def test_nothing_is_left_of_what_was_deleted(tmp_path: Path) -> None:
    async with proxy_server_in(tmp_path, BUCKET=TABLE) as url, connect_env(url) as env:
        await env.BUCKET.put("../../x", "climbing")
        await env.BUCKET.put("a", "one")
        await env.BUCKET.put("a", "two")
        upload = await env.BUCKET.create_multipart_upload("m")
        await upload.upload_part(1, "part")
        await upload.abort()
        blobs = tmp_path / ".capnweb" / "r2-bucket" / "blobs"
        assert count_files(blobs) == 2
        await env.BUCKET.delete(["a", "../../x"])
        assert count_files(blobs) == 0
    assert names_in(tmp_path) == {".capnweb"}


async def test_a_page_is_as_large_as_the_runtime_reads(tmp_path: Path) -> None:
    async with proxy_server_in(tmp_path, BUCKET=TABLE) as url, connect_env(url) as env:
        for number in range(50):
            await env.BUCKET.put(f"{number:02}", "", custom_metadata={"k": "\x01" * 8000})
        pages, cursor = 0, None
        found: list[str] = []
        while True:
            page = await env.BUCKET.list(cursor=cursor, include=["customMetadata"])
            found += [obj.key for obj in page.objects]
            pages, cursor = pages + 1, page.cursor
            if not page.truncated:
                break
    # Each is 48,000 bytes of JSON, and a page may have 800,000.
    assert (pages, found) == (4, [f"{number:02}" for number in range(50)])


@pytest.mark.parametrize(
    ("prefix", "following"),
    [("", None), ("a", "b"), ("a/", "a0"), ("\ud7ff", "\ue000"), ("a\U0010ffff", "b"), ("\U0010ffff", None)],
)
def test_what_comes_after_a_prefix(prefix: str, following: str | None) -> None:
    assert after_prefix(prefix) == following
