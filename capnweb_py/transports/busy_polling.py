"""Busy polling: an event loop that stays awake for a moment after something was sent, for the answer to find it so.

A loop with nothing to do sleeps in the system. To be put to sleep and woken takes a process more time than a small call
takes on both sides, and more CPU, too. (Measured on a virtual machine with two cores: a bare round trip over loopback
between two asyncio loops takes 126 us, and 19 us where both stay awake; a call takes the client 200 us of CPU, and 110
us where both stay awake.) So it is better to go on looking, if what one waits for comes soon.

Whether it does, the past tells. Looking is paid from an account: whatever comes meanwhile pays in what it was worth,
and a loop that is overdrawn sleeps as any other, but for a try now and then. So a loop whose peers take their time, or
are gone after a call or two, spends some 10 us on a message.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from anyio.lowlevel import RunVar

from ..loops import Loop

__all__ = ["BusyPolling", "busy_polling"]

# All in seconds. What it is worth that something finds the loop awake: what falling asleep and waking would have cost,
# in time and in CPU. It is more than an answer takes of a peer who sleeps, so that of two who sleep one can begin.
_WORTH: Final = 400e-6

# How long one wait may be, and how much there can be on the account: enough for a few waits that were in vain.
_LONGEST: Final = 1e-3
_MOST: Final = 4e-3

# What a loop that sleeps saves with each message that it sends, and how much it saves before it tries again.
_SAVED: Final = 5e-6
_TRY: Final = 1e-3


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
        self._account = _MOST
        self._overdrawn = False
        # Whether it stays awake now, until when, and when it last looked.
        self._awake = False
        self._until = 0.0
        self._looked = 0.0
        # Whether anything has come since then, for what the loop did meanwhile was no waiting; and been sent.
        self._heard = False
        self._waits = False

    def sent(self) -> None:
        """Something was sent: its answer may come, or the next call."""
        self._waits = True
        if self._awake:
            return
        if self._overdrawn:
            self._account += _SAVED
            if self._account < _TRY:
                return
            self._overdrawn = False
        self._awake = True
        self._looked = self._clock()
        self._soon(self._look)

    def heard(self) -> None:
        """Something has come."""
        if self._awake:
            self._heard = True
            self._account = min(self._account + _WORTH, _MOST)

    def _look(self) -> None:
        now = self._clock()
        if not self._heard:
            self._account -= now - self._looked
        if self._waits:
            self._until = now + _LONGEST
        self._heard = self._waits = False
        self._looked = now
        self._overdrawn = self._account < 0
        self._awake = now < self._until and not self._overdrawn
        if self._awake:
            self._soon(self._look)


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
