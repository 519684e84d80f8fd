"""A D1 database on a libSQL server: for where one machine is not enough.

libSQL is SQLite with replication, by a server that several proxies share. Statements are checked here first
(d1_guard.py): the server would read files for whoever asks. Each request is one batch, and so one
transaction, in one round trip.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final

import anyio
from anyio import to_thread

from capnweb_py.http11 import Http11Client

from .d1 import (
    MAX_QUERY_SECONDS,
    MAX_RESULT_BYTES,
    TIMED_OUT,
    D1Failure,
    D1Unreachable,
    Meta,
    Outcome,
    SqlValue,
    Statement,
)
from .d1_guard import Checked, Guard, SchemaEntry
from .d1_sql import without_blanks
from .hrana import HranaError, HranaResult, run_in_transaction

__all__ = ["LibsqlD1"]

# What the connection knows of itself: it is asked before and after each statement.
_STATE: Final = (
    "SELECT total_changes(), last_insert_rowid(), (SELECT (page_count - freelist_count) * page_size"
    " FROM pragma_page_count, pragma_freelist_count, pragma_page_size)"
)
_SCHEMA: Final = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
# What may mean that the schema is another by now.
_UNKNOWN: Final = ("no such ", "no column named", "has no column", "already exists", "there is already")

# The names that the server leaves out of its errors, by what SQLite says.
_EXTENDED: Final = {
    "UNIQUE constraint failed": "SQLITE_CONSTRAINT_UNIQUE",
    "NOT NULL constraint failed": "SQLITE_CONSTRAINT_NOTNULL",
    "CHECK constraint failed": "SQLITE_CONSTRAINT_CHECK",
    "FOREIGN KEY constraint failed": "SQLITE_CONSTRAINT_FOREIGNKEY",
}
_BOOKMARK: Final = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})-00000000-0{32}")


class LibsqlD1:
    """A database on a server. It is reached when it is first used.

    Args:
        client: sends requests. It is closed with the store.
        url: of the server, http or https.
        auth_token: what it asks for, where it does.
        read_only: whether statements that write are refused.
    """

    def __init__(
        self, client: Http11Client, url: str, *, auth_token: str | None = None, read_only: bool = False
    ) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._auth_token = auth_token
        self._read_only = read_only
        self._guard: Guard | None = None
        self._turn = anyio.Lock()

    async def run(self, statements: Sequence[Statement], token: str | None = None) -> tuple[list[Outcome], str]:
        """As D1Store says. The bookmark is the server's replication index, for which a replica waits."""
        statements = without_blanks(statements)
        checked = await self._check(statements)
        parts = [part for parts in checked for part in parts]
        begin = "BEGIN" if all(part.reads for part in parts) else "BEGIN IMMEDIATE"
        sent: list[tuple[str, Sequence[SqlValue]]] = [(_STATE, ())]
        for part in parts:
            sent += [(part.sql, part.params), (_STATE, ())]
        results, index = await self._send(sent, begin, token)
        if any(part.defines for part in parts):
            self._forget()
        return _outcomes(checked, results), f"{index >> 32:08x}-{index & 0xFFFFFFFF:08x}-00000000-{0:032x}"

    async def dump(self) -> AsyncIterator[bytes]:
        raise D1Failure("a libSQL server gives no file of its database: use its own backups")

    async def aclose(self) -> None:
        self._forget()
        await self._client.aclose()

    async def _check(self, statements: Sequence[Statement]) -> list[list[Checked]]:
        """Check against the schema as it was last seen, and if that does not fit, as it is now."""
        async with self._turn:
            seen = self._guard
            try:
                return await self._checked_by(seen or await self._look(), statements)
            except D1Failure as failure:
                if seen is None or not any(words in str(failure) for words in _UNKNOWN):
                    raise
            self._forget()
            return await self._checked_by(await self._look(), statements)

    async def _checked_by(self, guard: Guard, statements: Sequence[Statement]) -> list[list[Checked]]:
        return await to_thread.run_sync(guard.check, statements)

    async def _look(self) -> Guard:
        [schema], _index = await self._send([(_SCHEMA, ())], "BEGIN", None)
        entries: list[SchemaEntry] = [(str(kind), str(name), str(sql)) for kind, name, sql in schema.rows]
        self._guard = await to_thread.run_sync(lambda: Guard(entries, read_only=self._read_only))
        return self._guard

    def _forget(self) -> None:
        # Not closed: another request may be checking by it. It goes with its last user.
        self._guard = None

    async def _send(
        self, statements: Sequence[tuple[str, Sequence[SqlValue]]], begin: str, token: str | None
    ) -> tuple[list[HranaResult], int]:
        try:
            with anyio.fail_after(MAX_QUERY_SECONDS):
                return await run_in_transaction(
                    self._client,
                    self._url,
                    self._auth_token,
                    statements,
                    begin=begin,
                    not_before=_index_of(token),
                    max_bytes=MAX_RESULT_BYTES,
                )
        except HranaError as error:
            raise D1Failure(_text_of(error)) from error
        except TimeoutError as error:
            raise D1Failure(TIMED_OUT if begin == "BEGIN" else f"{TIMED_OUT} It may have run.") from error
        except ConnectionError as error:
            may_have_run = "" if begin == "BEGIN" else " The statement may have run."
            raise D1Unreachable(f"Network connection lost: {error}.{may_have_run}") from error


def _index_of(token: str | None) -> int | None:
    match = _BOOKMARK.fullmatch(token or "")
    return None if match is None else int(match[1] + match[2], 16)


def _outcomes(checked: list[list[Checked]], results: list[HranaResult]) -> list[Outcome]:
    """Put together what came of each text: of its last statement the rows, of all of them what is known."""
    outcomes = []
    place = 0
    for parts in checked:
        of_parts = results[place : place + 2 * len(parts) + 1]
        place += 2 * len(parts)
        before, *_between, after = (state.rows[0] for state in of_parts[::2])
        changes, last_row_id, size = (_integer(value) for value in after)
        changed = changes - _integer(before[0])
        ran = of_parts[1::2]
        meta = Meta(
            duration=sum(result.milliseconds for result in ran),
            changes=changed,
            last_row_id=last_row_id,
            changed_db=bool(changed) or list(after[1:]) != list(before[1:]) or any(part.defines for part in parts),
            size_after=size,
            rows_read=sum(result.rows_read for result in ran),
            rows_written=sum(result.rows_written for result in ran),
        )
        outcomes.append(Outcome(ran[-1].columns, ran[-1].rows, meta.to_json()))
    return outcomes


def _integer(value: SqlValue) -> int:
    assert isinstance(value, int), "it is asked for integers"
    return value


def _text_of(error: HranaError) -> str:
    """What D1 would say."""
    message, code = str(error).removeprefix("SQLite error: "), error.code
    if not code.startswith("SQLITE_"):
        return message
    for start, extended in _EXTENDED.items():
        if message.startswith(start):
            return f"{message}: SQLITE_CONSTRAINT (extended: {extended})"
    return f"{message}: {'SQLITE_ERROR' if code == 'SQLITE_UNKNOWN' else code}"
