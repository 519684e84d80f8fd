"""CBOR (RFC 8949): the same trees, in which bytes travel raw. Chosen by WebSocket subprotocol.

A connection that speaks CBOR carries text messages of JSON as well as binary messages of CBOR, and each side takes
both: a tree without bytes is written faster as JSON, one with bytes as CBOR. No tags are used, and none is taken: the
standard ones build big numbers, regular expressions and cycles, which a hostile peer would use.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

import cbor2
import orjson

from .error import CodecError
from .json import decode_lenient, encode_json

__all__ = ["CborCodec"]

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
            return cbor2.dumps(tree), True
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


def _refuse_tag(_decoder: Any, tag: Any) -> Any:
    raise ValueError(f"the protocol uses no CBOR tags, and the message has one: {tag!r}")


class _NoTags(dict[int, Any]):
    """Has a decoder for no tag: every look-up refuses."""

    def __missing__(self, tag: int) -> Any:
        raise ValueError(f"the protocol uses no CBOR tags, and the message has the tag {tag}")


_NO_TAGS: Final = _NoTags()
