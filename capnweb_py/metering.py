"""What one message of a peer's may make this side copy, and do.

Passing a result on as an argument copies it, without a message of its size: a peer that passes each result twice to
the next call doubles it with every few bytes. So what is put in the place of promises is counted, for all that one
message sets off.

A map does much for a few bytes, too, and keeps it: its steps are counted for each message, and as long as the peer
holds the results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .errors import LimitExceeded

__all__ = ["Meter", "Steps", "parts_of_tree"]

_CONTAINERS: Final = (dict, list, tuple)
_BLOCKS: Final = (str, bytes, bytearray)

# A block of text or bytes is shared, not copied, but whoever sends the value writes it as often as it is there.
_BYTES_PER_VALUE: Final = 256

# How many steps are much: some tens of milliseconds.
_MANY_STEPS: Final = 10_000


class Meter:
    """Counts values: an item of a list or dict is one, and so is each 256 bytes of text or bytes. Counts steps of maps.

    Args:
        limit: `Limits.max_copied`.
        max_steps: `Limits.max_map_steps`.
        rest: called when many steps were done, which other sessions had to wait for.
    """

    def __init__(self, limit: int, max_steps: int, rest: Callable[[], object]) -> None:
        self._limit = limit
        self._rest = rest
        # Steps since it was called.
        self._since_rest = 0
        # How many values may still be put in the place of promises.
        self.left = limit
        self._max_steps = max_steps
        # Steps since the last `renew`, and those whose results are there.
        self._steps = 0
        self._kept = 0
        # Steps whose results are gone: they may go on any thread, and in the middle of anything.
        self.gone: list[int] = []

    def renew(self) -> None:
        """Another message has come, or a call has ended: what follows from it is counted from the start."""
        self.left = self._limit
        self._steps = 0

    def begin_steps(self, count: int) -> Steps:
        """Count steps of a map. They are kept as long as what is returned.

        Raises:
            LimitExceeded: if they are too many.
        """
        steps = Steps(self)
        if not steps.extend(count):
            raise LimitExceeded(f"more than max_map_steps = {self._max_steps} steps of maps would be done, or kept")
        return steps

    def admit(self, count: int) -> bool:
        """Count steps, unless they are too many with those since the last `renew`, or with those that are kept."""
        while self.gone:
            self._kept -= self.gone.pop()
        if max(self._steps, self._kept) + count > self._max_steps:
            return False
        self._steps += count
        self._kept += count
        self._since_rest += count
        if self._since_rest >= _MANY_STEPS:
            self._since_rest = 0
            self._rest()
        return True

    def charge(self, value: Any) -> None:
        """Count a value that takes the place of a promise.

        Raises:
            LimitExceeded: if it is too much, with what has been counted since the last `renew`.
        """
        pending = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, _CONTAINERS):
                self.left -= len(item)
                items = item.values() if isinstance(item, dict) else item
                pending += [inner for inner in items if isinstance(inner, (*_CONTAINERS, *_BLOCKS))]
            elif isinstance(item, _BLOCKS):
                self.left -= len(item) // _BYTES_PER_VALUE
            if self.left < 0:
                raise LimitExceeded(f"more than max_copied = {self._limit} values would be passed on for one message")


class Steps:
    """The steps of one map, which are kept until this is collected."""

    __slots__ = ("_count", "_meter")

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._count = 0

    def extend(self, count: int) -> bool:
        """Count some more, unless they are too many."""
        admitted = self._meter.admit(count)
        if admitted:
            self._count += count
        return admitted

    def __del__(self) -> None:
        self._meter.gone.append(self._count)


def parts_of_tree(tree: Any) -> int:
    """How many parts a tree of lists and dicts has: the items of all of them."""
    parts, pending = 0, [tree]
    while pending:
        container = pending.pop()
        parts += len(container)
        items = container.values() if isinstance(container, dict) else container
        pending += [item for item in items if isinstance(item, (list, dict))]
    return parts
