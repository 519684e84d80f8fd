"""Stores of keys and values: what a KV namespace needs of one, whatever keeps the data.

A key is any text: what may be a key, and how large its value, the binding decides. Keys are listed in the order of
their UTF-8 bytes, as Cloudflare documents it. An entry is there until the second of its expiration begins.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterable, Callable
from typing import Final, Protocol, TypeAlias

import attrs

from capnweb_py.web import ReadableStream
from proxy_server.declined import Declined

__all__ = [
    "CHUNK_BYTES",
    "LOOSE_SECONDS",
    "TOO_SLOW",
    "Clock",
    "KvBody",
    "KvEntry",
    "KvKey",
    "KvPage",
    "KvRefusal",
    "KvStore",
    "behind",
    "cursor_after",
    "key_of",
]

# Seconds since 1970, as time.time tells them.
Clock: TypeAlias = Callable[[], float]

# A value on its way into a store: whole, or as it comes.
KvBody: TypeAlias = bytes | AsyncIterable[bytes]

# Up to this size a value is kept and handed out in one piece; a larger one goes in pieces of this size.
CHUNK_BYTES: Final = 256 * 1024

# How long a large value may be read after it was replaced, and how long its writer may wait with the next chunk.
LOOSE_SECONDS: Final = 600


class KvRefusal(Declined):
    """A store or a binding does not do what was asked: with the status, and the text, that the real service has."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


# The refusal of a value whose writer has waited so long with a chunk that the ones before it have been swept away.
TOO_SLOW: Final = (408, "The value took too long to arrive")


@attrs.frozen
class KvKey:
    """A key, as it is listed.

    Attributes:
        name: the key.
        expiration: the second since 1970 in which it goes; None if it stays.
        metadata: JSON text; None where there is none.
    """

    name: str
    expiration: int | None = None
    metadata: str | None = None


@attrs.frozen
class KvEntry:
    """What is stored under a key: a value, whole or as a stream that is read once, and what is listed of the key."""

    value: bytes | ReadableStream[bytes]
    expiration: int | None = None
    metadata: str | None = None


@attrs.frozen
class KvPage:
    """Some keys in order, and where the next ones begin: None after the last."""

    keys: list[KvKey]
    cursor: str | None = None


class KvStore(Protocol):
    """One namespace's data. Used by many tasks at a time; the last of several writes of one key stays."""

    async def get(self, key: str) -> KvEntry | None:
        """What is stored under a key."""

    async def put(self, key: str, body: KvBody, expiration: int | None = None, metadata: str | None = None) -> None:
        """Store a value in the place of what was there. It is seen when it is complete and safe, or not at all.

        A stream is not closed: that is for who made it.

        Raises:
            Exception: what the body raises. Then nothing has changed.
        """

    async def delete(self, key: str) -> None:
        """Remove a key. One that is not there is no error."""

    async def list(self, prefix: str, cursor: str | None, limit: int) -> KvPage:
        """The first keys with a prefix, or those from a page's cursor on.

        Keys that come and go between two pages move no others: none is skipped or listed twice.

        Raises:
            KvRefusal: if the cursor is none of this store's.
        """

    async def aclose(self) -> None:
        """Let go of the data. Nothing is asked of the store any more."""


def cursor_after(key: str) -> str:
    """The cursor of a page that ends with a key."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def key_of(cursor: str) -> str:
    """The key that a cursor of `cursor_after` stands behind.

    Raises:
        KvRefusal: if it is none.
    """
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise KvRefusal(400, "Invalid cursor") from None


def behind(prefix: bytes) -> bytes | None:
    """The first key behind all that begin with a prefix; None where there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
