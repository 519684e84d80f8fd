"""Delivery: from a call's function and arguments to its running, and to the hook of its result.

The rule (E-order): calls begin in the order in which they were delivered, plain and asynchronous ones alike, on both
event loops. A plain function runs at once. The first step of an asynchronous one needs a task, and tasks start later
(on trio in any order): so calls wait in one queue, each with one task that was spawned for it, and whichever task
runs first begins the first call. While any call waits there, plain functions line up behind it.

While the peer does not take its answers, calls stay in line: the result of one that has begun is there in the end, and
must be held. Those that had to wait get their tasks later, some at a time.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType
from typing import Any, Final, TypeVar

import anyio

from .errors import LimitExceeded, RpcError, SessionClosed, drop_tracebacks, release_frames, sendable
from .handle import Handle
from .hooks import ErrorHook, Hook, PromiseHook
from .loops import Spawn, cancel_scope, on_asyncio
from .metering import Meter
from .payload import Payload, settle
from .target import invoke

__all__ = ["Deliveries", "cancellable", "is_awaitable", "is_cancellable"]

_log = logging.getLogger("capnweb_py")

_Function = TypeVar("_Function", bound=Callable[..., Any])

# On a function that `cancellable` has marked. What wraps it, as functools.wraps does, is marked, too.
_MARK: Final = "__capnweb_cancellable__"

# How many calls that had to wait get a task at once.
_MOST_AT_ONCE: Final = 32


def cancellable(function: _Function) -> _Function:
    """Mark an asynchronous method or function: its call is cancelled when nobody wants the result any more.

        class Api(RpcTarget):
            @cancellable
            async def report(self, year): ...

    That is when the peer releases the result before it is there, because its task was cancelled, or has dropped or
    disposed the promise, and nothing is pipelined on it; one that has not begun by then never begins. The call ends as
    in an anyio cancel scope: every `await` in it is cancelled, its `finally` blocks run, and what they await is
    shielded where it must not be cut short. Methods that are not marked run to their end. The end of the session
    cancels both.

    Written below decorators such as @staticmethod, next to the function.
    """
    setattr(function, _MARK, True)
    return function


def is_cancellable(function: Any) -> bool:
    """Whether `cancellable` has marked a function, or the one that a partial binds."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, _MARK, False)


class _Call:
    """A call that has not begun: a function with its arguments, or what a function returned to be awaited."""

    __slots__ = ("arguments", "awaitable", "function", "promise")

    def __init__(
        self, promise: PromiseHook, function: Any, arguments: list[Any], awaitable: Awaitable[Any] | None = None
    ) -> None:
        self.promise = promise
        self.function = function
        self.arguments = arguments
        self.awaitable = awaitable

    def drop(self) -> None:
        """Never begin."""
        if isinstance(self.awaitable, Coroutine):
            self.awaitable.close()


class Deliveries:
    """Begins calls, in order, in the tasks that `spawn` makes.

    Args:
        spawn: runs a coroutine function in a task of its own.
        hook_of: makes the hook of what a function returned.
        max_calls: how many calls may be in progress; one more fails with LimitExceeded. None for no limit.
        max_running: how many asynchronous calls run at a time; others wait in line.
        meter: counts what is put in the place of promises in arguments. None for no limit.
        keep_tracebacks: whether anybody may read the traceback of what a function raises.
    """

    def __init__(
        self,
        spawn: Spawn,
        hook_of: Callable[[Any], Hook],
        max_calls: int | None = None,
        meter: Meter | None = None,
        *,
        max_running: int = sys.maxsize,
        keep_tracebacks: bool = True,
    ) -> None:
        self._spawn = spawn
        self._hook_of = hook_of
        self._max_calls = max_calls
        # None for no limit.
        self.meter = meter
        self._keep_tracebacks = keep_tracebacks
        # Calls that wait for the first step of their task, in order. None while there are none: an empty deque takes
        # more than half a kibibyte of every session.
        self._line: deque[_Call] | None = None
        # How many calls in line, the last ones, have no task, since none could begin when they came or had theirs.
        self._without_task = 0
        # Asynchronous calls that have begun and not ended, and how many there may be.
        self._running = 0
        self._max_running = max_running
        # Set while the results that are there are more than the peer takes: then no call in line begins.
        self.full = False
        # Calls that wait for an argument, wait in line, or run.
        self.in_progress = 0
        # Called whenever that has become 0.
        self.on_idle: Callable[[], object] | None = None
        self._closed = False

    def deliver(self, function: Any, arguments: Payload) -> Hook:
        """Call a function. Returns the hook of the result."""
        if arguments.borrowed:
            try:
                arguments.own()
            except (TypeError, LimitExceeded) as error:
                return ErrorHook(error)
        if not arguments.promises:
            return self._begin(function, arguments.value)
        promise = self._promise()
        if isinstance(promise, ErrorHook):
            return promise
        settling = settle(arguments, self.meter)
        assert settling is not None, "there were promises"
        if settling.done:
            self.in_progress -= 1
            return self._begin(function, arguments.value) if settling.error is None else ErrorHook(settling.error)
        settling.subscribe(lambda: self._begin_settled(promise, function, arguments, settling.error))
        return promise

    def await_result(self, awaitable: Awaitable[Any]) -> Hook:
        """Await something. Returns the hook of its result."""
        return self._queue(None, [], awaitable)

    def in_turn(self, run: Callable[[], object]) -> None:
        """Run something when all calls that were delivered until now have begun."""
        if not self._line:
            run()
            return
        marker = PromiseHook()
        marker.subscribe(run)
        self.in_progress += 1
        self._add(_Call(marker, _nothing, []))
        if self._without_task:
            self._without_task += 1
        else:
            self._spawn(self._run_next)

    def go_on(self) -> None:
        """Begin calls in line again, as far as may be: some now, and each of them sees to another."""
        self._add_tasks(_MOST_AT_ONCE)

    def _add_tasks(self, most: int) -> None:
        """Start tasks for calls in line that have none."""
        if self.full or self._closed:
            return
        count = min(most, self._without_task, self._max_running - self._running)
        self._without_task -= count
        for _ in range(count):
            self._spawn(self._run_next)

    def close(self) -> None:
        """Begin no call any more. Those that wait fail; those that run are their task group's to cancel."""
        self._closed = True
        while self._line:
            call = self._line.popleft()
            call.drop()
            self._finish(call.promise, ErrorHook(SessionClosed("the session ended before the call began")))

    def _begin_settled(
        self, promise: PromiseHook, function: Any, arguments: Payload, error: BaseException | None
    ) -> None:
        # It waits no longer, and counts again if it goes on to run.
        self.in_progress -= 1
        promise.settle(self._begin(function, arguments.value) if error is None else ErrorHook(error))
        self._notice_idle()

    def _begin(self, function: Any, arguments: list[Any]) -> Hook:
        if self._closed:
            return ErrorHook(SessionClosed("the session ended before the call began"))
        if self._line:
            return self._queue(function, arguments)
        try:
            result = invoke(function, arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return self._failed(function, error)
        if is_awaitable(result):
            return self._queue(function, [], result)
        return self._hook_of(result)

    def _promise(self) -> PromiseHook | ErrorHook:
        """The promise of one more call in progress."""
        if self._max_calls is not None and self.in_progress >= self._max_calls:
            return ErrorHook(LimitExceeded(f"more than max_calls = {self._max_calls} calls are in progress"))
        self.in_progress += 1
        return PromiseHook()

    def _queue(self, function: Any, arguments: list[Any], awaitable: Awaitable[Any] | None = None) -> Hook:
        promise = self._promise()
        if isinstance(promise, ErrorHook):
            if isinstance(awaitable, Coroutine):
                awaitable.close()
            return promise
        call = _Call(promise, function, arguments, awaitable)
        line = self._add(call)
        if self._without_task:
            self._without_task += 1
            return promise
        try:
            self._spawn(self._run_next)
        except RuntimeError:
            # No event loop is running. There must be no call in line without a task.
            line.pop()
            self.in_progress -= 1
            call.drop()
            raise
        return promise

    def _add(self, call: _Call) -> deque[_Call]:
        """Put a call in line. Returns the line."""
        line = self._line
        if line is None:
            line = self._line = deque()
        line.append(call)
        return line

    async def _run_next(self) -> None:
        """Run the first call in line, if it may begin. As many tasks run this as there are calls in line, but for those
        without a task."""
        if not self._line:
            return  # close() has emptied it
        if self.full or self._running >= self._max_running:
            self._without_task += 1
            return
        call = self._line.popleft()
        if not self._line:
            self._line = None
        self._running += 1
        if self._without_task:
            self._add_tasks(1)
        try:
            stoppable = is_cancellable(call.function)
            if stoppable and call.promise.abandoned:
                call.drop()
                self._finish(call.promise, ErrorHook(_unwanted()))
                return
            result = call.awaitable if call.awaitable is not None else invoke(call.function, call.arguments)
            if is_awaitable(result):
                result = await (_while_wanted(call.promise, result) if stoppable else result)
        except anyio.get_cancelled_exc_class():
            self._finish(call.promise, ErrorHook(RpcError("the call was cancelled")))
            if self._closed or not on_asyncio():
                raise  # it is this task that was cancelled, or trio, where nothing else raises it
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._finish(call.promise, self._failed(call.function or call.awaitable, error))
        else:
            self._finish(call.promise, self._hook_of(result))
        finally:
            self._running -= 1
            if self._without_task:
                self._add_tasks(1)

    def _failed(self, function: Any, error: BaseException) -> Hook:
        """The hook of the result of a call whose exception was just caught."""
        # The peer is told; this side only if it asks: a failed call is an answer, not an accident.
        _log.info("a call of %s failed", getattr(function, "__qualname__", function), exc_info=error)
        if self._keep_tracebacks:
            release_frames(error)
        else:
            drop_tracebacks(error)
        return ErrorHook(sendable(error))

    def _finish(self, promise: PromiseHook, hook: Hook) -> None:
        self.in_progress -= 1
        if self.meter is not None:
            self.meter.renew()
        promise.settle(hook)
        self._notice_idle()

    def _notice_idle(self) -> None:
        if not self.in_progress and self.on_idle is not None:
            self.on_idle()


def _nothing() -> None:
    """What holds a place in line."""


async def _while_wanted(promise: PromiseHook, awaitable: Awaitable[Any]) -> Any:
    """Await something, for as long as anybody wants its result."""
    with cancel_scope() as scope:
        promise.when_abandoned(scope.cancel)
        return await awaitable
    raise _unwanted()


def _unwanted() -> RpcError:
    return RpcError("the call was cancelled: its result was released before it was there")


def is_awaitable(result: Any) -> bool:
    """Whether what a function returned, or a property gave, is to be awaited."""
    # A promise is not awaited: it is passed on, and what comes of it is sent when it is there.
    return type(result) is CoroutineType or (hasattr(type(result), "__await__") and not isinstance(result, Handle))
