"""The proxy as an ASGI application: who passes the gate, which channel is meant, and which binding.

It opens all bindings when the server starts and closes them when it stops. What a request asks for is read in asked.py,
and which bindings there are is kept by open_bindings.py. What a channel does is in channels/, and what a binding does
in bindings/. Routing follows Cloudflare's proxy worker.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import anyio
import attrs
from anyio.abc import TaskGroup

from capnweb_py.bindings.answers import DESCRIBE
from capnweb_py.options import DEFAULT_OPTIONS, SessionOptions
from capnweb_py.session import RpcSession
from proxy_server.asked import Asked
from proxy_server.auth import Gate
from proxy_server.bindings import Binding, Connectable, Declaration, usable_as
from proxy_server.bindings.dispatching import DISPATCH_OPTIONS, Dispatch, Dispatcher, DispatchError
from proxy_server.channels import LOG, Receive, Scope, Send, header
from proxy_server.channels.http import serve_http
from proxy_server.channels.public import placed, public_path, serve_public
from proxy_server.channels.rpc import serve_rpc
from proxy_server.channels.tcp import serve_connection_string, serve_tcp
from proxy_server.channels.websocket import serve_fetched_websocket
from proxy_server.draining import Draining
from proxy_server.idle_sessions import MAX_SESSIONS, IdleSessions
from proxy_server.open_bindings import OpenBinding, OpenBindings
from proxy_server.refusals import NAMELESS, STOPPED, Refusal, Refusals, forwarded
from proxy_server.watching import CONTENT_TYPE, Watch

__all__ = ["ProxyApp"]

# The header of a request that asks which bindings there are. Cloudflare's proxy worker does not know it, and answers as
# to any request without a binding.
_DESCRIBE: Final = DESCRIBE.encode()

# The header of a request for a Hyperdrive binding's connection string.
_CONNECTION_STRING: Final = b"mf-hd-seed"

# How many calls of one session run at a time, of the types whose calls never wait for each other, and may each return
# tens of megabytes: a client that calls and does not read must not have all of them held here.
_MAX_RUNNING: Final = {"d1": 4, "kv_namespace": 8}

_NOT_CONNECTABLE: Final = Refusal(400, 'this binding makes no TCP connections: those of the type "connect" do', "type")


class ProxyApp:
    """The application, for any ASGI server that runs the lifespan protocol, and WebSockets.

    Args:
        bindings: the bindings by their names, as `config.load` returns them.
        gate: who may come in.
        options: for every RPC session.
        max_sessions: how many RPC sessions there may be before idle ones are closed.
    """

    def __init__(
        self,
        bindings: Mapping[str, Declaration],
        gate: Gate,
        options: SessionOptions | None = None,
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        self._declared = bindings
        self._gate = gate
        self._options = options
        # Filled while `running`.
        self._open = OpenBindings()
        self._draining = Draining()
        self._idle = IdleSessions(max_sessions)
        self._refusals = Refusals()
        self._watch = Watch(lambda: len(self._open), refusals=self._refusals.counts)
        self._tasks: TaskGroup | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._admitted_websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._admitted_http(scope, receive, send)
        else:
            raise ValueError(f"the ASGI server speaks {scope['type']!r}, which this application does not know")

    async def drain(self, seconds: float) -> None:
        """Take no new work, and return when what runs has finished, or after so many seconds."""
        await self._draining.drain(seconds)

    async def _admitted_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._draining.begun and self._gate.refusal(scope) is None:
            await self._refusals.refuse(STOPPED, Asked.by(scope).name, scope, receive, send)
        else:
            # Not waited for: a session is drained, and nobody knows whether another WebSocket is at rest.
            await self._websocket(scope, receive, send)

    async def _admitted_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = _PAGES.get(self._gate.page(scope) or "")
        public = public_path(scope)
        if page is not None:
            await page(self, scope, send)
        elif public is not None:
            await self._public(*public, scope, receive, send)
        elif self._draining.begun and self._gate.refusal(scope) is None:
            await self._refusals.refuse(STOPPED, Asked.by(scope).name, scope, receive, send)
        else:
            with self._draining.running():
                await self._http(scope, receive, send)

    async def _public(self, name: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer whoever has a URL that a binding gave out, and no secret."""
        if self._draining.begun:
            await self._refusals.refuse(STOPPED, name, scope, receive, send)
            return
        found = self._open.get(name)
        with self._draining.running():
            if found is None:
                await serve_public(None, path, scope, receive, send)
                return
            async with found.used() as binding:
                await serve_public(binding, path, scope, receive, send)

    async def _health(self, _scope: Scope, send: Send) -> None:
        """Whether the server takes work."""
        status, word = (503, "draining") if self._draining.begun else (200, "ok")
        body = json.dumps({"status": word, "bindings": len(self._open), "sessions": self._draining.sessions}).encode()
        await _send_page(send, status, body, (b"content-type", b"application/json"))

    async def _metrics(self, _scope: Scope, send: Send) -> None:
        await _send_page(send, 200, self._watch.exposition(), (b"content-type", CONTENT_TYPE))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold the bindings open. The lifespan protocol does this; who calls the application directly does it here.

        Raises:
            ExceptionGroup: of BindingErrors, if a binding cannot be opened. Those opened before are closed.
        """
        async with anyio.create_task_group() as self._tasks:
            try:
                await self.replace_bindings(self._declared)
                yield
            finally:
                await self._open.aclose()
            self._tasks.cancel_scope.cancel()

    async def replace_bindings(self, bindings: Mapping[str, Declaration]) -> None:
        """Have these bindings, and no others: see `OpenBindings.replace`, which has what it raises."""
        assert self._tasks is not None, "the application is running"
        await self._open.replace(bindings, self._tasks)

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
        asked = Asked.by(scope)
        name, channel = asked.name, asked.channel
        found = self._gate.refusal(scope) or self._binding(asked)
        if isinstance(found, Refusal) or name is None:
            await self._refusals.refuse(_certain(found), name, scope, receive, send)
            return
        counted_receive, counted_send = self._watch.counted(name, channel, receive, send)
        async with found.used() as opened:
            binding = _chosen(opened, asked.dispatch)
            if isinstance(binding, Refusal):
                await self._refusals.refuse(binding, name, scope, counted_receive, counted_send)
            elif asked.address is not None and not isinstance(binding, Connectable):
                await self._refusals.refuse(_NOT_CONNECTABLE, name, scope, counted_receive, counted_send)
            elif channel == "websocket":
                with self._watch.request(name, channel, scope, counted_send) as watched_send:
                    if asked.address is not None and isinstance(binding, Connectable):
                        await serve_tcp(binding, asked.address, counted_receive, watched_send)
                    else:
                        await serve_fetched_websocket(binding, scope, counted_receive, forwarded(watched_send))
            else:
                with self._watch.session(name):
                    await self._session(name, found, placed(binding, name, scope), scope, counted_receive, counted_send)

    async def _session(
        self, name: str, found: OpenBinding, binding: Binding, scope: Scope, receive: Receive, send: Send
    ) -> None:
        watched = self._watch.calls_of(name)
        opened: RpcSession

        def on_open(session: RpcSession) -> None:
            nonlocal opened
            opened = session
            self._draining.opened(session)
            found.opened(session)
            self._idle.opened(session)

        def on_call(method: str) -> Callable[[BaseException | None], object]:
            self._idle.used(opened)
            return watched(method)

        options = self._options or DEFAULT_OPTIONS
        limits = options.limits
        most = _MAX_RUNNING.get(found.declared.kind)
        if most is not None and most < limits.max_running:
            limits = attrs.evolve(limits, max_running=most)
        options = attrs.evolve(options, on_call=on_call, limits=limits)
        await serve_rpc(binding, scope, receive, send, options, on_open)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._gate.refusal(scope)
        if refusal is None and header(scope, _DESCRIBE) is not None:
            await self._describe(send)
            return
        asked = Asked.by(scope)
        name = asked.name
        found = refusal or self._binding(asked)
        if isinstance(found, Refusal) or name is None:
            await self._refusals.refuse(_certain(found), name, scope, receive, send)
            return
        receive, send = self._watch.counted(name, "http", receive, send)
        async with found.used() as opened:
            binding = _chosen(opened, asked.dispatch)
            if isinstance(binding, Refusal):
                await self._refusals.refuse(binding, name, scope, receive, send)
            elif header(scope, _CONNECTION_STRING) is not None:
                await serve_connection_string(binding, forwarded(send))
            else:
                with self._watch.request(name, "http", scope, send) as watched_send:
                    await serve_http(binding, scope, receive, forwarded(watched_send))

    async def _describe(self, send: Send) -> None:
        """Tell which bindings there are, and of which types."""
        bindings = {name: {"type": kind} for name, kind in self._open.kinds().items()}
        body = json.dumps({"bindings": bindings}).encode()
        await _send_page(send, 200, body, (b"content-type", b"application/json"), (_DESCRIBE, b"1"))

    def _binding(self, asked: Asked) -> OpenBinding | Refusal:
        """The binding that is asked for."""
        if not asked.name:
            return NAMELESS
        found = self._open.get(asked.name)
        if found is None:
            # The words of Cloudflare's proxy worker.
            return Refusal(400, f'Binding "{asked.name}" not found', "binding")
        kind = found.declared.kind
        if asked.kind is not None and not usable_as(kind, asked.kind):
            return Refusal(400, f"it is of the type {kind!r}", "type")
        return found


def _certain(found: OpenBinding | Refusal) -> Refusal:
    assert isinstance(found, Refusal), "nothing has no name"
    return found


def _chosen(binding: Binding, dispatch: str | None) -> Binding | Refusal:
    """The binding itself, or what a dispatch namespace gives for the options of a `get`."""
    if dispatch is None:
        return binding
    if not isinstance(binding, Dispatcher):
        return Refusal(400, f"{DISPATCH_OPTIONS} is for dispatch namespaces, and the binding is none", "request")
    try:
        return binding.dispatched(Dispatch.parse(dispatch))
    except DispatchError as error:
        return Refusal(error.status, str(error), "request")


async def _send_page(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


# What is asked of the server itself, by the name that stands behind the secret.
_PAGES: Final = {"healthz": ProxyApp._health, "metrics": ProxyApp._metrics}
