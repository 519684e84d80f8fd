"""Stores of R2 for tests: in a folder, and in a local server that speaks as S3 does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx2
from moto.server import ThreadedMotoServer

from capnweb_py.web import ReadableStream
from proxy_server.stores.r2 import Metadata, ObjectInfo, PutOptions, R2Store
from proxy_server.stores.r2_access import Overlay
from proxy_server.stores.r2_bucket import Bucket
from proxy_server.stores.r2_files import open_files
from proxy_server.stores.r2_objects import open_objects, store_at

OPTIONS = {"region": "us-east-1", "access_key_id": "key", "secret_access_key": "secret"}


@attrs.frozen
class S3:
    """A server that speaks as S3 does."""

    endpoint: str

    def make_bucket(self, name: str) -> None:
        assert httpx2.put(f"{self.endpoint}/{name}").status_code == 200

    @property
    def options(self) -> dict[str, str]:
        return {**OPTIONS, "endpoint": self.endpoint}


@contextmanager
def s3_server() -> Iterator[S3]:
    """Run one on a free port, in a thread of this process."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3(f"http://{host}:{port}")
    finally:
        server.stop()


@asynccontextmanager
async def files(folder: Path) -> AsyncIterator[Bucket]:
    """A bucket in a folder."""
    bucket, _index = await open_files(folder)
    try:
        yield bucket
    finally:
        await bucket.aclose()


@asynccontextmanager
async def objects(s3: S3, name: str) -> AsyncIterator[Bucket]:
    """A bucket in an object store."""
    bucket = await open_objects(store_at(f"s3://{name}/some/where", s3.options))
    try:
        yield bucket
    finally:
        await bucket.aclose()


@asynccontextmanager
async def overlay(base: R2Store, folder: Path) -> AsyncIterator[Overlay]:
    """An overlay, which closes its base."""
    local, index = await open_files(folder)
    bucket = Overlay(base, local, index)
    try:
        yield bucket
    finally:
        await bucket.aclose()


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def put(store: R2Store, key: str, data: bytes = b"", **options: Any) -> ObjectInfo:
    custom = options.pop("custom", {})
    return await store.put(key, body(data), PutOptions(Metadata(custom=custom), **options))


async def read(stream: ReadableStream[bytes]) -> bytes:
    try:
        return b"".join([chunk async for chunk in stream])
    finally:
        await stream.aclose()


async def content(store: R2Store, key: str) -> bytes:
    return await read((await store.get(key, None, None)).body)
