"""What stands behind a stub: a hook. Here are the interface and the hooks that hold no value.

Ownership: whoever holds a hook object owns it. A hook that nobody refers to any more lets go of what it stands for when
Python collects it; `dispose` does the same early. `dup` makes a second owner. Hooks never share a caller's values:
`call` either writes the arguments to the wire or copies them before it returns.

Order: calls on one hook reach the target in the order in which they were made, whatever the hook waits for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from .errors import RpcError, fresh, text_of
from .threads import turn

if TYPE_CHECKING:
    from .delivery import Deliveries
    from .mapper import Mapper
    from .payload import Payload

__all__ = ["DISPOSED", "ErrorHook", "Hook", "Path", "Pending", "PromiseHook"]

# The names and indices that lead from a value to a member of it.
Path = tuple[str | int, ...]


# Hooks do not derive from ABC, nor from the protocol: `isinstance` would ask the metaclass of their classes, in every
# call.


class Pending(Protocol):
    """Something that settles later, once."""

    __slots__ = ()

    @abstractmethod
    def subscribe(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when it settles, after those that were here before."""

    @abstractmethod
    def unsubscribe(self, callback: Callable[[], object]) -> None:
        """Have `callback` not called any more. Nothing happens if it is not, or has been."""


class Hook:
    """What a stub or a promise is connected to. Every method may be used until `dispose`."""

    __slots__ = ()

    @abstractmethod
    def call(self, path: Path, arguments: Payload) -> Hook:
        """Call the member at the path. Returns the hook of the result's promise.

        Raises:
            TypeError: if the arguments cannot be sent. Nothing was sent then, and nothing stays exported.
        """

    @abstractmethod
    def map(self, path: Path, mapper: Mapper) -> Hook:
        """Apply a mapper, which is taken over, to the member at the path. Returns the hook of the result's promise.

        Raises:
            TypeError: if what it captured cannot be sent. Nothing was sent then, and nothing stays exported.
        """

    @abstractmethod
    def get(self, path: Path, deliveries: Deliveries | None = None) -> Hook:
        """The hook of a promise for the member at the path; with an empty path, for the value itself.

        Args:
            path: of the member.
            deliveries: what awaits an asynchronous property; None for what this side itself asks for.
        """

    @abstractmethod
    def dup(self) -> Hook:
        """A second hook on the same thing, with an owner of its own."""

    @abstractmethod
    def pull(self) -> Payload | Pending:
        """The value, or what to wait for before asking again. Raises the error that the promise failed with.

        A remote promise that is never pulled never sends its value.
        """

    def make_releasable(self) -> None:
        """The result will be released early: what was not sent yet must be sent so that the peer allows that."""

    def successor(self) -> Hook | None:
        """The hook that this one stands for by now, if it has resolved to one. That one may have a successor, too."""
        return None

    def settled(self) -> Hook:
        """The hook that this one has come to stand for: itself, until it resolves to another."""
        # A loop, for a peer decides how long the line of successors is.
        hook = self
        while (successor := hook.successor()) is not None:
            hook = successor
        return hook

    def identity(self) -> object:
        """The object that two hooks have in common if they stand for the same thing."""
        return self

    @abstractmethod
    def dispose(self) -> None:
        """Let go. Safe to do twice."""

    @abstractmethod
    def on_broken(self, callback: Callable[[BaseException], object]) -> None:
        """Have `callback` called with the error when this hook can no longer work."""


class ErrorHook(Hook):
    """What failed: whatever is asked of it fails with the same error."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def call(self, path: Path, arguments: Payload) -> Hook:
        return self

    def map(self, path: Path, mapper: Mapper) -> Hook:
        mapper.dispose()
        return self

    def get(self, path: Path, deliveries: Deliveries | None = None) -> Hook:
        return self

    def dup(self) -> Hook:
        return self

    def pull(self) -> Payload | Pending:
        raise fresh(self.error)

    def __repr__(self) -> str:
        if self is DISPOSED:
            return "nothing: disposed"
        return f"what failed with {type(self.error).__name__}: {text_of(self.error)}"

    def dispose(self) -> None:
        pass

    def on_broken(self, callback: Callable[[BaseException], object]) -> None:
        callback(self.error)


# What a disposed stub holds.
DISPOSED = ErrorHook(RpcError("this stub was disposed, and can no longer be used"))


# How many members of a promise's value may in turn be promises of other members of it. Where one is, in the end, a
# promise of itself, there is no end to following them.
_MOST_ROUNDS: Final = 100


def _circular() -> RpcError:
    return RpcError("the promise resolves to itself")


class PromiseHook(Hook):
    """The promise of a hook: what is asked of it waits in line until `settle`, then goes to that hook in order."""

    __slots__ = ("__weakref__", "_disposed", "_on_abandoned", "_queue", "_resolution", "_rounds", "_source")

    def __init__(self, source: PromiseHook | None = None) -> None:
        # What this promise settled to.
        self._resolution: Hook | None = None
        # The promise in whose line this one waits, until it settles.
        self._source = source
        # How many times what was asked for it has led back into the very line that it came from.
        self._rounds = 0
        # What waits, in order. Any of it may leave early, at no cost to the rest. None once all of it has run: only
        # then may a new call overtake it and go straight on.
        self._queue: OrderedDict[Callable[[], object], None] | None = OrderedDict()
        # Whether the owner has let go before there was anything to let go of.
        self._disposed = False
        # What to do when nobody wants it any more.
        self._on_abandoned: Callable[[], object] | None = None

    def settle(self, resolution: Hook) -> None:
        """Resolve to a hook, which this promise owns from now on. A hook that waits for this promise is an error.

        What waits in line runs at once, unless another promise's line is running: then it runs when that one is done.
        """
        assert self._resolution is None, "a promise settles once"
        if _waits_for(resolution, self):
            resolution = ErrorHook(_circular())
        self._resolution, self._source = resolution, None
        if turn.settling is not None:
            turn.settling.append(self)
            return
        turn.settling = deque([self])
        try:
            while turn.settling:
                turn.settling.popleft()._run_queue()
        finally:
            turn.settling = None

    def subscribe(self, callback: Callable[[], object]) -> None:
        if self._queue is None:
            callback()
        else:
            self._queue[callback] = None

    def unsubscribe(self, callback: Callable[[], object]) -> None:
        if self._queue and callback in self._queue:
            del self._queue[callback]
            self._tell_if_abandoned()

    @property
    def abandoned(self) -> bool:
        """Whether nobody wants it any more: its owner has let go of it, and nothing waits for it to settle."""
        return self._disposed and not self._queue and self._resolution is None

    def when_abandoned(self, callback: Callable[[], object]) -> None:
        """Have `callback` called once nobody wants it any more. There is room for one callback."""
        self._on_abandoned = callback
        self._tell_if_abandoned()

    def _tell_if_abandoned(self) -> None:
        if self._on_abandoned is not None and self.abandoned:
            callback, self._on_abandoned = self._on_abandoned, None
            callback()

    def successor(self) -> Hook | None:
        return self._resolution if self._queue is None else None

    def resolved(self) -> Hook:
        """The hook that it has settled to in the end, even while what waits in line still runs; itself before."""
        return self if self._resolution is None else self._resolution.settled()

    def call(self, path: Path, arguments: Payload) -> Hook:
        if self._queue is None:
            return self._hook().call(path, arguments)
        arguments.own()
        return self._when_settled(lambda hook: hook.call(path, arguments))

    def map(self, path: Path, mapper: Mapper) -> Hook:
        if self._queue is None:
            return self._hook().map(path, mapper)
        return self._when_settled(lambda hook: hook.map(path, mapper))

    def get(self, path: Path, deliveries: Deliveries | None = None) -> Hook:
        if self._queue is None:
            return self._hook().get(path, deliveries)
        return self._read_when_settled(lambda hook: hook.get(path, deliveries))

    def dup(self) -> Hook:
        if self._queue is None:
            return self._hook().dup()
        return self._read_when_settled(lambda hook: hook.dup())

    def pull(self) -> Payload | Pending:
        return self if self._resolution is None else self._resolution.pull()

    def dispose(self) -> None:
        self._disposed = True
        if self._queue is None:
            self._hook().dispose()
        else:
            self._tell_if_abandoned()

    def on_broken(self, callback: Callable[[BaseException], object]) -> None:
        if self._queue is None:
            self._hook().on_broken(callback)
        else:
            self._queue[lambda: self._hook().on_broken(callback)] = None

    def __repr__(self) -> str:
        return "what is not there yet"

    def _hook(self) -> Hook:
        assert self._resolution is not None, "only a settled promise stands for another hook"
        return self._resolution

    def _run_queue(self) -> None:
        self._on_abandoned = None
        queue, resolution = self._queue, self._hook()
        assert queue is not None, "a promise settles once"
        while queue:
            run, _ = queue.popitem(last=False)
            run()
        self._queue = None
        if self._disposed:
            resolution.dispose()

    def _when_settled(self, ask: Callable[[Hook], Hook]) -> PromiseHook:
        assert self._queue is not None, "a settled promise is asked directly"
        answer = PromiseHook(self)
        self._queue[partial(self._answer, answer, ask)] = None
        return answer

    def _read_when_settled(self, ask: Callable[[Hook], Hook]) -> PromiseHook:
        """The same for what only looks, and loses its place in line when nobody wants it. A call is made all the
        same."""
        assert self._queue is not None, "a settled promise is asked directly"
        answer = self._when_settled(ask)
        answer.when_abandoned(partial(self.unsubscribe, next(reversed(self._queue))))
        return answer

    def _answer(self, answer: PromiseHook, ask: Callable[[Hook], Hook]) -> None:
        if answer._rounds > _MOST_ROUNDS:
            answer.settle(ErrorHook(_circular()))
            return
        try:
            hook = ask(self._hook())
            if isinstance(hook, PromiseHook) and hook._source is self:
                hook._rounds = answer._rounds + 1
        except Exception as error:
            hook = ErrorHook(error)
        answer.settle(hook)


def _waits_for(hook: Hook, promise: PromiseHook) -> bool:
    """Whether a hook stands for a promise, or waits in its line, or in the line of one that does."""
    following: Hook | None = hook
    while following is not None and following is not promise:
        if isinstance(following, PromiseHook):
            following = following._resolution or following._source
        else:
            following = following.successor()
    return following is promise
