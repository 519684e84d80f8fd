"""The "service" binding: a Python class that answers calls, an ASGI application, or an HTTP server elsewhere.

Which of them a table means is decided here, when the configuration is read: a URL is forwarded to; of what a
"module:name" imports, something that takes `(scope, receive, send)` is an ASGI application, and a class or a
function that takes nothing makes one target per session. `kind = "rpc"` or `kind = "asgi"` says it where that
cannot be told.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, cast

from anyio.abc import TaskGroup

from capnweb_py.target import RpcTarget, release, retain
from capnweb_py.web import ReadableStream, Request, Response
from proxy_server.bindings import Binding, BindingError, Opener
from proxy_server.bindings.asgi import AsgiService
from proxy_server.bindings.peer import Peer
from proxy_server.bindings.upstream import Upstream, check_upstream_url
from proxy_server.channels import AsgiApp
from proxy_server.tables import ConfigError, Table, suggestion

__all__ = ["RpcService", "opener_of", "parse"]

_URL: Final = re.compile(r"([a-z]+)://", re.IGNORECASE)
_ASGI_PARAMETERS: Final = 3


def parse(table: Table, _state_dir: Path) -> Opener:
    """Check the table of a service, and import what its `target` names.

    Raises:
        ConfigError: if the target cannot be imported, or is nothing that can be served.
    """
    target = table.text("target")
    kind = table.optional_text("kind")
    table.finish()
    if kind not in {None, "rpc", "asgi"}:
        raise table.error(f'"{kind}" is no kind of service: "rpc" and "asgi" are', "kind")
    if _URL.match(target):
        return _url_opener(table, target)
    imported = _import(table, target)
    if kind == "asgi" or (kind is None and _required_parameters(imported) == _ASGI_PARAMETERS):
        return _asgi_opener(table, target, imported)
    return _rpc_opener(table, target, imported)


def opener_of(table: Table, target: object) -> Opener:
    """What opens a service that a program gives itself, instead of the target that its table names.

    Args:
        table: of the binding, which is looked at for nothing but errors.
        target: an RpcTarget class, a function that makes a target, a target, an ASGI application, or the text that
            names one of them.

    Raises:
        ConfigError: as `parse` does.
    """
    if isinstance(target, str):
        return parse(Table({"target": target}, table.source, table.path), Path())
    name = getattr(target, "__qualname__", None) or _described(target)
    if _required_parameters(target) == _ASGI_PARAMETERS:
        return _asgi_opener(table, name, target)
    if isinstance(target, RpcTarget):
        return _rpc_opener(table, name, lambda: target)
    return _rpc_opener(table, name, target)


def _url_opener(table: Table, target: str) -> Opener:
    scheme = target.partition(":")[0].lower()
    if scheme not in {"http", "https", "ws", "wss"}:
        raise table.error(f"URLs with {scheme}: are not served: http:, https:, ws: and wss: are", "target")
    try:
        check_upstream_url(target)
    except ValueError as error:
        raise table.error(str(error), "target") from error

    async def open_upstream(tasks: TaskGroup) -> Binding:
        return Peer(target, tasks) if scheme in {"ws", "wss"} else Upstream(target, tasks)

    return open_upstream


def _asgi_opener(table: Table, target: str, imported: object) -> Opener:
    if not callable(imported):
        raise table.error(f'"{target}" is {_described(imported)}, which cannot be called', "target")
    app = cast(AsgiApp, imported)

    async def open_app(tasks: TaskGroup) -> Binding:
        service = AsgiService(app, target, tasks)
        await service.start()
        return service

    return open_app


def _rpc_opener(table: Table, target: str, imported: object) -> Opener:
    problem = None
    if not callable(imported):
        problem = f"is {_described(imported)}: name an RpcTarget class, or a function that makes a target"
    elif inspect.iscoroutinefunction(imported):
        problem = "is a coroutine function: what makes a target is called where nothing can be awaited"
    elif _required_parameters(imported) not in {0, None}:
        problem = "needs arguments: a factory takes none, and an ASGI application (scope, receive, send)"
    if problem is not None:
        raise table.error(f'"{target}" {problem}', "target")
    service = RpcService(target, cast(Callable[[], object], imported))

    async def open_service(_tasks: TaskGroup) -> Binding:
        return service

    return open_service


def _import(table: Table, target: str) -> object:
    module_name, colon, attribute_path = target.partition(":")
    if not colon or not module_name or not attribute_path:
        raise table.error(
            f'"{target}" is no target: "module:name" is, such as "my_package.greeter:Greeter", or a URL',
            "target",
        )
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        problem = f'there is no module "{error.name}" on the path or beside the file'
        raise table.error(f'"{target}" cannot be imported: {problem}', "target") from error
    except (Exception, SystemExit) as error:
        # Whatever a module raises while it is imported makes its target unusable, and is for the same person
        # to read. A module that is a program, and exits, must not end the server that others use.
        problem = f"importing {module_name} raised {type(error).__name__}: {error}"
        raise table.error(f'"{target}" cannot be imported: {problem}', "target") from error
    for name in attribute_path.split("."):
        found = _member(table, target, found, name)
    return found


def _member(table: Table, target: str, owner: object, name: str) -> object:
    try:
        return getattr(owner, name)
    except AttributeError:
        public = [known for known in dir(owner) if not known.startswith("_")]
        raise _no_member(table, target, name, public) from None


def _no_member(table: Table, target: str, name: str, public: list[str]) -> ConfigError:
    return table.error(f'"{target}" cannot be imported: there is no "{name}": {suggestion(name, public)}', "target")


def _required_parameters(imported: object) -> int | None:
    """How many positional arguments a call needs at least; None where nobody can tell."""
    if not callable(imported):
        return None
    try:
        parameters = inspect.signature(imported).parameters.values()
    except (TypeError, ValueError):
        # Some callables that are written in C have no signature.
        return None
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return sum(parameter.kind in positional and parameter.default is parameter.empty for parameter in parameters)


def _described(value: object) -> str:
    return f"an instance of {type(value).__name__}"


class RpcService:
    """Targets made by a class or a factory: one for each RPC session, and one for each HTTP request.

    Args:
        name: the "module:name" that the factory is, for messages.
        factory: makes a target. One that has `fetch(request)` answers the HTTP channel.
    """

    def __init__(self, name: str, factory: Callable[[], object]) -> None:
        self._name = name
        self._factory = factory

    def rpc_main(self) -> object:
        return self._factory()

    async def fetch(self, request: Request) -> Response:
        target = self._factory()
        retain(target)
        try:
            response = await self._call_fetch(target, request)
        except BaseException:
            release(target)
            raise
        return _owning(target, response)

    async def aclose(self) -> None:
        """Nothing is held: every target belongs to its session, or to its response."""

    async def _call_fetch(self, target: object, request: Request) -> Response:
        handler = getattr(target, "fetch", None)
        if handler is None:
            # The first sentence is what the Workers runtime says.
            raise BindingError(f"Handler does not export a fetch() function. {self._name} has none.")
        response = handler(request)
        if inspect.isawaitable(response):
            response = await response
        if not isinstance(response, Response):
            raise TypeError(f"{self._name}.fetch() returned {type(response).__name__}, not a Response")
        return response


def _owning(target: object, response: Response) -> Response:
    """The response, which lets go of the target when its body is closed, or at once if it is in memory."""
    if response.body is None or response.buffered is not None:
        release(target)
        return response
    body = ReadableStream(_OwningBody(target, response.body), length=response.body.length)
    return Response(body, status=response.status, status_text=response.status_text, headers=response.headers)


class _OwningBody:
    """The chunks of a body, and a reference to the target that makes them, kept until the body is closed."""

    def __init__(self, target: object, body: ReadableStream[bytes]) -> None:
        self._target = target
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            release(self._target)
