"""CBOR (RFC 8949): the same trees, in which bytes travel raw. Chosen by WebSocket subprotocol.

A connection that speaks CBOR carries text messages of JSON as well as binary messages of CBOR, and each side takes
both: a tree without bytes is written faster as JSON, one with bytes as CBOR. No tags are used, and none is taken: the
standard ones build big numbers, regular expressions and cycles, which a hostile peer would use.
"""

from __future__ import annotations

import os
from io import BytesIO
from itertools import chain
from typing import Any, Final

import cbor2
import orjson

from .error import CodecError
from .json import LongBytes, decode_lenient, encode_json

__all__ = ["CborCodec"]

# The major type of a byte string (RFC 8949, section 3.1).
_BYTE_STRING: Final = 2

# Deeper than any session's `max_depth` lets a message be: an array takes two levels of the tree.
_MAX_DEPTH: Final = 2200


class CborCodec:
    """Messages with bytes in them are CBOR, the others JSON text."""

    name = "cbor"
    subprotocol = "capnweb.cbor"
    encoding_level: Final = "jsonCompatibleWithBytes"

    def encode(self, tree: Any) -> tuple[bytes, bool]:
        try:
            # Refuses bytes as soon as it meets them, and lone surrogates.
            return orjson.dumps(tree), False
        except TypeError:
            pass
        try:
            return _encode_cbor(tree), True
        except (UnicodeEncodeError, cbor2.CBOREncodeError):
            # A CBOR string is UTF-8, which has no lone surrogates; JSON has escapes for them.
            return encode_json(tree), False

    def decode(self, data: bytes | str, binary: bool) -> Any:
        if not binary:
            try:
                return orjson.loads(data)
            except orjson.JSONDecodeError:
                return decode_lenient(data)
        source = BytesIO(data if isinstance(data, bytes) else data.encode())
        decoder = cbor2.CBORDecoder(
            source,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
            max_depth=_MAX_DEPTH,
            strict_hashable_types=True,
        )
        try:
            tree = decoder.decode()
        except (cbor2.CBORDecodeError, ValueError, RecursionError) as error:
            # What refuses a tag is the cause of an error that does not say so.
            raise CodecError(f"the message is not CBOR: {error.__cause__ or error}") from None
        if source.tell() != len(data):
            raise CodecError(f"the message has {len(data) - source.tell()} bytes after its CBOR value")
        return tree


# What stands for many bytes until they are put in their place. It never leaves this process.
_MARK: Final = os.urandom(16)


def _encode_cbor(tree: Any) -> bytes:
    """The tree as CBOR.

    Many bytes go past cbor2, whose buffer grows with them: 1 MiB took it 1,040 us, and takes 100 so.
    """
    passed: list[bytes] = []

    def pass_by(encoder: cbor2.CBOREncoder, value: LongBytes) -> None:
        passed.append(value.data)
        encoder.encode_length(_BYTE_STRING, len(value.data))
        encoder.write(_MARK)

    data = cbor2.dumps(tree, encoders={LongBytes: pass_by})
    if not passed:
        return data
    first, *others = data.split(_MARK)
    return b"".join([first, *chain.from_iterable(zip(passed, others, strict=True))])


def _refuse_tag(_decoder: Any, tag: Any) -> Any:
    raise ValueError(f"the protocol uses no CBOR tags, and the message has one: {tag!r}")


class _NoTags(dict[int, Any]):
    """Has a decoder for no tag: every look-up refuses."""

    def __missing__(self, tag: int) -> Any:
        raise ValueError(f"the protocol uses no CBOR tags, and the message has the tag {tag}")


_NO_TAGS: Final = _NoTags()
