"""What a KV namespace accepts: Cloudflare's limits (developers.cloudflare.com/kv/platform/limits), and the statuses and
texts with which the service refuses the rest.

The Workers runtime makes "KV PUT failed: 413 ..." of them (workerd, src/workerd/api/kv.c++). The texts are those of
Cloudflare's simulator (workers-sdk, packages/miniflare/src/workers/kv), which has them from the service.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, Final, Literal

from proxy_server.bindings.nesting import nests_deeper
from proxy_server.stores.kv import KvEntry, KvRefusal, KvStore

__all__ = [
    "MAX_BULK_KEYS",
    "MAX_KEY_BYTES",
    "MAX_LIST_KEYS",
    "MAX_METADATA_BYTES",
    "MAX_VALUE_BYTES",
    "MIN_CACHE_SECONDS",
    "MIN_TTL_SECONDS",
    "bulk",
    "check_cache_ttl",
    "check_key",
    "check_metadata",
    "check_size",
    "expiration_of",
    "limit_of",
    "limited",
    "whole",
]

MAX_KEY_BYTES: Final = 512
MAX_METADATA_BYTES: Final = 1024
# It is listed with that of other keys, in one message.
MAX_METADATA_DEPTH: Final = 64
# The latest time that JavaScript's numbers tell from the second after it.
MAX_SECOND: Final = 2**53 - 1
MAX_VALUE_BYTES: Final = 25 * 1024 * 1024
MIN_TTL_SECONDS: Final = 60
MIN_CACHE_SECONDS: Final = 30
MAX_LIST_KEYS: Final = 1000
MAX_BULK_KEYS: Final = 100
# Of all values that one bulk read asks for.
MAX_BULK_BYTES: Final = 25 * 1024 * 1024

# How much of a value that is too large is still read, so that the refusal can say how large it is.
_MAX_COUNTED: Final = 4 * MAX_VALUE_BYTES

_LEADING_INTEGER: Final = re.compile(r"\s*([+-]?[0-9]+)")


def check_key(key: str) -> None:
    """Raise KvRefusal if a key cannot be one."""
    if not key:
        raise KvRefusal(400, "Key names must not be empty")
    if key in {".", ".."}:
        raise KvRefusal(400, f'Illegal key name "{key}". Please use a different name.')
    _check_length(key)


def _check_length(key: str) -> None:
    length = len(key.encode())
    if length > MAX_KEY_BYTES:
        raise KvRefusal(414, f"UTF-8 encoded length of {length} exceeds key length limit of {MAX_KEY_BYTES}.")


def check_cache_ttl(raw: str | None) -> None:
    """Raise KvRefusal if a cacheTtl is none. There is no cache here that it could be for."""
    if raw is None:
        return
    seconds = _integer(raw)
    if seconds is None or seconds < MIN_CACHE_SECONDS:
        given = "NaN" if seconds is None else seconds
        raise KvRefusal(400, f"Invalid cache_ttl of {given}. Cache TTL must be at least {MIN_CACHE_SECONDS}.")


def expiration_of(now: float, raw_expiration: str | None, raw_ttl: str | None) -> int | None:
    """The second in which an entry expires: by its ttl, if it has one, or its expiration.

    Raises:
        KvRefusal: if that is none, or less than a minute from now.
    """
    second = int(now)
    if raw_ttl is not None:
        ttl = _integer(raw_ttl)
        if ttl is None or ttl <= 0:
            raise KvRefusal(400, f"Invalid expiration_ttl of {raw_ttl}. Please specify integer greater than 0.")
        if ttl < MIN_TTL_SECONDS:
            problem = f"Expiration TTL must be at least {MIN_TTL_SECONDS}."
            raise KvRefusal(400, f"Invalid expiration_ttl of {raw_ttl}. {problem}")
        return min(second + ttl, MAX_SECOND)
    if raw_expiration is None:
        return None
    expiration = _integer(raw_expiration)
    if expiration is None or expiration <= second:
        problem = "Please specify integer greater than the current number of seconds since the UNIX epoch."
        raise KvRefusal(400, f"Invalid expiration of {raw_expiration}. {problem}")
    if expiration < second + MIN_TTL_SECONDS:
        problem = f"Expiration times must be at least {MIN_TTL_SECONDS} seconds in the future."
        raise KvRefusal(400, f"Invalid expiration of {raw_expiration}. {problem}")
    return min(expiration, MAX_SECOND)


def check_metadata(text: str | None) -> str | None:
    """The metadata, whose JSON text is not too long.

    Raises:
        KvRefusal: if it is, or is no JSON.
    """
    if text is None:
        return None
    length = len(text.encode())
    if length > MAX_METADATA_BYTES:
        raise KvRefusal(413, f"Metadata length of {length} exceeds limit of {MAX_METADATA_BYTES}.")
    try:
        metadata = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise KvRefusal(400, "Metadata is not valid JSON") from None
    if nests_deeper(metadata, MAX_METADATA_DEPTH):
        raise KvRefusal(400, f"Metadata nests deeper than {MAX_METADATA_DEPTH} levels")
    return text


def limit_of(raw: str | None, prefix: str) -> int:
    """How many keys to list.

    Raises:
        KvRefusal: if the limit is out of its range, or the prefix longer than any key.
    """
    limit = MAX_LIST_KEYS if raw is None else _integer(raw)
    if limit is None or limit < 1:
        given = "NaN" if limit is None else limit
        raise KvRefusal(400, f"Invalid key_count_limit of {given}. Please specify an integer greater than 0.")
    if limit > MAX_LIST_KEYS:
        problem = f"Please specify an integer less than {MAX_LIST_KEYS}."
        raise KvRefusal(400, f"Invalid key_count_limit of {limit}. {problem}")
    _check_length(prefix)
    return limit


def _integer(raw: str) -> int | None:
    """The integer that a text begins with, as parseInt of JavaScript finds it."""
    found = _LEADING_INTEGER.match(raw)
    # More digits than any limit has are as good as these.
    return None if found is None else int(found[1][:20])


async def limited(body: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The value, as far as a value may go.

    Raises:
        KvRefusal: at its end, if it is too large.
    """
    length = 0
    async for piece in body:
        length += len(piece)
        if length <= MAX_VALUE_BYTES:
            yield piece
        elif length > _MAX_COUNTED:
            break
    if length > MAX_VALUE_BYTES:
        raise _too_large(length)


def check_size(length: int) -> None:
    """Raise KvRefusal if a value is too large whose length is known: before any of it takes room in the store."""
    if length > MAX_VALUE_BYTES:
        raise _too_large(length)


def _too_large(length: int) -> KvRefusal:
    return KvRefusal(413, f"Value length of {length} exceeds limit of {MAX_VALUE_BYTES}.")


async def whole(entry: KvEntry) -> bytes:
    """The value in one piece."""
    if isinstance(entry.value, bytes):
        return entry.value
    return b"".join([chunk async for chunk in entry.value])


async def bulk(
    store: KvStore, keys: Any, kind: Any, *, with_metadata: bool = False, cache_ttl: str | None = None
) -> dict[str, Any]:
    """Many values at a time, as JSON: None for a key that is not there, {"value", "metadata"} with metadata.

    Raises:
        KvRefusal: if it is asked for too many, for none, or for what is no JSON as such.
    """
    if kind and kind not in {"text", "json"}:
        raise KvRefusal(400, f'"{kind}" is not a valid type. Use "json" or "text"')
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise KvRefusal(400, "The keys of a bulk request are an array of strings")
    if len(keys) > MAX_BULK_KEYS:
        raise KvRefusal(400, f"You can request a maximum of {MAX_BULK_KEYS} keys")
    if not keys:
        raise KvRefusal(400, "You must request a minimum of 1 key")
    check_cache_ttl(cache_ttl)
    for key in keys:
        check_key(key)
    values: dict[str, Any] = {}
    room = MAX_BULK_BYTES
    for key in keys:
        entry = await store.get(key)
        if entry is None:
            values[key] = None
            continue
        room -= len(entry.value) if isinstance(entry.value, bytes) else entry.value.length or 0
        if room < 0:
            raise KvRefusal(413, f"Total size of request exceeds the limit of {MAX_BULK_BYTES // 1024 // 1024}MB")
        value = _read(await whole(entry), kind or "text")
        metadata = None if entry.metadata is None else json.loads(entry.metadata)
        values[key] = {"value": value, "metadata": metadata} if with_metadata else value
    return values


def _read(data: bytes, kind: Literal["text", "json"]) -> Any:
    text = data.decode(errors="replace").removeprefix("\ufeff")
    if kind == "text":
        return text
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise KvRefusal(400, "At least one of the requested keys corresponds to a non-json value") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def _finite(digits: str) -> float | None:
    """A number. One too large for a float is Infinity in JavaScript, which JSON writes as null."""
    number = float(digits)
    return number if math.isfinite(number) else None
