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
from ..values import INVALID_DATE, UNDEFINED, TypedArray
from .v8_cursor import Cursor
from .v8_format import ERRORS, MAX_DEPTH, VIEWS

__all__ = ["loads"]

# How long an array may be that says its length and has few items: `a = []; a[2 ** 32 - 2] = 1` is a few bytes long.
_MAX_SPARSE_LENGTH: Final = 100_000

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
        return _Reader(data).value()
    except (IndexError, struct.error):
        raise ValueError("the bytes are no value in V8's format: they end too early") from None


class _Reader:
    """Reads one value. What it raises beside ValueError says that the bytes end too early."""

    def __init__(self, data: bytes) -> None:
        self._cursor = Cursor(data)
        self._depth = 0
        # Objects by their numbers, which count them in the order in which they begin.
        self._objects: list[Any] = []
        self._readers: Final[dict[str, Callable[[], Any]]] = {
            "_": lambda: UNDEFINED,
            "0": lambda: None,
            "T": lambda: True,
            "F": lambda: False,
            "I": self._cursor.zigzag,
            "U": self._cursor.varint,
            "N": self._cursor.double,
            "Z": self._cursor.bigint,
            '"': self._cursor.latin1,
            "c": self._cursor.utf16,
            "S": self._cursor.utf8,
            "^": self._reference,
            "o": self._object,
            "A": self._dense_array,
            "a": self._sparse_array,
            "D": self._date,
            "y": lambda: self._boxed(lambda: True),
            "x": lambda: self._boxed(lambda: False),
            "n": lambda: self._boxed(self._cursor.double),
            "z": lambda: self._boxed(self._cursor.bigint),
            "s": lambda: self._boxed(self.value),
            ";": self._map,
            "'": self._set,
            "B": self._buffer,
            "~": self._resizable_buffer,
            "r": self._error,
        }

    def value(self) -> Any:
        """The next value."""
        tag = self._cursor.tag()
        if tag not in self._readers:
            raise ValueError(f"the value has a part with the tag {tag!r} of V8's format, for which Python has no value")
        if self._depth == MAX_DEPTH:
            raise ValueError(f"the value is nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        value = self._readers[tag]()
        self._depth -= 1
        return value

    def _reference(self) -> Any:
        number = self._cursor.varint()
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
        milliseconds = self._cursor.double()
        try:
            return self._kept(_EPOCH + timedelta(milliseconds=milliseconds))
        except (ValueError, OverflowError):
            return self._kept(INVALID_DATE)

    def _object(self) -> dict[str, Any]:
        made: dict[str, Any] = self._kept({})
        made.update(self._properties("{"))
        self._cursor.varint()  # how many there were
        return made

    def _properties(self, end: str) -> dict[str, Any]:
        """Names and values, up to the tag that ends them."""
        found: dict[str, Any] = {}
        while self._cursor.peek() != end:
            name = self.value()
            if isinstance(name, bool) or not isinstance(name, (str, int, float)):
                raise ValueError("the value has a property whose name is none")
            found[str(name)] = self.value()
        self._cursor.tag()
        return found

    def _dense_array(self) -> list[Any]:
        length = self._cursor.varint()
        if length > self._cursor.left:
            raise IndexError
        made: list[Any] = self._kept([])
        for _ in range(length):
            if self._cursor.peek() == "-":  # a hole
                self._cursor.tag()
                made.append(UNDEFINED)
            else:
                made.append(self.value())
        self._properties("$")  # an array's properties besides its items: a list has none
        self._cursor.varint()
        self._cursor.varint()
        return made

    def _sparse_array(self) -> list[Any]:
        length = self._cursor.varint()
        if length > _MAX_SPARSE_LENGTH:
            raise ValueError(f"the value has an array of {length} items, nearly all of which are missing")
        made: list[Any] = self._kept([UNDEFINED] * length)
        for name, value in self._properties("@").items():
            if _ARRAY_INDEX.fullmatch(name) and int(name) < length:
                made[int(name)] = value
        self._cursor.varint()
        self._cursor.varint()
        return made

    def _map(self) -> dict[Any, Any]:
        made: dict[Any, Any] = self._kept({})
        while self._cursor.peek() != ":":
            key = self.value()
            made[_hashable(key, "a Map whose keys are objects")] = self.value()
        self._cursor.tag()
        self._cursor.varint()
        return made

    def _set(self) -> set[Any]:
        made: set[Any] = self._kept(set())
        while self._cursor.peek() != ",":
            made.add(_hashable(self.value(), "a Set of objects"))
        self._cursor.tag()
        self._cursor.varint()
        return made

    def _buffer(self) -> Any:
        return self._buffer_or_view(self._cursor.take(self._cursor.varint()))

    def _resizable_buffer(self) -> Any:
        length = self._cursor.varint()
        self._cursor.varint()  # the most that it may grow to
        return self._buffer_or_view(self._cursor.take(length))

    def _buffer_or_view(self, buffer: bytes) -> Any:
        """An ArrayBuffer, and a view of it where one follows: the two are one value then, with a number each."""
        self._kept(buffer)
        if self._cursor.left == 0 or self._cursor.peek() != "V":
            return buffer
        self._cursor.tag()
        kind = VIEWS.get(chr(self._cursor.byte()))
        start, length = self._cursor.varint(), self._cursor.varint()
        if self._cursor.version >= 14:
            self._cursor.varint()  # whether it grows with its buffer
        if kind is None or start + length > len(buffer):
            raise ValueError("the value has a view of an ArrayBuffer that is not valid")
        data = buffer[start : start + length]
        return self._kept(data if kind == "Uint8Array" else TypedArray(kind, data))

    def _error(self) -> Exception:
        number = len(self._objects)
        self._objects.append(_UNFINISHED)
        name, message = "Error", ""
        stack: str | None = None
        while (tag := chr(self._cursor.byte())) != ".":
            if tag in ERRORS:
                name = ERRORS[tag]
            elif tag == "m":
                message = self._text()
            elif tag == "s":
                stack = self._text()
            elif tag == "c":
                self.value()
            else:
                raise ValueError(_BAD_ERROR)
        self._objects[number] = remote_error(name, message, stack)
        return self._objects[number]  # type: ignore[no-any-return]

    def _text(self) -> str:
        value = self.value()
        if not isinstance(value, str):
            raise ValueError(_BAD_ERROR)
        return value


_BAD_ERROR: Final = "the value has an error that is not valid"

# Stands for an object whose inside is still being read, and that Python makes only afterwards.
_UNFINISHED: Final = object()


def _hashable(value: Any, what: str) -> Any:
    try:
        hash(value)
    except TypeError:
        raise ValueError(f"the value has {what}, for which Python has no value") from None
    return value
