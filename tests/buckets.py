"""Stores of R2 for tests: in a folder, and in local servers that speak as S3 and as Azure do."""

from __future__ import annotations

import hmac
import subprocess
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import httpx2
import pytest
from interop.node import HERE, install, require_node
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


@attrs.frozen
class Azure:
    """A server that speaks as Azure's blob storage does, with the account and the key that every Azurite has."""

    endpoint: str

    def make_bucket(self, name: str) -> None:
        """Make one, by a request signed with the account's key: obstore makes none."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        lines = ["PUT", *[""] * 11, *(f"{key}:{value}" for key, value in headers.items())]
        signed = "\n".join([*lines, f"/{_ACCOUNT}/{_ACCOUNT}/{name}", "restype:container"])
        signature = b64encode(hmac.digest(b64decode(_ACCOUNT_KEY), signed.encode(), "sha256")).decode()
        headers["authorization"] = f"SharedKey {_ACCOUNT}:{signature}"
        assert httpx2.put(f"{self.endpoint}/{name}?restype=container", headers=headers).status_code == 201

    @property
    def options(self) -> dict[str, str]:
        return {"account_name": _ACCOUNT, "account_key": _ACCOUNT_KEY, "endpoint": self.endpoint}


_ACCOUNT = "devstoreaccount1"
# Not a secret: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
_ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def azure_server() -> Iterator[Azure]:
    """Run Azurite on a free port. Without Node the test is skipped."""
    node = require_node()
    install()
    flags = ["--blobPort", "0", "--inMemoryPersistence", "--silent", "--skipApiVersionCheck"]
    command = [node, "node_modules/azurite/dist/src/blob/main.js", *flags]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            endpoint = next(line.split()[-1] for line in process.stdout if "successfully listens on" in line)
            yield Azure(f"{endpoint}/{_ACCOUNT}")
        finally:
            process.terminate()
            process.communicate(timeout=60)


@asynccontextmanager
async def files(folder: Path) -> AsyncIterator[Bucket]:
    """A bucket in a folder."""
    bucket, _index = await open_files(folder)
    try:
        yield bucket
    finally:
        await bucket.aclose()


@asynccontextmanager
async def objects(server: S3 | Azure, name: str) -> AsyncIterator[Bucket]:
    """A bucket in an object store."""
    scheme = "s3" if isinstance(server, S3) else "az"
    bucket = await open_objects(store_at(f"{scheme}://{name}/some/where", server.options))
    try:
        yield bucket
    finally:
        await bucket.aclose()


@asynccontextmanager
async def overlay(base: R2Store, folder: Path) -> AsyncIterator[Overlay]:
    """An overlay, which closes its base."""
    local, index = await open_files(folder, overlay=True)
    bucket = Overlay(base, local, index)
    try:
        yield bucket
    finally:
        await bucket.aclose()


# The kinds of stores. A test file that has all of them has the module's fixtures "s3" and "azure".
STORES = ["files", "s3", "azure", "overlay"]


@asynccontextmanager
async def empty_store(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[R2Store]:
    """A store of the kind that a fixture is for, with nothing in it."""
    if request.param in {"s3", "azure"}:
        server: S3 | Azure = request.getfixturevalue(request.param)
        name = f"bucket-{uuid4().hex}"
        server.make_bucket(name)
        async with objects(server, name) as bucket:
            yield bucket
    elif request.param == "files":
        async with files(folder / "bucket") as bucket:
            yield bucket
    else:
        async with files(folder / "base") as base, overlay(base, folder / "overlay") as over:
            yield over


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
