"""The hooks that end on this side: on a target or function, and on a value.

Both follow a call's path through the rules of target.py, and go on to another hook where the path leads into a stub.
"""

from __future__ import annotations

import reprlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from anyio import NoEventLoopError
from anyio.lowlevel import RunVar

from .delivery import Deliveries, is_awaitable, is_cancellable
from .errors import drop_tracebacks, fresh
from .handle import Handle
from .hooks import DISPOSED, ErrorHook, Hook, Path, Pending, PromiseHook
from .loops import running_loop
from .mapper import Mapper
from .payload import ATOMS, Payload
from .target import CALLABLE_TYPES, RpcTarget, has_lifecycle, member, release, retain, retain_again

__all__ = ["PayloadHook", "TargetHook", "hook_of", "hook_of_awaitable", "payload_hook", "result_hook"]


def hook_of(value: Any) -> Hook:
    """A hook on a value of this side: a target or function by reference, anything else by value."""
    if isinstance(value, RpcTarget) or type(value) in CALLABLE_TYPES:
        return TargetHook(value)
    return PayloadHook(Payload(value, borrowed=True))


def result_hook(result: Any) -> PayloadHook:
    """The hook of what a function returned. The payload keeps its targets alive for pipelined calls."""
    return PayloadHook(Payload(result, borrowed=True, given=True))


def payload_hook(payload: Payload) -> Hook:
    """The hook of what was read: that of the promise, where the whole value is one."""
    value = payload.value
    return value._hook if isinstance(value, Handle) and value._path == () else PayloadHook(payload)


def _spawn_detached(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    running_loop().spawn(run)


def hook_of_awaitable(awaitable: Awaitable[Any]) -> Hook:
    """A hook on what an awaitable will give. It is awaited at once, in a task of the running event loop."""
    return _own_deliveries().await_result(awaitable)


# The deliveries of calls made on this side: a line for each event loop, for what stands in the line of one that has
# ended never begins, and nothing behind it would.
_own: RunVar[Deliveries] = RunVar("capnweb_py.local")


def _own_deliveries() -> Deliveries:
    try:
        return _own.get()
    except LookupError:
        deliveries = Deliveries(_spawn_detached, result_hook)
        _own.set(deliveries)
        return deliveries
    except NoEventLoopError:
        # Plain functions can be called all the same. Nothing can stand in line.
        return Deliveries(_spawn_detached, result_hook)


def _follow(value: Any, path: Path, deliveries: Deliveries | None) -> tuple[Hook, Path] | tuple[None, Any]:
    """Where a path leads from a value: into another hook, with the rest of the path, or to a value of this side.

    Raises:
        TypeError: if the path leads through something that has no members, or to an instance attribute.
    """
    for position, name in enumerate(path):
        if isinstance(value, Handle):
            return value._hook, (value._path or ()) + path[position:]
        if position and is_awaitable(value):
            return _awaited(value, deliveries), path[position:]
        value = member(value, name)
    if isinstance(value, Handle) and value._path is not None:
        return value._hook, value._path
    return None, value


def _awaited(value: Any, deliveries: Deliveries | None) -> Hook:
    """The hook of what an asynchronous property gives, awaited by the session's deliveries or this side's own."""
    return (deliveries or _own_deliveries()).await_result(value)


class _LocalHook(Hook):
    """What the two hooks share: a value, and what a path finds in it."""

    __slots__ = ("__weakref__",)

    def _value(self) -> Any:
        raise NotImplementedError

    def call(self, path: Path, arguments: Payload) -> Hook:
        try:
            hook, rest = _follow(self._value(), path, arguments.deliveries)
        except Exception as error:
            return ErrorHook(error)
        if hook is not None:
            return hook.call(rest, arguments)
        if type(rest) in CALLABLE_TYPES:
            # Of the session that the call came over, or this side's own for a call made on this side.
            deliveries = arguments.deliveries or _own_deliveries()
            result = deliveries.deliver(rest, arguments)
            if isinstance(result, PromiseHook):
                self._hold_while_running(rest, result)
            return _owned(result) if arguments.deliveries is None and is_cancellable(rest) else result
        if isinstance(rest, Handle):
            return rest._hook.call((), arguments)
        if path and is_awaitable(rest):
            return _awaited(rest, arguments.deliveries).call((), arguments)
        return ErrorHook(TypeError(f"{'.'.join(map(str, path)) or 'the value'} is not a function"))

    def _hold_while_running(self, function: Any, result: PromiseHook) -> None:
        """Hold the target of a call until the call has ended.

        A caller that pipelines a call on a result lets go of that result as soon as both are sent. The method is not
        to find its target disposed of.
        """
        target = getattr(function, "__self__", None)
        if has_lifecycle(target):
            self._hold_targets()
            if retain_again(target):
                result.subscribe(partial(release, target))

    def _hold_targets(self) -> None:
        """Count a reference to each target in the value, where none is counted yet."""

    def map(self, path: Path, mapper: Mapper) -> Hook:
        # Here for the same reason as in `Payload.own`: replaying reads expressions, which makes stubs.
        from .replay import replay

        try:
            hook, rest = _follow(self._value(), path, mapper.provenance.deliveries)
            if hook is None and isinstance(rest, Handle):
                # A stub stands for what it is a stub of, wherever that is.
                hook, rest = rest._hook, ()
            return hook.map(rest, mapper) if hook is not None else replay(mapper, PayloadHook(self.part(rest)))
        except Exception as error:
            mapper.dispose()
            drop_tracebacks(error)  # whose frames hold what there was of the result
            return ErrorHook(error)

    def get(self, path: Path, deliveries: Deliveries | None = None) -> Hook:
        try:
            hook, value = _follow(self._value(), path, deliveries)
            if hook is not None:
                return hook.get(value, deliveries)
            if path and is_awaitable(value):
                return _awaited(value, deliveries)
            return PayloadHook(self.part(value))
        except Exception as error:
            return ErrorHook(error)

    def part(self, value: Any) -> Payload:
        """A payload of what a path has found in the value."""
        payload = Payload(value, borrowed=True)
        if not isinstance(value, ATOMS):
            # What a property gives may be the target's own state: the copy is what it was when it was asked for.
            payload.own()
        return payload


class PayloadHook(_LocalHook):
    """On a value: what a promise resolved to, or what a stub holds by value."""

    __slots__ = ("_payload",)

    def __init__(self, payload: Payload) -> None:
        # None once disposed. Several hooks may share one payload.
        self._payload: Payload | None = payload
        payload.owners += 1

    def _value(self) -> Any:
        if self._payload is None:
            raise fresh(DISPOSED.error)
        return self._payload.value

    def __repr__(self) -> str:
        return repr(DISPOSED) if self._payload is None else f"the value {reprlib.repr(self._payload.value)}"

    @property
    def value(self) -> Any:
        """The value. Raises the error of a disposed stub once disposed."""
        return self._value()

    def part(self, value: Any) -> Payload:
        # Not copied before it is delivered: a peer can ask for a large result as often as it likes, in a few bytes.
        self._hold_targets()
        part = Payload(value, borrowed=True)
        if self._payload is not None:
            # Of the whole, never of a part: a peer can ask for a part of a part as often as it likes.
            whole = self._payload.keeps
            part.keeps = whole if isinstance(whole, PayloadHook) else PayloadHook(self._payload)
        return part

    def _hold_targets(self) -> None:
        if self._payload is not None:
            self._payload.hold_targets()

    def pull(self) -> Payload:
        if self._payload is None:
            raise fresh(DISPOSED.error)
        return self._payload

    def dup(self) -> Hook:
        return DISPOSED if self._payload is None else PayloadHook(self._payload)

    def identity(self) -> object:
        value = None if self._payload is None else self._payload.value
        return value if isinstance(value, RpcTarget) or type(value) in CALLABLE_TYPES else self

    def successor(self) -> Hook | None:
        value = None if self._payload is None else self._payload.value
        return value._hook if isinstance(value, Handle) and not value._path else None

    def dispose(self) -> None:
        payload, self._payload = self._payload, None
        if payload is not None:
            payload.owners -= 1
            if not payload.owners:
                payload.dispose()

    def __del__(self) -> None:
        self.dispose()

    def on_broken(self, callback: Callable[[BaseException], object]) -> None:
        settled = self.settled()
        if settled is not self:
            settled.on_broken(callback)


class TargetHook(_LocalHook):
    """On a target or a function, which it counts a reference to."""

    __slots__ = ("_target",)

    def __init__(self, target: Any) -> None:
        # None once disposed.
        self._target = target
        retain(target)

    def identity(self) -> object:
        return self if self._target is None else self._target

    def __repr__(self) -> str:
        return repr(DISPOSED) if self._target is None else repr(self._target)

    def _value(self) -> Any:
        if self._target is None:
            raise fresh(DISPOSED.error)
        return self._target

    def pull(self) -> Payload | Pending:
        # A stub is no promise: its value is a stub.
        payload = Payload(self._value(), borrowed=True)
        payload.own()
        return payload

    def dup(self) -> Hook:
        return DISPOSED if self._target is None else TargetHook(self._target)

    def dispose(self) -> None:
        target, self._target = self._target, None
        if target is not None:
            release(target)

    def __del__(self) -> None:
        self.dispose()

    def on_broken(self, callback: Callable[[BaseException], object]) -> None:
        """What is on this side does not break."""


def _owned(hook: Hook) -> Hook:
    """What a caller gets for the promise of such a call, or of a part of its result."""
    return _OwnedHook(hook) if isinstance(hook, PromiseHook) else hook


class _OwnedHook(Hook):
    """The result of a call of this side's, of a method that is cancelled when nobody wants its result any more.

    The call itself refers to its promise for as long as it runs. This hook is what the caller refers to, and the caller
    alone: that Python collects it says that the result is not wanted.
    """

    __slots__ = ("__weakref__", "_hook", "_loop")

    def __init__(self, hook: PromiseHook) -> None:
        self._hook = hook
        self._loop = running_loop()

    def call(self, path: Path, arguments: Payload) -> Hook:
        return self._hook.call(path, arguments)

    def map(self, path: Path, mapper: Mapper) -> Hook:
        return self._hook.map(path, mapper)

    def get(self, path: Path, deliveries: Deliveries | None = None) -> Hook:
        return _owned(self._hook.get(path, deliveries))

    def dup(self) -> Hook:
        return _owned(self._hook.dup())

    def pull(self) -> Payload | Pending:
        return self._hook.pull()

    def successor(self) -> Hook | None:
        return self._hook.successor()

    def identity(self) -> object:
        return self._hook.identity()

    def __repr__(self) -> str:
        return repr(self._hook)

    def dispose(self) -> None:
        self._hook.dispose()

    def __del__(self) -> None:
        if self._hook.successor() is None:
            # On whatever thread: the call is cancelled on its own.
            self._loop.soon_from_anywhere(self._hook.dispose)

    def on_broken(self, callback: Callable[[BaseException], object]) -> None:
        self._hook.on_broken(callback)
