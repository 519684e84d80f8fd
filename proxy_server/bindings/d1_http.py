"""The d1 binding's HTTP channel: what the Workers runtime's own `env.DB` sends and reads (workerd,
src/cloudflare/internal/ d1-api.ts).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final
from urllib.parse import parse_qs, urlsplit

import orjson
from anyio import CapacityLimiter, to_thread

from capnweb_py.web import ReadableStream, Request, Response
from proxy_server.bindings.d1_rpc import D1Target, statement_of
from proxy_server.channels import FAILURE
from proxy_server.stores.d1 import OUT_OF_MEMORY, D1Failure, D1Store, Outcome, SqlValue, Statement
from proxy_server.stores.d1_values import wire_cell

__all__ = ["MAX_REQUEST_BYTES", "D1Service"]

# How large one request may be, in bytes. Our own limit: a row of two megabytes, written as an array of numbers, is a
# half. What is read of JSON takes more memory, above all its arrays and objects: so they are counted by their brackets
# (those in texts, too), and long requests are read one at a time.
MAX_REQUEST_BYTES: Final = 16_000_000
MAX_BRACKETS: Final = 2_000_000

# The header with the bookmark, or the constraint, that a session sends, and with the bookmark that it gets.
_TOKEN: Final = "x-cf-d1-session-commit-token"
# Longer requests are read, and larger answers written, in a thread: meanwhile, others are answered.
_BYTES_AT_ONCE: Final = 100_000
_ROWS_AT_ONCE: Final = 200
# How much of a large answer is written at a time.
_ROWS_OF_PIECE: Final = 1_000
_BYTES_OF_PIECE: Final = 500_000
_JSON: Final = {"content-type": "application/json"}
_PATHS: Final = frozenset({"/query", "/execute"})


class D1Service:
    """Answers both channels from one database.

    Args:
        store: the database. It is closed with the binding.
    """

    def __init__(self, store: D1Store) -> None:
        self._store = store
        self._reading = CapacityLimiter(1)

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
            statements = await self._statements(await _body(request))
            outcomes, bookmark = await self._store.run(statements, request.headers.get(_TOKEN))
        except D1Failure as error:
            FAILURE.get()(error)
            # The runtime reads what has gone wrong from the body alone, save for a dump.
            failed = orjson.dumps({"success": False, "error": str(error)})
            return Response(failed, status=500 if path == "/dump" else 200, headers=_JSON)
        table_like = parse_qs(urlsplit(request.url).query).get("resultsFormat", [""])[0] == "ROWS_AND_COLUMNS"
        headers = {**_JSON, _TOKEN: bookmark}
        pieces = _answers(outcomes, table_like)
        if _is_small(outcomes):
            return Response(b"".join(pieces), headers=headers)
        return Response(ReadableStream(_in_thread(pieces)), headers=headers)

    async def _statements(self, body: bytes) -> list[Statement]:
        if len(body) <= _BYTES_AT_ONCE:
            return _statements(body)
        return await to_thread.run_sync(_statements, body, limiter=self._reading)

    async def aclose(self) -> None:
        await self._store.aclose()


async def _body(request: Request) -> bytes:
    whole = bytearray()
    if request.body is not None:
        async for chunk in request.body:
            whole += chunk
            if len(whole) > MAX_REQUEST_BYTES:
                raise D1Failure(f"{OUT_OF_MEMORY} The request is larger than {MAX_REQUEST_BYTES} bytes.")
    return bytes(whole)


def _statements(body: bytes) -> list[Statement]:
    """The statements of a request: an object with `sql` and `params`, or an array of them."""
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise D1Failure(f"{OUT_OF_MEMORY} The request has more than {MAX_BRACKETS} brackets.")
    try:
        queries = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise D1Failure(f"the request is not JSON: {error}") from error
    return [statement_of(query) for query in (queries if isinstance(queries, list) else [queries])]


def _answers(outcomes: Sequence[Outcome], table_like: bool) -> Iterator[bytes]:
    """The answer as JSON, in pieces: written, it may be several times as large as the rows are in memory."""
    for number, outcome in enumerate(outcomes):
        yield b"," if number else b"["
        start = orjson.dumps({"success": True, "meta": outcome.meta})[:-1] + b',"results":'
        if table_like:
            start += orjson.dumps({"columns": outcome.columns})[:-1] + b',"rows":'
        yield start + b"["
        for place, rows in _slices(outcome.rows):
            cells = [[wire_cell(cell) for cell in row] for row in rows]
            items = cells if table_like else [dict(zip(outcome.columns, row, strict=True)) for row in cells]
            # Lone surrogates and NaN cannot come up: SQLite's texts are UTF-8, and wire_cell knows no NaN.
            yield (b"," if place else b"") + orjson.dumps(items)[1:-1]
        yield b"]}}" if table_like else b"]}"
    yield b"]"


def _slices(rows: Sequence[Sequence[SqlValue]]) -> Iterator[tuple[int, Sequence[Sequence[SqlValue]]]]:
    """Rows, some at a time, and where each of these slices begins."""
    start = size = 0
    for place, row in enumerate(rows, start=1):
        size += _size(row)
        if place - start == _ROWS_OF_PIECE or size > _BYTES_OF_PIECE or place == len(rows):
            yield start, rows[start:place]
            start, size = place, 0


def _size(row: Sequence[SqlValue]) -> int:
    return sum(len(cell) for cell in row if isinstance(cell, (str, bytes)))


def _is_small(outcomes: Sequence[Outcome]) -> bool:
    if sum(len(outcome.rows) for outcome in outcomes) > _ROWS_AT_ONCE:
        return False
    return sum(_size(row) for outcome in outcomes for row in outcome.rows) <= _BYTES_AT_ONCE


async def _in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await to_thread.run_sync(next, pieces, b"")) != b"":
        yield piece
