"""The RPC channel of a KV namespace: `env.KV` for stubs, with the methods and the errors that the Workers API has.

What a method gets is checked as the runtime checks it before anything is sent (workerd, src/workerd/api/kv.c++). A bulk
read returns an object where the runtime has a Map, which RPC cannot carry.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Final

from capnweb_py.bindings.kv_channels import json_text
from capnweb_py.bindings.pieces import in_pieces
from capnweb_py.target import RpcTarget
from capnweb_py.values import UNDEFINED, TypedArray
from capnweb_py.web import ReadableStream
from proxy_server.bindings.kv_http import listed
from proxy_server.bindings.kv_rules import (
    bulk,
    check_cache_ttl,
    check_key,
    check_metadata,
    check_size,
    expiration_of,
    limit_of,
    limited,
    whole,
)
from proxy_server.declined import Error
from proxy_server.stores.kv import CHUNK_BYTES, Clock, KvEntry, KvRefusal, KvStore

__all__ = ["KvTarget"]

_NO_VALUE: Final = "KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as values."
_NO_TYPE: Final = 'Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".'
_TYPES: Final = frozenset({"text", "arrayBuffer", "json", "stream"})


@contextmanager
def _thrown_by(method: str) -> Iterator[None]:
    """Have refusals raised in the runtime's words."""
    try:
        yield
    except KvRefusal as refusal:
        raise Error(f"KV {method} failed: {refusal.status} {refusal.text}") from None


class KvTarget(RpcTarget):
    """The main object of a session: `env.KV`."""

    def __init__(self, store: KvStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(self, key: object, options: object = None) -> object:
        """The value, or null; for an array of keys, an object with the value of each.

        Args:
            key: a string, or an array of up to 100.
            options: the type ("text", "json", "arrayBuffer", "stream"; of many keys the first two), or
                `{type, cacheTtl}`.
        """
        if isinstance(key, list):
            return await self._bulk(key, options, with_metadata=False)
        return (await self._read(key, options))["value"]

    async def getWithMetadata(self, key: object, options: object = None) -> object:
        """`{value, metadata, cacheStatus}`. Arguments are those of `get`."""
        if isinstance(key, list):
            return await self._bulk(key, options, with_metadata=True)
        return await self._read(key, options)

    async def put(self, key: object, value: object, options: object = None) -> None:
        """Store a string, bytes or a stream of bytes. Options: `expiration`, `expirationTtl`, `metadata`."""
        name = _checked("PUT", key)
        given = _options(options)
        body = _body(value)
        with _thrown_by("PUT"):
            expiration = expiration_of(self._clock(), _digits(given, "expiration"), _digits(given, "expirationTtl"))
            metadata = _value(given, "metadata")
            text = None if metadata is None else check_metadata(json_text(metadata))
            if isinstance(body, bytes) and len(body) <= CHUNK_BYTES:
                await self._store.put(name, body, expiration, text)
                return
            if isinstance(body, bytes):
                check_size(len(body))
            pieces = in_pieces(body) if isinstance(body, bytes) else body
            async with aclosing(pieces), aclosing(limited(pieces)) as checked:
                await self._store.put(name, checked, expiration, text)

    async def delete(self, key: object) -> None:
        """Remove a key."""
        name = _checked("DELETE", key)
        with _thrown_by("DELETE"):
            await self._store.delete(name)

    async def list(self, options: object = None) -> object:
        """`{keys, list_complete, cursor, cacheStatus}`. Options: `prefix`, `limit`, `cursor`."""
        given = _options(options)
        prefix, cursor = _text(given, "prefix") or "", _text(given, "cursor") or None
        # The runtime passes on no limit below 1.
        limit = max(_integer(given, "limit") or 0, 0)
        with _thrown_by("GET"):
            count = limit_of(str(limit) if limit else None, prefix)
            return listed(await self._store.list(prefix, cursor, count), json.loads)

    async def _read(self, key: object, options: object) -> dict[str, object]:
        name = _checked("GET", key)
        kind, cache_ttl = _kind(options)
        with _thrown_by("GET"):
            check_cache_ttl(cache_ttl)
            entry = await self._store.get(name)
            if entry is None:
                return {"value": None, "metadata": None, "cacheStatus": None}
            metadata = None if entry.metadata is None else json.loads(entry.metadata)
            return {"value": await _converted(entry, kind or "text"), "metadata": metadata, "cacheStatus": None}

    async def _bulk(self, keys: object, options: object, *, with_metadata: bool) -> object:
        kind, cache_ttl = _kind(options)
        with _thrown_by("GET_BULK"):
            return await bulk(self._store, keys, kind, with_metadata=with_metadata, cache_ttl=cache_ttl)


def _checked(method: str, key: object) -> str:
    """A key that the runtime lets pass. A lone surrogate is what JavaScript makes of it in UTF-8."""
    if not isinstance(key, str):
        raise TypeError(f"the key of KV {method} is a string")
    if not key:
        raise TypeError("Key name cannot be empty.")
    if key in {".", ".."}:
        raise TypeError(f'"{key}" is not allowed as a key name.')
    name = _well_formed(key)
    with _thrown_by(method):
        check_key(name)
    return name


def _well_formed(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _options(options: object) -> Mapping[str, object]:
    if options is None or options is UNDEFINED:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError("the options are an object")
    return options


def _value(options: Mapping[str, object], name: str) -> object:
    value = options.get(name)
    return None if value is UNDEFINED else value


def _text(options: Mapping[str, object], name: str) -> str | None:
    value = _value(options, name)
    return None if value is None else _well_formed(str(value))


def _integer(options: Mapping[str, object], name: str) -> int | None:
    """An option that the runtime takes as an integer: what is no number is 0."""
    value = _value(options, name)
    if value is None:
        return None
    try:
        return int(float(value)) if isinstance(value, str | int | float) else 0
    except (ValueError, OverflowError):
        return 0


def _digits(options: Mapping[str, object], name: str) -> str | None:
    value = _integer(options, name)
    return None if value is None else str(value)


def _kind(options: object) -> tuple[str | None, str | None]:
    """The type, and the cacheTtl, that options or a string in their place ask for."""
    if isinstance(options, str):
        return options, None
    given = _options(options)
    return _text(given, "type"), _digits(given, "cacheTtl")


def _body(value: object) -> bytes | AsyncGenerator[bytes, None]:
    if isinstance(value, str):
        return _well_formed(value).encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, TypedArray):
        return bytes(value.data)
    if isinstance(value, ReadableStream):
        return _bytes_only(value)
    if value is None or isinstance(value, bool | int | float):
        # JavaScript's text of it, which is that of JSON: 1.0 is "1".
        plain = int(value) if isinstance(value, float) and value.is_integer() else value
        return json.dumps(plain).encode()
    raise TypeError(_NO_VALUE)


async def _bytes_only(stream: ReadableStream[Any]) -> AsyncGenerator[bytes, None]:
    async with aclosing(stream):
        async for chunk in stream:
            if not isinstance(chunk, bytes):
                raise TypeError("the chunks of a stream that KV put() accepts are bytes")
            yield chunk


async def _converted(entry: KvEntry, kind: str) -> object:
    if kind not in _TYPES:
        raise TypeError(_NO_TYPE)
    if kind == "stream":
        return in_pieces(entry.value) if isinstance(entry.value, bytes) else entry.value
    data = await whole(entry)
    if kind == "arrayBuffer":
        return data
    text = data.decode(errors="replace")
    if kind == "text":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SyntaxError(f"the value is not valid JSON: {error}") from None
