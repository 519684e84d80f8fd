"""The d1 binding for stubs: the targets behind `env.DB`, with the names of the Workers API.

    env.prepare("SELECT * FROM users WHERE id = ?").bind(7).all()

is one round trip. Texts of errors are the runtime's (workerd, src/cloudflare/internal/d1-api.ts), and so is `query`,
by which a runtime with the compatibility flag d1_binding_jsrpc, and our own facade, do everything in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NoReturn

from capnweb_py.bindings.d1_values import bindable
from capnweb_py.errors import remote_error
from capnweb_py.stub import RpcStub, local_target
from capnweb_py.target import RpcTarget
from capnweb_py.values import UNDEFINED
from capnweb_py.web import ReadableStream
from proxy_server.declined import Error
from proxy_server.stores.d1 import (
    MAX_PARAMETERS,
    WRONG_PARAMETERS,
    D1Failure,
    D1Store,
    Outcome,
    SqlValue,
    Statement,
)
from proxy_server.stores.d1_values import param_from_wire, wire_cell

__all__ = ["MAX_MESSAGE_BYTES", "D1Target", "SessionTarget", "StatementTarget", "statement_of"]

# What a peer takes as one message by default (capnweb_py.Limits, max_message_size), a little less.
MAX_MESSAGE_BYTES: Final = 32_000_000

_PRIMARY: Final = "first-primary"
_UNCONSTRAINED: Final = "first-unconstrained"


def _throw(prefix: str, text: str, cause: str | None = None) -> NoReturn:
    """Raise what the runtime throws: an Error whose cause has the text alone."""
    raise Error(f"{prefix}: {text}") from Error(cause or text)


def statement_of(query: object) -> Statement:
    """A statement as the runtime sends it: `{sql, params}`.

    Raises:
        D1Failure: it is something else.
    """
    if not isinstance(query, dict) or not isinstance(query.get("sql"), str):
        raise D1Failure('a query is an object with "sql", a string, and "params", an array')
    params = query.get("params")
    if params in (None, UNDEFINED):
        params = []
    if not isinstance(params, list):
        raise D1Failure('the "params" of a query are an array')
    if len(params) > 10 * MAX_PARAMETERS:  # a few too many are SQLite's to refuse, by the statement
        raise D1Failure(WRONG_PARAMETERS)
    return Statement(query["sql"], [param_from_wire(param) for param in params])


class SessionTarget(RpcTarget):
    """What `withSession` gives: statements that see what earlier ones of the session have done.

    Args:
        store: the database.
        token: where to begin: a bookmark, or the name of a constraint.
    """

    def __init__(self, store: D1Store, token: str) -> None:
        self._store = store
        self._token = token

    def prepare(self, sql: str) -> StatementTarget:
        """A statement, without values yet."""
        if not isinstance(sql, str):
            raise TypeError(f"prepare() takes SQL as a string, not {type(sql).__name__}")
        return StatementTarget(self, sql)

    async def batch(self, statements: Sequence[object]) -> list[dict[str, Any]]:
        """Run statements in one transaction: all of them, or none."""
        return [_objects(outcome) for outcome in await self._run([_statement(one) for one in statements])]

    def getBookmark(self) -> str | None:
        """The latest state that the session has seen; null before its first query."""
        return None if self._token in {_PRIMARY, _UNCONSTRAINED} else self._token

    async def _run(self, statements: Sequence[Statement]) -> list[Outcome]:
        try:
            outcomes, bookmark = await self._store.run(statements, self._token)
            _check_size(outcomes)
        except D1Failure as error:
            _throw("D1_ERROR", str(error))
        self._saw(bookmark)
        return outcomes

    def _saw(self, bookmark: str) -> None:
        if bookmark and (self.getBookmark() or "") < bookmark:
            self._token = bookmark


class D1Target(SessionTarget):
    """The main object of a session: `env.DB`."""

    def __init__(self, store: D1Store) -> None:
        super().__init__(store, _PRIMARY)

    async def exec(self, sql: str) -> dict[str, Any]:
        """Run each line of a text, in one transaction. Returns `{count, duration}`."""
        lines = sql.strip().split("\n")
        try:
            outcomes, _bookmark = await self._store.run([Statement(line) for line in lines], self._token)
        except D1Failure as error:
            # The runtime is told of one error, and takes it for that of the first line.
            _throw("D1_EXEC_ERROR", f"Error in line 1: {lines[0]}: {error}")
        return {"count": len(outcomes), "duration": sum(outcome.meta["duration"] for outcome in outcomes)}

    def withSession(self, constraintOrBookmark: object = None) -> SessionTarget:
        """A session that begins with a bookmark, or with "first-primary" or "first-unconstrained"."""
        given = constraintOrBookmark.strip() if isinstance(constraintOrBookmark, str) else ""
        return SessionTarget(self._store, given or _UNCONSTRAINED)

    async def dump(self) -> ReadableStream[bytes]:
        """The whole database as a SQLite file: a stream, since no message could hold it."""
        try:
            return ReadableStream(await self._store.dump())
        except D1Failure as error:
            _throw("D1_DUMP_ERROR", str(error))

    async def query(self, request: object) -> dict[str, Any]:
        """Run statements in one transaction, and return what came of them as it is.

        Args:
            request: `{queries: [{sql, params}], bookmark}`.

        Returns:
            `{success: true, results: {queryResults: [{meta, data: {kind: "raw", columns, rows}}], bookmark}}`, or
            `{success: false, error}`.
        """
        fields = request if isinstance(request, dict) else {}
        queries, token = fields.get("queries"), fields.get("bookmark")
        try:
            statements = [statement_of(query) for query in queries] if isinstance(queries, list) else []
            outcomes, bookmark = await self._store.run(statements, token if isinstance(token, str) else None)
            _check_size(outcomes)
        except D1Failure as error:
            return {"success": False, "error": remote_error("Error", str(error))}
        results = [
            {
                "meta": outcome.meta,
                "data": {"kind": "raw", "columns": list(outcome.columns), "rows": _cells(outcome)},
            }
            for outcome in outcomes
        ]
        return {"success": True, "results": {"queryResults": results, "bookmark": bookmark}}

    def _saw(self, bookmark: str) -> None:
        """Outside of sessions, everything goes to the primary, which is always up to date."""


class StatementTarget(RpcTarget):
    """A statement, with values for its parameters. It can be run any number of times."""

    def __init__(self, session: SessionTarget, sql: str, params: Sequence[Any] = ()) -> None:
        self._session = session
        self._statement = Statement(sql, params)

    def bind(self, *values: object) -> StatementTarget:
        """The same statement with other values."""
        try:
            bound = [param_from_wire(bindable(value)) for value in values]
        except ValueError as error:
            _throw("D1_TYPE_ERROR", str(error))
        return StatementTarget(self._session, self._statement.sql, bound)

    async def first(self, colName: object = None) -> Any:
        """The first row, or one column of it; null where there is no row."""
        row = next(iter(_rows(await self._outcome())), None)
        if colName in (None, UNDEFINED) or row is None:
            return row
        if not isinstance(colName, str) or colName not in row:
            _throw("D1_COLUMN_NOTFOUND", f"Column not found ({colName})", "Column not found")
        return row[colName]

    async def all(self) -> dict[str, Any]:
        """All rows, as objects: `{success, meta, results}`."""
        return _objects(await self._outcome())

    async def run(self) -> dict[str, Any]:
        """The same as `all`."""
        return _objects(await self._outcome())

    async def raw(self, options: object = None) -> list[list[Any]]:
        """All rows, as arrays; the columns' names first, where `options` is `{"columnNames": true}`."""
        outcome = await self._outcome()
        names = [list(outcome.columns)] if isinstance(options, dict) and options.get("columnNames") is True else []
        return [*names, *_cells(outcome)]

    async def _outcome(self) -> Outcome:
        return (await self._session._run([self._statement]))[0]


def _statement(given: object) -> Statement:
    target = local_target(given) if isinstance(given, RpcStub) else given
    if not isinstance(target, StatementTarget):
        raise TypeError("batch() takes an array of statements that this binding has prepared")
    return target._statement


def _check_size(outcomes: Sequence[Outcome]) -> None:
    """Refuse results that no peer takes as one message: writing them takes several times the memory of the rows."""
    held = sum(_written_size(cell) for outcome in outcomes for row in outcome.rows for cell in row)
    if held > MAX_MESSAGE_BYTES:
        raise D1Failure(
            f"the result is larger than {MAX_MESSAGE_BYTES} bytes, which is more than a message holds: use LIMIT, or"
            " the HTTP channel (what the statements have written is written)"
        )


def _written_size(cell: SqlValue) -> int:
    """In JSON, about. A blob is an array of numbers."""
    if isinstance(cell, bytes):
        return 4 * len(cell)
    return len(cell) if isinstance(cell, str) else 8


def _cells(outcome: Outcome) -> list[list[Any]]:
    return [[wire_cell(cell) for cell in row] for row in outcome.rows]


def _rows(outcome: Outcome) -> list[dict[str, Any]]:
    return [dict(zip(outcome.columns, row, strict=True)) for row in _cells(outcome)]


def _objects(outcome: Outcome) -> dict[str, Any]:
    return {"success": True, "meta": outcome.meta, "results": _rows(outcome)}
