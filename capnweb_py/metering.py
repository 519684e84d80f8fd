"""What one message of a peer's may make this side copy.

Passing a result on as an argument copies it, without a message of its size: a peer that passes each result twice to
the next call doubles it with every few bytes. So what is put in the place of promises is counted, for all that one
message sets off.
"""

from __future__ import annotations

from typing import Any, Final

from .errors import LimitExceeded

__all__ = ["Meter"]

_CONTAINERS: Final = (dict, list, tuple)
_BLOCKS: Final = (str, bytes, bytearray)

# A block of text or bytes is shared, not copied, but whoever sends the value writes it as often as it is there.
_BYTES_PER_VALUE: Final = 256


class Meter:
    """Counts values: an item of a list or dict is one, and so is each 256 bytes of text or bytes.

    Args:
        limit: `Limits.max_copied`.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit

    def renew(self) -> None:
        """Another message has come, or a call has ended: what follows from it is counted from the start."""
        self._left = self._limit

    def charge(self, value: Any) -> None:
        """Count a value that takes the place of a promise.

        Raises:
            LimitExceeded: if it is too much, with what has been counted since the last `renew`.
        """
        pending = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, _CONTAINERS):
                self._left -= len(item)
                items = item.values() if isinstance(item, dict) else item
                pending += [inner for inner in items if isinstance(inner, (*_CONTAINERS, *_BLOCKS))]
            elif isinstance(item, _BLOCKS):
                self._left -= len(item) // _BYTES_PER_VALUE
            if self._left < 0:
                raise LimitExceeded(f"more than max_copied = {self._limit} values would be passed on for one message")
