"""A KV namespace elsewhere, behind a facade, as a store: what an overlay is laid over in a program of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from capnweb_py.bindings.kv import KvError, KvNamespace
from capnweb_py.bindings.kv_channels import json_text
from proxy_server.stores.kv import KvBody, KvEntry, KvKey, KvPage, KvRefusal

__all__ = ["RemoteKv"]


class RemoteKv:
    """A KvStore. What the facade does not tell of an entry is its expiration.

    Args:
        facade: of the remote namespace. It is not closed.
    """

    def __init__(self, facade: KvNamespace) -> None:
        self._facade = facade

    async def get(self, key: str) -> KvEntry | None:
        with _refusals():
            found = await self._facade.get_with_metadata(key, "stream")
        return None if found.value is None else KvEntry(found.value, None, _text(found.metadata))

    async def put(self, key: str, body: KvBody, expiration: int | None = None, metadata: str | None = None) -> None:
        parsed = None if metadata is None else json.loads(metadata)
        with _refusals():
            await self._facade.put(key, body, expiration=expiration, metadata=parsed)

    async def delete(self, key: str) -> None:
        with _refusals():
            await self._facade.delete(key)

    async def list(self, prefix: str, cursor: str | None, limit: int) -> KvPage:
        with _refusals():
            page = await self._facade.list(prefix=prefix, cursor=cursor, limit=limit)
        return KvPage([KvKey(key.name, key.expiration, _text(key.metadata)) for key in page.keys], page.cursor)

    async def aclose(self) -> None:
        """Nothing is held: the facade is its owner's."""


def _text(metadata: Any) -> str | None:
    return None if metadata is None else json_text(metadata)


@contextmanager
def _refusals() -> Iterator[None]:
    """Have what the remote namespace refuses refused here in the same words."""
    try:
        yield
    except KvError as error:
        raise KvRefusal(error.status, error.text) from error
