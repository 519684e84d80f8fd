"""When to try again to reach a peer that was there before: soon, then less and less often, and not for ever.

`Backoff` knows delays and a deadline, and nothing of what is tried. The clock, the sleeping and the chance are handed
in. `Reached` knows who was there before.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Final, TypeVar

import anyio
import attrs
from attrs.validators import ge, gt
from websockets.exceptions import InvalidMessage, InvalidStatus

from .errors import ProxyError, has_not_run

__all__ = ["DEFAULT_BACKOFF", "Backoff", "Reached", "can_be_repeated", "passes"]

_Result = TypeVar("_Result")

# The statuses that a server, or what stands before it, gives while it restarts (RFC 9110, section 15.6).
_RESTARTING: Final = frozenset({502, 503, 504})

# How many peers are known to have been there before.
MAX_KNOWN: Final = 1000


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

    async def retry(
        self,
        attempt: Callable[[], Awaitable[_Result]],
        may_pass: Callable[[BaseException], bool] | None = None,
    ) -> _Result:
        """Try until it succeeds. Raises what the last attempt did: an error that does not pass, or one too many.

        Args:
            attempt: tries.
            may_pass: whether an error may pass by itself; by default, `passes` says it.
        """
        may_pass = may_pass or passes
        deadline = self.clock() + self.patience
        waits = self.waits()
        while True:
            try:
                return await attempt()
            except Exception as error:
                wait = next(waits)
                if not may_pass(error) or self.clock() + wait > deadline:
                    raise
            await self.sleep(wait)


DEFAULT_BACKOFF: Final = Backoff()


def can_be_repeated(error: BaseException) -> bool:
    """Whether a call that failed was surely not run, and may succeed when it is made again."""
    return has_not_run(error) and not isinstance(error, ProxyError)


def passes(error: BaseException) -> bool:
    """Whether what keeps a peer from being reached may pass by itself: it restarts, or the network is interrupted."""
    if isinstance(error, ProxyError):
        return False
    refusal = error.__cause__
    if isinstance(refusal, InvalidStatus):
        return refusal.response.status_code in _RESTARTING
    # A server that goes while it answers, and what the operating system reports.
    return isinstance(refusal, InvalidMessage) or isinstance(error, OSError)


class Reached:
    """Peers that were there the last time: such a one is waited for, since it may be about to start again.

    Args:
        backoff: how it is tried again.
    """

    def __init__(self, backoff: Backoff = DEFAULT_BACKOFF) -> None:
        self._backoff = backoff
        # The latest at the end.
        self._known: dict[Hashable, None] = {}

    async def reach(
        self,
        peer: Hashable,
        attempt: Callable[[], Awaitable[_Result]],
        may_pass: Callable[[BaseException], bool] = passes,
    ) -> _Result:
        """Try to reach a peer: once, or as often as the backoff says if it was there before.

        Args:
            peer: who it is.
            attempt: tries.
            may_pass: whether it may be tried again after an error.

        Raises: what the last attempt did.
        """
        try:
            known = peer in self._known
            result = await (self._backoff.retry(attempt, may_pass) if known else attempt())
        except Exception as error:
            if passes(error):
                self._known.pop(peer, None)
            raise
        self._known.pop(peer, None)
        self._known[peer] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        return result
