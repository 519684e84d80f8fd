"""The RPC channel: one WebSocket is one Cap'n Web session, whose main object comes from the binding.

The session itself, and the socket, are capnweb_py's. What is here is what becomes of a binding that has no
main object to give.
"""

from __future__ import annotations

from collections.abc import Callable

from capnweb_py.options import SessionOptions
from capnweb_py.session import ABORTED, RpcSession
from capnweb_py.transports.asgi import serve_websocket
from capnweb_py.transports.driver import cut_reason
from proxy_server.bindings import Binding, BindingError
from proxy_server.channels import LOG, Receive, Scope, Send, refuse_websocket

__all__ = ["serve_rpc"]


async def serve_rpc(
    binding: Binding,
    scope: Scope,
    receive: Receive,
    send: Send,
    options: SessionOptions | None = None,
    on_open: Callable[[RpcSession], object] | None = None,
) -> None:
    """Run one session to its end, and tell `on_open` of it at its beginning."""
    try:
        main = binding.rpc_main()
    except BindingError as error:
        await _turn_away(receive, send, str(error))
    except (Exception, SystemExit) as error:  # a factory that exits must not end the server
        LOG.warning("a binding failed to make the main object of a session: %s", type(error).__name__)
        LOG.debug("what it failed with", exc_info=True)
        await refuse_websocket(scope, receive, send, 500, str(error))
    else:
        await serve_websocket(main, scope, receive, send, options, on_open)


async def _turn_away(receive: Receive, send: Send, reason: str) -> None:
    """Open the socket only to close it with the reason.

    JavaScript is told nothing of a handshake that is refused, but hears the reason of a close. And Miniflare opens a
    socket for every service binding, even where the worker only fetches: that must not look like a broken network.
    """
    await receive()  # "websocket.connect"
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": ABORTED, "reason": cut_reason(reason)})
