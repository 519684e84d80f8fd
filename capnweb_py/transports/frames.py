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


# From how many bytes on a message is not copied together with others, and read straight into memory of its own.
_LONG: Final = 64 * 1024

# How much memory a long message is given when its head has come, and its peer may never send the rest.
_FIRST_ROOM: Final = 1024 * 1024


def write_frames(messages: list[Message], masked: bool) -> list[bytes | memoryview]:
    """The frames of messages, one each, in pieces to be written in order. A client masks what it sends, a server does
    not.

    There is one piece, but for long messages. (Joining those, and what a socket leaves of them at first, copied 1 MiB
    more than once: 0.3 ms each.)
    """
    pieces: list[bytes | memoryview] = []
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
            parts.append(key)
            data = apply_mask(data, key)
        if length < _LONG:
            parts.append(data)
        else:
            pieces += (b"".join(parts), memoryview(data))
            parts.clear()
    if parts:
        pieces.append(b"".join(parts))
    return pieces


class FrameReader:
    """Splits what comes from a socket into the messages of plain frames and the bytes of all others, in order.

    Args:
        masked: whether the peer masks its frames, as a client does.
        max_size: the longest message, in bytes.
        take: called with each message: its data, and whether it is binary.
        pass_on: called with the bytes of every other frame, or of the beginning of one that is not acceptable. Returns
            whether plain frames may follow: not within a fragmented message, and not on a connection that is closing.
    """

    __slots__ = (
        "_binary", "_have", "_key", "_long", "_mask_bit", "_max_size", "_need", "_parts", "_pass_on", "_plain", "_take",
    )  # fmt: skip

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
        # What has come of a long message, with room for more, of which `_have` and `_need` count the bytes. Its key,
        # empty if it is not masked, and whether it is binary.
        self._long: bytearray | None = None
        self._key = b""
        self._binary = False

    @property
    def within_long(self) -> bool:
        """Whether a long message is under way: then what comes is to be read into its `room`."""
        return self._long is not None

    def room(self) -> memoryview:
        """Where what comes next of a long message belongs. It must be let go of before the next call."""
        assert self._long is not None, "a long message is under way"
        if self._have == len(self._long):
            # As much again as the peer has sent: no more memory is taken for what it only announces.
            self._long += bytes(min(self._have, self._need - self._have))
        return memoryview(self._long)[self._have :]

    def filled(self, count: int) -> None:
        """So many bytes were read into the room."""
        self._have += count
        if self._have == self._need:
            assert self._long is not None, "a long message is under way"
            data, self._long = self._long, None
            self._take(apply_mask(data, self._key) if self._key else bytes(data), self._binary)

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection. They may end anywhere."""
        start, end = 0, len(data)
        while start < end:
            if self._long is not None:
                room = self.room()
                count = min(len(room), end - start)
                room[:count] = data[start : start + count]
                room.release()
                self.filled(count)
                start += count
                continue
            if self._parts:
                self._parts.append(data[start:] if start else data)
                self._have += end - start
                if self._have < self._need:
                    return
                data = b"".join(self._parts)
                self._parts.clear()
                start, end = 0, len(data)
            length = self._frame(data, start, end)
            if length > end - start:
                self._parts.append(data[start:] if start else data)
                self._have, self._need = end - start, length
                return
            start += length

    def _frame(self, data: bytes, start: int, end: int) -> int:
        """Handle the frame that begins at `start`, if all of it is there, or it is long. Returns how much of the data
        was taken, or more than there is."""
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
        plain = self._plain and first in (_TEXT, _BINARY) and second & _MASKED == self._mask_bit
        if body + length > end:
            if not plain or length < _LONG or body > end:
                return body + length - start
            self._long = bytearray(min(length, _FIRST_ROOM))
            self._long[: end - body] = data[body:end]
            self._have, self._need = end - body, length
            self._key, self._binary = data[start + head : body], first == _BINARY
            return end - start
        if plain:
            content = data[body : body + length]
            self._take(apply_mask(content, data[body - 4 : body]) if self._mask_bit else content, first == _BINARY)
        else:
            self._plain = self._pass_on(data[start : body + length])
        return body + length - start
