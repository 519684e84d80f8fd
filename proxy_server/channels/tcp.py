"""The TCP channel: a raw connection through a binding, as bytes in the messages of a WebSocket.

It is the tunnel of Cloudflare's remote bindings (workers-sdk, ProxyServerWorker.ts, "handleConnect"): the handshake
names the binding and, in `MF-Connect-Address`, "host:port". Each message is bytes; text counts as its UTF-8. The
WebSocket is accepted first: what fails afterwards is told by a close with the code 1011 and a reason. 1000 is the end
of the stream. There is no half of an end: whichever side ends, all that it sent before is delivered, and then both
directions are over. So it is with every code: workerd says 1011 when a Worker has closed its socket. But a WebSocket
that is lost is no end of the stream: the connection is reset, so that nobody takes what has come for all there was.

A side that is faster than the other waits: nothing is read from either connection while the other does not take what
was read before.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute

from capnweb_py.transports.driver import cut_reason
from capnweb_py.web_socket import INTERNAL_ERROR, LOST, NO_STATUS, NORMAL
from proxy_server.bindings import Binding, BindingError, Connectable
from proxy_server.channels import FAILURE, Receive, Send, send_text
from proxy_server.egress import broke_off

__all__ = ["serve_connection_string", "serve_tcp"]

# The codes by which ASGI servers tell that a WebSocket was lost, or that they stop (1012).
_LOST: Final = frozenset({None, NO_STATUS, LOST, 1012})

# How long, in seconds, what is left may take to be delivered once one side has ended the connection.
_LINGER: Final = 10.0

# The value of SO_LINGER with which closing a socket resets the connection: on, and no time.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


async def serve_tcp(binding: Connectable, address: str, receive: Receive, send: Send) -> None:
    """Serve one connection to its end."""
    await receive()  # "websocket.connect"
    await send({"type": "websocket.accept"})
    try:
        stream = await binding.connect(address)
    except (BindingError, ConnectionError) as error:
        FAILURE.get()(error)
        await _close(send, INTERNAL_ERROR, str(error))
        return
    try:
        await _Tunnel(stream, receive, send).run()
    finally:
        with anyio.CancelScope(shield=True):
            await stream.aclose()


async def serve_connection_string(binding: Binding, send: Send) -> None:
    """Answer a request for a Hyperdrive binding's connection string (header `MF-HD-Seed`), which is a secret."""
    try:
        if not isinstance(binding, Connectable):
            raise BindingError("this binding has no connection string")
        body = json.dumps({"connectionString": binding.connection_string()}).encode()
    except BindingError as error:
        await send_text(send, 400, str(error))
        return
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class _Tunnel:
    """A connection and a WebSocket that is accepted, one for the other."""

    def __init__(self, stream: ByteStream, receive: Receive, send: Send) -> None:
        self._stream = stream
        self._receive = receive
        self._send = send
        # Set when the WebSocket has been closed, from either side.
        self._closed = False

    async def run(self) -> None:
        """Pass bytes on until one side has ended, and what it sent is delivered."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._outgoing, tasks.cancel_scope)
            await self._incoming()
            # The WebSocket is closed. What came over it before is on its way; then the connection ends, too.
            tasks.cancel_scope.deadline = anyio.current_time() + _LINGER

    async def _incoming(self) -> None:
        """From the connection to the WebSocket."""
        try:
            while not self._closed:
                await self._pass_on({"type": "websocket.send", "bytes": await self._stream.receive()})
            # The client has closed. The connection is read to its end, or TCP would take back what was sent on it.
            while True:
                await self._stream.receive()
        except anyio.EndOfStream:
            await self._finish(NORMAL)
        except anyio.ClosedResourceError:
            pass  # the other direction has ended it
        except (anyio.BrokenResourceError, OSError) as error:
            await self._finish(INTERNAL_ERROR, broke_off(error))

    async def _outgoing(self, both: anyio.CancelScope) -> None:
        """From the WebSocket to the connection. Cancels both directions if they have no more to do."""
        try:
            while (event := await self._receive())["type"] == "websocket.receive":
                data = event.get("bytes")
                await self._stream.send(event.get("text", "").encode() if data is None else data)
            self._closed = True
            if event.get("code") in _LOST:
                _reset_when_closed(self._stream)
                both.cancel()
                return
            await self._stream.send_eof()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            await self._finish(INTERNAL_ERROR, broke_off(error))
            both.cancel()
        else:
            both.deadline = anyio.current_time() + _LINGER

    async def _pass_on(self, event: dict[str, Any]) -> None:
        try:
            await self._send(event)
        except OSError:
            # ASGI, section "Disconnected Client". The other direction hears of it, too.
            self._closed = True

    async def _finish(self, code: int, reason: str = "") -> None:
        if not self._closed:
            self._closed = True
            await _close(self._send, code, reason)


def _reset_when_closed(stream: ByteStream) -> None:
    try:
        stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    except OSError:
        pass  # it is closed


async def _close(send: Send, code: int, reason: str) -> None:
    try:
        await send({"type": "websocket.close", "code": code, "reason": cut_reason(reason)})
    except OSError:
        pass  # the client has gone
