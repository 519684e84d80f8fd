"""WebSockets through fetch(): a binding that has WebSockets answers the handshake, any other one a request.

The Workers runtime asks with fetch(url, {headers: {Upgrade: "websocket"}}), and finds `response.webSocket`, or none in
an ordinary response. What comes here is the handshake of a WebSocket, whose headers are wrapped as in the HTTP channel.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from proxy_server.bindings import Binding, BindingError
from proxy_server.channels import FAILURE, LOG, Receive, Scope, Send, refuse_websocket
from proxy_server.channels.handshake import ClientLeft, Handshake
from proxy_server.channels.sockets import serve_socket

__all__ = ["WebSocketBinding", "serve_fetched_websocket"]


@runtime_checkable
class WebSocketBinding(Protocol):
    """A binding that has WebSockets."""

    async def websocket(self, handshake: Handshake) -> None:
        """Answer a handshake, and carry the WebSocket to its end. What is raised, the client is told.

        Raises:
            BindingError: if the binding cannot do what was asked of it.
        """


async def serve_fetched_websocket(binding: Binding, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one handshake from the binding, and stay until the WebSocket has ended."""
    try:
        handshake = Handshake(scope, receive, send)
    except ValueError as error:
        await refuse_websocket(scope, receive, send, 400, f"the request cannot be passed on: {error}")
        return
    try:
        await handshake.finish(await _failure(binding, handshake))
    except ClientLeft as error:
        LOG.info("%s", error)


async def _failure(binding: Binding, handshake: Handshake) -> BaseException | None:
    """Have the binding answer a handshake. Returns what it raised, for the client to hear."""
    try:
        if isinstance(binding, WebSocketBinding):
            await binding.websocket(handshake)
        else:
            await serve_socket(handshake, lambda _socket: binding.fetch(handshake.request))
    except BindingError as error:
        FAILURE.get()(error)
        return error
    except ClientLeft as error:
        FAILURE.get()(None)
        return error
    except (Exception, SystemExit) as error:  # a handler that exits must not end the server
        # What it says may hold what the program works with.
        LOG.debug("a binding failed with the WebSocket %s", handshake.request.url, exc_info=True)
        FAILURE.get()(error)
        return error
    return None
