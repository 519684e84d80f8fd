"""The HTTP channel of a KV namespace: the requests of the Workers runtime's own `env.KV`, and what it reads of answers.

Its source is workerd, src/workerd/api/kv.c++: GET /KEY?urlencoded=true, PUT with expirations in the query and metadata
in a header, DELETE, GET / to list, and POST /bulk/get. What is refused has its text in the status line: that is what
the runtime's exception says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

from capnweb_py.web import Request, Response
from proxy_server.bindings.kv_rules import (
    bulk,
    check_cache_ttl,
    check_key,
    check_metadata,
    check_size,
    expiration_of,
    limit_of,
    limited,
)
from proxy_server.stores.kv import CHUNK_BYTES, Clock, KvPage, KvRefusal, KvStore

__all__ = ["KvHttp", "listed"]

# A bulk request names 100 keys of 512 bytes at most, each byte of which JSON may write in six.
_MAX_BULK_REQUEST: Final = 512 * 1024

_MAX_STATUS_TEXT: Final = 512
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


class KvHttp:
    """Answers requests from a store."""

    def __init__(self, store: KvStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def fetch(self, request: Request) -> Response:
        """The answer. What is refused is one, too."""
        try:
            return await self._answer(request)
        except KvRefusal as refusal:
            return _refused(refusal)
        finally:
            if request.body is not None:
                await request.body.aclose()

    async def _answer(self, request: Request) -> Response:
        url = urlsplit(request.url)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        path = url.path.removeprefix("/")
        if request.method == "POST" and path == "bulk/get":
            return await self._bulk(request)
        if request.method == "GET" and not path:
            return await self._list(query)
        methods = {"GET": self._get, "PUT": self._put, "DELETE": self._delete}
        if request.method not in methods:
            return Response(f"{request.method} /{path} is nothing that a KV namespace answers", status=405)
        key = _decoded(path) if query.get("urlencoded", "").lower() == "true" else path
        check_key(key)
        return await methods[request.method](key, query, request)

    async def _get(self, key: str, query: Mapping[str, str], _request: Request) -> Response:
        check_cache_ttl(query.get("cache_ttl"))
        entry = await self._store.get(key)
        if entry is None:
            raise KvRefusal(404, "Not Found")
        response = Response(entry.value)
        if entry.expiration is not None:
            response.headers["CF-Expiration"] = str(entry.expiration)
        if entry.metadata is not None:
            response.headers["CF-KV-Metadata"] = entry.metadata.encode().decode("latin-1")
        return response

    async def _put(self, key: str, query: Mapping[str, str], request: Request) -> Response:
        expiration = expiration_of(self._clock(), query.get("expiration"), query.get("expiration_ttl"))
        metadata = check_metadata(_metadata(request))
        if request.body is None:
            await self._store.put(key, b"", expiration, metadata)
        elif request.body.length is not None and request.body.length <= CHUNK_BYTES:
            await self._store.put(key, await request.bytes(), expiration, metadata)
        else:
            check_size(request.body.length or 0)
            async with aclosing(limited(request.body)) as value:
                await self._store.put(key, value, expiration, metadata)
        return Response()

    async def _delete(self, key: str, _query: Mapping[str, str], _request: Request) -> Response:
        await self._store.delete(key)
        return Response()

    async def _list(self, query: Mapping[str, str]) -> Response:
        prefix = query.get("prefix", "")
        limit = limit_of(query.get("key_count_limit"), prefix)
        page = await self._store.list(prefix, query.get("cursor") or None, limit)
        # The runtime parses each key's metadata, which it expects as text.
        return _json(listed(page, lambda metadata: metadata))

    async def _bulk(self, request: Request) -> Response:
        asked = await _bulk_request(request)
        cache_ttl = asked.get("cacheTtl")
        values = await bulk(
            self._store,
            asked.get("keys"),
            asked.get("type"),
            with_metadata=bool(asked.get("withMetadata")),
            cache_ttl=None if cache_ttl is None else str(cache_ttl),
        )
        return _json(values)


def _refused(refusal: KvRefusal) -> Response:
    """The response of what is refused."""
    status_text = _UNPRINTABLE.sub("?", refusal.text)[:_MAX_STATUS_TEXT]
    return Response(refusal.text, status=refusal.status, status_text=status_text)


def listed(page: KvPage, metadata_value: Callable[[str], Any]) -> dict[str, Any]:
    """A page as `list()` of the runtime returns it."""
    keys: list[dict[str, Any]] = []
    for key in page.keys:
        keys.append({"name": key.name})
        if key.expiration is not None:
            keys[-1]["expiration"] = key.expiration
        if key.metadata is not None:
            keys[-1]["metadata"] = metadata_value(key.metadata)
    if page.cursor is None:
        return {"keys": keys, "list_complete": True, "cacheStatus": None}
    return {"keys": keys, "list_complete": False, "cursor": page.cursor, "cacheStatus": None}


def _json(value: Any) -> Response:
    # In ASCII: values may hold lone surrogates, which UTF-8 has not.
    return Response(json.dumps(value).encode(), headers={"content-type": "application/json"})


def _decoded(path: str) -> str:
    try:
        return unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise KvRefusal(400, "Could not URL-decode key name") from None


def _metadata(request: Request) -> str | None:
    """The metadata of a PUT: the header's bytes are UTF-8."""
    header = request.headers.get("CF-KV-Metadata")
    return None if header is None else header.encode("latin-1").decode(errors="replace")


async def _bulk_request(request: Request) -> dict[str, Any]:
    data = bytearray()
    if request.body is not None:
        async for piece in request.body:
            data += piece
            if len(data) > _MAX_BULK_REQUEST:
                raise KvRefusal(413, "The bulk request is too large")
    try:
        asked = json.loads(data)
    except (ValueError, RecursionError):
        raise KvRefusal(400, "The bulk request is no JSON") from None
    if not isinstance(asked, dict):
        raise KvRefusal(400, "The bulk request is no JSON object")
    return asked
