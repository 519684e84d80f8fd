"""The ways in: what a request or a connection turns into, once app.py has let it pass and found its binding.

Here is what all channels share, the types and plain answers of ASGI among it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final, TypeAlias

from capnweb_py.transports.asgi_events import Receive, Scope, Send, header, refuse_websocket, send_text
from capnweb_py.web import Headers

__all__ = [
    "BODILESS_STATUSES",
    "CONNECT_ADDRESS",
    "FAILURE",
    "LOG",
    "MAX_LOGGED",
    "REASON_PHRASES",
    "AsgiApp",
    "Receive",
    "Scope",
    "Send",
    "end_to_end",
    "header",
    "refuse_websocket",
    "send_text",
]

AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# The Fetch standard's "null body statuses": their responses have no body.
BODILESS_STATUSES: Final = frozenset({204, 205, 304})

# RFC 9110, section 7.6.1: these describe one connection, and the message on the next one has its own.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

# The header of a WebSocket that is a TCP connection: where it leads.
CONNECT_ADDRESS: Final = b"mf-connect-address"

# The extension of a scope whose server writes the "reason" of a response's start into the status line.
REASON_PHRASES: Final = "capnweb.reason_phrases"

# How much of what a client chose, such as a name, is logged.
MAX_LOGGED: Final = 200

LOG: Final = logging.getLogger("proxy_server")


def _tell_nobody(_error: BaseException | None) -> None:
    """There is nobody to tell."""


# Who is to be told of what fails in answering the request that is being answered, whose client hears of a status alone;
# of None if there is nobody to answer any more, which is nobody's failure.
FAILURE: Final[ContextVar[Callable[[BaseException | None], object]]] = ContextVar("FAILURE", default=_tell_nobody)


def end_to_end(headers: Headers) -> Headers:
    """The headers without those that belong to one connection, which `connection` may name more of."""
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return Headers(pair for pair in headers.pairs() if pair[0] not in _HOP_BY_HOP | named)
