"""Plain data frames of WebSocket (RFC 6455, section 5.2): a whole message in one frame, written and read without
objects.

For a small call, `websockets` spends more time on the frames than everything else takes together: it makes an object
for each, and parses each with generators. (Measured with 100 calls in flight: 5.8 us to write a frame and 6.5 us to
read one, against 1.3 and 1.7 here.) Only plain frames are handled here: control frames, fragments, and whatever
breaks a rule go to `websockets`, whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import Struct
from typing import Final

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # the fast one, where it was built

from ..session import Message

__all__ = ["FrameReader", "write_frames"]

# The first byte of a plain frame: the FIN bit, and the opcode of text or binary data.
_TEXT: Final = 0x81
_BINARY: Final = 0x82
# In the second byte: the bit of a masked frame, and the lengths that mean "in the next 2" and "in the next 8 bytes".
_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127

_SHORT_HEAD: Final = Struct("!BB").pack
_MEDIUM_HEAD: Final = Struct("!BBH").pack
_LONG_HEAD: Final = Struct("!BBQ").pack


def write_frames(messages: list[Message], masked: bool) -> bytes:
    """The frames of messages, one each. A client masks what it sends, a server does not."""
    parts: list[bytes] = []
    mask_bit = _MASKED if masked else 0
    keys = os.urandom(4 * len(messages)) if masked else b""
    for index, (data, binary) in enumerate(messages):
        first, length = _BINARY if binary else _TEXT, len(data)
        if length < _LENGTH_16:
            parts.append(_SHORT_HEAD(first, mask_bit | length))
        elif length < 1 << 16:
            parts.append(_MEDIUM_HEAD(first, mask_bit | _LENGTH_16, length))
        else:
            parts.append(_LONG_HEAD(first, mask_bit | _LENGTH_64, length))
        if masked:
            key = keys[4 * index : 4 * index + 4]
            parts += (key, apply_mask(data, key))
        else:
            parts.append(data)
    return b"".join(parts)


class FrameReader:
    """Splits what comes from a socket into the messages of plain frames and the bytes of all others, in order.

    Args:
        masked: whether the peer masks its frames, as a client does.
        max_size: the longest message, in bytes.
        take: called with each message: its data, and whether it is binary.
        pass_on: called with the bytes of every other frame, or of the beginning of one that is not acceptable. Returns
            whether plain frames may follow: not within a fragmented message, and not on a connection that is closing.
    """

    __slots__ = ("_have", "_mask_bit", "_max_size", "_need", "_parts", "_pass_on", "_plain", "_take")

    def __init__(
        self,
        masked: bool,
        max_size: int,
        take: Callable[[bytes, bool], object],
        pass_on: Callable[[bytes], bool],
    ) -> None:
        self._mask_bit = _MASKED if masked else 0
        self._max_size = max_size
        self._take = take
        self._pass_on = pass_on
        # Whether plain frames are acceptable now.
        self._plain = True
        # The beginning of a frame that is not complete, and how long its head and body are together, as far as is
        # known.
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection. They may end anywhere."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        start, end = 0, len(data)
        while start < end:
            length = self._frame(data, start, end)
            if length > end - start:
                self._parts.append(data[start:] if start else data)
                self._have, self._need = end - start, length
                return
            start += length

    def _frame(self, data: bytes, start: int, end: int) -> int:
        """Handle the frame that begins at `start`, if all of it is there. Returns its length, or more than there is."""
        if end - start < 2:
            return 2
        first, second = data[start], data[start + 1]
        length, head = second & 0x7F, 2
        if length >= _LENGTH_16:
            head = 4 if length == _LENGTH_16 else 10
            if end - start < head:
                return head
            length = int.from_bytes(data[start + 2 : start + head], "big")
        if length > self._max_size:
            # Its head is enough for `websockets` to refuse it.
            self._plain = self._pass_on(data[start:end])
            return end - start
        body = start + head + (4 if second & _MASKED else 0)
        if body + length > end:
            return body + length - start
        if self._plain and first in (_TEXT, _BINARY) and second & _MASKED == self._mask_bit:
            content = data[body : body + length]
            self._take(apply_mask(content, data[body - 4 : body]) if self._mask_bit else content, first == _BINARY)
        else:
            self._plain = self._pass_on(data[start : body + length])
        return body + length - start
