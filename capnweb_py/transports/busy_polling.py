"""Busy polling: an event loop that stays awake for a moment after something was sent, for the answer to find it so.

A loop with nothing to do sleeps in the system, and to be woken takes a process 30 to 60 us: more than a small call
takes on both sides together. What comes within that time is had sooner, and cheaper, by looking than by sleeping.
(Measured: a bare round trip over loopback between two asyncio loops takes 126 us, and 19 us where both stay awake.)

Only what pays is done. A wait in which nothing came is a loss, after which the next waits are slept through, twice as
many each time: a loop whose peers are never that quick gives it up, but for one wait in some hundred.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from anyio.lowlevel import RunVar

from ..loops import Loop

__all__ = ["BusyPolling", "busy_polling"]

# How many waits are slept through at most, after those that were a loss.
_MOST_SLEPT: Final = 255


class BusyPolling:
    """What keeps one loop awake.

    Args:
        soon: calls a function in the loop's next turn. While one waits the loop looks at its sockets, and does not
            sleep.
        clock: seconds, of a clock that never goes back.
    """

    def __init__(self, soon: Callable[[Callable[[], object]], object], clock: Callable[[], float]) -> None:
        self._soon = soon
        self._clock = clock
        # Until when it stays awake, if it does.
        self._until = 0.0
        self._awake = False
        # Whether anything has come since something was last sent.
        self._paid = False
        # How many waits are slept through after a loss, and how many of them are left.
        self._slept = 0
        self._to_sleep = 0

    def sent(self, seconds: float) -> None:
        """Something was sent, and its answer, or the next call, may come within so many seconds."""
        if not self._awake:
            if self._to_sleep:
                self._to_sleep -= 1
                return
            self._awake = True
            self._soon(self._turn)
        self._paid = False
        self._until = self._clock() + seconds

    def heard(self) -> None:
        """Something has come."""
        if self._awake and not self._paid:
            self._paid = True
            self._slept //= 2

    def _turn(self) -> None:
        if self._clock() < self._until:
            self._soon(self._turn)
            return
        self._awake = False
        if not self._paid:
            self._slept = self._to_sleep = min(2 * self._slept + 1, _MOST_SLEPT)


_polling: RunVar[BusyPolling | None] = RunVar("capnweb_py.transports.busy_polling")


def busy_polling(loop: Loop) -> BusyPolling | None:
    """That of the running loop. None where there is one core alone: the peer may need it to answer."""
    try:
        return _polling.get()
    except LookupError:
        polling = BusyPolling(loop.soon, time.perf_counter) if _cores() > 1 else None
        _polling.set(polling)
        return polling


def _cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
