"""JSON text: what every peer speaks. Bytes in a tree become base64 without padding (protocol, section "bytes").

orjson does the work. It refuses three things that the protocol allows: lone surrogates, nesting past its own limit,
and numbers that are infinite as doubles. The standard library's module, which takes them, stands behind it.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from typing import Any, Final

import orjson

from .error import CodecError

__all__ = ["JsonCodec", "base64_text", "encode_json"]

# Integers of at most this many characters hold every one that is exact in JavaScript; longer ones are read as doubles.
_EXACT_CHARACTERS = 17


def encode_json(tree: Any) -> bytes:
    """The tree as JSON, in UTF-8."""
    try:
        return orjson.dumps(tree, default=base64_text)
    except TypeError:
        # ASCII escapes are the only way to write a lone surrogate.
        return json.dumps(tree, default=base64_text, separators=(",", ":"), allow_nan=False).encode("ascii")


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


def base64_text(value: bytes) -> str:
    """Bytes as they stand in JSON: base64 in the standard alphabet, without padding."""
    return b2a_base64(value, newline=False).rstrip(b"=").decode("ascii")


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _EXACT_CHARACTERS else float(digits)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
