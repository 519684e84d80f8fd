"""Codecs of one's own, as an application would write them: CBOR on the two encoding levels that ours does not have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import cbor2

from capnweb_py import INVALID_DATE, UNDEFINED, BigInt, CodecError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_SECONDS: Final = 1
_NON_NEGATIVE: Final = 2
_NEGATIVE: Final = 3


class PlainCbor:
    """CBOR without byte strings, on the level "jsonCompatible"."""

    name = "plain"
    subprotocol = "test.plain"
    encoding_level: Final = "jsonCompatible"

    def encode(self, tree: Any) -> tuple[bytes, bool]:
        assert not holds(tree, bytes), "bytes on a level that has none"
        return cbor2.dumps(tree), True

    def decode(self, data: bytes | str, binary: bool) -> Any:
        return _read(data, binary, {})


class ClonableCbor:
    """CBOR with tags, on the level "structuredClonable". A bigint is a bignum whatever its size."""

    name = "clonable"
    subprotocol = "test.clonable"
    encoding_level: Final = "structuredClonable"

    def encode(self, tree: Any) -> tuple[bytes, bool]:
        return cbor2.dumps(_tagged(tree)), True

    def decode(self, data: bytes | str, binary: bool) -> Any:
        return _undefined(_read(data, binary, _TAGS))


def holds(tree: Any, *kinds: type) -> bool:
    """Whether anything in a tree is of one of the types."""
    if isinstance(tree, list | dict):
        return any(holds(item, *kinds) for item in (tree.values() if isinstance(tree, dict) else tree))
    return type(tree) in kinds


def _tagged(tree: Any) -> Any:
    kind = type(tree)
    if kind is list:
        return [_tagged(item) for item in tree]
    if kind is dict:
        return {key: _tagged(item) for key, item in tree.items()}
    if kind is BigInt:
        magnitude = -1 - int(tree) if tree < 0 else int(tree)
        data = magnitude.to_bytes((magnitude.bit_length() + 7) // 8, "big")
        return cbor2.CBORTag(_NEGATIVE if tree < 0 else _NON_NEGATIVE, data)
    if kind is datetime:
        return cbor2.CBORTag(_EPOCH_SECONDS, (tree - _EPOCH) / timedelta(seconds=1))
    if tree is INVALID_DATE:
        return cbor2.CBORTag(_EPOCH_SECONDS, math.nan)
    return cbor2.undefined if tree is UNDEFINED else tree


def _undefined(tree: Any) -> Any:
    if type(tree) is list:
        return [_undefined(item) for item in tree]
    if type(tree) is dict:
        return {key: _undefined(item) for key, item in tree.items()}
    return UNDEFINED if tree is cbor2.undefined else tree


def _date(seconds: float) -> Any:
    return INVALID_DATE if math.isnan(seconds) else _EPOCH + timedelta(milliseconds=round(seconds * 1000))


_TAGS: Final[Mapping[int, Callable[[Any, Any], Any]]] = {
    _EPOCH_SECONDS: lambda content, _immutable: _date(content),
    _NON_NEGATIVE: lambda content, _immutable: BigInt(int.from_bytes(content, "big")),
    _NEGATIVE: lambda content, _immutable: BigInt(-1 - int.from_bytes(content, "big")),
}


def _read(data: bytes | str, binary: bool, tags: Mapping[int, Callable[[Any, Any], Any]]) -> Any:
    if not binary or isinstance(data, str):
        raise CodecError("a text message came over a connection that speaks CBOR alone")
    try:
        return cbor2.loads(data, semantic_decoders=tags)
    except (cbor2.CBORDecodeError, ValueError, OverflowError) as error:
        raise CodecError(f"the message is not CBOR: {error}") from None
