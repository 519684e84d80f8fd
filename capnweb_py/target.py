"""RpcTarget, and the rules of what a peer can reach. Knows nothing of stubs, sessions or the wire.

A peer names a member by a path of names. Each step goes through `member`, which answers with what the peer may have:
methods and properties of a target's class, keys of a dict, items of a list, public fields of attrs and dataclass
instances. Everything else reads as UNDEFINED, and what has no members at all cannot be descended into.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import threading
import types
from collections.abc import Collection
from typing import Any, Final, Literal

import attrs

from .values import UNDEFINED

__all__ = [
    "CALLABLE_TYPES",
    "RpcTarget",
    "field_values",
    "has_lifecycle",
    "identity_hash",
    "invoke",
    "is_record",
    "member",
    "parts_of",
    "release",
    "retain",
    "retain_again",
    "same",
]

_log = logging.getLogger("capnweb_py")

# What passes by reference and can be called, besides targets. Classes are not here: passing one would let the peer
# construct objects, which nobody means by handing over a class.
CALLABLE_TYPES: Final = frozenset(
    {
        types.FunctionType,
        types.MethodType,
        types.BuiltinFunctionType,
        types.MethodWrapperType,
        functools.partial,
    }
)


# Stubs are collected on any thread, and in the middle of anything, this counting included.
_counting = threading.RLock()


class RpcTarget:
    """A class whose instances pass by reference: the peer receives a stub, and calls come back to the instance.

    The peer reaches the methods and properties that the class defines, or a base class below RpcTarget, and whose
    names do not begin with an underscore. Instance attributes are never reachable.

    A class may define `dispose(self)`: it is called once, when the last reference that peers hold is released.
    It is never reachable itself, and it is a plain method: nobody is there to await it.
    """

    # How many references peers hold to this instance, and whether `dispose` has been called.
    __references = 0
    __disposed = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if inspect.iscoroutinefunction(getattr(cls, "dispose", None)):
            raise TypeError(
                f"{cls.__qualname__}.dispose must be a plain method: it is called where nothing can be awaited"
            )

    def _retain(self) -> None:
        with _counting:
            # Through object: a frozen attrs class refuses ordinary assignment.
            object.__setattr__(self, "_RpcTarget__references", self.__references + 1)

    def _is_held(self) -> bool:
        return self.__references > 0

    def _release(self) -> None:
        with _counting:
            object.__setattr__(self, "_RpcTarget__references", self.__references - 1)
            if self.__references or self.__disposed:
                return
            object.__setattr__(self, "_RpcTarget__disposed", True)
        try:
            self.dispose()  # type: ignore[attr-defined]  # only targets that have one are counted
        except Exception:
            # There is no caller to tell: the peer has let go, and the session must go on.
            _log.exception("%s.dispose() failed", type(self).__qualname__)


def has_lifecycle(target: object) -> bool:
    """Whether anybody needs to know when the last reference to a target goes. Functions have no lifecycle."""
    return isinstance(target, RpcTarget) and hasattr(target, "dispose")


def retain(target: Any) -> None:
    """Count one more reference of a peer to a target, if it has a lifecycle."""
    if has_lifecycle(target):
        target._retain()


def retain_again(target: Any) -> bool:
    """Count one more reference to a target that peers hold already; returns whether they do."""
    with _counting:
        held: bool = target._is_held()
        if held:
            target._retain()
    return held


def release(target: Any) -> None:
    """Count one reference less; the last one calls the target's `dispose`."""
    if has_lifecycle(target):
        target._release()


def member(value: Any, name: str | int) -> Any:
    """What a peer gets for `value.name`: the member, or UNDEFINED where there is none that it may reach.

    Raises:
        TypeError: if the value is None or UNDEFINED, which have no members, or the name is a target's instance
            attribute.
    """
    kind = type(value)
    if kind is dict:
        # JavaScript has no integer keys: `stub[0]` and `stub["0"]` are the same member there.
        return value.get(name if type(name) is str else str(name), UNDEFINED)
    if kind is list or kind is tuple:
        return value[name] if type(name) is int and 0 <= name < len(value) else UNDEFINED
    if isinstance(value, RpcTarget):
        return _target_member(value, str(name))
    if value is None or value is UNDEFINED:
        raise TypeError(f"cannot read the property {name!r} of {value!r}")
    if isinstance(value, dict):
        return value.get(str(name), UNDEFINED)
    if isinstance(value, (list, tuple)):
        return value[name] if type(name) is int and 0 <= name < len(value) else UNDEFINED
    if is_record(value):
        return field_values(value).get(str(name), UNDEFINED)
    return UNDEFINED


def _target_member(target: RpcTarget, name: str) -> Any:
    cls: type = type(target)
    kind, owner = _members_of(cls).get(name, _NO_MEMBER)
    in_instance = name in vars(target)
    if kind == "property" or (kind == "method" and not in_instance):
        # The attribute that was found, and not whatever the class's own lookup makes of the name: its __getattr__ is
        # asked for what a property fails to give.
        return vars(owner)[name].__get__(target, cls)
    if name.startswith("_") or (kind is None and not in_instance):
        return UNDEFINED
    raise TypeError(
        f"{name!r} is an instance attribute of {cls.__name__}, and those stay private. "
        "To let peers reach it, define it as a method or a property of the class."
    )


# What a member is, and the class that defines it.
_Member = tuple[Literal["method", "property", "slot"] | None, type]
_NO_MEMBER: Final[_Member] = (None, RpcTarget)


@functools.lru_cache(maxsize=4096)
def _members_of(cls: type) -> dict[str, _Member]:
    """The names that the class, or a base below RpcTarget, defines for peers.

    Methods and properties are descriptors; plain class attributes and nested classes are not, and are left out.
    A property wins over an instance attribute of its name, a method does not: the instance has replaced it.

    What a name means to Python is what the first class in the method resolution order defines. If that is a class that
    is not below RpcTarget, a mixin, the name is out of reach: what it stands for was not written for peers, and what
    it replaces is not what the class is meant to do.
    """
    members: dict[str, _Member] = {}
    for base in reversed(cls.__mro__):
        for name, attribute in vars(base).items():
            members.pop(name, None)
            if name.startswith("_") or name == "dispose" or not hasattr(type(attribute), "__get__"):
                continue
            if base is RpcTarget or not issubclass(base, RpcTarget):
                continue
            if isinstance(attribute, types.MemberDescriptorType):
                members[name] = ("slot", base)
            elif isinstance(attribute, (property, functools.cached_property)):
                members[name] = ("property", base)
            else:
                members[name] = ("method", base)
    return members


def is_record(value: object) -> bool:
    """Whether the value is an instance of an attrs class or a dataclass: those pass by value."""
    cls = type(value)
    return attrs.has(cls) or dataclasses.is_dataclass(cls)


def field_values(record: Any) -> dict[str, Any]:
    """The public fields of an attrs or dataclass instance, by name."""
    cls = type(record)
    fields: Any = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(record)
    return {field.name: getattr(record, field.name) for field in fields if not field.name.startswith("_")}


def parts_of(value: Any) -> Collection[Any]:
    """The values inside a value that passes by value: of a dict, list, tuple, attrs class, dataclass or exception."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, BaseException):
        return [*vars(value).values(), value.__cause__]
    if not isinstance(value, type) and is_record(value):
        return field_values(value).values()
    return ()


def invoke(function: Any, arguments: list[Any]) -> Any:
    """Call a function with the arguments of a peer's call.

    Keyword arguments travel as JavaScript's options object: where there is one argument more than the function has
    positional parameters, and it is a dict, its entries are the keyword arguments.

    Raises:
        TypeError: if the arguments do not fit the function; an unknown keyword is named.
    """
    if arguments and type(arguments[-1]) is dict:
        count = _positional_count(getattr(function, "__func__", function))
        if count is not None and len(arguments) == count + 1 - isinstance(function, types.MethodType):
            _check_keywords(function, arguments[-1])
            return function(*arguments[:-1], **arguments[-1])
    return function(*arguments)


def _check_keywords(function: Any, keywords: dict[str, Any]) -> None:
    """A keyword that begins with an underscore is as private as a member that does."""
    for name in keywords:
        if name.startswith("_"):
            raise TypeError(
                f"{getattr(function, '__name__', function)}() takes no keyword argument {name!r} from a peer"
            )


def _positional_count(function: Any) -> int | None:
    """How many positional parameters a function has; None where it takes any number, or nobody can tell."""
    # Not inspect.signature, which is slow, and not cached by function, which would keep callbacks alive.
    code = getattr(inspect.unwrap(function) if hasattr(function, "__wrapped__") else function, "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return None
    count: int = code.co_argcount
    return count


# What Python makes anew each time that it is read from its object.
_BOUND: Final = (types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType)


def same(one: object, other: object) -> bool:
    """Whether two targets or functions are the same. Python makes a new bound method each time one is read."""
    return one is other or (isinstance(one, _BOUND) and one == other)


def identity_hash(value: object) -> int:
    """A hash that agrees with `same`."""
    return hash(value) if isinstance(value, _BOUND) else object.__hash__(value)
