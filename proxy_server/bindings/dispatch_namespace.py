"""The "dispatch_namespace" binding: a table of services, each of which a client gets by its name.

A client's `get(name, args, options)` sends nothing. What it gives is asked for with the `get` in each request and each
session (dispatching.py), and a name that nothing has fails there, with the words of Workers for Platforms. Over RPC, a
session without them has an object whose `get` does the same, for clients that know of no such parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from anyio.abc import TaskGroup

from capnweb_py.errors import remote_error
from capnweb_py.hooks import ErrorHook
from capnweb_py.stub import make_stub
from capnweb_py.target import RpcTarget
from capnweb_py.web import Request, Response
from proxy_server.bindings import Binding, BindingError, Opener
from proxy_server.bindings.dispatching import DISPATCH_OPTIONS, Dispatch
from proxy_server.bindings.service import RpcService, parse_service
from proxy_server.tables import Table

__all__ = ["DispatchNamespace", "parse"]

# What the Workers runtime says of a name that nothing has. (Cloudflare's examples of dynamic dispatch look for it.)
WORKER_NOT_FOUND = "Worker not found."


def parse(table: Table, _state_dir: Path) -> Opener:
    """Check the table of a dispatch namespace, and import what its services name.

    Raises:
        ConfigError: if a service is not valid.
    """
    tables = table.table("services").tables()
    table.finish()
    openers = {name: parse_service(service, dispatched=True) for name, service in tables.items()}

    async def open_namespace(tasks: TaskGroup) -> Binding:
        namespace = DispatchNamespace()
        try:
            for name, opener in openers.items():
                await namespace.add(name, opener, tasks)
        except BaseException:
            await namespace.aclose()
            raise
        return namespace

    return open_namespace


class DispatchNamespace:
    """Services by their names."""

    def __init__(self) -> None:
        self._services: dict[str, Binding] = {}

    async def add(self, name: str, opener: Opener, tasks: TaskGroup) -> None:
        """Open a service. Raises BindingError if that fails."""
        try:
            self._services[name] = await opener(tasks)
        except Exception as error:
            raise BindingError(f'the service "{name}" cannot be opened: {error}') from error

    def dispatched(self, dispatch: Dispatch) -> Binding:
        service = self._services.get(dispatch.name)
        if service is None:
            return _Missing()
        # A URL and an ASGI application have their arguments from the request alone.
        return service.with_arguments(dispatch.args, dispatch.options) if isinstance(service, RpcService) else service

    def rpc_main(self) -> object:
        return _Namespace(self)

    async def fetch(self, request: Request) -> Response:
        text = f"a dispatch namespace answers no request itself: name a service in the header {DISPATCH_OPTIONS}"
        return Response(text, status=400)

    async def aclose(self) -> None:
        while self._services:
            _name, service = self._services.popitem()
            await service.aclose()


class _Namespace(RpcTarget):
    """What a session gets that names no service."""

    def __init__(self, namespace: DispatchNamespace) -> None:
        self._namespace = namespace

    def get(self, name: str, args: Any = None, options: Any = None) -> object:
        """The main object of a service.

        Raises:
            TypeError: if an argument is of another type.
            Error: "Worker not found."
        """
        dispatch = Dispatch(_text(name), _table(args, "args"), _table(options, "options"))
        return self._namespace.dispatched(dispatch).rpc_main()


@attrs.frozen
class _Missing:
    """The service of a name that nothing has."""

    def rpc_main(self) -> object:
        return make_stub(ErrorHook(remote_error("Error", WORKER_NOT_FOUND)))

    async def fetch(self, request: Request) -> Response:
        raise BindingError(WORKER_NOT_FOUND)

    async def aclose(self) -> None:
        """It holds nothing."""


def _text(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError("get() takes the name of a service first")
    return name


def _table(value: object, key: str) -> Mapping[str, Any]:
    if value is None or not value:
        return {}
    if not isinstance(value, dict):
        raise TypeError(f"{key} of get() is an object")
    return value
