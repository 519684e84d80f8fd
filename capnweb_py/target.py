"""RpcTarget, and the rules of what a peer can reach. Knows nothing of stubs, sessions or the wire.

A peer names a member by a path of names. Each step goes through `member`, which answers with what the peer may have:
methods and properties of a target's class, keys of a dict, items of a list, public fields of attrs and dataclass
instances. Everything else reads as UNDEFINED, and what has no members at all cannot be descended into.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import logging
import threading
import types
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Final, Literal

import attrs

from .names import Naming, check_naming, in_camel
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
    "naming_of",
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

        class Api(RpcTarget, names="camel"):
            def get_user(self, user_id, *, max_items=10): ...   # getUser(userId, {maxItems: 5}) for a peer

    Args:
        names: "camel" for members that are getUser to peers and get_user here, keyword arguments included; no peer
            reaches them under the second name. It holds for inherited members, and for classes below this one, which
            can say "exact" in turn, as RpcTarget itself does. Two members of one name are a TypeError at once.
    """

    # How many references peers hold to this instance, and whether `dispose` has been called.
    __references = 0
    __disposed = False

    # How its members are named for peers.
    __names: ClassVar[Naming] = "exact"

    def __init_subclass__(cls, names: Naming | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if names is not None:
            check_naming(names)
            cls.__names = names
        # Raises TypeError for two members of one name. Not kept: the class may still be added to.
        _members_of.__wrapped__(cls)
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


def naming_of(cls: type[RpcTarget]) -> Naming:
    """How the members of a class are named for peers."""
    naming: Naming = cls._RpcTarget__names  # type: ignore[attr-defined]  # a private name of RpcTarget's
    return naming


def _target_member(target: RpcTarget, name: str) -> Any:
    cls: type = type(target)
    kind, owner, attribute = _members_of(cls).get(name, _NO_MEMBER)
    if kind == "property" or (kind == "method" and attribute not in vars(target)):
        # The attribute that was found, and not whatever the class's own lookup makes of the name: its __getattr__ is
        # asked for what a property fails to give.
        found = vars(owner)[attribute].__get__(target, cls)
        if kind == "method" and type(found) is types.FunctionType and naming_of(cls) == "camel":
            return types.MethodType(_call_in_camel, found)  # a static method, which does not tell its class
        return found
    if name.startswith("_") or (kind is None and name not in vars(target)):
        return UNDEFINED
    raise TypeError(
        f"{name!r} is an instance attribute of {cls.__name__}, and those stay private. "
        "To let peers reach it, define it as a method or a property of the class."
    )


_Kind = Literal["method", "property", "slot"]

# What a member is, the class that defines it, and the name of its attribute there.
_Member = tuple[_Kind | None, type, str]
_NO_MEMBER: Final[_Member] = (None, RpcTarget, "")


@functools.lru_cache(maxsize=4096)
def _members_of(cls: type[RpcTarget]) -> dict[str, _Member]:
    """What the class, or a base below RpcTarget, defines for peers, by the names that they know it by.

    Raises:
        TypeError: if two members have one name for peers, or one is named like the lifecycle hook.
    """
    members = _attributes_of(cls)
    if naming_of(cls) == "exact":
        return members
    attributes = in_camel(members, cls.__qualname__)
    if "dispose" in attributes:
        raise TypeError(
            f"{cls.__qualname__}: peers cannot reach a member named dispose: rename {attributes['dispose']}"
        )
    return {name: members[attribute] for name, attribute in attributes.items()}


def _attributes_of(cls: type[RpcTarget]) -> dict[str, _Member]:
    """The names that the class, or a base below RpcTarget, defines for peers, and what each is.

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
                members[name] = ("slot", base, name)
            elif isinstance(attribute, (property, functools.cached_property)):
                members[name] = ("property", base, name)
            else:
                members[name] = ("method", base, name)
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
        owner = getattr(function, "__self__", None)
        cls = owner if isinstance(owner, type) else type(owner)
        return _invoke(function, arguments, issubclass(cls, RpcTarget) and naming_of(cls) == "camel")
    return function(*arguments)


def _call_in_camel(function: Any, *arguments: Any) -> Any:
    """Call a function whose parameters have camelCase names for peers."""
    return _invoke(function, list(arguments), True)


def _invoke(function: Any, arguments: list[Any], in_camel_case: bool) -> Any:
    parameters = _positional_parameters(function)
    if parameters is None or len(arguments) != len(parameters) + 1 or type(arguments[-1]) is not dict:
        return function(*arguments)
    keywords = _keywords_of_camel(function, arguments[-1]) if in_camel_case else arguments[-1]
    for name in keywords:
        # As private as a member of such a name.
        if name.startswith("_"):
            raise _no_keyword(function, name)
    return function(*arguments[:-1], **keywords)


def _keywords_of_camel(function: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that a peer's options are. Those that fill no parameter stay as they are."""
    code = _code_of(function)
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if code is not None else ()
    by_wire_name = in_camel(parameters, "the parameters")
    for name in options:
        if name in parameters and name not in by_wire_name:
            raise _no_keyword(function, name)
    return {by_wire_name.get(name, name): value for name, value in options.items()}


def _no_keyword(function: Any, name: str) -> TypeError:
    while isinstance(function, functools.partial):
        function = function.func
    return TypeError(f"{getattr(function, '__name__', function)}() takes no keyword argument {name!r} from a peer")


def _positional_parameters(function: Any) -> Sequence[str] | None:
    """The positional parameters that a call can fill; None where it takes any number, or nobody can tell."""
    if isinstance(function, functools.partial):
        parameters = _positional_parameters(function.func)
        if parameters is None:
            return None
        rest = parameters[len(function.args) :]
        # From the first that is bound by its name on, the others can only be given by theirs.
        return list(itertools.takewhile(lambda name: name not in function.keywords, rest))
    code = _code_of(function)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return None
    names: Sequence[str] = code.co_varnames[: code.co_argcount]
    return names[1:] if isinstance(function, types.MethodType) else names


def _code_of(function: Any) -> types.CodeType | None:
    """The code of the function that a decorated, bound or partial one leads to."""
    # Not inspect.signature, which is slow, and not cached by function, which would keep callbacks alive.
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if hasattr(function, "__wrapped__"):
        function = inspect.unwrap(function)
    return getattr(function, "__code__", None)


# What Python makes anew each time that it is read from its object.
_BOUND: Final = (types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType)


def same(one: object, other: object) -> bool:
    """Whether two targets or functions are the same. Python makes a new bound method each time one is read."""
    return one is other or (isinstance(one, _BOUND) and one == other)


def identity_hash(value: object) -> int:
    """A hash that agrees with `same`."""
    return hash(value) if isinstance(value, _BOUND) else object.__hash__(value)
