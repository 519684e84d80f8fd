"""The "d1" binding: a SQL database. Here is how it is configured, and what is opened then.

The HTTP channel is in d1_http.py, the RPC channel in d1_rpc.py, and the databases are in proxy_server/stores.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import apsw
from anyio.abc import TaskGroup

from capnweb_py.bindings.d1 import D1Database
from capnweb_py.http11 import Http11Client
from proxy_server.bindings import Binding, BindingError, Opener, access_of
from proxy_server.bindings.d1_http import D1Service
from proxy_server.stores.d1 import D1Store
from proxy_server.stores.d1_access import FacadeStore, ReadOnly, Refusing
from proxy_server.stores.d1_libsql import LibsqlD1
from proxy_server.stores.d1_overlay import Overlay
from proxy_server.stores.d1_sqlite import SqliteD1
from proxy_server.stores.read_only import read_only
from proxy_server.tables import Table

__all__ = ["over", "overlay_path", "parse"]

# What the URL of a libSQL server begins with, and what that stands for.
_SERVERS: Final = {"libsql://": "https://", "libsql+http://": "http://"}


def parse(table: Table, state_dir: Path) -> Opener:
    """Check the table of a d1 binding.

    `store` is the URL of the database: `sqlite:///app.db` in the state directory, `sqlite:////srv/app.db` anywhere, or
    `libsql://host` and `libsql+http://host:port`, whose token is in the environment variable that `token_env` names.
    `id` names the file where there is no `store`, and that of an overlay; `access` is "full", "read" or "overlay".

    Raises:
        ConfigError: if a key is unknown, or its value not valid.
    """
    name = table.text("id", table.name or "db")
    url = table.optional_text("store")
    token_env = table.optional_text("token_env")
    access = access_of(table)
    table.finish()
    server = _server(url)
    token = _token(table, token_env)
    path = state_dir / f"d1-{_file_name(name)}.sqlite3" if url is None else _path_of(url, table, state_dir)

    async def open_d1(tasks: TaskGroup) -> Binding:
        for_reading = access != "full"
        if server is None:
            store: D1Store = await _open(path, read_only=for_reading)
        else:
            store = LibsqlD1(Http11Client(tasks.start_soon), server, auth_token=token, read_only=for_reading)
        if access == "read":
            store = Refusing(store, read_only(table.name, over_remote=False))
        elif access == "overlay":
            store = Overlay(store, await _open(overlay_path(state_dir, name)))
        return D1Service(store)

    return open_d1


def _server(url: str | None) -> str | None:
    """The address of a libSQL server, where a store's URL names one."""
    for prefix, scheme in _SERVERS.items():
        if url is not None and url.startswith(prefix) and url != prefix:
            return scheme + url.removeprefix(prefix)
    return None


def _token(table: Table, variable: str | None) -> str | None:
    if variable is not None and variable not in os.environ:
        raise table.error(f"there is no environment variable {variable}", "token_env")
    return None if variable is None else os.environ[variable]


def over(facade: D1Database, access: str, name: str, state_dir: Path) -> Opener:
    """A binding over a remote one, in the process of a program that has a facade of it.

    Args:
        facade: of the remote one. It outlives the binding.
        access: "full", "read", or "overlay".
        name: of the binding. What an overlay holds is in a file that is named by it.
        state_dir: where that file is.
    """

    async def open_over(_tasks: TaskGroup) -> Binding:
        remote = FacadeStore(facade)
        if access == "full":
            return D1Service(remote)
        if access == "read":
            return D1Service(Refusing(ReadOnly(remote), read_only(name, over_remote=True)))
        return D1Service(Overlay(ReadOnly(remote), await _open(overlay_path(state_dir, name))))

    return open_over


def overlay_path(state_dir: Path, name: str) -> Path:
    """Where the overlay of a binding is kept: deleting the file throws it away."""
    return state_dir / f"overlay-d1-{_file_name(name)}.sqlite3"


async def _open(path: Path, *, read_only: bool = False) -> SqliteD1:
    try:
        return await SqliteD1.open(path, read_only=read_only)
    except (OSError, apsw.Error) as error:
        raise BindingError(f"the database {path} cannot be opened: {error}") from error


def _file_name(name: str) -> str:
    """An id as a part of a file's name: what could lead elsewhere is written in hex."""
    return re.sub(r"[^\w-]", lambda match: f"%{ord(match[0]):02x}", name)


def _path_of(url: str, table: Table, state_dir: Path) -> Path:
    prefix = "sqlite:///"
    if _server(url) is None and (not url.startswith(prefix) or url == prefix):
        raise table.error('"sqlite:///FILE" or "libsql://HOST" is needed here', "store")
    return state_dir / url.removeprefix(prefix)
