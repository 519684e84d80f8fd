"""The pieces of a value in V8's serialization format, read one after the other: bytes, numbers, texts and tags.

What they are parts of is for v8_reading.py.
"""

from __future__ import annotations

import struct
from typing import Final

from ..values import BigInt

__all__ = ["Cursor"]

# V8 13 writes version 15, and reads all versions; what is here changed in none of these.
_VERSIONS: Final = range(13, 16)
_VERSION_TAG: Final = 0xFF


class Cursor:
    """A place in the bytes of a value, which moves on over what has been read.

    What is read beyond the end is an IndexError or a struct.error.

    Attributes:
        version: of the format, in which the value is written.

    Raises:
        ValueError: if the bytes do not begin as a value, or as one of a version that is not read here.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 1
        if not data or data[0] != _VERSION_TAG:
            raise ValueError("the bytes are no value in V8's format: they do not begin as one")
        self.version: int = self.varint()
        if self.version not in _VERSIONS:
            raise ValueError(f"the value is in version {self.version} of V8's format, which is not read here")

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    def byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise IndexError
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def varint(self) -> int:
        """An unsigned number of at most 32 bits, seven of them a byte, the lowest first."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value & 0xFFFFFFFF
        raise ValueError("the bytes are no value in V8's format: a number is too long")

    def peek(self) -> str:
        """The next tag. Zeros before a tag only align what comes after it."""
        while self._data[self._at] == 0:
            self._at += 1
        return chr(self._data[self._at])

    def tag(self) -> str:
        tag = self.peek()
        self._at += 1
        return tag

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def double(self) -> float:
        value: float = struct.unpack("<d", self.take(8))[0]
        return value

    def bigint(self) -> BigInt:
        bits = self.varint()
        magnitude = int.from_bytes(self.take((bits >> 1) & 0x3FFFFFFF), "little")
        return BigInt(-magnitude if bits & 1 else magnitude)

    def utf8(self) -> str:
        return _text(self.take(self.varint()), "utf-8")

    def latin1(self) -> str:
        return self.take(self.varint()).decode("latin-1")

    def utf16(self) -> str:
        return _text(self.take(self.varint()), "utf-16-le")


def _text(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding, "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(f"the value has a text that is none: {error.reason}") from None
