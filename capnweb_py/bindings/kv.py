"""KV: keys and values, as `env.KV` of the Workers runtime has them (Cloudflare's documentation, "KV", "Workers Binding
API"), with the errors that the runtime makes of what the service answers (workerd, src/workerd/api/kv.c++).

How a request gets to the binding is in kv_channels.py.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncIterable, Iterable
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, overload

import attrs

from ..stub import RpcStub
from ..web import ReadableStream
from .arguments import check
from .channels import Channels
from .kv_channels import Found, KvError, KvWay, OverHttp, OverRpc, PutOptions, json_text
from .written import sending

__all__ = ["KvError", "KvKey", "KvListResult", "KvNamespace", "KvSource", "KvType", "KvValue"]

# A value: text, its bytes in one piece, or in several.
KvSource: TypeAlias = str | bytes | bytearray | memoryview | AsyncIterable[bytes]
# Several keys: not any sequence, for a str is one.
KvKeys: TypeAlias = list[str] | tuple[str, ...]
KvType: TypeAlias = Literal["text", "json", "bytes", "stream"]

# Cloudflare's documented limits.
_MAX_KEY_BYTES: Final = 512
_MAX_VALUE_BYTES: Final = 25 * 1024 * 1024

_SECONDS: Final = "a whole number of seconds"
_NO_TYPE: Final = 'Unknown response type. Possible types are "text", "bytes", "json", and "stream".'
_TYPES: Final = frozenset({"text", "json", "bytes", "stream"})


@attrs.frozen
class KvValue:
    """A value with its metadata.

    Attributes:
        value: of the type that was asked for; None where there is none.
        metadata: what was put with it, a JSON value; None where there is none.
        cache_status: how the cache was used, where the service tells.
    """

    value: Any
    metadata: Any = None
    cache_status: str | None = None


@attrs.frozen
class KvKey:
    """A key, as it is listed.

    Attributes:
        name: the key.
        expiration: the second since 1970 in which it goes; None if it stays.
        metadata: what was put with it, a JSON value; None where there is none.
    """

    name: str
    expiration: int | None = None
    metadata: Any = None


@attrs.frozen
class KvListResult:
    """Some keys in order.

    Attributes:
        keys: the keys.
        list_complete: whether they are the last.
        cursor: where the next ones begin, for `list(cursor=)`; None after the last.
        cache_status: how the cache was used, where the service tells.
    """

    keys: list[KvKey]
    list_complete: bool
    cursor: str | None = None
    cache_status: str | None = None


class KvNamespace:
    """The facade of a KV namespace.

    await env.CACHE.put("greeting", "hello", expiration_ttl=3600)
    greeting = await env.CACHE.get("greeting")

    All methods raise KvError for what the service refuses, and ConnectionError if the proxy cannot be reached.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._way: KvWay = OverRpc(channels) if channels.preferred == "rpc" else OverHttp(channels)

    @property
    def rpc(self) -> RpcStub:
        """The stub of the remote binding, with the methods that the Workers runtime's has."""
        return self._channels.rpc

    @overload
    async def get(self, key: str, type: Literal["text"] = ..., *, cache_ttl: int | None = ...) -> str | None: ...
    @overload
    async def get(self, key: str, type: Literal["bytes"], *, cache_ttl: int | None = ...) -> builtins.bytes | None: ...
    @overload
    async def get(
        self, key: str, type: Literal["stream"], *, cache_ttl: int | None = ...
    ) -> ReadableStream[builtins.bytes] | None: ...
    @overload
    async def get(self, key: str, type: KvType, *, cache_ttl: int | None = ...) -> Any: ...
    @overload
    async def get(
        self, key: KvKeys, type: Literal["text", "json"] = ..., *, cache_ttl: int | None = ...
    ) -> dict[str, Any]: ...
    async def get(self, key: str | KvKeys, type: KvType = "text", *, cache_ttl: int | None = None) -> Any:  # noqa: A002
        """The value of a key, or None; of several keys, a dict with the value of each.

        Args:
            key: one, or up to 100.
            type: "text" (str), "json" (any JSON value), "bytes" or "stream"; of several keys one of the first two.
            cache_ttl: seconds for which the service may answer from a cache; at least 30.

        Raises:
            TypeError: if the key is empty, "." or "..", or the type none.
            json.JSONDecodeError: if the value is no JSON, and was to be.
        """
        check("cache_ttl", cache_ttl, int | None, _SECONDS)
        if not isinstance(key, str):
            return await self._way.bulk(_keys(key), type, cache_ttl, with_metadata=False)
        _check(key, "GET", type)
        return await _converted(await self._way.get(key, cache_ttl), type)

    async def get_with_metadata(
        self,
        key: str | KvKeys,
        type: KvType = "text",  # noqa: A002 - the runtime's name
        *,
        cache_ttl: int | None = None,
    ) -> Any:
        """The KvValue of a key; of several keys, a dict with the KvValue of each. Arguments and errors as of `get`."""
        check("cache_ttl", cache_ttl, int | None, _SECONDS)
        if not isinstance(key, str):
            found = await self._way.bulk(_keys(key), type, cache_ttl, with_metadata=True)
            return {name: _bulk_value(value) for name, value in found.items()}
        _check(key, "GET", type)
        entry = await self._way.get(key, cache_ttl)
        metadata = None if entry.metadata is None else json.loads(entry.metadata)
        return KvValue(await _converted(entry, type), metadata, entry.cache_status)

    async def put(
        self,
        key: str,
        value: KvSource,
        *,
        expiration: int | None = None,
        expiration_ttl: int | timedelta | None = None,
        metadata: Any = None,
    ) -> None:
        """Store a value.

        Args:
            key: up to 512 bytes in UTF-8.
            value: up to 25 MiB.
            expiration: the second since 1970 in which it goes; at least a minute from now.
            expiration_ttl: in how many seconds it goes, at least 60, or in what time of whole seconds. It goes before
                `expiration`.
            metadata: a JSON value, of up to 1024 bytes as text.

        Raises:
            TypeError: if the key is empty, "." or "..", or an argument of another type.
            Exception: what a stream raises. Then nothing has changed.
        """
        _check(key, "PUT")
        check("expiration", expiration, int | None, "a whole number of seconds since 1970")
        seconds = _seconds(expiration_ttl)
        text = None if metadata is None else json_text(metadata)
        body: builtins.bytes | ReadableStream[builtins.bytes]
        if isinstance(value, str):
            body = value.encode()
        elif isinstance(value, bytes | bytearray | memoryview):
            body = bytes(value)
        else:
            check("value", value, AsyncIterable, "a str, bytes, or an async iterable of bytes")
            body = value if isinstance(value, ReadableStream) else ReadableStream(value)
        length = len(body) if isinstance(body, bytes) else body.length
        if length is not None and length > _MAX_VALUE_BYTES:
            raise KvError("PUT", 413, f"Value length of {length} exceeds limit of {_MAX_VALUE_BYTES}.")
        options = PutOptions(expiration=expiration, expiration_ttl=seconds, metadata=text)
        with sending(body) as content:
            await self._way.put(key, content, options)

    async def delete(self, key: str) -> None:
        """Remove a key. One that is not there is no error.

        Raises:
            TypeError: if the key is empty, "." or "..".
        """
        _check(key, "DELETE")
        await self._way.delete(key)

    async def list(
        self, *, prefix: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> KvListResult:
        """The first keys, or those from a cursor on, in the order of their UTF-8 bytes.

        Args:
            prefix: with which they begin.
            limit: how many, up to 1000, which is the default.
            cursor: of the page before.
        """
        check("prefix", prefix, str | None, "a str")
        check("limit", limit, int | None, "a whole number")
        check("cursor", cursor, str | None, "a str")
        found = await self._way.list(prefix, limit, cursor)
        keys = [KvKey(key["name"], key.get("expiration"), key.get("metadata")) for key in found["keys"]]
        return KvListResult(keys, found["list_complete"], found.get("cursor"), found.get("cacheStatus"))

    def __repr__(self) -> str:
        return f"<kv_namespace {self._channels.name}>"


def _keys(keys: KvKeys) -> list[str]:
    check("key", keys, Iterable, "a str, or a list of them")
    names = list(keys)
    for name in names:
        check("each key", name, str, "a str")
    return names


def _seconds(ttl: int | timedelta | None) -> int | None:
    if isinstance(ttl, timedelta):
        if ttl % timedelta(seconds=1):
            raise TypeError(f"expiration_ttl has to be {_SECONDS}, not {ttl.total_seconds()}")
        return ttl // timedelta(seconds=1)
    check("expiration_ttl", ttl, int | None, f"{_SECONDS}, or a timedelta")
    return ttl


def _check(key: str, method: str, kind: str = "text") -> None:
    """Raise what the runtime throws before it sends anything."""
    check("key", key, str, "a str")
    if not key:
        raise TypeError("Key name cannot be empty.")
    if key in {".", ".."}:
        raise TypeError(f'"{key}" is not allowed as a key name.')
    length = len(key.encode())
    if length > _MAX_KEY_BYTES:
        raise KvError(method, 414, f"UTF-8 encoded length of {length} exceeds key length limit of {_MAX_KEY_BYTES}.")
    if kind not in _TYPES:
        raise TypeError(_NO_TYPE)


async def _converted(entry: Found, kind: KvType) -> Any:
    if entry.value is None or kind == "stream":
        return entry.value
    async with aclosing(entry.value) as stream:
        data = b"".join([chunk async for chunk in stream])
    if kind == "bytes":
        return data
    text = data.decode(errors="replace")
    return json.loads(text) if kind == "json" else text


def _bulk_value(value: Any) -> KvValue:
    return KvValue(None) if value is None else KvValue(value["value"], value["metadata"])
