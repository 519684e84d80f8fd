"""D1: a SQL database, as `env.DB` of the Workers runtime.

Both channels run statements alike, several of them as one transaction; what is made of their answers is done here, as
the runtime does it (workerd, src/cloudflare/internal/d1-api.ts), whose texts the errors have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import orjson

from ..errors import RemoteError, RpcError, has_not_run
from ..stub import RpcStub
from ..web import ReadableStream, Request
from .arguments import check
from .channels import FOREIGN, Channels
from .d1_values import MAX_SAFE_INTEGER, D1Value, bindable, readable, unbindable

__all__ = ["D1Database", "D1Error", "D1ExecResult", "D1PreparedStatement", "D1Result", "D1Session", "D1TypeError"]

_VALUES: Final = "None, a number, a str or bytes"

_PRIMARY: Final = "first-primary"
_UNCONSTRAINED: Final = "first-unconstrained"
_TOKEN: Final = "x-cf-d1-session-commit-token"


class D1Error(RpcError):
    """What the database says is wrong: "D1_ERROR: no such table: users: SQLITE_ERROR"."""


class D1TypeError(D1Error, TypeError):
    """A value of a type that cannot be bound."""


@attrs.frozen
class D1Result:
    """What came of a statement.

    Attributes:
        results: the rows, by the names of their columns.
        success: whether it succeeded; where it does not, an error is raised.
        meta: duration (in milliseconds), changes, last_row_id, changed_db, size_after, rows_read, rows_written,
        served_by ...
    """

    results: list[dict[str, Any]]
    success: bool
    meta: dict[str, Any]


@attrs.frozen
class D1ExecResult:
    """What came of the lines of `exec`: how many there were, and how long they took, in milliseconds."""

    count: int
    duration: float


@attrs.frozen
class RawResult:
    """What came of a statement, as it is: names may come twice, and cells are as they travelled."""

    columns: list[str]
    rows: list[list[Any]]
    meta: dict[str, Any]

    def records(self) -> list[dict[str, Any]]:
        """The rows by the names of their columns, of which the last of several that are the same counts."""
        return [dict(zip(self.columns, map(readable, row), strict=True)) for row in self.rows]

    def result(self) -> D1Result:
        """The public form."""
        return D1Result(self.records(), True, self.meta)


class D1Failed(Exception):
    """The database refused. The text has no prefix yet."""


class D1Session:
    """Statements that see what earlier ones of the session have done, wherever they run. Made by `with_session`."""

    def __init__(self, channels: Channels, token: str) -> None:
        self._channels = channels
        self._token = token

    def prepare(self, sql: str) -> D1PreparedStatement:
        """A statement. `?` and `?1` in it stand for values, to be bound."""
        check("sql", sql, str, "a str")
        return D1PreparedStatement(self, sql)

    async def batch(self, statements: Sequence[D1PreparedStatement]) -> list[D1Result]:
        """Run statements in one transaction: all of them, or none. The first that fails is the error.

        Raises:
            D1Error: a statement failed.
        """
        statements = list(statements)
        for statement in statements:
            check("each statement", statement, D1PreparedStatement, "what prepare() gives")
        return [raw.result() for raw in await self._run([(one.sql, one.params) for one in statements])]

    @property
    def bookmark(self) -> str | None:
        """The latest state that the session has seen, for `with_session` elsewhere; None before the first query."""
        return None if self._token in (_PRIMARY, _UNCONSTRAINED) else self._token

    async def _run(self, queries: Sequence[tuple[str, Sequence[Any]]]) -> list[RawResult]:
        try:
            results, bookmark = await self.query(queries, self._token)
        except D1Failed as error:
            raise D1Error(f"D1_ERROR: {error}") from None
        self._saw(bookmark)
        return results

    def _saw(self, bookmark: str | None) -> None:
        if bookmark and (self.bookmark or "") < bookmark.strip():
            self._token = bookmark.strip()

    async def query(
        self, queries: Sequence[tuple[str, Sequence[Any]]], token: str | None = None
    ) -> tuple[list[RawResult], str | None]:
        """Run SQL with values in one transaction. What `batch` and all others stand on.

        Args:
            queries: each a text, and the values for its parameters, as `bindable` gives them.
            token: a bookmark, or the name of a constraint.

        Returns:
            What came of each, and the bookmark after them.

        Raises:
            D1Failed: a statement failed.
        """
        if self._channels.preferred == "rpc":
            return await _query_by_rpc(self._channels.rpc, queries, token)
        return await _query_by_http(self._channels, queries, token)

    def __repr__(self) -> str:
        return f"<d1 session of {self._channels.name}>"


class D1Database(D1Session):
    """The facade of a d1 binding.

    result = await env.DB.prepare("SELECT * FROM users WHERE id = ?").bind(7).all()
    result.results
    """

    def __init__(self, channels: Channels) -> None:
        super().__init__(channels, _PRIMARY)

    @property
    def rpc(self) -> RpcStub:
        """The stub of the remote binding, with the methods that the Workers runtime's has."""
        return self._channels.rpc

    async def exec(self, sql: str) -> D1ExecResult:
        """Run each line of a text, without values, in one transaction.

        Raises:
            D1Error: a line failed.
        """
        check("sql", sql, str, "a str")
        lines = sql.strip().split("\n")
        try:
            results, _bookmark = await self.query([(line, ()) for line in lines], self._token)
        except D1Failed as error:
            raise D1Error(f"D1_EXEC_ERROR: Error in line 1: {lines[0]}: {error}") from None
        return D1ExecResult(len(results), sum(result.meta["duration"] for result in results))

    def with_session(self, constraint_or_bookmark: str | None = None) -> D1Session:
        """A session that begins with a bookmark of another, or with "first-primary" or "first-unconstrained"."""
        check("constraint_or_bookmark", constraint_or_bookmark, str | None, "a str")
        return D1Session(self._channels, (constraint_or_bookmark or "").strip() or _UNCONSTRAINED)

    async def dump(self) -> bytes:
        """The whole database as a SQLite file. Cloudflare's own serves it for databases of the alpha version alone.

        Raises:
            D1Error: there is none to be had.
        """
        return b"".join([chunk async for chunk in await self.dump_stream()])

    async def dump_stream(self) -> ReadableStream[bytes]:
        """The same as a stream of chunks, for a database that is larger than the memory.

        Raises:
            D1Error: there is none to be had.
        """
        if self._channels.preferred == "rpc":
            try:
                dumped: ReadableStream[bytes] = await self._channels.rpc.dump()
            except RemoteError as error:
                if has_not_run(error):
                    raise
                raise D1Error(str(error)) from None
            return dumped
        response = await self._channels.fetch(Request("http://d1/dump", method="POST"))
        if response.status == 200 and response.body is not None:
            return response.body
        try:
            raise D1Error(f"D1_DUMP_ERROR: {orjson.loads(await response.bytes())['error']}")
        except (orjson.JSONDecodeError, LookupError, TypeError):
            raise D1Error(f"D1_DUMP_ERROR: Status + {response.status}") from None

    def _saw(self, bookmark: str | None) -> None:
        """Outside of sessions, everything goes to the primary, which is always up to date."""

    def __repr__(self) -> str:
        return f"<d1 {self._channels.name}>"


class D1PreparedStatement:
    """A statement, with values for its parameters. It can be run any number of times.

    Attributes:
        sql: its text.
        params: the values, as they are sent.
    """

    def __init__(self, session: D1Session, sql: str, params: Sequence[Any] = ()) -> None:
        self._session = session
        self.sql = sql
        self.params = params

    def bind(self, *values: D1Value) -> D1PreparedStatement:
        """The same statement with other values: None, numbers, texts, bytes. A bool becomes 1 or 0.

        Raises:
            D1TypeError: a value is of another type, or an integer that a double cannot hold. A list of values is
                unpacked: `bind(*values)`.
        """
        return D1PreparedStatement(
            self._session, self.sql, [_bound(place, value) for place, value in enumerate(values, start=1)]
        )

    async def all(self) -> D1Result:
        """Run it. Returns all rows.

        Raises:
            D1Error: it failed.
        """
        return (await self._raw()).result()

    async def run(self) -> D1Result:
        """Run it. The same as `all`, by the name that suits a statement that writes."""
        return await self.all()

    async def first(self, column: str | None = None) -> Any:
        """Run it. Returns the first row, or one column of it; None where there is no row.

        Raises:
            D1Error: it failed, or there is no such column.
        """
        check("column", column, str | None, "a str")
        records = (await self._raw()).records()
        if not records or column is None:
            return records[0] if records else None
        if column not in records[0]:
            raise D1Error(f"D1_COLUMN_NOTFOUND: Column not found ({column})")
        return records[0][column]

    async def raw(self, *, column_names: bool = False) -> list[list[Any]]:
        """Run it. Returns all rows as lists, and before them the names of their columns if these are asked for.

        Raises:
            D1Error: it failed.
        """
        raw = await self._raw()
        rows = [list(map(readable, row)) for row in raw.rows]
        return [list(raw.columns), *rows] if column_names else rows

    async def _raw(self) -> RawResult:
        return (await self._session._run([(self.sql, self.params)]))[0]

    def __repr__(self) -> str:
        # Not the values: they are the application's own affair.
        return f"<d1 statement {self.sql!r}>"


def _bound(place: int, value: Any) -> Any:
    if type(value) is int and abs(value) > MAX_SAFE_INTEGER:
        raise D1TypeError(f"D1_TYPE_ERROR: {unbindable(value)}")
    # A list of bytes is a blob for JavaScript. In Python it is one that should have been unpacked.
    if isinstance(value, list | tuple):
        kind = type(value).__name__
        raise D1TypeError(
            f"D1_TYPE_ERROR: value {place} has to be {_VALUES}, not {kind}: unpack it, as in bind(*values)"
        )
    try:
        return bindable(value)
    except ValueError:
        kind = type(value).__name__
        raise D1TypeError(f"D1_TYPE_ERROR: value {place} has to be {_VALUES}, not {kind}") from None


async def _query_by_rpc(
    database: RpcStub, queries: Sequence[tuple[str, Sequence[Any]]], token: str | None
) -> tuple[list[RawResult], str | None]:
    request = {"queries": [{"sql": sql, "params": list(params)} for sql, params in queries], "bookmark": token}
    answer = await database.query(request)
    if not answer["success"]:
        raise D1Failed(str(answer["error"]))
    results = answer["results"]
    raw = [RawResult(one["data"]["columns"], one["data"]["rows"], one["meta"]) for one in results["queryResults"]]
    return raw, results.get("bookmark")


async def _query_by_http(
    channels: Channels, queries: Sequence[tuple[str, Sequence[Any]]], token: str | None
) -> tuple[list[RawResult], str | None]:
    body = [{"sql": sql, "params": [_json_param(value) for value in params]} for sql, params in queries]
    headers = {"content-type": "application/json", **({_TOKEN: token} if token else {})}
    request = Request(
        "http://d1/query?resultsFormat=ROWS_AND_COLUMNS", method="POST", headers=headers, body=orjson.dumps(body)
    )
    response = await channels.fetch(request)
    text = await response.bytes()
    try:
        answer = orjson.loads(text)
    except orjson.JSONDecodeError:
        if response.status in FOREIGN:
            raise channels.strange(response, "d1") from None
        raise D1Failed(f"Failed to parse body as JSON, got: {text.decode(errors='replace')}") from None
    answers = answer if isinstance(answer, list) else [answer]
    for one in answers:
        if one.get("error"):
            raise D1Failed(one["error"])
    return [_raw_of(one) for one in answers], response.headers.get(_TOKEN)


def _json_param(value: Any) -> Any:
    return list(value) if isinstance(value, bytes) else value


def _raw_of(answer: Mapping[str, Any]) -> RawResult:
    """An answer of any form that a D1 of any age may give: rows and columns, or objects, or nothing."""
    results, meta = answer.get("results") or [], answer.get("meta") or {}
    if isinstance(results, dict):
        return RawResult(results["columns"], results["rows"], meta)
    columns = list(results[0]) if results else []
    return RawResult(columns, [[row[name] for name in columns] for row in results], meta)
