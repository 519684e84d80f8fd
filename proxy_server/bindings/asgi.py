"""An ASGI application in this process as a binding: requests become scopes and events, with no socket between.

The application runs as under any ASGI server (https://asgi.readthedocs.io): its lifespan once, for the
proxy's own life; a task for each request, which goes on after the response is complete, for what the
application does in the background.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import anyio
from anyio.abc import TaskGroup

from capnweb_py.web import Headers, ReadableStream, Request, Response
from proxy_server.bindings import BindingError
from proxy_server.channels import BODILESS_STATUSES, LOG, AsgiApp, Scope, end_to_end
from proxy_server.channels.chunks import ChunkPipe
from proxy_server.channels.handshake import Handshake

__all__ = ["AsgiService"]

_ASGI_VERSION: Final = {"version": "3.0", "spec_version": "2.4"}
_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}

# How long an application may take over its shutdown, in seconds, before it is cancelled.
_SHUTDOWN_TIMEOUT: Final = 10.0


class AsgiService:
    """Answers the HTTP channel, and WebSockets of fetch(), with an ASGI application. It has no RPC side.

    Args:
        app: the application.
        name: the "module:name" that it is, for messages.
        tasks: where its lifespan and its requests run.
    """

    def __init__(self, app: AsgiApp, name: str, tasks: TaskGroup) -> None:
        self._app = app
        self._name = name
        self._tasks = tasks
        self._lifespan = _Lifespan(app, name)

    async def start(self) -> None:
        """Run the application's startup.

        Raises:
            BindingError: if the application says that it failed.
        """
        await self._lifespan.start(self._tasks)

    def rpc_main(self) -> object:
        raise BindingError(f"ASGI applications speak HTTP only: use fetch() of {self._name}")

    async def fetch(self, request: Request) -> Response:
        exchange = _Exchange(request, self._name)
        self._tasks.start_soon(exchange.run, self._app, _http_scope(request, self._lifespan.state))
        return await exchange.response()

    async def websocket(self, handshake: Handshake) -> None:
        """Have the application answer a handshake: it says what it wants by ASGI's own events."""
        scope = _websocket_scope(handshake, self._lifespan.state)
        await self._app(scope, handshake.receive, handshake.send)

    async def aclose(self) -> None:
        """Run the application's shutdown."""
        await self._lifespan.stop()


class _Lifespan:
    """One application's lifespan protocol, from the server's side."""

    def __init__(self, app: AsgiApp, name: str) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._name = name
        # What the application is told next: startup, then shutdown, then nothing.
        self._phases = iter(("startup", "shutdown"))
        self._startup_over = anyio.Event()
        self._failure: str | None = None
        self._stopping = anyio.Event()
        self._stopped = anyio.Event()

    async def start(self, tasks: TaskGroup) -> None:
        """Have the application start up, and wait until it has."""
        tasks.start_soon(self._run)
        await self._startup_over.wait()
        if self._failure is not None:
            raise BindingError(f"{self._name} failed to start: {self._failure}")

    async def stop(self) -> None:
        """Have the application shut down, and wait until it has."""
        self._stopping.set()
        with anyio.move_on_after(_SHUTDOWN_TIMEOUT) as patience:
            await self._stopped.wait()
        if patience.cancelled_caught:
            LOG.warning("%s did not shut down within %s s and is cancelled", self._name, _SHUTDOWN_TIMEOUT)

    async def _run(self) -> None:
        try:
            scope = {"type": "lifespan", "asgi": _ASGI_VERSION, "state": self.state}
            await self._app(scope, self._receive, self._send)
        except Exception:
            # ASGI, section "Lifespan Protocol": an application that raises at startup does without a
            # lifespan. One that said why it failed may raise too, and has been heard already.
            if self._startup_over.is_set() and self._failure is None:
                LOG.exception("%s failed in its lifespan", self._name)
        finally:
            self._startup_over.set()
            self._stopped.set()

    async def _receive(self) -> dict[str, Any]:
        phase = next(self._phases, None)
        if phase == "shutdown":
            await self._stopping.wait()
        elif phase is None:
            await anyio.sleep_forever()
        return {"type": f"lifespan.{phase}"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        event = message["type"]
        if event in {"lifespan.startup.failed", "lifespan.shutdown.failed"}:
            self._failure = str(message.get("message", "")) or "it gave no reason"
            LOG.error("%s: %s: %s", self._name, event, self._failure)
        elif event not in {"lifespan.startup.complete", "lifespan.shutdown.complete"}:
            raise RuntimeError(f"{event!r} is no event of the lifespan protocol")
        self._startup_over.set()


class _Exchange:
    """One request and its response, seen by the application as events and by the binding as a Response."""

    def __init__(self, request: Request, name: str) -> None:
        self._name = name
        # Chunks of the request that the application has not been given yet.
        self._upload = None if request.body is None else aiter(request.body)
        # Whether the application has been given the event that ends the request.
        self._uploaded = False
        self._start: MutableMapping[str, Any] | None = None
        self._started = anyio.Event()
        # The response's body. Nothing is ahead: the application's `send` waits until the chunk is taken.
        self._pipe = ChunkPipe(0, self._broken_off)
        # The response is complete, or nobody waits for it any more: the application is told
        # "http.disconnect".
        self._over = anyio.Event()
        self._ended = anyio.Event()
        self._running = anyio.CancelScope()
        self._failure: Exception | None = None

    async def run(self, app: AsgiApp, scope: Scope) -> None:
        """Run the application to its end, which may be after that of the response."""
        try:
            with self._running:
                await app(scope, self._receive, self._send)
        except Exception as error:
            self._failed(error)
        finally:
            self._pipe.stop_writing()
        self._started.set()
        self._ended.set()

    def _failed(self, error: Exception) -> None:
        if self._pipe.complete:
            LOG.error("%s failed after its response", self._name, exc_info=error)
        else:
            self._failure = error

    async def response(self) -> Response:
        """The response, as soon as the application has begun it."""
        try:
            await self._started.wait()
            return await self._begun_response()
        except BaseException:
            # There is no response whose body somebody could close.
            self._let_go()
            raise

    async def _begun_response(self) -> Response:
        if self._start is None:
            raise self._failure or BindingError(f"{self._name} returned without a response")
        status: int = self._start["status"]
        pairs = self._start.get("headers", ())
        headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs)
        if status not in BODILESS_STATUSES:
            return Response(ReadableStream(self), status=status, headers=headers)
        async for chunk in self:
            LOG.warning("%s sent %d bytes with the status %d, which has no body", self._name, len(chunk), status)
        self._let_go()
        return Response(status=status, headers=headers)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._pipe)

    def _broken_off(self) -> Exception:
        return self._failure or BindingError(f"{self._name} returned before the end of its response")

    async def aclose(self) -> None:
        """Stop waiting for the response. An application that has not completed it is cancelled."""
        self._let_go()
        if not self._pipe.complete:
            await self._ended.wait()

    def _let_go(self) -> None:
        self._over.set()
        self._pipe.stop_reading()
        if not self._pipe.complete:
            self._running.cancel()

    async def _receive(self) -> dict[str, Any]:
        if self._uploaded or self._over.is_set():
            await self._over.wait()
            return {"type": "http.disconnect"}
        try:
            chunk = None if self._upload is None else await anext(self._upload, None)
        except ConnectionResetError:
            # The client left before the end of its request.
            return {"type": "http.disconnect"}
        self._uploaded = chunk is None
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        event = message["type"]
        if event == "http.response.start" and self._start is None:
            self._start = message
            self._started.set()
        elif event == "http.response.body" and self._start is not None and not self._pipe.complete:
            chunk = message.get("body", b"")
            if chunk and not await self._pipe.write(chunk):
                # ASGI, section "Disconnected Client": `send` raises a subclass of OSError.
                raise ConnectionResetError("nobody reads the response any more")
            if not message.get("more_body", False):
                self._pipe.finish()
                self._over.set()
        else:
            raise RuntimeError(f"{self._name} sent {event!r} where ASGI does not allow it")


def _http_scope(request: Request, state: dict[str, Any]) -> Scope:
    """The scope of a request (ASGI, section "HTTP Connection Scope")."""
    url = urlsplit(request.url)
    scope = _scope(request, url, state)
    scope.update(type="http", method=request.method, scheme=url.scheme, extensions={})
    return scope


def _websocket_scope(handshake: Handshake, state: dict[str, Any]) -> Scope:
    """The scope of a WebSocket (ASGI, section "WebSocket Connection Scope")."""
    url = urlsplit(handshake.request.url)
    scope = _scope(handshake.request, url, state)
    scope["headers"] += [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-version", b"13"),
        *((b"sec-websocket-protocol", name.encode("latin-1")) for name in handshake.subprotocols),
    ]
    scope.update(
        type="websocket",
        scheme="wss" if url.scheme in {"https", "wss"} else "ws",
        subprotocols=list(handshake.subprotocols),
        extensions=handshake.scope.get("extensions") or {},
    )
    return scope


def _scope(request: Request, url: SplitResult, state: dict[str, Any]) -> Scope:
    """What both have."""
    path = url.path or "/"
    return {
        "asgi": _ASGI_VERSION,
        "http_version": "1.1",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": url.query.encode(),
        "root_path": "",
        "headers": _scope_headers(request, url),
        "client": None,
        "server": (url.hostname, url.port or _DEFAULT_PORTS.get(url.scheme)),
        "state": state.copy(),
    }


def _scope_headers(request: Request, url: SplitResult) -> list[tuple[bytes, bytes]]:
    """The headers as a server reads them from a connection: with the host, and the framing of the body."""
    headers = end_to_end(request.headers)
    headers.setdefault("host", url.netloc.rpartition("@")[2])
    if request.body is not None and request.body.length is not None:
        headers["content-length"] = str(request.body.length)
    elif request.body is not None and "content-length" not in headers:
        headers["transfer-encoding"] = "chunked"
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.pairs()]
