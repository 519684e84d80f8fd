"""Codecs: trees to and from the data of one message.

A tree is of dict, list, str, int, float, bool, None and what else the codec's encoding level allows. A codec knows
nothing of RPC. Whatever a peer sends, `decode` returns a tree or raises `CodecError`.
"""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol, get_args

from .cbor import CborCodec
from .error import CodecError
from .json import JsonCodec

__all__ = ["CBOR", "CODECS", "JSON", "Codec", "CodecError", "EncodingLevel", "chosen_codec"]

# What a codec takes and gives beside what JSON has. The names are npm capnweb's, whose fourth level, "string", is
# that of the codec "json": there the session writes the text.
#   jsonCompatible           nothing: bytes are base64 text
#   jsonCompatibleWithBytes  `bytes`, as the second part of ["bytes", ...]
#   structuredClonable       those; infinite floats and NaN, `BigInt`, `UNDEFINED`, aware `datetime` and `INVALID_DATE`
EncodingLevel = Literal["jsonCompatible", "jsonCompatibleWithBytes", "structuredClonable"]


class Codec(Protocol):
    """One way to write an expression tree as the data of a message.

    A codec of your own goes wherever a codec is chosen, on both sides of a connection. Trees are of exactly the types
    that its encoding level names, not of subclasses, and each is nobody else's.
    """

    @property
    def name(self) -> str:
        """What `connect(codec=...)` calls it."""
        ...

    @property
    def subprotocol(self) -> str:
        """The WebSocket subprotocol that chooses it."""
        ...

    @property
    def encoding_level(self) -> EncodingLevel:
        """What its trees hold."""
        ...

    def encode(self, tree: Any) -> tuple[bytes, bool]:
        """Write a tree. Returns the data, and whether it is a binary message (else it is UTF-8 text)."""
        ...

    def decode(self, data: bytes | str, binary: bool) -> Any:
        """Read a message. Raises CodecError, and nothing else, if the data is not one whole tree.

        Text comes as UTF-8, or as `str` where a transport has it so.
        """
        ...


JSON: Final = JsonCodec()
CBOR: Final = CborCodec()

# The best first. Both sides of a connection choose from these by subprotocol.
CODECS: Final[tuple[Codec, ...]] = (CBOR, JSON)


def chosen_codec(choice: str | Codec) -> Codec:
    """The codec of a name, or the codec itself. Raises ValueError if there is none, or its level is unknown."""
    if not isinstance(choice, str):
        if choice.encoding_level not in get_args(EncodingLevel):
            raise ValueError(
                f"the codec {choice.name!r} has the encoding level {choice.encoding_level!r}; "
                f"one of {', '.join(get_args(EncodingLevel))}"
            )
        return choice
    for codec in CODECS:
        if codec.name == choice:
            return codec
    raise ValueError(f"unknown codec {choice!r}; one of {', '.join(codec.name for codec in CODECS)}")
