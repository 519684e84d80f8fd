"""RPC sessions that nobody uses, and how many of them are kept.

A Worker under workerd opens a session whenever it uses a binding, and leaves it open for as long as workerd runs, used
or not: 1,000 reads of a key are 1,000 sessions, of 40 KiB each. A session in which nothing runs, and whose two sides
hold nothing of each other's, is worth no more than the time it takes to open another.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from capnweb_py.session import RpcSession, SessionStats

__all__ = ["MAX_SESSIONS", "IdleSessions"]

# How many sessions there may be before idle ones are closed, where nobody says: 20 MiB of them.
MAX_SESSIONS: Final = 500

# How many sessions are looked at, at most, to find one to close: those in use are no reason to look at all of them.
_LOOKS: Final = 4

# The tables of a session in which nothing runs and nothing is held: the main objects alone.
_IDLE: Final = SessionStats(imports=1, exports=1)


class IdleSessions:
    """Keeps sessions by when they were last used, and closes those idle the longest when there are too many.

    Args:
        most: how many sessions there may be before idle ones are closed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sessions: OrderedDict[RpcSession, None] = OrderedDict()

    def opened(self, session: RpcSession) -> None:
        """A session has been opened."""
        self._sessions[session] = None
        session.remote_main.on_broken(lambda _error: self._sessions.pop(session, None))
        for _ in range(_LOOKS):
            if len(self._sessions) <= self._most:
                return
            oldest = next(iter(self._sessions))
            if oldest is session:
                return  # all others were looked at
            if oldest.stats() == _IDLE:
                oldest.close()
            else:
                self._sessions.move_to_end(oldest)

    def used(self, session: RpcSession) -> None:
        """A session is in use."""
        if session in self._sessions:
            self._sessions.move_to_end(session)
