"""A thread of its own for a database's connection, which can be left behind.

SQLite stops between two instructions of its machine. An instruction that takes minutes cannot be stopped, but nobody
has to wait for it: the thread is left to itself, closes its connection when it is through, and never commits. It is no
thread of anyio's, for the end of the process waits for those.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import anyio
import apsw

from capnweb_py.loops import running_loop

__all__ = ["ConnectionThread", "Lease", "LeftBehindError"]

ResultT = TypeVar("ResultT")

# How long, in seconds, what was told to stop may take to do so.
_GRACE: Final = 2.0


class LeftBehindError(Exception):
    """A piece of work did not end in time. It will not be committed, and its thread does no more work."""


class Lease:
    """How long a piece of work may run. Shared by the thread and the task that waits for it.

    Args:
        seconds: how long.
        interrupt: makes what runs stop, as soon as it can. Called in the task.
    """

    def __init__(self, seconds: float, interrupt: Callable[[], object]) -> None:
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._stopped = self._left = self._ending = False

    def is_late(self) -> bool:
        """Whether time is up."""
        return time.monotonic() > self._deadline

    def is_over(self) -> bool:
        """Whether what runs has to stop."""
        return self._stopped or self.is_late()

    def stop(self) -> None:
        """Have what runs stop, unless it is being committed or rolled back."""
        with self._lock:
            self._stopped = True
            if not self._ending:
                self._interrupt()

    def end(self, *, commit: bool) -> None:
        """The transaction is about to end, which is not to be interrupted. In the thread.

        Raises:
            apsw.InterruptError: it was to be committed, and has been left: whoever waited was told that it failed.
        """
        with self._lock:
            self._ending = True
            if commit and self._left:
                raise apsw.InterruptError("interrupted")

    def leave(self) -> bool:
        """Have nothing committed any more. Returns False if the transaction is ending already: it is waited for."""
        with self._lock:
            self._left = not self._ending
            return self._left


class _Piece(Generic[ResultT]):
    """Work that a thread does for a task."""

    def __init__(self, work: Callable[[], ResultT]) -> None:
        self._work = work
        self._loop = running_loop()
        self._done = anyio.Event()
        self._result: ResultT
        self._error: BaseException | None = None

    def do(self) -> None:
        """In the thread."""
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        self._loop.soon_from_anywhere(self._done.set)

    async def wait(self) -> None:
        await self._done.wait()

    async def is_done_within(self, seconds: float) -> bool:
        """Wait, whether the task is cancelled or not."""
        if not self._done.is_set() and seconds:
            with anyio.move_on_after(seconds, shield=True):
                await self._done.wait()
        return self._done.is_set()

    def result(self) -> ResultT:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._result
        finally:
            del error  # or it would refer to itself by way of this frame


class ConnectionThread:
    """Does pieces of work in turn. Whoever uses it gives it one at a time.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self.is_left = False
        self._pieces: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it does anything still."""
        return self._thread.is_alive()

    async def run(self, work: Callable[[], ResultT]) -> ResultT:
        """Do a piece of work, however long it takes. A task that is cancelled meanwhile waits for its end."""
        piece = _Piece(work)
        self._pieces.put(piece.do)
        await piece.is_done_within(math.inf)
        return piece.result()

    async def run_under(self, lease: Lease, work: Callable[[], ResultT]) -> ResultT:
        """Do a piece of work that is stopped when its time is up, or nobody waits for it any more. Where it does not
        stop, it is left, and `is_left` is true from then on: then the thread has only its end to be told.

        Raises:
            LeftBehindError: it did not stop when its time was up.
        """
        piece = _Piece(work)
        self._pieces.put(piece.do)
        try:
            with anyio.move_on_after(lease.seconds):
                await piece.wait()
        finally:
            if not await piece.is_done_within(0):
                lease.stop()
                if not await piece.is_done_within(_GRACE):
                    self.is_left = lease.leave()
                    if not self.is_left:
                        await piece.is_done_within(math.inf)
        if self.is_left:
            raise LeftBehindError
        return piece.result()

    async def end(self, last: Callable[[], object]) -> None:
        """Do a last piece of work, and end. What takes longer than the time of grace is not waited for."""
        piece = _Piece(last)
        self._pieces.put(piece.do)
        self._pieces.put(None)
        if await piece.is_done_within(_GRACE):
            piece.result()

    def end_later(self, *last: Callable[[], object]) -> None:
        """The same, without waiting for it at all."""
        for piece in last:
            self._pieces.put(piece)
        self._pieces.put(None)

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            piece()
            del piece
