"""JSON text: what every peer speaks. Bytes in a tree become base64 without padding (protocol, section "bytes").

The text is what JavaScript's JSON.stringify makes of the same tree, to the byte. orjson does the work. It refuses three
things that the protocol allows: lone surrogates, nesting past its own limit, and numbers that are infinite as doubles.
What takes them stands behind it: our own writer, and the standard library's reader.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

import orjson
import pybase64

from .error import CodecError

__all__ = [
    "LONG",
    "Double",
    "JsonCodec",
    "LongBytes",
    "base64_data",
    "base64_text",
    "decode_lenient",
    "encode_json",
    "packed",
    "weight",
]

# Integers of at most this many characters hold every one that is exact in JavaScript; longer ones are read as doubles.
_EXACT_CHARACTERS = 17


# Between these JavaScript writes a double without an exponent (ECMA-262, "Number::toString").
_LEAST_FIXED: Final = 1e-6
_LEAST_EXPONENTIAL: Final = 1e21


class Double(float):
    """A finite float that orjson writes differently from JavaScript: one that lies in the ranges that `make` looks for.

    It stands in a tree as any float does. Only writing it as JSON is slower.
    """

    __slots__ = ()

    @classmethod
    def make(cls, value: float) -> Any:
        """The float, as one of these where it needs to be. Floats that are exact integers are not for this."""
        size = abs(value)
        if _LEAST_FIXED <= size < 1e-5 or (2**53 <= size < _LEAST_EXPONENTIAL):
            return cls(value)
        return value

    def text(self) -> str:
        """The number as JavaScript writes it."""
        return format(Decimal(repr(float(self))), "f").removesuffix(".0")


class LongBytes:
    """Many bytes in a tree, marked for the codec that copies them apart: from `LONG` on."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


# How many bytes are many: cbor2 is as fast as a copy below that.
LONG: Final = 64 * 1024


def encode_json(tree: Any) -> bytes:
    """The tree as JSON, in UTF-8."""
    try:
        return orjson.dumps(tree, default=_written_otherwise)
    except TypeError:
        # Surrogates in pairs are one character, and a lone one is written as an escape, as JSON.stringify does.
        text = _text(tree).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return text.encode("utf-8", "backslashreplace")


def packed(tree: Any) -> tuple[Any, int]:
    """A part of a tree, written already if orjson alone can, to stand in the tree of a message; and its size in bytes.

    What waits to be sent is then a few bytes instead of many objects, which would be out of the processor's caches, and
    seen by the garbage collector, until they are written.
    """
    try:
        data = orjson.dumps(tree)
    except TypeError:
        return tree, 0
    # A copy: orjson's own bytes keep 4 KiB for themselves, however few they are.
    return orjson.Fragment(memoryview(data).tobytes()), len(data)


def weight(tree: Any) -> int:
    """How many bytes the texts and bytes in a tree take, at least."""
    size = 0
    parts = [tree]
    for part in parts:
        kind = part.__class__
        if kind is list:
            parts += part
        elif kind is dict:
            parts += part.values()
        elif kind is str or kind is bytes:
            size += len(part)
        elif kind is LongBytes:
            size += len(part.data)
    return size


def _text(tree: Any) -> str:
    """The tree as JSON, lone surrogates as they are.

    It nests as deep as a message may, so there are no comprehensions: each would take one more level of Python's stack.
    """
    if type(tree) is str:
        return json.dumps(tree, ensure_ascii=False)
    if type(tree) is list:
        items = []
        for item in tree:
            items.append(_text(item))
        return f"[{','.join(items)}]"
    if type(tree) is dict:
        entries = []
        for key, item in tree.items():
            entries.append(f"{json.dumps(key, ensure_ascii=False)}:{_text(item)}")
        return f"{{{','.join(entries)}}}"
    if type(tree) is int:
        return str(tree)
    return orjson.dumps(tree, default=_written_otherwise).decode()


def decode_lenient(data: bytes | str) -> Any:
    """The tree that JSON text holds which orjson refuses. Raises CodecError if it is not JSON."""
    try:
        return json.loads(data, parse_constant=_refuse_constant, parse_int=_parse_int)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"the message is not JSON: {error}") from None


class JsonCodec:
    """Every message is JSON text."""

    name = "json"
    subprotocol = "capnweb.json"
    # It is handed bytes, since what writes the text makes base64 of them on the way.
    encoding_level: Final = "jsonCompatibleWithBytes"

    def encode(self, tree: Any) -> tuple[bytes, bool]:
        return encode_json(tree), False

    def decode(self, data: bytes | str, binary: bool) -> Any:
        if binary:
            raise CodecError("a binary message came over a connection that speaks JSON text")
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            return decode_lenient(data)


def _written_otherwise(value: bytes | LongBytes | Double) -> str | orjson.Fragment:
    """What stands in the JSON for what orjson does not know."""
    if isinstance(value, LongBytes):
        return base64_text(value.data)
    return orjson.Fragment(value.text()) if isinstance(value, Double) else base64_text(value)


def base64_text(value: bytes) -> str:
    """Bytes as they stand in JSON: base64 in the standard alphabet, without padding."""
    return pybase64.b64encode_as_string(value).rstrip("=")


def base64_data(text: str) -> bytes:
    """The bytes that base64 stands for, padded or not. Raises ValueError if it is none.

    By pybase64: 64 KiB take 6 us, and 180 with the standard library.
    """
    return pybase64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _EXACT_CHARACTERS else float(digits)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
