"""The proxy as an ASGI application: who passes the gate, which channel is meant, and which binding.

It opens all bindings when the server starts and closes them when it stops. What a channel does is in
channels/, and what a binding does in bindings/. Routing follows Cloudflare's proxy worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import parse_qs

import anyio
from anyio.abc import TaskGroup

from capnweb_py.options import SessionOptions
from proxy_server.auth import Gate, Refusal
from proxy_server.bindings import Binding, BindingError, Opener
from proxy_server.channels import LOG, Receive, Scope, Send, header, refuse_websocket, send_text
from proxy_server.channels.http import serve_http
from proxy_server.channels.rpc import serve_rpc

__all__ = ["ProxyApp"]


class ProxyApp:
    """The application, for any ASGI server that runs the lifespan protocol, and WebSockets.

    Args:
        openers: the bindings by their names, as `config.load` returns them.
        gate: who may come in.
        options: for every RPC session.
    """

    def __init__(self, openers: Mapping[str, Opener], gate: Gate, options: SessionOptions | None = None) -> None:
        self._openers = openers
        self._gate = gate
        self._options = options
        # Filled while `running`.
        self._bindings: dict[str, Binding] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            raise ValueError(f"the ASGI server speaks {scope['type']!r}, which this application does not know")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold the bindings open. The lifespan protocol does this; who calls the application directly does it here.

        Raises:
            ExceptionGroup: of BindingErrors, if a binding cannot be opened. Those opened before are closed.
        """
        async with anyio.create_task_group() as tasks:
            async with AsyncExitStack() as stack:
                stack.callback(self._bindings.clear)
                for name, opener in self._openers.items():
                    binding = await _opened(name, opener, tasks)
                    stack.push_async_callback(binding.aclose)
                    self._bindings[name] = binding
                yield
            tasks.cancel_scope.cancel()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # "lifespan.startup"
        phase = "startup"
        try:
            async with self.running():
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()  # "lifespan.shutdown"
        except* Exception as group:
            LOG.debug("the %s failed", phase, exc_info=group)
            text = "; ".join(str(error) for error in group.exceptions)
            await send({"type": f"lifespan.{phase}.failed", "message": text})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        binding = self._gate.refusal(scope) or self._rpc_binding(scope)
        if isinstance(binding, Refusal):
            await refuse_websocket(scope, receive, send, binding.status, binding.text)
        else:
            await serve_rpc(binding, scope, receive, send, self._options)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        binding = self._gate.refusal(scope) or self._binding(header(scope, b"mf-binding"))
        if isinstance(binding, Refusal):
            await send_text(send, binding.status, binding.text)
        else:
            await serve_http(binding, scope, receive, send)

    def _rpc_binding(self, scope: Scope) -> Binding | Refusal:
        """The binding of a WebSocket: named in its query for RPC, in a header for everything else."""
        name = _rpc_name(scope)
        tunnel = header(scope, b"mf-connect-address") is not None
        binding = self._binding(header(scope, b"mf-binding") if tunnel or name is None else name)
        if isinstance(binding, Refusal):
            return binding
        if tunnel:
            return Refusal(501, "raw TCP connections through a binding are not served yet")
        if name is None:
            return Refusal(501, "WebSockets through fetch() are not served: call methods instead")
        return binding

    def _binding(self, name: str | None) -> Binding | Refusal:
        if name is not None and name in self._bindings:
            return self._bindings[name]
        # The words of Cloudflare's proxy worker, which has two spaces where there is no name.
        return Refusal(400, f"Binding {_quoted(name)} not found")


def _quoted(name: str | None) -> str:
    return f'"{name}"' if name else ""


def _rpc_name(scope: Scope) -> str | None:
    """The binding that a WebSocket is to speak RPC with: the query names it, and for no other purpose."""
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return query["MF-Binding"][0] if "MF-Binding" in query else None


async def _opened(name: str, opener: Opener, tasks: TaskGroup) -> Binding:
    try:
        return await opener(tasks)
    except Exception as error:
        raise BindingError(f'the binding "{name}" cannot be opened: {error}') from error
