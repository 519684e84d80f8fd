"""The "r2_bucket" binding: a bucket in a folder by default, or in an object store, over both channels.

    [bindings.ASSETS]
    type = "r2_bucket"
    store = "file:///srv/assets"      # or s3://bucket/prefix, gs://..., az://container/...
    access = "read"                   # or "overlay"; "full" if it is not given
    [bindings.ASSETS.store_options]   # of an object store: its region, endpoint and the like

The HTTP channel is in r2_http.py, the RPC channel in r2_rpc.py, and what both do in r2_operations.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from anyio.abc import TaskGroup

from capnweb_py.bindings.r2 import R2Bucket
from capnweb_py.web import Request, Response
from proxy_server.bindings import Binding, BindingError, Opener, access_of
from proxy_server.bindings.r2_http import R2Http
from proxy_server.bindings.r2_operations import R2Operations
from proxy_server.bindings.r2_rpc import R2BucketTarget
from proxy_server.stores.r2 import R2Store
from proxy_server.stores.r2_access import Overlay, ReadOnly
from proxy_server.stores.r2_files import open_files
from proxy_server.stores.r2_remote import RemoteBucket
from proxy_server.stores.read_only import read_only
from proxy_server.tables import Table

__all__ = ["R2Service", "over", "overlay_folder", "parse"]

_OBJECT_STORES: Final = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss"})

_StoreOpener: TypeAlias = Callable[[], Awaitable[R2Store]]


def parse(table: Table, state_dir: Path) -> Opener:
    """Check the table of a bucket.

    Keys: `store`, a URL; `id` or `bucket_name`, the name of its folder (the binding's own by default); `access`.

    Raises:
        ConfigError: if a key is unknown, or its value not valid.
    """
    name = table.name
    identity = table.text("bucket_name", table.text("id", name))
    open_store = _store_opener(table, identity, state_dir)
    access = access_of(table)
    table.finish()
    return _opener(open_store, access, name, state_dir, over_remote=False)


def over(facade: R2Bucket, access: str, name: str, state_dir: Path) -> Opener:
    """A bucket over a remote one.

    Args:
        facade: of the remote binding. It is not closed.
        access: "full", "read" or "overlay".
        name: of the binding.
        state_dir: where an overlay is kept.
    """

    async def open_remote() -> R2Store:
        return RemoteBucket(facade)

    return _opener(open_remote, access, name, state_dir, over_remote=True)


def overlay_folder(state_dir: Path, name: str) -> Path:
    """The folder of a binding's overlay."""
    return state_dir / f"overlay-r2_bucket-{_file_name(name)}"


def _opener(open_store: _StoreOpener, access: str, name: str, state_dir: Path, *, over_remote: bool) -> Opener:
    async def open_bucket(_tasks: TaskGroup) -> Binding:
        try:
            store = await open_store()
            if access == "read":
                store = ReadOnly(store, read_only(name, over_remote=over_remote))
            elif access == "overlay":
                store = await _overlay(store, overlay_folder(state_dir, name))
        except (OSError, sqlite3.Error) as error:
            raise BindingError(f"its bucket cannot be used: {error}") from error
        return R2Service(store)

    return open_bucket


async def _overlay(base: R2Store, folder: Path) -> R2Store:
    try:
        local, index = await open_files(folder, overlay=True)
    except BaseException:
        await base.aclose()
        raise
    return Overlay(base, local, index)


def _store_opener(table: Table, identity: str, state_dir: Path) -> _StoreOpener:
    """What opens the store that a table names."""
    url = table.optional_text("store")
    scheme = "file" if url is None else url.partition(":")[0].lower()
    if scheme == "file":
        folder = state_dir / f"r2-{_file_name(identity)}" if url is None else _folder(table, url)

        async def open_folder() -> R2Store:
            bucket, _index = await open_files(folder)
            return bucket

        return open_folder
    if scheme in _OBJECT_STORES and url is not None:
        return _object_store_opener(table, url)
    raise table.error(
        f'stores with {scheme}: are not known here: "file:///FOLDER", "s3://BUCKET/PREFIX", "gs://BUCKET/PREFIX" and '
        '"az://CONTAINER/PREFIX" are',
        "store",
    )


def _folder(table: Table, url: str) -> Path:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc or not path.strip("/") or parts.query or parts.fragment:
        raise table.error('a store in a folder is written "file:///FOLDER", with a whole path', "store")
    return Path(path)


def _object_store_opener(table: Table, url: str) -> _StoreOpener:
    try:
        from proxy_server.stores.r2_objects import open_objects, store_at
    except ModuleNotFoundError as error:
        raise table.package_missing("an object store", error, "objects", "store") from error
    options = table.table("store_options")
    try:
        remote = store_at(url, {key: options.text(key) for key in options.written})
    except ValueError as error:
        raise table.error(str(error), "store") from error

    async def open_remote() -> R2Store:
        return await open_objects(remote)

    return open_remote


def _file_name(name: str) -> str:
    """A name as part of a file's: nothing in it leads out of the folder."""
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
