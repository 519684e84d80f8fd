"""The "kv_namespace" binding: keys and values in a store, over both channels.

`store` chooses the store: "sqlite:///FILE" (a file in the state directory, the default), or "redis://HOST:PORT/DB" for
Redis and Valkey. `access` chooses what is put before it. What a namespace accepts is in kv_rules.py, the channels in
kv_http.py and kv_rpc.py.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from anyio.abc import TaskGroup

from capnweb_py.bindings.kv import KvNamespace
from capnweb_py.web import Request, Response
from proxy_server.bindings import Binding, Opener, access_of
from proxy_server.bindings.kv_http import KvHttp
from proxy_server.bindings.kv_rpc import KvTarget
from proxy_server.bindings.store_urls import check_redis, scheme_of, sqlite_path
from proxy_server.stores.kv import Clock, KvStore
from proxy_server.stores.kv_access import Overlay, ReadOnly
from proxy_server.stores.kv_remote import RemoteKv
from proxy_server.stores.kv_sqlite import SqliteKv
from proxy_server.stores.read_only import read_only
from proxy_server.tables import Table

__all__ = ["KvBinding", "over", "overlay_path", "parse"]


_StoreOpener: TypeAlias = Callable[[TaskGroup], Awaitable[KvStore]]


def parse(table: Table, state_dir: Path) -> Opener:
    """Check the table of a namespace.

    Keys: `store`, a URL; `id`, the name of its data in the store (the binding's own by default); `access`.

    Raises:
        ConfigError: if a key is unknown, or its value not valid.
    """
    name = table.name
    identity = table.text("id", name)
    url = table.optional_text("store")
    access = access_of(table)
    table.finish()
    return _opener(_store_opener(table, url, identity, state_dir), access, name, state_dir, over_remote=False)


def over(facade: KvNamespace, access: str, name: str, state_dir: Path) -> Opener:
    """A namespace over a remote one.

    Args:
        facade: of the remote binding. It is not closed.
        access: "full", "read" or "overlay".
        name: of the binding.
        state_dir: where an overlay is kept.
    """

    async def open_remote(_tasks: TaskGroup) -> KvStore:
        return RemoteKv(facade)

    return _opener(open_remote, access, name, state_dir, over_remote=True)


def overlay_path(state_dir: Path, name: str) -> Path:
    """The file of a binding's overlay."""
    return state_dir / f"overlay-kv_namespace-{_file_name(name)}.sqlite3"


def _file_name(name: str) -> str:
    """A name as part of a file's: nothing in it leads out of the folder."""
    return quote(name, safe="")


def _opener(open_store: _StoreOpener, access: str, name: str, state_dir: Path, *, over_remote: bool) -> Opener:
    async def open_namespace(tasks: TaskGroup) -> Binding:
        store = await open_store(tasks)
        if access == "full":
            return KvBinding(store)
        if access == "read":
            return KvBinding(ReadOnly(store, read_only(name, over_remote=over_remote)))
        try:
            local = await SqliteKv.open(overlay_path(state_dir, name))
        except BaseException:
            await store.aclose()
            raise
        return KvBinding(Overlay(store, local))

    return open_namespace


def _store_opener(table: Table, url: str | None, identity: str, state_dir: Path) -> _StoreOpener:
    if url is not None and scheme_of(table, url) == "redis":
        return _redis_opener(table, url, identity)
    path = state_dir / f"kv-{_file_name(identity)}.sqlite3" if url is None else sqlite_path(table, url, state_dir)

    async def open_sqlite(_tasks: TaskGroup) -> KvStore:
        return await SqliteKv.open(path)

    return open_sqlite


def _redis_opener(table: Table, url: str, identity: str) -> _StoreOpener:
    check_redis(table, url)
    from proxy_server.stores.kv_redis import RedisKv

    async def open_redis(tasks: TaskGroup) -> KvStore:
        return await RedisKv.open(url, identity, tasks)

    return open_redis


class KvBinding:
    """Answers both channels from one store.

    Args:
        store: the data. The binding owns it.
        clock: what tells when an expiration is; that of the store.
    """

    def __init__(self, store: KvStore, clock: Clock = time.time) -> None:
        self._store = store
        self._clock = clock
        self._http = KvHttp(store, clock)

    def rpc_main(self) -> object:
        return KvTarget(self._store, self._clock)

    async def fetch(self, request: Request) -> Response:
        return await self._http.fetch(request)

    async def aclose(self) -> None:
        await self._store.aclose()
