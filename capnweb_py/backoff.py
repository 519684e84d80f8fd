"""When to try again to reach a peer that was there before: soon, then less and less often, and not for ever.

It knows delays and a deadline, and nothing of what is tried. The clock, the sleeping and the chance are handed in.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

import anyio
import attrs
from attrs.validators import ge, gt
from websockets.exceptions import InvalidMessage, InvalidStatus

__all__ = ["DEFAULT_BACKOFF", "Backoff", "passes"]

_Result = TypeVar("_Result")

# The statuses that a server, or what stands before it, gives while it restarts (RFC 9110, section 15.6).
_RESTARTING: Final = frozenset({502, 503, 504})


@attrs.frozen(kw_only=True)
class Backoff:
    """How a lost peer is reached again. All times are in seconds.

    Attributes:
        first: the longest wait before the second attempt. It doubles with each.
        longest: more than which no wait is.
        patience: after which nothing new is tried.
        chance: a number from 0 to 1. Each wait is between half of its length and all of it, so that the clients of a
            server that restarts do not all come at once.
        clock: what time it is.
        sleep: waits.
    """

    first: float = attrs.field(default=0.1, validator=gt(0))
    longest: float = attrs.field(default=2.0, validator=gt(0))
    patience: float = attrs.field(default=10.0, validator=ge(0))
    chance: Callable[[], float] = random.random
    clock: Callable[[], float] = anyio.current_time
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep

    def waits(self) -> Iterator[float]:
        """How long to wait after each attempt, without end."""
        wait = self.first
        while True:
            yield min(wait, self.longest) * (1 + self.chance()) / 2
            wait = min(wait * 2, self.longest)

    async def retry(self, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        """Try until it succeeds. Raises what the last attempt did: an error that does not pass, or one too many."""
        deadline = self.clock() + self.patience
        waits = self.waits()
        while True:
            try:
                return await attempt()
            except Exception as error:
                wait = next(waits)
                if not passes(error) or self.clock() + wait > deadline:
                    raise
            await self.sleep(wait)


DEFAULT_BACKOFF: Final = Backoff()


def passes(error: BaseException) -> bool:
    """Whether what keeps a peer from being reached may pass by itself: it restarts, or the network is interrupted."""
    refusal = error.__cause__
    if isinstance(refusal, InvalidStatus):
        return refusal.response.status_code in _RESTARTING
    # A server that goes while it answers, and what the operating system reports.
    return isinstance(refusal, InvalidMessage) or isinstance(error, OSError)
