"""What a binding is to the proxy, and which types of binding there are.

A module of this package serves one type: its `parse(table, state_dir)` checks the binding's own table of the
configuration and returns the Opener. The modules are imported when a configuration asks for them: each needs
packages of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import attrs
from anyio.abc import TaskGroup

from capnweb_py.web import Request, Response
from proxy_server.tables import Table, suggestion

__all__ = ["Binding", "BindingError", "Declaration", "Opener", "parse_binding"]


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


_MODULES: Final = {
    "service": "proxy_server.bindings.service",
    "dispatch_namespace": "proxy_server.bindings.dispatch_namespace",
    "images": "proxy_server.bindings.images",
}
# Types that Wrangler knows, and that a person may rightly expect here.
_NOT_SERVED_YET: Final = frozenset({"kv_namespace", "r2_bucket", "d1", "queue"})


def parse_binding(table: Table, state_dir: Path) -> Declaration:
    """Check the table of one binding.

    Args:
        table: it.
        state_dir: where embedded stores live. It need not exist.

    Raises:
        ConfigError: if its type is unknown, its table not valid, or a package that its type needs is not
            installed.
    """
    kind = table.text("type")
    if kind in _NOT_SERVED_YET:
        raise table.error(f'"{kind}" is a type that this server does not serve yet', "type")
    if kind not in _MODULES:
        raise table.error(f'"{kind}" is no type of binding: {suggestion(kind, _MODULES)}', "type")
    try:
        module = importlib.import_module(_MODULES[kind])
    except ModuleNotFoundError as error:
        raise table.error(
            f'"{kind}" needs the Python package "{error.name}": install capnweb-py[{kind}]',
            "type",
        ) from error
    parse: Callable[[Table, Path], Opener] = module.parse
    return Declaration(kind, parse(table, state_dir), table.written)
