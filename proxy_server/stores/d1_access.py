"""Databases over databases: a remote one behind its facade, and one that is for reading alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from capnweb_py.bindings.d1 import D1Database, D1Error, D1Failed
from capnweb_py.bindings.d1_values import readable

from .d1 import READ_ONLY, D1Failure, D1Store, Outcome, Statement
from .d1_sql import only_reads

__all__ = ["FacadeStore", "ReadOnly", "Refusing"]


class FacadeStore:
    """A database that is somewhere else."""

    def __init__(self, facade: D1Database) -> None:
        self._facade = facade

    async def run(self, statements: Sequence[Statement], token: str | None = None) -> tuple[list[Outcome], str]:
        try:
            results, bookmark = await self._facade.query([(one.sql, one.params) for one in statements], token)
        except D1Failed as error:
            raise D1Failure(str(error)) from error
        outcomes = [Outcome(one.columns, [list(map(readable, row)) for row in one.rows], one.meta) for one in results]
        return outcomes, bookmark or ""

    async def dump(self) -> AsyncIterator[bytes]:
        try:
            return aiter(await self._facade.dump_stream())
        except D1Error as error:
            raise D1Failure(str(error).removeprefix("D1_DUMP_ERROR: ")) from error

    async def aclose(self) -> None:
        """The connection belongs to whoever made the facade."""


class Refusing:
    """A database that is for reading, which says to what would write whose it is, and who has it so.

    Args:
        store: the database, which refuses with READ_ONLY.
        refusal: what is said instead.
    """

    def __init__(self, store: D1Store, refusal: str) -> None:
        self._store = store
        self._refusal = refusal

    async def run(self, statements: Sequence[Statement], token: str | None = None) -> tuple[list[Outcome], str]:
        try:
            return await self._store.run(statements, token)
        except D1Failure as failure:
            if str(failure) != READ_ONLY:
                raise
            raise D1Failure(self._refusal) from failure

    async def dump(self) -> AsyncIterator[bytes]:
        return await self._store.dump()

    async def aclose(self) -> None:
        await self._store.aclose()


class ReadOnly:
    """A database to which no statement passes that might write. It is told by its words: in doubt it might."""

    def __init__(self, store: D1Store) -> None:
        self._store = store

    async def run(self, statements: Sequence[Statement], token: str | None = None) -> tuple[list[Outcome], str]:
        if not all(only_reads(statement.sql) for statement in statements):
            raise D1Failure(READ_ONLY)
        return await self._store.run(statements, token)

    async def dump(self) -> AsyncIterator[bytes]:
        return await self._store.dump()

    async def aclose(self) -> None:
        await self._store.aclose()
