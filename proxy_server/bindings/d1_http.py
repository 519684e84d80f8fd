"""The d1 binding's HTTP channel: what the Workers runtime's own `env.DB` sends and reads (workerd,
src/cloudflare/internal/ d1-api.ts).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import orjson
from anyio import to_thread

from capnweb_py.web import HeadersInit, ReadableStream, Request, Response
from proxy_server.bindings.d1_rpc import D1Target, statement_of
from proxy_server.channels import FAILURE
from proxy_server.stores.d1 import D1Failure, D1Store, Outcome, Statement
from proxy_server.stores.d1_values import wire_cell

__all__ = ["MAX_REQUEST_BYTES", "D1Service"]

# How large one request may be: a hundred parameters of two megabytes, written as arrays of numbers, would be more, and
# so would many statements; D1 itself is behind a Worker, whose requests end at 100 MB.
MAX_REQUEST_BYTES: Final = 100_000_000

# The header with the bookmark, or the constraint, that a session sends, and with the bookmark that it gets.
_TOKEN: Final = "x-cf-d1-session-commit-token"
# Longer requests are read, and more rows written, in a thread: meanwhile, others are answered.
_BYTES_AT_ONCE: Final = 100_000
_ROWS_AT_ONCE: Final = 200
_PATHS: Final = frozenset({"/query", "/execute"})


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
            body = await _body(request)
            small = len(body) <= _BYTES_AT_ONCE
            statements = _statements(body) if small else await to_thread.run_sync(_statements, body)
            outcomes, bookmark = await self._store.run(statements, request.headers.get(_TOKEN))
        except D1Failure as error:
            FAILURE.get()(error)
            # The runtime reads what has gone wrong from the body alone, save for a dump.
            return _json({"success": False, "error": str(error)}, status=500 if path == "/dump" else 200)
        table_like = parse_qs(urlsplit(request.url).query).get("resultsFormat", [""])[0] == "ROWS_AND_COLUMNS"
        if sum(len(outcome.rows) for outcome in outcomes) <= _ROWS_AT_ONCE:
            return _answers(outcomes, table_like, bookmark)
        return await to_thread.run_sync(_answers, outcomes, table_like, bookmark)

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


def _answers(outcomes: Sequence[Outcome], table_like: bool, bookmark: str) -> Response:
    return _json([_answer(outcome, table_like) for outcome in outcomes], headers={_TOKEN: bookmark})


def _answer(outcome: Outcome, table_like: bool) -> dict[str, Any]:
    rows = [[wire_cell(cell) for cell in row] for row in outcome.rows]
    results = (
        {"columns": list(outcome.columns), "rows": rows}
        if table_like
        else [dict(zip(outcome.columns, row, strict=True)) for row in rows]
    )
    return {"success": True, "results": results, "meta": outcome.meta}
