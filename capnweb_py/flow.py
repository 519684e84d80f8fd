"""Flow control of a stream: how many bytes may be under way before the writer waits for the reader.

The window follows an estimate of the bandwidth-delay product, as in npm capnweb: acknowledged bytes per second, times
the shortest round trip seen, times a factor that probes for more. Arithmetic only: the clock is handed in, and nothing
here waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs

__all__ = ["FlowControl", "Sent"]

# The window in bytes: before anything is known, and at the least and most.
INITIAL_WINDOW: Final = 256 * 1024
MIN_WINDOW: Final = 64 * 1024
MAX_WINDOW: Final = 1024 * 1024 * 1024

# What may be under way whatever the estimate is, in bytes.
ALWAYS_ALLOWED: Final = INITIAL_WINDOW

# By how much the window may grow in one round trip: while the link is explored, and after that; and shrink.
STARTUP_GROWTH: Final = 2.0
STEADY_GROWTH: Final = 1.25
DECAY: Final = 0.9

# So many round trips without STEADY_GROWTH end the exploring.
STARTUP_ROUNDS: Final = 3


@attrs.frozen
class Sent:
    """What is remembered of a chunk until it is acknowledged.

    Attributes:
        size: in bytes.
        at: when it was sent, in seconds.
        window: the window at that time, in bytes.
        full: whether the chunk filled it.
        acknowledged: how many bytes had been acknowledged by then.
        acknowledged_at: when the last of these were; None if there were none.
    """

    size: int
    at: float
    window: float
    full: bool
    acknowledged: int
    acknowledged_at: float | None


class FlowControl:
    """Decides how much may be under way on one stream.

    Args:
        now: a clock that never goes back, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.window: float = INITIAL_WINDOW
        # Bytes sent and not acknowledged.
        self.in_flight = 0
        # Whether the window is still allowed to double.
        self.exploring = True
        self._acknowledged = 0
        self._acknowledged_at: float | None = None
        # The first acknowledgement: a rate needs two.
        self._first: tuple[float, int] | None = None
        self._shortest = math.inf
        # Of the round trip that is looked at while exploring: when it began, and the window then.
        self._round_began = 0.0
        self._round_window = 0.0
        self._rounds_without_growth = 0

    @property
    def full(self) -> bool:
        """Whether as much is under way as the window holds."""
        return self.in_flight >= self.window

    @property
    def blocked(self) -> bool:
        """Whether the writer has to wait.

        A full window is not enough while less than `ALWAYS_ALLOWED` is under way: where a round trip takes no longer
        than the reader takes for a chunk, the estimate shrinks until each chunk waits for the one before (on loopback
        that made 140 of 390 MiB a second).
        """
        return self.in_flight >= max(self.window, ALWAYS_ALLOWED)

    def send(self, size: int) -> Sent:
        """A chunk of `size` bytes is sent. What is returned goes to `acknowledge` or `fail`."""
        self.in_flight += size
        return Sent(size, self._now(), self.window, self.full, self._acknowledged, self._acknowledged_at)

    def fail(self, sent: Sent) -> None:
        """A chunk was refused, which says nothing about the link."""
        self.in_flight -= sent.size

    def acknowledge(self, sent: Sent) -> None:
        """The reader has taken a chunk."""
        now = self._now()
        self.in_flight -= sent.size
        self._acknowledged += sent.size
        self._acknowledged_at = now
        self._shortest = min(self._shortest, now - sent.at)
        if self._first is None:
            self._first = (now, self._acknowledged)
            return
        since, before = self._first if sent.acknowledged_at is None else (sent.acknowledged_at, sent.acknowledged)
        if now > since:
            self._adjust(sent, (self._acknowledged - before) / (now - since))
        if self.exploring and sent.at >= self._round_began:
            self._end_round(now)

    def _adjust(self, sent: Sent, rate: float) -> None:
        growth = STARTUP_GROWTH if self.exploring else STEADY_GROWTH
        window = min(rate * self._shortest * growth, sent.window * growth)
        # A window that was not full held nobody back, so a low rate is no reason to narrow it.
        floor = sent.window * DECAY if sent.full else self.window
        self.window = max(MIN_WINDOW, min(max(window, floor), MAX_WINDOW))

    def _end_round(self, now: float) -> None:
        if self.window > self._round_window * STEADY_GROWTH:
            self._rounds_without_growth = 0
        else:
            self._rounds_without_growth += 1
            self.exploring = self._rounds_without_growth < STARTUP_ROUNDS
        self._round_began, self._round_window = now, self.window
