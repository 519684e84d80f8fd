"""The "d1" binding: a SQL database, over both channels.

Here is its HTTP channel: what the Workers runtime's own `env.DB` sends and reads (workerd,
src/cloudflare/internal/d1-api.ts). The RPC channel is in d1_rpc.py, the databases are in proxy_server/stores.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import apsw
import orjson
from anyio.abc import TaskGroup

from capnweb_py.bindings.d1 import D1Database
from capnweb_py.web import HeadersInit, ReadableStream, Request, Response
from proxy_server.bindings import Binding, BindingError, Opener
from proxy_server.bindings.d1_rpc import D1Target, statement_of
from proxy_server.stores.d1 import D1Failure, D1Store, Outcome, Statement
from proxy_server.stores.d1_access import FacadeStore, ReadOnly
from proxy_server.stores.d1_overlay import Overlay
from proxy_server.stores.d1_sqlite import SqliteD1
from proxy_server.stores.d1_values import wire_cell
from proxy_server.tables import Table, suggestion

__all__ = ["ACCESSES", "MAX_REQUEST_BYTES", "D1Service", "over", "overlay_path", "parse"]

ACCESSES: Final = ("full", "read", "overlay")

# How large one request may be: a hundred parameters of two megabytes, written as arrays of numbers, would be more, and
# so would many statements; D1 itself is behind a Worker, whose requests end at 100 MB.
MAX_REQUEST_BYTES: Final = 100_000_000

# The header with the bookmark, or the constraint, that a session sends, and with the bookmark that it gets.
_TOKEN: Final = "x-cf-d1-session-commit-token"
_PATHS: Final = frozenset({"/query", "/execute"})


def parse(table: Table, state_dir: Path) -> Opener:
    """Check the table of a d1 binding.

    `store` is the URL of the database, `sqlite:///app.db` in the state directory or `sqlite:////srv/app.db` anywhere;
    `id` names the file where there is no `store`; `access` is "full" or "read".

    Raises:
        ConfigError: if a key is unknown, or its value not valid.
    """
    name = table.text("id", table.path.rpartition(".")[2] or "db")
    url = table.optional_text("store")
    access = table.text("access", "full")
    table.finish()
    if access not in ACCESSES:
        raise table.error(f'"{access}" is no access: {suggestion(access, ACCESSES)}', "access")
    path = state_dir / f"d1-{_file_name(name)}.sqlite3" if url is None else _path_of(url, table, state_dir)

    async def open_d1(_tasks: TaskGroup) -> Binding:
        store: D1Store = await _open(path, read_only=access != "full")
        if access == "overlay":
            store = Overlay(store, await _open(overlay_path(state_dir, name)))
        return D1Service(store)

    return open_d1


def over(facade: D1Database, access: str, name: str, state_dir: Path) -> Opener:
    """A binding over a remote one, in the process of a program that has a facade of it.

    Args:
        facade: of the remote one. It outlives the binding.
        access: "full", "read", or "overlay".
        name: of the binding. What an overlay holds is in a file that is named by it.
        state_dir: where that file is.

    Raises:
        ValueError: if there is no such access.
    """
    if access not in ACCESSES:
        raise ValueError(f"{access!r} is no access: {suggestion(access, ACCESSES)}")

    async def open_over(_tasks: TaskGroup) -> Binding:
        remote = FacadeStore(facade)
        if access == "full":
            return D1Service(remote)
        if access == "read":
            return D1Service(ReadOnly(remote))
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
    if not url.startswith(prefix) or not url.removeprefix(prefix):
        raise table.error('"sqlite:///FILE" is needed here', "store")
    return state_dir / url.removeprefix(prefix)


class D1Service:
    """Answers both channels from one database.

    Args:
        store: the database. It is closed with the binding.
    """

    def __init__(self, store: D1Store) -> None:
        self._store = store

    def rpc_main(self) -> object:
        return D1Target(self._store)

    async def fetch(self, request: Request) -> Response:
        """Answer `POST /query`, `/execute` and `/dump`. A statement that fails is an answer, too."""
        path = urlsplit(request.url).path
        if request.method != "POST" or path not in {*_PATHS, "/dump"}:
            return Response(f"{request.method} {path} is nothing that a database answers", status=404)
        try:
            if path == "/dump":
                return Response(
                    ReadableStream(await self._store.dump()), headers={"content-type": "application/x-sqlite3"}
                )
            statements = _statements(await _body(request))
            outcomes, bookmark = await self._store.run(statements, request.headers.get(_TOKEN))
        except D1Failure as error:
            # The runtime reads what has gone wrong from the body alone, save for a dump.
            return _json({"success": False, "error": str(error)}, status=500 if path == "/dump" else 200)
        table_like = parse_qs(urlsplit(request.url).query).get("resultsFormat", [""])[0] == "ROWS_AND_COLUMNS"
        answer = [_answer(outcome, table_like) for outcome in outcomes]
        return _json(answer, headers={_TOKEN: bookmark})

    async def aclose(self) -> None:
        await self._store.aclose()


async def _body(request: Request) -> bytes:
    whole = bytearray()
    if request.body is not None:
        async for chunk in request.body:
            whole += chunk
            if len(whole) > MAX_REQUEST_BYTES:
                raise D1Failure(f"the request is larger than {MAX_REQUEST_BYTES} bytes")
    return bytes(whole)


def _statements(body: bytes) -> list[Statement]:
    """The statements of a request: an object with `sql` and `params`, or an array of them."""
    try:
        queries = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise D1Failure(f"the request is not JSON: {error}") from error
    return [statement_of(query) for query in (queries if isinstance(queries, list) else [queries])]


def _json(value: object, status: int = 200, headers: HeadersInit | None = None) -> Response:
    # Lone surrogates and NaN cannot come up: SQLite's texts are UTF-8, and wire_cell knows no NaN.
    response = Response(orjson.dumps(value), status=status, headers=headers)
    response.headers["content-type"] = "application/json"
    return response


def _answer(outcome: Outcome, table_like: bool) -> dict[str, Any]:
    rows = [[wire_cell(cell) for cell in row] for row in outcome.rows]
    results = (
        {"columns": list(outcome.columns), "rows": rows}
        if table_like
        else [dict(zip(outcome.columns, row, strict=True)) for row in rows]
    )
    return {"success": True, "results": results, "meta": outcome.meta}
