"""What a binding is to the proxy, and which types of binding there are.

A module of this package serves one type: its `parse(table, state_dir)` checks the binding's own table of the
configuration and returns the Opener. The modules are imported when a configuration asks for them: each needs
packages of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import attrs
from anyio.abc import ByteStream, TaskGroup

from capnweb_py.web import Request, Response
from proxy_server.tables import Table, suggestion

__all__ = [
    "Binding",
    "BindingError",
    "Connectable",
    "Declaration",
    "Opener",
    "PublicBinding",
    "access_of",
    "module_of",
    "open_binding",
    "over_remote",
    "parse_binding",
    "usable_as",
]


class BindingError(Exception):
    """A binding cannot do what was asked of it. The message is for its user, who can act on it."""


class Binding(Protocol):
    """An open binding, on the serving side. It is used by many sessions and requests at a time.

    One that has WebSockets of fetch() is a `WebSocketBinding`, too (channels/websocket.py), and one that gives other
    bindings a `Dispatcher` (bindings/dispatching.py).
    """

    def rpc_main(self) -> object:
        """What one RPC session gets as its main object; called once a session.

        Raises:
            BindingError: if the binding does not speak RPC.
        """

    async def fetch(self, request: Request) -> Response:
        """Answer one request of the HTTP channel. The caller closes the response's body, whatever happens.

        Raises:
            BindingError: if the binding does not speak HTTP.
        """

    async def aclose(self) -> None:
        """Release what the binding holds. No session and no request uses it any more."""


@runtime_checkable
class Connectable(Binding, Protocol):
    """A binding that makes raw TCP connections, too."""

    async def connect(self, address: str) -> ByteStream:
        """Connect to "host:port". Whoever asked closes the stream.

        Raises:
            BindingError: if the address is none, or not allowed.
            ConnectionError: if it cannot be reached.
        """

    def connection_string(self) -> str:
        """What programs give to a database's driver. It is a secret.

        Raises:
            BindingError: if the binding has none.
        """


@runtime_checkable
class PublicBinding(Binding, Protocol):
    """A binding that gives out URLs of this server, for those who have no access to it: each is a secret of its own."""

    def at(self, server: str, path: str) -> Binding:
        """The same binding for one client.

        Args:
            server: the URL of the server, as the client knows it, with a slash at its end.
            path: what the public URLs of this binding begin with there, with a slash at its end.
        """

    async def public(self, path: str, request: Request) -> Response | None:
        """Answer a request for a public URL. None if it is none that was given out, or is one no more.

        Args:
            path: decoded, without what all of them begin with.
        """


# Opens a binding when the server starts. Tasks that the binding needs for all its life are started in the
# group, which is cancelled after `aclose`. Raises BindingError if the binding cannot be opened.
Opener: TypeAlias = Callable[[TaskGroup], Awaitable[Binding]]


@attrs.frozen
class Declaration:
    """A binding as a configuration declares it. Two are equal if the same was written.

    Attributes:
        kind: the type, as Wrangler's API names it.
        open: opens it.
        written: the whole table, as it was read.
    """

    kind: str
    open: Opener = attrs.field(eq=False)
    written: Mapping[str, Any] = attrs.field(factory=dict)


# What a binding may be used for: all, reading, or reading with what is written kept aside.
_ACCESS: Final = ("full", "read", "overlay")

_MODULES: Final = {
    "d1": "proxy_server.bindings.d1",
    "dispatch_namespace": "proxy_server.bindings.dispatch_namespace",
    "images": "proxy_server.bindings.images",
    "kv_namespace": "proxy_server.bindings.kv",
    "queue": "proxy_server.bindings.queue",
    "r2_bucket": "proxy_server.bindings.r2",
    "send_email": "proxy_server.bindings.send_email",
    "service": "proxy_server.bindings.service",
    "fetcher": "proxy_server.bindings.fetcher",
    # Wrangler's names of bindings that are plain HTTP services.
    "ai": "proxy_server.bindings.fetcher",
    "browser": "proxy_server.bindings.fetcher",
    "mtls_certificate": "proxy_server.bindings.fetcher",
    "pipeline": "proxy_server.bindings.fetcher",
    "vectorize": "proxy_server.bindings.fetcher",
    # Wrangler's names of bindings that are services by other names: objects with methods, and fetch().
    "agent_memory": "proxy_server.bindings.service",
    "ai_search": "proxy_server.bindings.service",
    "ai_search_namespace": "proxy_server.bindings.service",
    "artifacts": "proxy_server.bindings.service",
    "flagship": "proxy_server.bindings.service",
    "media": "proxy_server.bindings.service",
    "stream": "proxy_server.bindings.service",
    "websearch": "proxy_server.bindings.service",
    "connect": "proxy_server.bindings.connect",
    # Wrangler's names of bindings that are raw TCP.
    "hyperdrive": "proxy_server.bindings.connect",
    "vpc_network": "proxy_server.bindings.connect",
    "vpc_service": "proxy_server.bindings.connect",
}


# The types that the packages of a proxy server do not suffice for.
_EXTRAS: Final = frozenset({"d1", "images"})

# What has `fetch`, and objects of anybody's making: each of these can be used as any other, as far as it goes.
_OPEN_ENDED: Final = frozenset(f"proxy_server.bindings.{module}" for module in ("service", "fetcher", "connect"))


def usable_as(kind: str, wanted: str) -> bool:
    """Whether a binding of a type can be used by the facade of another."""
    modules = {_MODULES.get(kind), _MODULES.get(wanted)}
    return len(modules) == 1 or modules <= _OPEN_ENDED


def parse_binding(table: Table, state_dir: Path) -> Declaration:
    """Check the table of one binding.

    Args:
        table: it. Its key `remote` is for programs: here the binding is a local one.
        state_dir: where embedded stores live. It need not exist.

    Raises:
        ConfigError: if its type is unknown, its table not valid, or a package that its type needs is not
            installed.
    """
    kind = table.text("type")
    table.flag("remote")
    if kind not in _MODULES:
        raise table.error(f'"{kind}" is no type of binding: {suggestion(kind, _MODULES)}', "type")
    parse: Callable[[Table, Path], Opener] = module_of(table).parse
    return Declaration(kind, parse(table, state_dir), table.written)


async def open_binding(name: str, opener: Opener, tasks: TaskGroup) -> Binding:
    """Open a binding.

    Raises:
        BindingError: if it cannot be opened. The message names it.
    """
    try:
        return await opener(tasks)
    except Exception as error:
        raise BindingError(f'the binding "{name}" cannot be opened: {error}') from error


def access_of(table: Table) -> str:
    """The `access` of a binding whose type has all three.

    Raises:
        ConfigError: if it is none.
    """
    access = table.text("access", _ACCESS[0])
    if access not in _ACCESS:
        raise table.error(f'"{access}" is no access: {suggestion(access, _ACCESS)}', "access")
    return access


def over_remote(table: Table, facade: object, access: str, name: str, state_dir: Path) -> Opener:
    """What opens a binding that keeps to an access mode, "read" or "overlay", over a remote one.

    Args:
        table: of the binding.
        facade: of the remote binding.
        access: the mode.
        name: of the binding.
        state_dir: where overlays live.

    Raises:
        ConfigError: if the type has no such modes, or not this one.
    """
    kind = table.text("type")
    over: Callable[[object, str, str, Path], Opener] | None = getattr(module_of(table), "over", None)
    if over is None or access not in _ACCESS:
        valid = "full" if over is None else ", ".join(_ACCESS)
        raise table.error(f'"{access}" is no access to a binding of the type "{kind}": valid: {valid}', "access")
    return over(facade, access, name, state_dir)


def module_of(table: Table) -> ModuleType:
    """What serves bindings of a table's type, which is a known one.

    Raises:
        PackageMissing: if a package that it needs is not installed.
    """
    kind = table.text("type")
    try:
        return importlib.import_module(_MODULES[kind])
    except ModuleNotFoundError as error:
        extra = kind if kind in _EXTRAS else "proxy"
        raise table.package_missing(f'"{kind}"', error, extra, "type") from error
