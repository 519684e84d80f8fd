"""The "service" binding: a Python class that answers calls, an ASGI application, or an HTTP server elsewhere.

Which of them a table means is decided here, when the configuration is read: a URL is forwarded to, or several of one
kind; of what a "module:name" imports, something that takes `(scope, receive, send)` is an ASGI application, and a class
or a function that takes nothing makes one target per session. `kind = "rpc"` or `kind = "asgi"` says it where that
cannot be told.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from anyio.abc import TaskGroup

from capnweb_py.stub import RpcStub
from capnweb_py.target import RpcTarget, release, retain
from capnweb_py.web import ReadableStream, Request, Response
from proxy_server.bindings import Binding, BindingError, Opener
from proxy_server.bindings.asgi import AsgiService
from proxy_server.bindings.peer import Peer
from proxy_server.bindings.targets import GIVEN, Factory, described, import_target, required_parameters
from proxy_server.bindings.upstream import Upstream, check_upstream_url
from proxy_server.channels import AsgiApp
from proxy_server.channels.handshake import Handshake
from proxy_server.channels.sockets import serve_socket
from proxy_server.tables import Table

__all__ = ["RpcService", "opener_of", "parse", "parse_service"]

_URL: Final = re.compile(r"([a-z]+)://", re.IGNORECASE)
_ASGI_PARAMETERS: Final = 3

# The schemes of URLs, by what speaks them.
_HTTP: Final = frozenset({"http", "https"})
_RPC: Final = frozenset({"ws", "wss"})


def parse(table: Table, _state_dir: Path) -> Opener:
    """Check the table of a service, and import what its `target` names.

    Raises:
        ConfigError: if the target cannot be imported, or is nothing that can be served.
    """
    return parse_service(table)


def parse_service(table: Table, *, dispatched: bool = False) -> Opener:
    """Check the table of a service.

    Args:
        table: it.
        dispatched: whether it stands in a dispatch namespace.

    Raises: as `parse`.
    """
    targets = table.texts("target") if isinstance(table.written.get("target"), list) else (table.text("target"),)
    kind = table.optional_text("kind")
    entrypoint = table.optional_text("entrypoint")
    props = table.table("props").written
    table.finish()
    if kind not in {None, "rpc", "asgi"}:
        raise table.error(f'"{kind}" is no kind of service: "rpc" and "asgi" are', "kind")
    if len(targets) != 1 or _URL.match(targets[0]):
        _refuse_for_urls(table, entrypoint, props)
        return _url_opener(table, targets)
    (target,) = targets
    imported = import_target(table, target, entrypoint)
    name = target if entrypoint is None else f"{target.partition(':')[0]}:{entrypoint}"
    if kind == "asgi" or (kind is None and required_parameters(imported, GIVEN) == _ASGI_PARAMETERS):
        if props:
            raise table.error("an ASGI application has no props: a class or a factory has", "props")
        return _asgi_opener(table, name, imported)
    return _rpc_opener(table, name, imported, props, dispatched=dispatched)


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
        return parse_service(Table({"target": target}, table.source, table.path))
    name = getattr(target, "__qualname__", None) or described(target)
    if isinstance(target, RpcTarget):
        return _rpc_opener(table, name, lambda: target, {})
    if required_parameters(target, GIVEN) == _ASGI_PARAMETERS:
        return _asgi_opener(table, name, target)
    return _rpc_opener(table, name, target, {})


def _rpc_opener(
    table: Table, name: str, imported: object, props: Mapping[str, Any], *, dispatched: bool = False
) -> Opener:
    try:
        factory = Factory(name, imported, props, dispatched=dispatched)
    except ValueError as error:
        raise table.error(str(error), "target") from None

    async def open_service(_tasks: TaskGroup) -> Binding:
        return RpcService(name, factory)

    return open_service


def _refuse_for_urls(table: Table, entrypoint: str | None, props: Mapping[str, Any]) -> None:
    for key, value in {"entrypoint": entrypoint, "props": props}.items():
        if value:
            raise table.error("a URL has none: this is for what is imported here", key)


def _url_opener(table: Table, targets: tuple[str, ...]) -> Opener:
    if not targets:
        raise table.error("at least one URL is needed here", "target")
    schemes = {target.partition(":")[0].lower() if _URL.match(target) else "" for target in targets}
    for scheme in sorted(schemes - _HTTP - _RPC):
        problem = f"URLs with {scheme}: are not served" if scheme else "of several targets, each is a URL"
        raise table.error(f"{problem}: http:, https:, ws: and wss: are", "target")
    if schemes & _HTTP and schemes & _RPC:
        raise table.error("replicas speak the same: either http: and https: URLs, or ws: and wss: ones", "target")
    for target in targets:
        try:
            check_upstream_url(target)
        except ValueError as error:
            raise table.error(str(error), "target") from error

    async def open_upstream(tasks: TaskGroup) -> Binding:
        return Peer(targets, tasks) if schemes & _RPC else Upstream(targets, tasks)

    return open_upstream


def _asgi_opener(table: Table, name: str, imported: object) -> Opener:
    if not callable(imported):
        raise table.error(f'"{name}" is {described(imported)}, which cannot be called', "target")
    app = cast(AsgiApp, imported)

    async def open_app(tasks: TaskGroup) -> Binding:
        service = AsgiService(app, name, tasks)
        await service.start()
        return service

    return open_app


class RpcService:
    """Targets made by a class or a factory: one for each RPC session, each HTTP request and each WebSocket.

    Args:
        name: the "module:name" that the factory is, for messages.
        factory: makes a target. One that has `fetch(request)` answers the HTTP channel, and one that has
            `websocket(socket, request)` WebSockets of fetch().
    """

    def __init__(self, name: str, factory: Callable[..., object]) -> None:
        self._name = name
        self._factory = factory

    def with_arguments(self, args: Mapping[str, Any], options: Mapping[str, Any]) -> RpcService:
        """The same, as one `get` of a dispatch namespace has it."""
        return RpcService(self._name, partial(self._factory, args=args, options=options))

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

    async def websocket(self, handshake: Handshake) -> None:
        target = self._factory()
        retain(target)
        try:
            # A stub has every member, and this one's arguments are of this process.
            handler = None if isinstance(target, RpcStub) else getattr(target, "websocket", None)
            if handler is None:
                await serve_socket(handshake, lambda _socket: self._call_fetch(target, handshake.request))
            else:
                await serve_socket(handshake, lambda socket: handler(socket, handshake.request))
        finally:
            release(target)

    async def aclose(self) -> None:
        """Nothing is held: every target belongs to its session, its response or its WebSocket."""

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
