"""The little that the two event loops do differently and anyio has no name for: waiting for a callback, calling a
function soon, from any thread too, and starting tasks where no task is running, as a callback of the loop must. And how
what has begun comes to its end on both: its scope, its exception, its frames."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final, final

import anyio
from anyio.abc import TaskGroup

from .hooks import Pending

__all__ = [
    "END_TIMEOUT",
    "Loop",
    "Spawn",
    "beside",
    "cancel_scope",
    "clear_frames_later",
    "last_step",
    "on_asyncio",
    "running_loop",
    "task_group",
    "task_set",
    "wait_settled",
]

_log = logging.getLogger("capnweb_py")

# How long, in seconds, something may take to end that nobody waits for.
END_TIMEOUT: Final = 10

# Runs a coroutine function in a task of its own.
Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]


class Loop(ABC):
    """The running event loop, of either kind."""

    @abstractmethod
    def soon(self, callback: Callable[[], object]) -> None:
        """Call a function in the loop's next turn. Only in the loop's own thread."""

    @abstractmethod
    def soon_from_anywhere(self, callback: Callable[[], object]) -> None:
        """The same from any thread, and from inside the garbage collector. Nothing happens if the loop has ended."""

    @abstractmethod
    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function, which must raise nothing, in a task that belongs to the loop itself."""


def on_asyncio() -> bool:
    """Whether asyncio runs here; otherwise it is trio, or nothing."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def running_loop() -> Loop:
    """The loop that runs in this thread. Raises RuntimeError if none does."""
    if not on_asyncio():
        return _TrioLoop()
    return _AsyncioLoop(asyncio.get_running_loop())


@final
class _AsyncioLoop(Loop):
    def __init__(self, running: asyncio.AbstractEventLoop) -> None:
        self._soon = running.call_soon
        self._soon_threadsafe = running.call_soon_threadsafe
        self._thread = threading.get_ident()

    def soon(self, callback: Callable[[], object]) -> None:
        self._soon(callback)

    def soon_from_anywhere(self, callback: Callable[[], object]) -> None:
        try:
            if threading.get_ident() == self._thread:
                self._soon(callback)
            else:
                self._soon_threadsafe(callback)
        except RuntimeError:
            pass  # the loop is closed: what was to be told has ended with it

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        _start(asyncio.get_running_loop(), run, _tasks)


def _start(
    running: asyncio.AbstractEventLoop, run: Callable[[], Coroutine[Any, Any, None]], tasks: set[asyncio.Task[None]]
) -> None:
    """Run a coroutine function in a task, which is among the tasks until it has ended."""
    task = running.create_task(run())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


# Tasks that belong to their loop: asyncio itself keeps only weak references.
_tasks: set[asyncio.Task[None]] = set()


@final
class _TrioLoop(Loop):
    def __init__(self) -> None:
        if "trio" not in sys.modules:
            raise RuntimeError("no event loop is running here")
        import trio

        self._trio = trio
        try:
            self._token = trio.lowlevel.current_trio_token()
        except RuntimeError:
            raise RuntimeError("no event loop is running here") from None

    def soon(self, callback: Callable[[], object]) -> None:
        self._token.run_sync_soon(callback)

    def soon_from_anywhere(self, callback: Callable[[], object]) -> None:
        try:
            self._token.run_sync_soon(callback)
        except self._trio.RunFinishedError:
            pass  # what was to be told has ended with the loop

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._trio.lowlevel.spawn_system_task(run)


def task_set() -> AbstractAsyncContextManager[Spawn]:
    """A context that tasks can be started in from callbacks, too. Those that still run at its end are cancelled.

    (anyio's task groups start tasks from tasks only.)
    """
    return _AsyncioTaskSet() if on_asyncio() else _task_set_on_trio()


@asynccontextmanager
async def _task_set_on_trio() -> AsyncIterator[Spawn]:
    import trio

    body = _Carried()
    async with trio.open_nursery() as nursery:
        try:
            with body:
                yield nursery.start_soon
        finally:
            nursery.cancel_scope.cancel()
    body.put_down()


@final
class _AsyncioTaskSet(AbstractAsyncContextManager[Spawn]):
    """Every session has one, and most never start a task: until the first it is next to nothing."""

    __slots__ = ("_running", "_tasks")

    def __init__(self) -> None:
        self._running = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] | None = None

    def _spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._tasks is None:
            self._tasks = set()
        _start(self._running, run, self._tasks)

    async def __aenter__(self) -> Spawn:
        return self._spawn

    async def __aexit__(self, *exc_info: object) -> None:
        tasks = self._tasks
        if not tasks:
            return
        with anyio.CancelScope(shield=True):
            try:
                # A task that is cancelled before it has begun does nothing, not even what it does at its end.
                await asyncio.sleep(0)
            finally:
                for task in tasks:
                    scope = _scopes.get(task)
                    if scope is None:
                        task.cancel()
                    else:
                        scope.cancel()
            while tasks:
                await asyncio.wait(tasks)


# The scopes of `cancel_scope` by the tasks that are inside them, on asyncio.
_scopes: dict[asyncio.Task[Any], anyio.CancelScope] = {}


@contextmanager
def cancel_scope() -> Iterator[anyio.CancelScope]:
    """A cancel scope around all that the current task of a task set still does.

    The end of the set cancels the task by way of it. On asyncio a task is otherwise cancelled as by `task.cancel()`,
    which no shield holds back: a scope for each call would cost more than most calls.
    """
    task = asyncio.current_task() if on_asyncio() else None
    with anyio.CancelScope() as scope:
        if task is not None:
            _scopes[task] = scope
        try:
            yield scope
        finally:
            if task is not None:
                del _scopes[task]


@asynccontextmanager
async def beside(run: Callable[..., Coroutine[Any, Any, Any]]) -> AsyncIterator[Any]:
    """Run a function in a task beside the body of the context, which waits for it at its end.

    What the function reports through its `task_status` is what the context yields. An exception of the body comes out
    as it is, not wrapped into a group as a task group's would be.
    """
    body = _Carried()
    async with anyio.create_task_group() as tasks:
        with body:
            yield await tasks.start(run)
    body.put_down()


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """A task group that is cancelled at the end of its body, whose exception comes out as it is."""
    body = _Carried()
    async with anyio.create_task_group() as tasks:
        try:
            with body:
                yield tasks
        finally:
            tasks.cancel_scope.cancel()
    body.put_down()


class _Carried:
    """Carries an exception of a context's body past the end of a task group, which would wrap it into a group."""

    def __init__(self) -> None:
        self._error: Exception | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        if isinstance(error, Exception):
            self._error = error
            return True
        return False

    def put_down(self) -> None:
        """Raise the exception, if there was one."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # or it would refer to itself by way of this frame


async def last_step(step: Awaitable[object]) -> None:
    """Await the end of something, whose failure there is nobody to tell of, and which must not take forever."""
    with anyio.move_on_after(END_TIMEOUT, shield=True):
        try:
            await step
        except (anyio.get_cancelled_exc_class(), KeyboardInterrupt):
            raise
        except BaseException:
            _log.exception("something did not end as it should")


def clear_frames_later(error: BaseException) -> None:
    """Let go of what the frames hold that an exception leaves behind, if it is ending the current task of asyncio.

    To be called where the exception is raised: the frames are cleared in the loop's next turn. Whoever asks a task for
    its exception refers to it from one of its frames, as anyio's task groups do: a circle that keeps all local
    variables of a cancelled task until the next garbage collection. trio takes care of that by itself.
    """
    if on_asyncio():
        asyncio.get_running_loop().call_soon(_clear_frames, asyncio.current_task(), error)


def _clear_frames(task: asyncio.Task[Any] | None, error: BaseException) -> None:
    if task is None or task.done():
        traceback.clear_frames(error.__traceback__)


async def wait_settled(pending: Pending) -> None:
    """Wait until something settles. Who is cancelled meanwhile leaves nothing behind there."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        event = anyio.Event()
        wake: Callable[[], object] = event.set
        settled: Awaitable[object] = event.wait()
    else:
        settled = future = loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

    pending.subscribe(wake)
    try:
        await settled
    except BaseException:
        pending.unsubscribe(wake)
        raise
