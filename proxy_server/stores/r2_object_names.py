"""The names that the records of a bucket have in an object store: each tells its key, in the order of the keys."""

from __future__ import annotations

import re
from typing import Final

from proxy_server.stores.r2_errors import InvalidObjectName

__all__ = ["escaped", "key_of", "path_of"]

# The names that all three stores take.
_MAX_NAME_BYTES: Final = 1024


def path_of(key: str) -> str:
    path = f"objects/k{escaped(key)}!"
    if len(path.encode()) > _MAX_NAME_BYTES:
        raise InvalidObjectName(
            "The specified object name is not valid: it is too long for the store behind this bucket"
        )
    return path


def key_of(path: str) -> str:
    name = path.removeprefix("objects/k").removesuffix("!")
    return re.sub("!(..)|~([01])|\ufffd([0-3])", _original, name)


def escaped(key: str) -> str:
    """A key as part of a name, in the same order: what is escaped begins with the lowest character that is not, or with
    the one that it follows. Stores order names by bytes or by UTF-16: what has two units there follows U+FFFD."""
    return re.sub("[\x00-/~\x7f\ufffd-\U0010ffff]", _escape, key)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character > "\uffff":
        return f"\ufffd3{character}"
    if character >= "\ufffd":
        return f"\ufffd{ord(character) - 0xFFFD}"
    return f"~{ord(character) - 0x7E}" if character >= "~" else f"!{ord(character):02X}"


def _original(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    if match[2]:
        return chr(0x7E + int(match[2]))
    return "" if match[3] == "3" else chr(0xFFFD + int(match[3]))
