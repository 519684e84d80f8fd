"""RpcStub and RpcPromise: what user code touches. A stub is a hook; a promise is a hook, and a path from it.

Nothing here decides anything about calls: reading a member makes a promise with a longer path, calling passes the
arguments to the hook, awaiting pulls it. The names that a stub keeps for itself are those of its public methods;
`stub["dup"]` reaches a remote member of such a name. What Python or a tool asks of an object by itself (names with an
underscore, copies, truth, length) never reaches the peer: it is answered here, or refused with advice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Self

from .advice import advise
from .errors import fresh
from .handle import Handle
from .hooks import DISPOSED, Hook, Path
from .local import hook_of, hook_of_awaitable
from .loops import clear_frames_later, wait_settled
from .names import Naming, camel, camel_keywords
from .operators import NEEDS_VALUE, Abstract, refuse
from .payload import Payload, settle
from .recorder import record
from .target import CALLABLE_TYPES, RpcTarget, identity_hash, same
from .threads import recording
from .values import MAX_SAFE_INTEGER

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T_co = TypeVar("T_co", default=Any, covariant=True)
else:
    from typing import TypeVar

    # The default above is for type checkers: Python 3.11 has none.
    T_co = TypeVar("T_co", covariant=True)

__all__ = ["RpcPromise", "RpcStub", "hook_to_pull", "local_target", "make_promise", "make_stub", "stub_classes"]


class RpcStub(Handle):
    """A reference to an object or function, usually of the peer's: calls on it are calls there.

    `stub.name` is a promise for a member, `stub.name(...)` a promise for the result of a call; neither waits for
    anything. A stub lives as long as something refers to it; `dispose()`, or the end of `with stub:`, lets go of it
    early.

    Args:
        value: a value of this side to make a stub of: a target or function, or anything that can be sent.
    """

    __slots__ = ("__weakref__",)

    def __init__(self, value: Any) -> None:
        _set_hook(self, hook_of(value))
        _set_path(self, None)

    def __getattr__(self, name: str) -> RpcPromise:
        if name.startswith("_"):
            raise AttributeError(f"{name!r} is no member of a stub; a remote member of that name is stub[{name!r}]")
        return make_promise(self._hook, (*(self._path or ()), name))

    def __getitem__(self, name: str | int) -> RpcPromise:
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            raise TypeError(f"a member is named by a str or an index, not {type(name).__name__}")
        if isinstance(name, int) and abs(name) > MAX_SAFE_INTEGER:
            raise TypeError("an index beyond 2^53 - 1 cannot be sent")
        return make_promise(self._hook, (*(self._path or ()), name))

    def __call__(self, *arguments: Any, **keywords: Any) -> RpcPromise:
        values = [*arguments, keywords] if keywords else list(arguments)
        if recording.current is not None:
            return make_placeholder(recording.current.call(self._hook, self._path or (), values))
        return make_promise(self._hook.call(self._path or (), Payload(values, borrowed=True)))

    def dup(self) -> RpcStub:
        """A second stub of the same object, to be given away or disposed by itself."""
        return make_stub(self._hook.dup() if self._path is None else self._hook.get(self._path), self._stub_class)

    def dispose(self) -> None:
        """Let go of the object now. Safe to do twice; every other use of the stub is an error from now on."""
        hook: Hook = self._hook
        _set_hook(self, DISPOSED)
        # The hook of a member's promise is that of the whole, and not for it to let go of.
        if not self._path:
            hook.dispose()

    def map(self, function: Callable[[Any], Any]) -> RpcPromise:
        """The promise of what the function makes of each item of a list that the other side has, in one round trip.

        The function runs once, here and now, with a placeholder for the item. What it calls is not called but written
        down, to be done there for each item; what it returns, with placeholders anywhere in it, is what each item
        becomes. Anything else than a list is one item, and None and UNDEFINED are not mapped. Stubs and promises of
        outside may be used in it.

            names = await api.list_users().map(lambda user: {"id": user.id, "name": user.profile().name})

        Args:
            function: a plain function of one argument. Only what it calls on stubs happens there: it cannot await,
                compare or calculate with a placeholder.

        Raises:
            TypeError: if the function uses a placeholder for what cannot be recorded, or passes a target or function
                that is no stub. What it raises itself comes out, too. Nothing was sent then.
        """
        hook = record(self._hook, self._path or (), function, make_placeholder)
        return make_promise(hook) if recording.current is None else make_placeholder(hook)

    def on_broken(self, callback: Callable[[BaseException], object]) -> None:
        """Have `callback(error)` called when the stub can no longer work: its session ended, or its promise failed."""
        self._hook.on_broken(callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.dispose()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError("the members of a remote object cannot be assigned to")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Handle):
            return other._path is None and same(_identity(self), _identity(other))
        # A stub of a target or function of this side equals the target or function itself.
        return same(_identity(self), other) or NotImplemented

    def __hash__(self) -> int:
        return identity_hash(_identity(self))

    def __repr__(self) -> str:
        kind = next(cls for cls in (Placeholder, RpcPromise, RpcStub) if isinstance(self, cls)).__name__
        path = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in self._path or ())
        return f"<{kind}: {path and f'{path} of '}{self._hook.settled()!r}>"

    def __copy__(self) -> RpcStub:
        """A copy of a reference is a second reference."""
        return self.dup()

    def __deepcopy__(self, memo: dict[int, Any]) -> RpcStub:
        return self.__copy__()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "a stub cannot be pickled: it is a reference over a connection of this process. Send it in a call,"
            " or await its value and pickle that"
        )

    # `stub[0]` is a member, so Python would take a stub for an endless sequence.
    __iter__: Callable[..., Any] | None = None
    __contains__: Callable[..., Any] | None = None

    # What is made from it: see `stub_classes`.
    _stub_class: type[RpcStub]


class RpcPromise(RpcStub, Generic[T_co]):
    """The promise of a value, in the end the result of a call. Await it for the value, or use it without waiting.

    Members of it, calls on it, and passing it as an argument need no waiting: they travel along with the call.
    The value is only sent if the promise is awaited. Awaiting it again, or in several tasks, gives the same value.

    A task that is cancelled while it awaits a promise gives up nothing but its own reference; when that was the last,
    the result is released, and a method that is `cancellable` is cancelled. A promise that was kept can be awaited
    again. In `with promise:` the result is released at the end of the block.

    Args:
        awaitable: what gives the value, to publish one that does not exist yet: calls on the promise wait for it in
            order. It is awaited at once, by a task of the running event loop, whether anybody asks for it or not.

    Raises:
        TypeError: if it is no awaitable. RuntimeError: if no event loop is running.
    """

    __slots__ = ("_pulled",)

    # The hook that was pulled for a promise of a member: asking again would be another round trip.
    _pulled: Hook | None

    def __init__(self, awaitable: Awaitable[T_co]) -> None:
        if not isinstance(awaitable, Awaitable):
            raise TypeError(f"a promise is made of an awaitable, not of a {type(awaitable).__name__}")
        if isinstance(awaitable, RpcPromise):
            # A member is asked for when it is awaited.
            path = awaitable._path or ()
            hook = awaitable._hook.dup() if path else awaitable._hook.get(())
        else:
            hook, path = hook_of_awaitable(awaitable), ()
        _set_hook(self, hook)
        _set_path(self, path)
        _set_pulled(self, None)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(other) in _VALUES:
            advise("a promise equals nothing but itself, and was compared with a value: await it first")
        return NotImplemented

    def __hash__(self) -> int:
        return id(self)

    def __await__(self) -> Generator[Any, Any, T_co]:
        hook = hook_to_pull(self)
        try:
            while True:
                payload = hook.pull()
                if payload.__class__ is Payload:
                    break
                yield from wait_settled(payload).__await__()  # type: ignore[arg-type]
            payload.own()
            settling = settle(payload)
            if settling is not None:
                yield from wait_settled(settling).__await__()
                if settling.error is not None:
                    raise fresh(settling.error)
        except BaseException as error:
            # Whoever keeps the exception keeps this frame, and must not keep the promise.
            del self, hook
            payload = None
            if not isinstance(error, Exception):
                clear_frames_later(error)
            raise
        value: T_co = payload.value
        return value

    def dispose(self) -> None:
        pulled = self._pulled
        _set_pulled(self, None)
        super().dispose()
        if pulled is not None:
            pulled.dispose()

    def __enter__(self) -> Self:
        if not self._path:
            self._hook.make_releasable()
        return self

    def __copy__(self) -> RpcPromise[T_co]:
        """A second promise of the same."""
        return make_promise(self._hook if self._path else self._hook.dup(), self._path or (), type(self))


def hook_to_pull(promise: RpcPromise) -> Hook:
    """The hook whose value is the promise's."""
    hook: Hook | None = promise._pulled
    if hook is None:
        hook = promise._hook.get(promise._path) if promise._path else promise._hook
        _set_pulled(promise, hook)
    return hook


# Where a value is surely meant, an `await` was surely forgotten.
refuse(
    RpcPromise, NEEDS_VALUE, lambda _use: "a promise has no value yet: await it first, as in `value = await promise`"
)

# What a promise is compared with where its value is meant.
_VALUES: Final = frozenset({bool, int, float, str, bytes, list, tuple, dict})


class Placeholder(Abstract, RpcPromise):
    """What a callback of `map()` is given, and what its calls return: the promise of a value that is never here."""

    __slots__ = ()

    def __getattr__(self, name: str) -> RpcPromise:
        return make_placeholder(self._hook, super().__getattr__(name)._path)

    def __getitem__(self, name: str | int) -> RpcPromise:
        return make_placeholder(self._hook, super().__getitem__(name)._path)

    def dup(self) -> RpcStub:
        return make_placeholder(self._hook.get(self._path or ()), None)


# A stub refuses assignment, since that looks like one to a remote member; these go past that.
_set_hook: Callable[[Handle, Hook], None] = Handle.__dict__["_hook"].__set__
_set_path: Callable[[Handle, Path | None], None] = Handle.__dict__["_path"].__set__
_set_pulled: Callable[[RpcPromise, Hook | None], None] = RpcPromise.__dict__["_pulled"].__set__


class _CamelStub(RpcStub):
    """A stub whose members have camelCase names for the peer, and snake_case names here; in brackets they are exact."""

    __slots__ = ()

    def __getattr__(self, name: str) -> RpcPromise:
        return _as_camel(super().__getattr__(camel(name)))

    def __getitem__(self, name: str | int) -> RpcPromise:
        return _as_camel(super().__getitem__(name))

    def __call__(self, *arguments: Any, **keywords: Any) -> RpcPromise:
        return _as_camel(super().__call__(*arguments, **camel_keywords(keywords)))

    def map(self, function: Callable[[Any], Any]) -> RpcPromise:
        return _as_camel(super().map(lambda item: function(_as_camel(item))))


class _CamelPromise(_CamelStub, RpcPromise[Any]):
    """The promise of what such a stub gives."""

    __slots__ = ()


class _CamelPlaceholder(_CamelStub, Placeholder):
    """A placeholder, in a callback of `map()`, of what such a stub gives."""

    __slots__ = ()

    def dup(self) -> RpcStub:
        return make_placeholder(self._hook.get(self._path or ()), None, _CamelPlaceholder)


RpcStub._stub_class = RpcStub
_CamelStub._stub_class = _CamelStub


def _as_camel(promise: RpcPromise) -> RpcPromise:
    if isinstance(promise, Placeholder):
        return make_placeholder(promise._hook, promise._path, _CamelPlaceholder)
    return make_promise(promise._hook, promise._path or (), _CamelPromise)


def stub_classes(names: Naming) -> tuple[type[RpcStub], type[RpcPromise]]:
    """The classes of the stubs and promises that a session with this naming hands out."""
    return (_CamelStub, _CamelPromise) if names == "camel" else (RpcStub, RpcPromise)


def make_stub(hook: Hook, cls: type[RpcStub] = RpcStub) -> RpcStub:
    """A stub of a hook, which it owns."""
    stub = object.__new__(cls)
    _set_hook(stub, hook)
    _set_path(stub, None)
    return stub


def make_promise(hook: Hook, path: Path = (), cls: type[RpcPromise] = RpcPromise) -> RpcPromise:
    """A promise of a hook, or of what the path leads to from it."""
    promise = object.__new__(cls)
    _set_hook(promise, hook)
    _set_path(promise, path)
    _set_pulled(promise, None)
    return promise


def make_placeholder(hook: Hook, path: Path | None = (), cls: type[Placeholder] = Placeholder) -> Placeholder:
    """A placeholder of a hook, or of what the path leads to from it; with None for a path, one that is a stub."""
    placeholder = object.__new__(cls)
    _set_hook(placeholder, hook)
    _set_path(placeholder, path)
    _set_pulled(placeholder, None)
    return placeholder


def local_target(stub: RpcStub) -> object | None:
    """The target or function of this side that a stub leads to; None if it leads to the peer, or nowhere yet.

    For a method that is handed back a stub of what it once returned, and needs the object itself: its state is not
    reachable through the stub. A peer can only send back what it was given.
    """
    identity = None if stub._path else _identity(stub)
    return identity if isinstance(identity, RpcTarget) or type(identity) in CALLABLE_TYPES else None


def _identity(stub: Handle) -> object:
    """What a stub is a stub of: the same object for two stubs of the same thing."""
    return stub._hook.settled().identity()
