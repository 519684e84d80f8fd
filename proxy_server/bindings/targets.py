"""What the `target` of a service names: "module:name", imported when the configuration is read, and how it makes
objects.

A service binding of Wrangler can name an entrypoint of the Worker that it leads to, and `props`, which that finds as
`ctx.props`. Neither crosses the wire: the deployed end of the binding has them. So they stand in its table here, where
a Worker is a module, and its entrypoints are what the module has by their names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Final, cast

from capnweb_py.stub import RpcStub
from capnweb_py.target import CALLABLE_TYPES, RpcTarget
from proxy_server.bindings import BindingError
from proxy_server.tables import Table, suggestion

__all__ = ["GIVEN", "Factory", "described", "import_target", "required_parameters"]

# What a class or a factory is given, by keyword, if it has a parameter of that name.
PROPS: Final = "props"
DISPATCHED: Final = frozenset({"args", "options"})
GIVEN: Final = DISPATCHED | {PROPS}

_POSITIONAL: Final = frozenset({inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD})


class Factory:
    """A class or a function that makes the target of one session, or of one request.

    It takes no arguments, or by keyword what it has parameters for: `props` of the configuration, and of a dispatch
    namespace `args` and `options` of the `get`.

    Args:
        name: what messages call it.
        make: it.
        props: of the configuration.
        dispatched: whether it stands in a dispatch namespace.

    Raises:
        ValueError: if it cannot be called so.
    """

    def __init__(self, name: str, make: object, props: Mapping[str, Any], *, dispatched: bool = False) -> None:
        given = GIVEN if dispatched else frozenset({PROPS})
        problem = None
        if not callable(make):
            problem = f"is {described(make)}: name an RpcTarget class, or a function that makes a target"
        elif inspect.isclass(make) and not issubclass(make, RpcTarget):
            problem = "is a class, and no RpcTarget: derive it from capnweb_py.RpcTarget, or nobody can call it"
        elif inspect.iscoroutinefunction(make):
            problem = "is a coroutine function: what makes a target is called where nothing can be awaited"
        elif required_parameters(make, given) not in {0, None}:
            problem = "needs arguments: a factory takes none, and an ASGI application (scope, receive, send)"
        if problem is not None:
            raise ValueError(f'"{name}" {problem}')
        self._name = name
        self._make = cast(Callable[..., object], make)
        self._props = props
        self._takes = given & _keywords(self._make)
        if props and PROPS not in self._takes:
            raise ValueError(f'"{name}" takes no props: give it a parameter of that name')

    def __call__(self, *, args: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None) -> object:
        """Make a target. Each gets values of its own: it may change them.

        Raises:
            BindingError: if what was made is none.
        """
        given = {PROPS: self._props, "args": args or {}, "options": options or {}}
        made = self._make(**{name: deepcopy(given[name]) for name in self._takes})
        if not isinstance(made, (RpcTarget, RpcStub)) and type(made) not in CALLABLE_TYPES:
            raise BindingError(f'"{self._name}" made no RpcTarget but {described(made)}')
        return made


def import_target(table: Table, target: str, entrypoint: str | None, key: str = "target") -> object:
    """Import what a "module:name" names, or of a bare "module" what the entrypoint does.

    Raises:
        ConfigError: if it cannot be imported.
    """
    module_name, colon, attribute_path = target.partition(":")
    if entrypoint is not None:
        # Beside a "module:name", the entrypoint is a neighbour of that name.
        colon, attribute_path = ":", entrypoint
    if not colon or not module_name or not attribute_path:
        raise table.error(
            f'"{target}" is no target: "module:name" is, such as "my_package.greeter:Greeter", or a URL, or "module" '
            "where the key entrypoint has the name",
            key,
        )
    target = f"{module_name}:{attribute_path}"
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        problem = f'there is no module "{error.name}" on the path or beside the file'
        raise table.error(f'"{target}" cannot be imported: {problem}', key) from error
    except (Exception, SystemExit) as error:
        # Whatever a module raises while it is imported makes its target unusable, and is for the same person
        # to read. A module that is a program, and exits, must not end the server that others use.
        problem = f"importing {module_name} raised {type(error).__name__}: {error}"
        raise table.error(f'"{target}" cannot be imported: {problem}', key) from error
    for name in attribute_path.split("."):
        found = _member(table, target, found, name, key)
    return found


def _member(table: Table, target: str, owner: object, name: str, key: str) -> object:
    try:
        return getattr(owner, name)
    except AttributeError:
        public = [known for known in dir(owner) if not known.startswith("_")]
        raise table.error(
            f'"{target}" cannot be imported: there is no "{name}": {suggestion(name, public)}', key
        ) from None


def required_parameters(imported: object, given: frozenset[str] = frozenset()) -> int | None:
    """How many arguments a call needs at least, beside those that it is given; None where nobody can tell."""
    parameters = _parameters(imported)
    if parameters is None:
        return None
    return sum(
        parameter.kind in _POSITIONAL and parameter.default is parameter.empty and name not in given
        for name, parameter in parameters.items()
    )


def _keywords(make: Callable[..., object]) -> frozenset[str]:
    """The parameters that can be given by name."""
    parameters = _parameters(make) or {}
    by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return frozenset(name for name, parameter in parameters.items() if parameter.kind in by_name)


def _parameters(imported: object) -> Mapping[str, inspect.Parameter] | None:
    if not callable(imported):
        return None
    try:
        return inspect.signature(imported).parameters
    except (TypeError, ValueError):
        # Some callables that are written in C have no signature.
        return None


def described(value: object) -> str:
    """What messages say that a value is."""
    return f"an instance of {type(value).__name__}"
