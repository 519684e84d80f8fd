"""What a thread is in the middle of. (Classes below `threading.local` stay out of the modules that can be compiled.)"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .hooks import PromiseHook
    from .recorder import Recorder

__all__ = ["recording", "turn"]


class _Turn(threading.local):
    """The promises of this thread that have settled, and whose lines are still to run; None while none is running.

    A promise settles others, which settle others: a peer can make that as long as it likes, so it must not nest.
    """

    settling: deque[PromiseHook] | None = None


turn: Final = _Turn()


class _Recording(threading.local):
    """The recorder of this thread whose callback runs now; None while none does."""

    current: Recorder | None = None


recording: Final = _Recording()
