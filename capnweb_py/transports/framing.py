"""Framings: where one message ends and the next begins, on a connection that carries nothing but bytes. Sans-I/O.

A framing is fed bytes, which may end anywhere, and gives the messages in them. It holds no more than one message of the
longest that is allowed and what was fed last: what is longer is refused as soon as that is known.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, Literal, Protocol, final

from ..codec import JSON, Codec
from ..errors import LimitExceeded, ProtocolError
from ..session import Message

__all__ = ["Framing", "FramingName", "LengthFraming", "LineFraming", "framing_named"]

FramingName = Literal["length", "newline"]

# The kind of a message and the length of its data in bytes. The kinds are the opcodes of WebSocket (RFC 6455, section
# 5.2).
_HEADER: Final = Struct("!BI")
_TEXT: Final = 1
_BINARY: Final = 2
_LONGEST: Final = 2**32 - 1


class Framing(Protocol):
    """One end of a connection's framing, both directions."""

    def write(self, messages: list[Message]) -> bytes:
        """The bytes of messages. Raises LimitExceeded if one is longer than the framing can say."""

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection."""

    def next(self) -> Message | None:
        """The next message, or None if not all of it is there.

        Raises:
            ProtocolError: if the bytes are no message.
            LimitExceeded: if it is longer than allowed.
        """

    @property
    def within(self) -> bool:
        """Whether the bytes so far end inside a message."""


class _Buffered:
    """What has come and was not taken.

    Args:
        max_size: the longest message, in bytes.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._buffer = bytearray()
        # Where the next message begins in it.
        self._start = 0

    def feed(self, data: bytes) -> None:
        del self._buffer[: self._start]
        self._start = 0
        self._buffer += data


@final
class LengthFraming(_Buffered):
    """A header before each message: its kind, text or binary, and its length.

    Args:
        max_size: the longest message, in bytes.
    """

    def write(self, messages: list[Message]) -> bytes:
        parts: list[bytes] = []
        for data, binary in messages:
            if len(data) > _LONGEST:
                raise LimitExceeded(f"a message of {len(data)} bytes is longer than a header can say")
            parts += (_HEADER.pack(_BINARY if binary else _TEXT, len(data)), data)
        return b"".join(parts)

    def next(self) -> Message | None:
        buffer, body = self._buffer, self._start + _HEADER.size
        if len(buffer) < body:
            return None
        kind, length = _HEADER.unpack_from(buffer, self._start)
        if kind != _TEXT and kind != _BINARY:
            raise ProtocolError(
                f"a message begins with the byte {kind}, not with {_TEXT} for text or {_BINARY} for binary: does "
                "something else write to the stream, such as print()?"
            )
        if length > self._max_size:
            raise _too_long(f"of {length} bytes", self._max_size)
        end = body + length
        if len(buffer) < end:
            return None
        self._start = end
        return bytes(buffer[body:end]), kind == _BINARY

    @property
    def within(self) -> bool:
        return len(self._buffer) > self._start


@final
class LineFraming(_Buffered):
    """One message a line, of text alone: npm capnweb's batches are written so. Empty lines mean nothing.

    Args:
        max_size: the longest message, in bytes.
    """

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        # Up to where in the buffer there is no end of the next line.
        self._searched = 0

    def write(self, messages: list[Message]) -> bytes:
        return b"".join([data + b"\n" for data, _ in messages])

    def feed(self, data: bytes) -> None:
        self._searched -= self._start
        super().feed(data)

    def next(self) -> Message | None:
        while True:
            end = self._buffer.find(b"\n", self._searched)
            self._searched = len(self._buffer) if end < 0 else end + 1
            if (self._searched if end < 0 else end) - self._start > self._max_size:
                raise _too_long("on one line", self._max_size)
            if end < 0:
                return None
            line = bytes(self._buffer[self._start : end])
            self._start = end + 1
            if line and not line.isspace():
                return line, False

    @property
    def within(self) -> bool:
        return bool(self._buffer[self._start :].strip())


def framing_named(name: FramingName, max_size: int, codec: Codec) -> Framing:
    """The framing of a name.

    Args:
        name: of the framing.
        max_size: the longest message that is taken, in bytes.
        codec: of the messages.

    Raises:
        ValueError: if there is none, or it does not carry what the codec writes.
    """
    if name == "length":
        return LengthFraming(max_size)
    if name != "newline":
        raise ValueError(f"unknown framing {name!r}; one of length, newline")
    if codec is not JSON:
        raise ValueError(
            f"the framing 'newline' carries JSON text alone, and not the codec {codec.name!r}: use framing='length'"
        )
    return LineFraming(max_size)


def _too_long(length: str, max_size: int) -> LimitExceeded:
    return LimitExceeded(f"a message {length} is larger than max_message_size = {max_size}")
