"""The two ways from the facade of a KV namespace to the binding: the requests that the Workers runtime sends (workerd,
src/workerd/api/kv.c++), and calls of the binding's methods.

Both take and give the same: values as bytes or streams, metadata as JSON text, and KvError for what is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

import attrs

from ..errors import RemoteError, RpcError
from ..web import ReadableStream, Request, Response
from .channels import Channels
from .given import given
from .pieces import PIECE_BYTES, in_pieces

__all__ = ["Found", "KvError", "KvWay", "OverHttp", "OverRpc", "PutOptions", "json_text"]

_HOST: Final = "https://fake-host/"

# RFC 9110, section 15.5.6: every method that is used here, a namespace knows.
_NO_METHOD: Final = 405

_FAILED: Final = re.compile(r"KV ([A-Z_]+) failed: ([0-9]+) ?(.*)", re.DOTALL)


class KvError(RpcError):
    """A namespace did not do what was asked, in the runtime's words: "KV PUT failed: 413 Value length of ...".

    Attributes:
        status: the HTTP status that says so.
        text: the reason.
    """

    def __init__(self, method: str, status: int, text: str) -> None:
        super().__init__(f"KV {method} failed: {status} {text}")
        self.status = status
        self.text = text


@attrs.frozen
class Found:
    """What a read has found: no value where the key is not there."""

    value: ReadableStream[bytes] | None = None
    metadata: str | None = None
    cache_status: str | None = None


@attrs.frozen(kw_only=True)
class PutOptions:
    """What is stored beside a value: when it goes, as `KvNamespace.put` takes it, and its metadata as JSON text."""

    expiration: int | None = None
    expiration_ttl: int | None = None
    metadata: str | None = None


class KvWay(Protocol):
    """A way to the binding. What is None is left out."""

    async def get(self, key: str, cache_ttl: int | None) -> Found: ...

    async def bulk(
        self, keys: list[str], kind: str, cache_ttl: int | None, *, with_metadata: bool
    ) -> dict[str, Any]: ...

    async def put(self, key: str, value: bytes | ReadableStream[bytes], options: PutOptions) -> None: ...

    async def delete(self, key: str) -> None: ...

    async def list(self, prefix: str | None, limit: int | None, cursor: str | None) -> dict[str, Any]: ...


class OverHttp:
    """The HTTP channel."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def get(self, key: str, cache_ttl: int | None) -> Found:
        response = await self._channels.fetch(Request(_url(key, cache_ttl=cache_ttl)))
        cache_status = response.headers.get("CF-Cache-Status")
        if response.status in {404, 410}:
            await response.bytes()
            return Found(cache_status=cache_status)
        await self._check(response, "GET")
        metadata = response.headers.get("CF-KV-Metadata")
        value = in_pieces(b"") if response.body is None else response.body
        return Found(value, None if metadata is None else _utf8(metadata), cache_status)

    async def bulk(self, keys: list[str], kind: str, cache_ttl: int | None, *, with_metadata: bool) -> dict[str, Any]:
        asked: dict[str, Any] = {"keys": keys, "type": kind}
        if with_metadata:
            asked["withMetadata"] = True
        if cache_ttl is not None:
            asked["cacheTtl"] = str(cache_ttl)
        headers = {"content-type": "application/json"}
        body = json.dumps(asked).encode()
        response = await self._channels.fetch(Request(f"{_HOST}bulk/get", method="POST", headers=headers, body=body))
        await self._check(response, "GET_BULK")
        values: dict[str, Any] = await response.json()
        return values

    async def put(self, key: str, value: bytes | ReadableStream[bytes], options: PutOptions) -> None:
        url = _url(key, expiration=options.expiration, expiration_ttl=options.expiration_ttl)
        headers = {}
        if options.metadata is not None:
            headers["CF-KV-Metadata"] = options.metadata.encode().decode("latin-1")
        response = await self._channels.fetch(Request(url, method="PUT", headers=headers, body=value))
        await self._check(response, "PUT")
        await response.bytes()

    async def delete(self, key: str) -> None:
        response = await self._channels.fetch(Request(_url(key), method="DELETE"))
        await self._check(response, "DELETE")
        await response.bytes()

    async def list(self, prefix: str | None, limit: int | None, cursor: str | None) -> dict[str, Any]:
        # The runtime passes on no limit below 1.
        count = limit if limit is not None and limit > 0 else None
        query = _query({"key_count_limit": count, "prefix": prefix, "cursor": cursor})
        response = await self._channels.fetch(Request(_HOST + query))
        await self._check(response, "GET")
        found: dict[str, Any] = await response.json()
        for key in found["keys"]:
            if isinstance(key.get("metadata"), str):
                key["metadata"] = json.loads(key["metadata"])
        found["cacheStatus"] = response.headers.get("CF-Cache-Status")
        return found

    async def _check(self, response: Response, method: str) -> None:
        if not response.ok:
            text = await response.text()
            if response.status == _NO_METHOD:
                raise self._channels.strange(response, "kv_namespace")
            # The reason is in the status line, which not every server on the way can write.
            raise KvError(method, response.status, response.status_text or text)


def _url(key: str, **options: int | None) -> str:
    return _HOST + quote(key, safe="") + _query({"urlencoded": "true", **options})


def _query(options: Mapping[str, str | int | None]) -> str:
    query = urlencode(given(**options))
    return f"?{query}" if query else ""


def _utf8(header: str) -> str:
    return header.encode("latin-1").decode(errors="replace")


class OverRpc:
    """The RPC channel."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def get(self, key: str, cache_ttl: int | None) -> Found:
        options = given(type="stream", cacheTtl=cache_ttl)
        with _refusals():
            found = await self._channels.rpc.getWithMetadata(key, options)
        metadata = None if found["metadata"] is None else json_text(found["metadata"])
        return Found(found["value"], metadata, found["cacheStatus"])

    async def bulk(self, keys: list[str], kind: str, cache_ttl: int | None, *, with_metadata: bool) -> dict[str, Any]:
        remote = self._channels.rpc
        method = remote.getWithMetadata if with_metadata else remote.get
        with _refusals():
            values: dict[str, Any] = await method(keys, given(type=kind, cacheTtl=cache_ttl))
        return values

    async def put(self, key: str, value: bytes | ReadableStream[bytes], options: PutOptions) -> None:
        sent = in_pieces(value) if isinstance(value, bytes) and len(value) > PIECE_BYTES else value
        metadata = None if options.metadata is None else json.loads(options.metadata)
        expiring = given(expiration=options.expiration, expirationTtl=options.expiration_ttl, metadata=metadata)
        with _refusals():
            await self._channels.rpc.put(key, sent, expiring)

    async def delete(self, key: str) -> None:
        with _refusals():
            await self._channels.rpc.delete(key)

    async def list(self, prefix: str | None, limit: int | None, cursor: str | None) -> dict[str, Any]:
        with _refusals():
            found: dict[str, Any] = await self._channels.rpc.list(given(prefix=prefix, limit=limit, cursor=cursor))
        return found


def json_text(value: Any) -> str:
    """JSON text as JSON.stringify writes it: its characters count as they are.

    Raises:
        TypeError: if JSON has no form for the value.
        ValueError: if it holds an infinite number or NaN.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # JSON can say a lone surrogate, which UTF-8 cannot, and DEL, which a header cannot.
    return text.encode("utf-8", "backslashreplace").decode().replace("\x7f", "\\u007f")


@contextmanager
def _refusals() -> Iterator[None]:
    """Have what the binding refuses raised as KvError."""
    try:
        yield
    except RemoteError as error:
        refusal = _FAILED.fullmatch(error.message)
        if refusal is None:
            raise
        raise KvError(refusal[1], int(refusal[2]), refusal[3]) from error
