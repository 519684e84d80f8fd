"""What a client asks of a dispatch namespace: the name, arguments and options of a `get`, as JSON in one header or in
one parameter of the query.

The names are those of Miniflare's client (cloudflare/workers-sdk, `dispatch-namespace-proxy.worker.ts`) and of
Cloudflare's proxy worker, which does the `get` for each session and each request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import attrs

from capnweb_py.bindings.channels import DISPATCH_OPTIONS
from capnweb_py.bindings.dispatch_namespace import MAX_OPTIONS
from proxy_server.bindings import Binding

__all__ = ["DISPATCH_OPTIONS", "Dispatch", "DispatchError", "Dispatcher"]


class DispatchError(Exception):
    """The options cannot be used. `status` is the HTTP status that says so."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(f"{DISPATCH_OPTIONS}: {problem}")
        self.status = status


@attrs.frozen
class Dispatch:
    """The arguments of one `get(name, args, options)`."""

    name: str
    args: Mapping[str, Any]
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> Dispatch:
        """Read what a client has sent.

        Raises:
            DispatchError: if it is too long, no JSON, or not what a `get` has.
        """
        if len(text) > MAX_OPTIONS:
            raise DispatchError(431, f"{len(text)} characters are too many: {MAX_OPTIONS} at most")
        try:
            # A number that JSON does not know would arrive as one that it cannot be sent on as.
            value = json.loads(text, parse_constant=_refuse_constant)
        except RecursionError:
            raise DispatchError(400, "it nests too deep") from None
        except ValueError as error:
            raise DispatchError(400, f"it is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise DispatchError(400, "a JSON object is needed, with name, args and options")
        name = value.get("name")
        if not isinstance(name, str) or not name:
            raise DispatchError(400, "the name of a service is needed")
        return cls(name, _table(value, "args"), _table(value, "options"))


@runtime_checkable
class Dispatcher(Protocol):
    """A binding that gives other ones."""

    def dispatched(self, dispatch: Dispatch) -> Binding:
        """What there is for a `get`. Of a name that nothing has, the binding fails when it is used, not before."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _table(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = value.get(key)
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise DispatchError(400, f"{key} has to be an object")
    return table
