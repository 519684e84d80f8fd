"""The exception family, and what of an exception travels: exceptions <-> the parts of ["error", ...].

Nothing here serializes; serialize.py turns the parts into expressions (protocol, section "error").
"""

from __future__ import annotations

import builtins
import functools
import keyword
import traceback
from typing import Any, ClassVar, Final

import attrs

__all__ = [
    "AnswerLost",
    "CallNotSent",
    "ErrorParts",
    "LimitExceeded",
    "ProtocolError",
    "ProxyDenied",
    "ProxyError",
    "RemoteError",
    "RpcError",
    "SessionClosed",
    "Unreachable",
    "UnreadableValue",
    "describe_error",
    "drop_tracebacks",
    "fresh",
    "has_not_run",
    "release_frames",
    "remote_error",
    "sendable",
    "text_of",
]


class RpcError(Exception):
    """The base of every error that this package raises by itself."""


class SessionClosed(RpcError):
    """The session has ended: closed here, by the peer, or by the network. `__cause__` says why, where it is known.

    Attributes:
        may_have_run: whether the peer may have run the call that fails with this. If not, it can be made again.
    """

    may_have_run: ClassVar[bool] = True


class CallNotSent(SessionClosed):
    """The session ended before the call was sent: the peer has not run it."""

    may_have_run: ClassVar[bool] = False


class Unreachable(RpcError, ConnectionError):
    """There is no connection to the peer, and so nothing was sent.

    Attributes:
        may_have_run: False, as of `CallNotSent`.
    """

    may_have_run: ClassVar[bool] = False


class AnswerLost(RpcError, ConnectionError):
    """The connection was lost before the answer came, or while it did.

    Attributes:
        may_have_run: True: the request may have arrived.
    """

    may_have_run: ClassVar[bool] = True


class ProxyError(Unreachable):
    """A binding cannot be reached because something is set up wrong: trying again will not help.

    Attributes:
        reason: "secret" or "origin" (see `ProxyDenied`), "binding" if the proxy has none of that name, "type" if the
            proxy has it with another type, "request" if the proxy cannot pass the request on, "no_proxy" if what
            answers is no proxy server, "intercepted" if something before the proxy has answered in its place.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ProxyDenied(ProxyError, PermissionError):
    """The proxy does not let this client in."""


class ProtocolError(RpcError):
    """A peer broke the protocol. The session is aborted and the peer receives the reason."""


class UnreadableValue(RpcError, ValueError):
    """A peer sent a value that the protocol allows and Python cannot hold, such as a date after the year 9999."""


class LimitExceeded(RpcError):
    """One of the session's `Limits` was passed. The message names the limit and its value."""


class RemoteError(RpcError):
    """An exception that the peer threw.

    It is also an instance of Python's own exception of that name where there is one, so that
    `except TypeError` and `except RemoteError` both catch a TypeError thrown by the peer.

    It is never an instance of this package's other errors: `except SessionClosed` catches the end of a session of this
    side, and nothing that a peer only says. That a limit of the peer's was passed is told by
    `error.name == "LimitExceeded"`.

    Attributes:
        name: the class of the error as the peer named it, for example "TypeError" or "RangeError".
        message: the text.
        stack: the peer's stack trace, or None; peers keep it to themselves by default.
        props: what else the error carried, by name. Each is an attribute too where the name is free.
    """

    name: str
    message: str
    stack: str | None
    props: dict[str, Any]

    def __init__(self, *args: Any) -> None:
        """Not the built-in exception's own: UnicodeDecodeError and its like ask for what a peer does not send."""
        self.args = args
        self.name, self.stack, self.props = "Error", None, {}
        if not isinstance(self, BaseExceptionGroup):  # a group has its message already
            self.message = str(args[0]) if args else ""

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"RemoteError({self.name}: {self.message})"

    def __reduce__(self) -> tuple[Any, ...]:
        return remote_error, (self.name, self.message, self.stack, self.props)


@attrs.frozen
class ErrorParts:
    """What travels of an exception: values, not expressions yet."""

    name: str
    message: str
    stack: str | None
    props: dict[str, Any]


# Exceptions that steer Python itself. A peer's error of such a name must not end a loop, a generator or the program.
_STEERING: Final = (StopIteration, StopAsyncIteration)

# Names on an exception that a peer's properties must not replace.
_TAKEN: Final = frozenset({"name", "message", "stack", "props", "args", "add_note", "with_traceback"})

# The name under which both languages know an error of several errors.
_AGGREGATE: Final = "AggregateError"


# What the other parts of an error say. As properties npm capnweb neither sends nor reads them.
_PARTS: Final = ("name", "message", "stack")


def describe_error(error: BaseException) -> ErrorParts:
    """The parts of an exception that travel. Its traceback is none, its `stack` is, if that is text."""
    if isinstance(error, RemoteError):
        # A relay passes on what it received, by its own name and with all its properties.
        props = {key: value for key, value in error.props.items() if key not in _PARTS}
        if error.__cause__ is not None:
            props.setdefault("cause", error.__cause__)
        return ErrorParts(error.name, error.message, error.stack, props)
    public = {key: value for key, value in vars(error).items() if not key.startswith("_")}
    stack = public.get("stack") if isinstance(public.get("stack"), str) else None
    props = {key: value for key, value in public.items() if key not in _PARTS}
    if error.__cause__ is not None:
        props["cause"] = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        props["errors"] = list(error.exceptions)
        return ErrorParts(_AGGREGATE, error.message, stack, props)
    return ErrorParts(type(error).__name__, _message(error), stack, props)


def _message(error: BaseException) -> str:
    # str(KeyError("x")) is "'x'": the quotes are for a traceback, not for a peer.
    if isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str):
        return error.args[0]
    return str(error)


def remote_error(name: str, message: str, stack: str | None = None, props: dict[str, Any] | None = None) -> RemoteError:
    """Build the exception that stands for what a peer threw (the reverse of `describe_error`)."""
    props = props or {}
    cls = _remote_class(name)
    nested = props.get("errors")
    if name == _AGGREGATE and isinstance(nested, list) and nested and all(isinstance(e, Exception) for e in nested):
        error: RemoteError = _RemoteGroup(message, nested)
    else:
        error = cls(message)
    error.name, error.stack, error.props = name, stack, props
    if isinstance(props.get("cause"), BaseException):
        error.__cause__ = props["cause"]
    for key, value in props.items():
        if _is_free(error, key):
            setattr(error, key, value)
    return error


def _is_free(error: RemoteError, key: str) -> bool:
    usable = key.isidentifier() and not keyword.iskeyword(key) and not key.startswith("_")
    return usable and key not in _TAKEN and not hasattr(type(error), key)


# Python's own exceptions that a peer's error can be an instance of, by name.
_BUILTIN: Final = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type)
    and issubclass(value, Exception)
    and not issubclass(value, (*_STEERING, BaseExceptionGroup))
    and value is not Exception
}


def _remote_class(name: str) -> type[RemoteError]:
    """The class for a peer's error: RemoteError, and the built-in exception of that name where there is one."""
    # Cached by built-in names only: a peer can make up any number of others.
    return _derived_class(name) if name in _BUILTIN else RemoteError


@functools.cache
def _derived_class(name: str) -> type[RemoteError]:
    return type(name, (RemoteError, _BUILTIN[name]), {"__module__": RemoteError.__module__})


class _RemoteGroup(RemoteError, ExceptionGroup[Exception]):
    """A peer's AggregateError: an ExceptionGroup of the errors inside it."""

    __str__ = RemoteError.__str__


_RemoteGroup.__name__ = _RemoteGroup.__qualname__ = _AGGREGATE


def has_not_run(error: BaseException) -> bool:
    """Whether an error says that what it ended was never run. A peer's error may say so, too: that of a server that
    takes no more calls does."""
    return getattr(error, "may_have_run", True) is False


def text_of(error: BaseException) -> str:
    """What an error says, or what it is if it fails to say it."""
    try:
        return str(error)
    except Exception:
        return type(error).__name__


def fresh(error: BaseException) -> BaseException:
    """The error, to be raised once more.

    What a promise failed with is raised wherever the promise is awaited. A raised exception refers to the frames that
    it passed, and they to the promise: raising a copy keeps what they hold from living until the next garbage
    collection.
    """
    if isinstance(error, RemoteError):
        copy: RpcError = remote_error(error.name, error.message, error.stack, error.props)
    elif type(error).__init__ is Exception.__init__ and isinstance(error, RpcError):
        copy = type(error)(*error.args)
    else:
        return error
    copy.__cause__ = error.__cause__
    return copy


def sendable(error: BaseException) -> Exception:
    """What a peer is told of an exception: itself, unless it steers a program, as SystemExit and its like do.

    Those end a call, and must not end whoever awaits it.
    """
    if isinstance(error, Exception):
        return error
    return RpcError(f"the call ended with {type(error).__name__}: {text_of(error)}")


def release_frames(error: BaseException) -> None:
    """Let go of what the frames of an exception's traceback hold: the arguments of a failed call, stubs among them.

    To be called by the function that caught it, whose own frame leaves the traceback. The lines stay readable.
    """
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next
    for one in _with_related(error):
        traceback.clear_frames(one.__traceback__)


def drop_tracebacks(error: BaseException) -> None:
    """Let go of the frames themselves, where nobody will read the lines.

    Frames refer to those that called them, up to the one that received the call's message and will hold the error: a
    circle that keeps all they hold until the next garbage collection.
    """
    for one in _with_related(error):
        one.__traceback__ = None


def _with_related(error: BaseException) -> list[BaseException]:
    """An exception with its causes and contexts, and the exceptions of groups among them."""
    pending: list[BaseException | None] = [error]
    seen: dict[int, BaseException] = {}
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen[id(one)] = one
        pending += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            pending += one.exceptions
    return list(seen.values())


class Unsendable(TypeError):
    """A value that cannot be sent. On its way up it collects the path to the value, the last step first."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self.steps: list[str | int] = []
