"""Stores over stores: one that refuses to write, and one that keeps what is written to itself."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Final

import attrs

from proxy_server.stores.kv import KvBody, KvEntry, KvKey, KvPage, KvRefusal, KvStore, cursor_after

__all__ = ["Overlay", "ReadOnly"]


class ReadOnly:
    """A store that is read, and never written.

    Args:
        store: what is read. It is owned.
        refusal: what is said to what would write.
    """

    def __init__(self, store: KvStore, refusal: str) -> None:
        self._store = store
        self._text = refusal

    async def get(self, key: str) -> KvEntry | None:
        return await self._store.get(key)

    async def put(self, key: str, body: KvBody, expiration: int | None = None, metadata: str | None = None) -> None:
        raise self._refusal()

    async def delete(self, key: str) -> None:
        raise self._refusal()

    async def list(self, prefix: str, cursor: str | None, limit: int) -> KvPage:
        return await self._store.list(prefix, cursor, limit)

    async def aclose(self) -> None:
        await self._store.aclose()

    def _refusal(self) -> KvRefusal:
        return KvRefusal(403, self._text)


# How an overlay's own store names what it keeps: the entries that were written, and a mark for every key that was
# written or deleted, which hides what is below for good. An entry is seen with or without its mark, so the order of the
# two steps of each change leaves either the old state or the new one, wherever it breaks off.
_ENTRY: Final = "="
_MARK: Final = "!"

# How many keys are asked for at a time.
_PAGE: Final = 1000


class Overlay:
    """A store with another one on top, which takes all writes and deletes. What is below is read alone.

    Args:
        base: what is below.
        local: what is on top: a store that is the overlay's own, with cursors of `cursor_after`. Both are owned.
    """

    def __init__(self, base: KvStore, local: KvStore) -> None:
        self._base = base
        self._local = local

    async def get(self, key: str) -> KvEntry | None:
        entry = await self._local.get(_ENTRY + key)
        if entry is not None or await self._local.get(_MARK + key) is not None:
            return entry
        return await self._base.get(key)

    async def put(self, key: str, body: KvBody, expiration: int | None = None, metadata: str | None = None) -> None:
        await self._local.put(_ENTRY + key, body, expiration, metadata)
        await self._local.put(_MARK + key, b"")

    async def delete(self, key: str) -> None:
        await self._local.put(_MARK + key, b"")
        await self._local.delete(_ENTRY + key)

    async def list(self, prefix: str, cursor: str | None, limit: int) -> KvPage:
        place = _Place() if cursor is None else _Place.read(cursor)
        keys: list[KvKey] = []
        while True:
            below = await self._base.list(prefix, place.base, limit)
            if below.keys or below.cursor is None:
                # Beyond the page's last key, keys of the next page may come before local ones.
                horizon = None if below.cursor is None else below.keys[-1].name
                keys += await self._merged(below, prefix, place.after, horizon, limit + 1 - len(keys))
                if len(keys) > limit:
                    return KvPage(keys[:limit], _Place(place.base, keys[limit - 1].name).written())
                if horizon is None:
                    return KvPage(keys)
                place = _Place(below.cursor, max(place.after, horizon))
            else:
                place = _Place(below.cursor, place.after)

    async def _merged(self, below: KvPage, prefix: str, after: str, horizon: str | None, limit: int) -> Sequence[KvKey]:
        """The first keys of a page and of the overlay together, in order."""
        written = await self._kept(_ENTRY, prefix, after, horizon, limit)
        candidates = [key for key in below.keys if key.name > after]
        hidden = await self._kept(_MARK, prefix, after, candidates[-1].name) if candidates else []
        names = {key.name for key in written} | {key.name for key in hidden}
        shown = [key for key in candidates if key.name not in names]
        return sorted([*shown, *written], key=lambda key: key.name)[:limit]

    async def _kept(
        self, kind: str, prefix: str, after: str, last: str | None, limit: float = math.inf
    ) -> Sequence[KvKey]:
        """What the overlay keeps of one kind, behind one key and up to another."""
        kept: list[KvKey] = []
        cursor: str | None = cursor_after(kind + after)
        while cursor is not None:
            page = await self._local.list(kind + prefix, cursor, _PAGE)
            for key in page.keys:
                name = key.name.removeprefix(kind)
                if len(kept) == limit or (last is not None and name > last):
                    return kept
                kept.append(attrs.evolve(key, name=name))
            cursor = page.cursor
        return kept

    async def aclose(self) -> None:
        try:
            await self._local.aclose()
        finally:
            await self._base.aclose()


@attrs.frozen
class _Place:
    """Where a listing is: in a page of the base, behind a key.

    Attributes:
        base: the cursor of the page; None for the first.
        after: the last key that was listed.
    """

    base: str | None = None
    after: str = ""

    def written(self) -> str:
        """The cursor that says so."""
        return base64.urlsafe_b64encode(json.dumps([self.base, self.after]).encode()).decode()

    @classmethod
    def read(cls, cursor: str) -> _Place:
        """What a cursor says.

        Raises:
            KvRefusal: if it says nothing.
        """
        try:
            base, after = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        except (ValueError, TypeError):
            raise KvRefusal(400, "Invalid cursor") from None
        if not isinstance(after, str) or not isinstance(base, str | None):
            raise KvRefusal(400, "Invalid cursor")
        return cls(base, after)
