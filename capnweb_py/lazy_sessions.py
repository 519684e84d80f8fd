"""RPC sessions by their URLs, for bindings with more than one: a service of a dispatch namespace has its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias

from .lazy import LazySession, Reach
from .loops import Spawn
from .options import SessionOptions
from .session import RpcSession
from .stub import RpcStub

__all__ = ["Opening", "Sessions"]

# Opens a session.
Opening: TypeAlias = Callable[[], AbstractAsyncContextManager[RpcSession]]

# How many sessions stay open that nobody uses. What is used again is opened again.
MAX_IDLE: Final = 50


class Sessions:
    """Sessions that are opened when they are used. Of those that nobody uses, the newest stay open.

    Args:
        title: what errors call the peer.
        spawn: starts the tasks that hold sessions open. They must outlive `aclose`.
        options: of the sessions.
        reach: how a peer is reached that was there before, as of `LazySession`.
    """

    def __init__(
        self,
        title: str,
        spawn: Spawn,
        options: SessionOptions | None = None,
        reach: Reach | None = None,
    ) -> None:
        self._title = title
        self._spawn = spawn
        self._options = options
        self._reach = reach
        # The one that was used last is at the end.
        self._sessions: dict[str, LazySession] = {}

    def main(self, url: str, opening: Opening | None = None) -> RpcStub:
        """The main object of the session at a URL.

        Args:
            url: it.
            opening: what opens the session there, for who has a way of his own.
        """
        session = self._sessions.pop(url, None)
        if session is None:
            session = LazySession(opening or url, self._title, self._spawn, self._options, self._reach)
        self._sessions[url] = session
        if len(self._sessions) > MAX_IDLE:
            self._close_idle()
        return session.main()

    async def aclose(self) -> None:
        """Close all sessions."""
        while self._sessions:
            _url, session = self._sessions.popitem()
            await session.aclose()

    def _close_idle(self) -> None:
        for url in list(self._sessions)[:-MAX_IDLE]:
            if self._sessions[url].idle:
                self._spawn(self._sessions.pop(url).aclose)
