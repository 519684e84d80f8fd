"""Killing the proxy in the middle of writes to a bucket: what was acknowledged is there, whole, and nothing else is."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

import anyio
import pytest
from buckets import s3_server
from proxying import start

from capnweb_py import RpcError
from capnweb_py.bindings.r2 import R2Bucket, R2ObjectBody, R2UploadedPart
from capnweb_py.remote import connect_env

pytestmark = pytest.mark.anyio

CONFIG: Final = """
[bindings.BUCKET]
type = "r2_bucket"
store = "{store}"
[bindings.BUCKET.store_options]
{options}
"""

# How many writers there are, and after how many acknowledged writes the killing begins.
WRITERS: Final = 6
ENOUGH: Final = 30

# In seconds, for all writes.
DEADLINE: Final = 60.0


def value_of(key: str) -> bytes:
    """Content that tells its key. Every third is of several pieces."""
    seed = hashlib.sha256(key.encode()).digest()
    return seed * (20_000 if int(key.rpartition("-")[2]) % 3 == 0 else 4)


class Writers:
    """Tasks that write one object after another, until that fails."""

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.parts: list[tuple[str, str, R2UploadedPart]] = []
        self.enough = anyio.Event()

    async def put(self, bucket: R2Bucket, name: str) -> None:
        for number in itertools.count():
            key = f"{name}-{number}"
            try:
                await bucket.put(key, value_of(key))
            except (ConnectionError, RpcError):
                return
            self._acknowledge(key)

    async def upload(self, bucket: R2Bucket, name: str) -> None:
        """Every second upload is begun, and not completed."""
        for number in itertools.count():
            key = f"{name}-{number}"
            try:
                upload = await bucket.create_multipart_upload(key)
                part = await upload.upload_part(1, value_of(key))
                if number % 2:
                    self.parts.append((key, upload.upload_id, part))
                    continue
                await upload.complete([part])
            except (ConnectionError, RpcError):
                return
            self._acknowledge(key)

    def _acknowledge(self, key: str) -> None:
        self.acknowledged.append(key)
        if len(self.acknowledged) == ENOUGH:
            self.enough.set()


async def missing(bucket: R2Bucket, keys: list[str]) -> list[str]:
    """The keys whose content is not there, or not whole; and those that are listed without it."""
    page = await bucket.list()
    assert not page.truncated
    wrong = []
    for key in {*keys, *(obj.key for obj in page.objects)}:
        obj = await bucket.get(key)
        if not isinstance(obj, R2ObjectBody) or await obj.bytes() != value_of(key):
            wrong.append(key)
    return wrong


def files_in(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


@pytest.fixture(params=["files", "s3"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "capnweb.toml"
    if request.param == "files":
        path.write_text(
            CONFIG.format(store=f"file://{tmp_path}/bucket", options="").partition("[bindings.BUCKET.st")[0]
        )
        yield path
    else:
        with s3_server() as server:
            name = f"bucket-{uuid4().hex}"
            server.make_bucket(name)
            options = "".join(f'{name} = "{value}"\n' for name, value in server.options.items())
            path.write_text(CONFIG.format(store=f"s3://{name}", options=options))
            yield path


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_a_killed_proxy_has_lost_no_acknowledged_write(config: Path, channel: Literal["http", "rpc"]) -> None:
    server = start(config)
    writers = Writers()
    async with connect_env(server.url, channel=channel) as env:
        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as tasks:
                for number in range(WRITERS):
                    write = writers.upload if number % 3 == 0 else writers.put
                    tasks.start_soon(write, env.BUCKET, f"w{number}")
                await writers.enough.wait()
                server.process.kill()
                server.process.communicate()
                tasks.cancel_scope.cancel()
    again = start(config)
    try:
        async with connect_env(again.url) as env:
            assert await missing(env.BUCKET, writers.acknowledged) == []
            for key, upload_id, part in writers.parts:
                await env.BUCKET.resume_multipart_upload(key, upload_id).complete([part])
            assert await missing(env.BUCKET, [key for key, _, _ in writers.parts]) == []
            objects = len((await env.BUCKET.list()).objects)
    finally:
        again.process.terminate()
        again.process.communicate()
    folder = config.parent / "bucket"
    if folder.is_dir():
        # An upload whose part was written and not acknowledged has one, too: it may go on.
        assert files_in(folder / "incoming") == 0
        assert objects <= files_in(folder / "blobs") <= objects + WRITERS
