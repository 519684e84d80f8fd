"""Codecs: trees of dict, list, str, int, float, bool, None and bytes, to and from the data of one message.

A codec knows nothing of RPC. Whatever a peer sends, `decode` returns a tree or raises `CodecError`.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from .cbor import CborCodec
from .error import CodecError
from .json import JsonCodec

__all__ = ["CBOR", "CODECS", "JSON", "Codec", "CodecError", "codec_named"]


class Codec(Protocol):
    """One way to write an expression tree as the data of a message."""

    @property
    def name(self) -> str:
        """What `connect(codec=...)` calls it."""
        ...

    @property
    def subprotocol(self) -> str:
        """The WebSocket subprotocol that chooses it."""
        ...

    def encode(self, tree: Any) -> tuple[bytes, bool]:
        """Write a tree. Returns the data, and whether it is a binary message (else it is UTF-8 text)."""
        ...

    def decode(self, data: bytes | str, binary: bool) -> Any:
        """Read a message. Raises CodecError, and nothing else, if the data is not one whole tree."""
        ...


JSON: Final = JsonCodec()
CBOR: Final = CborCodec()

# The best first. Both sides of a connection choose from these by subprotocol.
CODECS: Final[tuple[Codec, ...]] = (CBOR, JSON)


def codec_named(name: str) -> Codec:
    """The codec of a name. Raises ValueError if there is none."""
    for codec in CODECS:
        if codec.name == name:
            return codec
    raise ValueError(f"unknown codec {name!r}; one of {', '.join(codec.name for codec in CODECS)}")
