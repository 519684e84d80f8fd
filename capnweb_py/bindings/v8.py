"""Values in V8's serialization format, read: what a Worker sends to a queue with the content type "v8".

The format is V8's own (its source file src/objects/value-serializer.cc), and that of `v8.serialize` in Node. What
JavaScript knows and Python does not comes as the types of values.py. Bytes are anybody's: a reader that was given
nonsense, or a value made to be expensive, raises ValueError.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ..errors import remote_error
from ..values import INVALID_DATE, UNDEFINED, BigInt, TypedArray

__all__ = ["ERRORS", "MAX_DEPTH", "VIEWS", "loads"]

# How deep a value may be nested: each level is a call in Python.
MAX_DEPTH: Final = 200

# How long an array may be that says its length and has few items: `a = []; a[2 ** 32 - 2] = 1` is a few bytes long.
_MAX_SPARSE_LENGTH: Final = 100_000

# V8 13 writes version 15, and reads all versions; what is here changed in none of these.
_VERSIONS: Final = range(13, 16)
_VERSION_TAG: Final = 0xFF

# Views, by the second byte of their tag. There is no Float16Array among the values of values.py.
VIEWS: Final = {
    "b": "Int8Array",
    "B": "Uint8Array",
    "C": "Uint8ClampedArray",
    "w": "Int16Array",
    "W": "Uint16Array",
    "d": "Int32Array",
    "D": "Uint32Array",
    "f": "Float32Array",
    "F": "Float64Array",
    "q": "BigInt64Array",
    "Q": "BigUint64Array",
    "?": "DataView",
}
ERRORS: Final = {
    "E": "EvalError",
    "R": "RangeError",
    "F": "ReferenceError",
    "S": "SyntaxError",
    "T": "TypeError",
    "U": "URIError",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ARRAY_INDEX: Final = re.compile("0|[1-9][0-9]{0,9}")


def loads(data: bytes) -> Any:
    """Read a value.

    An object and a Map become a dict, a Set a set, an ArrayBuffer and a Uint8Array bytes, a Date an aware datetime, an
    Error an exception. The same object twice is the same Python object, and a circle stays one.

    Raises:
        ValueError: if the bytes are no such value, or one that Python cannot hold: a RegExp, a Map whose keys are
            objects, a host object of the Workers runtime, one that is nested deeper than MAX_DEPTH.
    """
    try:
        return _Reader(data).whole()
    except (IndexError, struct.error):
        raise ValueError("the bytes are no value in V8's format: they end too early") from None


class _Reader:
    """Reads one value. The position moves on over what has been read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._depth = 0
        self._version = 0
        # Objects by their numbers, which count them in the order in which they begin.
        self._objects: list[Any] = []
        self._readers: Final[dict[str, Callable[[], Any]]] = {
            "_": lambda: UNDEFINED,
            "0": lambda: None,
            "T": lambda: True,
            "F": lambda: False,
            "I": self._zigzag,
            "U": self._varint,
            "N": self._double,
            "Z": self._bigint,
            '"': self._latin1,
            "c": self._utf16,
            "S": lambda: _text(self._bytes(self._varint()), "utf-8"),
            "^": self._reference,
            "o": self._object,
            "A": self._dense_array,
            "a": self._sparse_array,
            "D": self._date,
            "y": lambda: self._boxed(lambda: True),
            "x": lambda: self._boxed(lambda: False),
            "n": lambda: self._boxed(self._double),
            "z": lambda: self._boxed(self._bigint),
            "s": lambda: self._boxed(self._value),
            ";": self._map,
            "'": self._set,
            "B": self._buffer,
            "~": self._resizable_buffer,
            "r": self._error,
        }

    def whole(self) -> Any:
        if not self._data or self._data[0] != _VERSION_TAG:
            raise ValueError("the bytes are no value in V8's format: they do not begin as one")
        self._at = 1
        self._version = self._varint()
        if self._version not in _VERSIONS:
            raise ValueError(f"the value is in version {self._version} of V8's format, which is not read here")
        return self._value()

    # Pieces

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _bytes(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise IndexError
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def _varint(self) -> int:
        """An unsigned number of at most 32 bits, seven of them a byte, the lowest first."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value & 0xFFFFFFFF
        raise ValueError("the bytes are no value in V8's format: a number is too long")

    def _peek(self) -> str:
        """The next tag. Zeros before a tag only align what comes after it."""
        while self._data[self._at] == 0:
            self._at += 1
        return chr(self._data[self._at])

    def _tag(self) -> str:
        tag = self._peek()
        self._at += 1
        return tag

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _double(self) -> float:
        value: float = struct.unpack("<d", self._bytes(8))[0]
        return value

    def _bigint(self) -> BigInt:
        bits = self._varint()
        magnitude = int.from_bytes(self._bytes((bits >> 1) & 0x3FFFFFFF), "little")
        return BigInt(-magnitude if bits & 1 else magnitude)

    def _latin1(self) -> str:
        return self._bytes(self._varint()).decode("latin-1")

    def _utf16(self) -> str:
        return _text(self._bytes(self._varint()), "utf-16-le")

    # Values

    def _value(self) -> Any:
        tag = self._tag()
        if tag not in self._readers:
            raise ValueError(f"the value has a part with the tag {tag!r} of V8's format, for which Python has no value")
        if self._depth == MAX_DEPTH:
            raise ValueError(f"the value is nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        value = self._readers[tag]()
        self._depth -= 1
        return value

    def _reference(self) -> Any:
        number = self._varint()
        if number >= len(self._objects) or self._objects[number] is _UNFINISHED:
            raise ValueError("the value refers to an object that it does not have yet")
        return self._objects[number]

    def _kept(self, value: Any) -> Any:
        self._objects.append(value)
        return value

    def _boxed(self, read: Callable[[], Any]) -> Any:
        """An object around a simple value, such as `new Number(1)`: the value."""
        number = len(self._objects)
        self._objects.append(_UNFINISHED)
        self._objects[number] = read()
        return self._objects[number]

    def _date(self) -> Any:
        milliseconds = self._double()
        try:
            return self._kept(_EPOCH + timedelta(milliseconds=milliseconds))
        except (ValueError, OverflowError):
            return self._kept(INVALID_DATE)

    def _object(self) -> dict[str, Any]:
        made: dict[str, Any] = self._kept({})
        made.update(self._properties("{"))
        self._varint()  # how many there were
        return made

    def _properties(self, end: str) -> dict[str, Any]:
        """Names and values, up to the tag that ends them."""
        found: dict[str, Any] = {}
        while self._peek() != end:
            name = self._value()
            if isinstance(name, bool) or not isinstance(name, (str, int, float)):
                raise ValueError("the value has a property whose name is none")
            found[str(name)] = self._value()
        self._tag()
        return found

    def _dense_array(self) -> list[Any]:
        length = self._varint()
        if length > len(self._data) - self._at:
            raise IndexError
        made: list[Any] = self._kept([])
        for _ in range(length):
            if self._peek() == "-":  # a hole
                self._tag()
                made.append(UNDEFINED)
            else:
                made.append(self._value())
        self._properties("$")  # an array's properties besides its items: a list has none
        self._varint()
        self._varint()
        return made

    def _sparse_array(self) -> list[Any]:
        length = self._varint()
        if length > _MAX_SPARSE_LENGTH:
            raise ValueError(f"the value has an array of {length} items, nearly all of which are missing")
        made: list[Any] = self._kept([UNDEFINED] * length)
        for name, value in self._properties("@").items():
            if _ARRAY_INDEX.fullmatch(name) and int(name) < length:
                made[int(name)] = value
        self._varint()
        self._varint()
        return made

    def _map(self) -> dict[Any, Any]:
        made: dict[Any, Any] = self._kept({})
        while self._peek() != ":":
            key = self._value()
            made[_hashable(key, "a Map whose keys are objects")] = self._value()
        self._tag()
        self._varint()
        return made

    def _set(self) -> set[Any]:
        made: set[Any] = self._kept(set())
        while self._peek() != ",":
            made.add(_hashable(self._value(), "a Set of objects"))
        self._tag()
        self._varint()
        return made

    def _buffer(self) -> Any:
        return self._buffer_or_view(self._bytes(self._varint()))

    def _resizable_buffer(self) -> Any:
        length = self._varint()
        self._varint()  # the most that it may grow to
        return self._buffer_or_view(self._bytes(length))

    def _buffer_or_view(self, buffer: bytes) -> Any:
        """An ArrayBuffer, and a view of it where one follows: the two are one value then, with a number each."""
        self._kept(buffer)
        if self._at == len(self._data) or self._peek() != "V":
            return buffer
        self._tag()
        kind = VIEWS.get(chr(self._byte()))
        start, length = self._varint(), self._varint()
        if self._version >= 14:
            self._varint()  # whether it grows with its buffer
        if kind is None or start + length > len(buffer):
            raise ValueError("the value has a view of an ArrayBuffer that is not valid")
        data = buffer[start : start + length]
        return self._kept(data if kind == "Uint8Array" else TypedArray(kind, data))

    def _error(self) -> Exception:
        number = len(self._objects)
        self._objects.append(_UNFINISHED)
        name, message = "Error", ""
        stack: str | None = None
        while (tag := chr(self._byte())) != ".":
            if tag in ERRORS:
                name = ERRORS[tag]
            elif tag == "m":
                message = self._text()
            elif tag == "s":
                stack = self._text()
            elif tag == "c":
                self._value()
            else:
                raise ValueError(_BAD_ERROR)
        self._objects[number] = remote_error(name, message, stack)
        return self._objects[number]  # type: ignore[no-any-return]

    def _text(self) -> str:
        value = self._value()
        if not isinstance(value, str):
            raise ValueError(_BAD_ERROR)
        return value


_BAD_ERROR: Final = "the value has an error that is not valid"

# Stands for an object whose inside is still being read, and that Python makes only afterwards.
_UNFINISHED: Final = object()


def _text(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding, "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(f"the value has a text that is none: {error.reason}") from None


def _hashable(value: Any, what: str) -> Any:
    try:
        hash(value)
    except TypeError:
        raise ValueError(f"the value has {what}, for which Python has no value") from None
    return value
