"""The "r2_bucket" binding: a bucket in a folder by default, or in an object store, over both channels.

    [bindings.ASSETS]
    type = "r2_bucket"
    store = "file:///srv/assets"      # or s3://bucket/prefix, gs://..., az://account/container
    access = "read"                   # or "overlay"; "full" if it is not given

The HTTP channel is in r2_http.py, the RPC channel in r2_rpc.py, and what both do in r2_operations.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from anyio.abc import TaskGroup

from capnweb_py.web import Request, Response
from proxy_server.bindings import Binding, BindingError, Opener
from proxy_server.bindings.r2_http import R2Http
from proxy_server.bindings.r2_operations import R2Operations
from proxy_server.bindings.r2_rpc import R2BucketTarget
from proxy_server.stores.r2 import R2Store
from proxy_server.stores.r2_files import open_files
from proxy_server.tables import Table

__all__ = ["R2Service", "parse"]


def parse(table: Table, state_dir: Path) -> Opener:
    """Check the table of an R2 binding.

    Raises:
        ConfigError: if a key is unknown, or its value not valid.
    """
    name = table.path.rpartition(".")[2]
    bucket = table.text("bucket_name", table.text("id", name))
    open_store = _store_opener(table, state_dir / f"r2-{_file_name(bucket)}")
    table.finish()

    async def open_bucket(_tasks: TaskGroup) -> Binding:
        try:
            store = await open_store()
        except (OSError, sqlite3.Error) as error:
            raise BindingError(f"the bucket {bucket!r} cannot be opened: {error}") from error
        return R2Service(store)

    return open_bucket


def _store_opener(table: Table, default: Path) -> Callable[[], Awaitable[R2Store]]:
    """What opens the store that a table names."""
    url = table.optional_text("store")
    folder = default if url is None else Path(unquote(urlsplit(url).path))

    async def open_folder() -> R2Store:
        bucket, _index = await open_files(folder)
        return bucket

    return open_folder


def _file_name(name: str) -> str:
    """A name as the name of a file: it cannot climb out of its folder."""
    return quote(name, safe="").replace(".", "%2E")


class R2Service:
    """Answers both channels from a store, which it owns."""

    def __init__(self, store: R2Store) -> None:
        self._store = store
        self._operations = R2Operations(store)
        self._http = R2Http(self._operations)

    def rpc_main(self) -> object:
        return R2BucketTarget(self._operations)

    async def fetch(self, request: Request) -> Response:
        return await self._http.fetch(request)

    async def aclose(self) -> None:
        await self._store.aclose()
