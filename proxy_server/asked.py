"""What a request or a WebSocket asks for: which binding, as which type, and what of it.

A request says so in headers, a WebSocket that speaks RPC in its query, and every other WebSocket in headers, too. The
names are those of Cloudflare's proxy worker, save the type's, which is ours alone.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

import attrs

from capnweb_py.bindings.channels import TYPE
from proxy_server.bindings.dispatching import DISPATCH_OPTIONS
from proxy_server.channels import CONNECT_ADDRESS, Scope, header

__all__ = ["Asked"]

_BINDING_HEADER: Final = b"mf-binding"
_BINDING_PARAMETER: Final = "MF-Binding"
_TYPE_HEADER: Final = TYPE.encode()
_DISPATCH_HEADER: Final = DISPATCH_OPTIONS.lower().encode()


@attrs.frozen
class Asked:
    """What is asked for.

    Attributes:
        channel: "http", "rpc", or "websocket" for one that is no RPC session.
        name: of the binding, where one is named.
        kind: as which type the binding is to be used, where that is said.
        dispatch: the options of a dispatch namespace's `get`, as JSON.
        address: of a WebSocket that is a TCP connection: where it leads.
    """

    channel: str
    name: str | None
    kind: str | None = None
    dispatch: str | None = None
    address: str | None = None

    @classmethod
    def by(cls, scope: Scope) -> Asked:
        """What the scope of a request, or of a WebSocket, says."""
        is_websocket = scope["type"] == "websocket"
        address = header(scope, CONNECT_ADDRESS) if is_websocket else None
        query = _query(scope) if is_websocket else {}
        if _BINDING_PARAMETER not in query:
            channel = "websocket" if is_websocket else "http"
            return cls(channel, _named(scope), header(scope, _TYPE_HEADER), _dispatch(scope), address)
        channel, name = ("rpc", query[_BINDING_PARAMETER]) if address is None else ("websocket", _named(scope))
        return cls(channel, name, query.get(TYPE), query.get(DISPATCH_OPTIONS), address)


def _named(scope: Scope) -> str | None:
    return header(scope, _BINDING_HEADER)


def _dispatch(scope: Scope) -> str | None:
    """The Workers runtime writes headers in UTF-8. What is not, its JSON will say."""
    value = header(scope, _DISPATCH_HEADER)
    return None if value is None else value.encode("latin-1").decode("utf-8", "replace")


def _query(scope: Scope) -> dict[str, str]:
    """The parameters of the query, and the first value of each."""
    pairs = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return {name: values[0] for name, values in pairs.items()}
