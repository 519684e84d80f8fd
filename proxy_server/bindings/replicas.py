"""Several servers that do the same: which one a request goes to, and which ones are left alone for a while.

A request goes elsewhere only if nothing of it was sent: there was no connection. One that may have run is never sent a
second time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import anyio

from capnweb_py.errors import Unreachable
from proxy_server.channels import LOG

__all__ = ["Replicas"]

ResultT = TypeVar("ResultT")

# How long, in seconds, a replica is left alone that could not be connected to. Most restarts take less.
REST: Final = 10.0


class Replicas:
    """The addresses of one service, of which any will do.

    Args:
        urls: one, or several.
    """

    def __init__(self, urls: str | Sequence[str]) -> None:
        self._urls = (urls,) if isinstance(urls, str) else tuple(urls)
        self._next = 0
        # Until when a replica is left alone, on the event loop's clock.
        self._resting: dict[str, float] = {}

    @property
    def title(self) -> str:
        """What errors call them all."""
        return " or ".join(self._urls)

    def in_turn(self) -> list[str]:
        """All of them in the order in which to try them now: the next in turn first, and those at rest last."""
        start, self._next = self._next, (self._next + 1) % len(self._urls)
        now = anyio.current_time()
        self._resting = {url: until for url, until in self._resting.items() if until > now}
        # By rest alone, which is a stable sort: the turns stay as they are.
        return sorted(self._urls[start:] + self._urls[:start], key=lambda url: self._resting.get(url, 0.0))

    async def reach(self, attempt: Callable[[str], Awaitable[ResultT]]) -> ResultT:
        """Do something with the first of them that can be reached.

        Args:
            attempt: does it with one. It raises Unreachable if nothing was sent, and then the next one is tried.

        Raises:
            Unreachable: if none can be reached. It says what was tried.
            Exception: whatever else `attempt` raises.
        """
        problems: list[str] = []
        for url in self.in_turn():
            try:
                result = await attempt(url)
            except Unreachable as error:
                problems.append(str(error))
                self._rest(url, error)
            else:
                self._resting.pop(url, None)
                return result
        raise Unreachable("; ".join(problems))

    def _rest(self, url: str, error: Unreachable) -> None:
        if len(self._urls) > 1 and url not in self._resting:
            LOG.warning("%s; it is left alone for %g s", error, REST)
        self._resting[url] = anyio.current_time() + REST
