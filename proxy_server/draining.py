"""A graceful end: no new work is taken, what runs has some time to finish, then everything is closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from capnweb_py.errors import SessionClosed
from capnweb_py.session import RpcSession
from proxy_server.channels import LOG
from proxy_server.refusals import STOPPED

__all__ = ["Draining", "close_when_idle"]


class Draining:
    """The work of a server: requests and RPC sessions. (Other WebSockets are closed after them.)"""

    def __init__(self) -> None:
        # Whether the end has begun.
        self.begun = False
        self._running = 0
        self._idle = anyio.Event()
        self._sessions: set[RpcSession] = set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """A request runs for the length of the block."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def opened(self, session: RpcSession) -> None:
        """A session has been opened."""
        self._sessions.add(session)
        session.remote_main.on_broken(lambda _error: self._sessions.discard(session))

    @property
    def sessions(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    async def drain(self, seconds: float) -> None:
        """Take nothing new, and return when all has finished, or after so many seconds.

        A session takes no more calls on its main object, and is closed when it has answered those that it has.
        """
        self.begun = True
        sessions = list(self._sessions)
        LOG.info(
            "shutting down: %s requests that run and %s sessions have %s s to finish",
            self._running,
            len(sessions),
            seconds,
        )
        for session in sessions:
            session.retire(_refused())
        with anyio.move_on_after(seconds) as patience:
            async with anyio.create_task_group() as tasks:
                for session in sessions:
                    tasks.start_soon(_finish, session)
                while self._running:
                    self._idle = anyio.Event()
                    await self._idle.wait()
        if patience.cancelled_caught:
            LOG.warning("not everything has finished within %s s, and what runs is cut off", seconds)
        for session in sessions:
            session.close()


def _refused() -> Exception:
    """What a call is told that was not run. The attribute travels with it, and Python knows the name."""
    error = ConnectionRefusedError(STOPPED.text)
    error.may_have_run = False  # type: ignore[attr-defined]
    return error


async def _finish(session: RpcSession) -> None:
    try:
        await session.drain()
    except SessionClosed:
        return  # its peer was sooner
    session.close()


async def close_when_idle(session: RpcSession) -> None:
    """Close a session when it has answered its calls, unless its peer holds something of this side's."""
    try:
        await session.drain()
    except SessionClosed:
        return
    if session.stats().exports == 1:
        session.close()
