"""Keys and values in Redis, or Valkey, which several proxies may share.

All of a namespace has one hash tag, so that a cluster keeps it together:

    {capnweb:kv:ID}:names        a sorted set of all keys: members of one score are in the order of their bytes
    {capnweb:kv:ID}:expirations  a sorted set of the keys that expire, by when
    {capnweb:kv:ID}:entries      a hash: key -> EXPIRATION|BLOB|METADATA
    {capnweb:kv:ID}:values       a hash: key -> value, if it is one chunk
    {capnweb:kv:ID}:blob:BLOB    the bytes of a larger value

Every change of an entry is one script (kv_redis_scripts.py), which Redis runs with nothing between its steps: what was
acknowledged is never half there. A blob is written before a key names it. Until then, and again when it is replaced,
Redis lets it expire; entries expire by the clock of the proxies.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final
from urllib.parse import quote

from anyio.abc import TaskGroup
from coredis.exceptions import RedisError

from capnweb_py.web import ReadableStream
from proxy_server.stores.chunks import in_chunks
from proxy_server.stores.kv import (
    CHUNK_BYTES,
    LOOSE_SECONDS,
    TOO_SLOW,
    Clock,
    KvBody,
    KvEntry,
    KvKey,
    KvPage,
    KvRefusal,
    behind,
    cursor_after,
    key_of,
)
from proxy_server.stores.kv_redis_scripts import DELETE, GET, LIST, PUT, WRITE
from proxy_server.stores.redis import RedisConnection

__all__ = ["RedisKv"]

_LOG: Final = logging.getLogger("proxy_server")


class RedisKv:
    """A KvStore. Made by `open`."""

    def __init__(self, connection: RedisConnection, identity: str, clock: Clock) -> None:
        self._connection = connection
        self._client = connection.client
        self._clock = clock
        self._prefix = f"{{capnweb:kv:{quote(identity, safe='')}}}:"
        self._keys = [self._prefix + name for name in ("names", "expirations", "entries", "values")]
        self._scripts = {script: self._client.register_script(script) for script in (GET, WRITE, PUT, DELETE, LIST)}

    @classmethod
    async def open(cls, url: str, identity: str, tasks: TaskGroup, clock: Clock = time.time) -> RedisKv:
        """Connect to a Redis.

        Args:
            url: of it.
            identity: of the namespace.
            tasks: where the client runs until `aclose`.
            clock: what expirations are told by.

        Raises:
            ConnectionError: if it does not answer.
        """
        return cls(await RedisConnection.open(url, tasks), identity, clock)

    async def _call(self, script: str, *arguments: str | bytes | float) -> Any:
        with _refusals():
            return await self._scripts[script](
                keys=self._keys, args=[self._prefix + "blob:", LOOSE_SECONDS, self._clock(), *arguments]
            )

    async def get(self, key: str) -> KvEntry | None:
        found = await self._call(GET, key.encode())
        if found is None:
            return None
        expiration, blob, metadata = _parts(found[0])
        if found[1] is None or (blob and not found[1]):
            raise KvRefusal(500, "The namespace's Redis has lost the value: it must not evict keys")
        if not blob:
            return KvEntry(found[1], expiration, metadata)
        return KvEntry(ReadableStream(self._chunks(blob, found[1]), length=found[1]), expiration, metadata)

    async def _chunks(self, blob: str, size: int) -> AsyncGenerator[bytes, None]:
        for start in range(0, size, CHUNK_BYTES):
            with _refusals():
                chunk = await self._client.getrange(self._blob(blob), start, start + CHUNK_BYTES - 1)
            if not chunk:
                raise ConnectionResetError("the value was replaced long ago, and is gone")
            yield chunk

    async def put(self, key: str, body: KvBody, expiration: int | None = None, metadata: str | None = None) -> None:
        blob, value = "", body if isinstance(body, bytes) else b""
        if not isinstance(body, bytes):
            blob, value = await self._written(body)
        stored = await self._call(
            PUT,
            key.encode(),
            "" if expiration is None else expiration,
            blob,
            "" if metadata is None else metadata,
            value,
        )
        if not stored:
            raise KvRefusal(*TOO_SLOW)

    async def _written(self, body: AsyncIterable[bytes]) -> tuple[str, bytes]:
        """A body that is in Redis already, as a blob of this name; or all of it, if it is one chunk."""
        async with aclosing(in_chunks(body)) as chunks:
            first, second = await anext(chunks, b""), await anext(chunks, None)
            if second is None:
                return "", first
            blob = secrets.token_hex(16)
            await self._write(blob, 0, first)
            await self._write(blob, 1, second)
            number = 2
            async for chunk in chunks:
                await self._write(blob, number, chunk)
                number += 1
        return blob, b""

    async def _write(self, blob: str, number: int, chunk: bytes) -> None:
        # Where it belongs, not behind the last one: after a lost connection it may be sent again.
        written = await self._call(WRITE, blob, number * CHUNK_BYTES, chunk)
        if not written:
            raise KvRefusal(*TOO_SLOW)

    def _blob(self, blob: str) -> str:
        return f"{self._prefix}blob:{blob}"

    async def delete(self, key: str) -> None:
        await self._call(DELETE, key.encode())

    async def list(self, prefix: str, cursor: str | None, limit: int) -> KvPage:
        start = prefix.encode()
        after = b"" if cursor is None else key_of(cursor).encode()
        end = behind(start)
        low = b"(" + after if after >= start and after else b"[" + start
        found = await self._call(LIST, low, b"+" if end is None else b"(" + end, limit + 1)
        keys = []
        for name, entry in zip(found[::2], found[1::2], strict=True):
            expiration, _, metadata = _parts(entry)
            keys.append(KvKey(name.decode(), expiration, metadata))
        return KvPage(keys[:limit], cursor_after(keys[limit - 1].name) if len(keys) > limit else None)

    async def aclose(self) -> None:
        await self._connection.aclose()


def _parts(entry: bytes) -> tuple[int | None, str, str | None]:
    """The expiration, the blob and the metadata of an entry."""
    expiration, blob, metadata = entry.decode().split("|", 2)
    return int(expiration) if expiration else None, blob, metadata or None


@contextmanager
def _refusals() -> Iterator[None]:
    """Have what goes wrong between here and Redis told to the namespace's user."""
    try:
        yield
    except (RedisError, TimeoutError) as error:
        problem = f"The namespace's Redis failed: {error or 'it does not answer'}"
        _LOG.warning(problem)
        raise KvRefusal(500, problem) from error
