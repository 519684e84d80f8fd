"""Values in V8's serialization format, written: the counterpart of v8_reading.py, with the same types."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ..errors import RemoteError
from ..values import INVALID_DATE, MAX_SAFE_INTEGER, UNDEFINED, BigInt, TypedArray
from .v8_format import ERRORS, MAX_DEPTH, VIEWS

__all__ = ["dumps"]

# The version that the Workers runtime writes (workerd, src/workerd/api/queue.c++).
_HEADER: Final = b"\xff\x0f"
_VIEW_TAGS: Final = {kind: tag.encode() for tag, kind in VIEWS.items()}
_ERROR_TAGS: Final = {name: tag.encode() for tag, name in ERRORS.items()}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def dumps(value: Any) -> bytes:
    """Write a value.

    A dict with str keys becomes an object, another one a Map, a set a Set, bytes a Uint8Array, an aware datetime a
    Date, an exception an Error. The same list, dict or set twice is the same object there, and a circle stays one.

    Raises:
        TypeError: if JavaScript has no value for it; the message names its type.
        ValueError: if it is nested deeper than MAX_DEPTH, or a datetime is naive.
    """
    writer = _Writer()
    writer.write(value)
    return bytes(writer.data)


class _Writer:
    """Writes one value."""

    def __init__(self) -> None:
        self.data = bytearray(_HEADER)
        self._depth = 0
        # Objects by their identity: their numbers, in the order in which they begin. They are kept, so that no
        # identity comes twice.
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []

    def write(self, value: Any) -> None:
        if value is None:
            self.data += b"0"
        elif value is UNDEFINED:
            self.data += b"_"
        elif isinstance(value, bool):
            self.data += b"T" if value else b"F"
        elif isinstance(value, int):
            self._integer(value)
        elif isinstance(value, float):
            self.data += b"N" + struct.pack("<d", value)
        elif isinstance(value, str):
            self._string(value)
        else:
            self._object(value)

    def _varint(self, value: int) -> None:
        while value > 0x7F:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)

    def _integer(self, value: int) -> None:
        if isinstance(value, BigInt) or abs(value) > MAX_SAFE_INTEGER:
            # In words of 64 bits.
            size = (abs(value).bit_length() + 63) // 64 * 8
            self.data += b"Z"
            self._varint(size << 1 | (value < 0))
            self.data += abs(value).to_bytes(size, "little")
        elif -(2**31) <= value < 2**31:
            self.data += b"I"
            self._varint(value << 1 if value >= 0 else (-value << 1) - 1)
        else:
            self.data += b"N" + struct.pack("<d", value)

    def _string(self, text: str) -> None:
        if all(character <= "\xff" for character in text):
            self.data += b'"'
            self._varint(len(text))
            self.data += text.encode("latin-1")
            return
        encoded = text.encode("utf-16-le", "surrogatepass")
        # Characters of two bytes stand at an even place: a zero before the tag moves them there.
        if (len(self.data) + 1 + _size_of_varint(len(encoded))) % 2:
            self.data += b"\0"
        self.data += b"c"
        self._varint(len(encoded))
        self.data += encoded

    def _object(self, value: Any) -> None:
        number = self._numbers.get(id(value))
        if number is not None:
            self.data += b"^"
            self._varint(number)
            return
        if self._depth == MAX_DEPTH:
            raise ValueError(f"the value is nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        if isinstance(value, Mapping):
            self._number(value)
            self._mapping(value)
        elif isinstance(value, (list, tuple)):
            self._number(value)
            self._array(value)
        elif isinstance(value, (set, frozenset)):
            self._number(value)
            self._set(value)
        elif isinstance(value, (bytes, bytearray, memoryview, TypedArray)):
            self._buffer(value)
        elif isinstance(value, datetime) or value is INVALID_DATE:
            self._number(value)
            self._date(value)
        elif isinstance(value, Exception):
            self._number(value)
            self._error(value)
        else:
            raise TypeError(f'Content Type "v8" has no form for a value of the type {type(value).__name__}')
        self._depth -= 1

    def _number(self, value: Any) -> None:
        self._numbers[id(value)] = len(self._kept)
        self._kept.append(value)

    def _mapping(self, value: Mapping[Any, Any]) -> None:
        is_object = all(isinstance(key, str) for key in value)
        self.data += b"o" if is_object else b";"
        for key, item in value.items():
            self.write(key)
            self.write(item)
        self.data += b"{" if is_object else b":"
        self._varint(len(value) if is_object else 2 * len(value))

    def _array(self, value: Sequence[Any]) -> None:
        self.data += b"A"
        self._varint(len(value))
        for item in value:
            self.write(item)
        self.data += b"$\0"
        self._varint(len(value))

    def _set(self, value: set[Any] | frozenset[Any]) -> None:
        self.data += b"'"
        for item in value:
            self.write(item)
        self.data += b","
        self._varint(len(value))

    def _buffer(self, value: bytes | bytearray | memoryview | TypedArray) -> None:
        """An ArrayBuffer, and a view of the whole of it: two objects, the second of which is the value."""
        content = bytes(value)
        kind = value.kind if isinstance(value, TypedArray) else "Uint8Array"
        if kind != "ArrayBuffer":
            self._number(content)
        self._number(value)
        self.data += b"B"
        self._varint(len(content))
        self.data += content
        if kind != "ArrayBuffer":
            self.data += b"V" + _VIEW_TAGS[kind] + b"\0"
            self._varint(len(content))
            self.data += b"\0"

    def _date(self, value: Any) -> None:
        milliseconds = float("nan")
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ValueError("a datetime without a time zone is no point in time: use an aware one")
            # A date of JavaScript's has whole milliseconds.
            milliseconds = (value - _EPOCH).total_seconds() * 1000 // 1
        self.data += b"D" + struct.pack("<d", milliseconds)

    def _error(self, value: Exception) -> None:
        name = value.name if isinstance(value, RemoteError) else type(value).__name__
        self.data += b"r" + _ERROR_TAGS.get(name, b"") + b"m"
        self._string(str(value))
        self.data += b"."


def _size_of_varint(value: int) -> int:
    return max(1, -(-value.bit_length() // 7))
