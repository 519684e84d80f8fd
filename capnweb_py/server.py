"""Serving an object to peers: over WebSocket, in HTTP batches, and as an ASGI application for both."""

from __future__ import annotations

import inspect
import ssl as ssl_module
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs

from .codec import Codec
from .options import SessionOptions
from .serialize import check_sendable
from .session import RpcSession
from .stub import RpcStub
from .target import RpcTarget, release, retain
from .transports.address import url_host
from .transports.asgi import RpcApp
from .transports.http_batch import answer_batch
from .transports.websocket import listen

__all__ = ["Server", "asgi_app", "http_batch_response", "main_factory", "serve"]


@attrs.frozen
class Server:
    """A server that accepts connections.

    Attributes:
        url: where clients connect; this machine's own address if the server listens on all.
        port: the port that it listens on.
        sessions: the sessions that are open now.
    """

    url: str
    port: int
    sessions: Collection[RpcSession]

    async def serve_forever(self) -> None:
        """Serve until cancelled."""
        await anyio.sleep_forever()


def main_factory(main: Any) -> Callable[[], Any]:
    """What makes the main object of one session: a class or function does when called, anything else is shared by
    all.

    Raises:
        TypeError: if what it is, or makes, cannot be served.
    """
    if inspect.isclass(main) and not issubclass(main, RpcTarget):
        raise TypeError(f"{main.__qualname__} cannot be served: derive it from RpcTarget, then peers reach its methods")
    if inspect.iscoroutinefunction(main):
        raise TypeError(f"{main.__qualname__}() makes main objects, and has to be a plain function for that")
    if callable(main) and not isinstance(main, (RpcTarget, RpcStub)):
        factory: Callable[[], Any] = main
        return lambda: _servable(factory())
    _servable(main)
    return lambda: main


def _servable(main: Any) -> Any:
    try:
        check_sendable(main)
    except TypeError as error:
        raise TypeError(f"the main object cannot be served: {error}") from None
    return main


@asynccontextmanager
async def serve(
    main: Any,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    options: SessionOptions | None = None,
    codecs: Sequence[Codec] = (),
    ssl: ssl_module.SSLContext | None = None,
    origins: Sequence[str | None] | None = None,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
) -> AsyncIterator[Server]:
    """Serve an object over WebSocket for as long as the context lasts. At its end every connection is closed.

        async with serve(Api, "127.0.0.1", 8000) as server:
            await server.serve_forever()

    Args:
        main: what a client gets as its main object. A class or function is called for each session; an instance is
            shared by all of them, and its `dispose` is called when the server ends.
        host: the address to listen on; "127.0.0.1" is reachable from this machine only.
        port: the port, or 0 for a free one: see `server.port`.
        options: limits, and what is told of errors.
        codecs: codecs of your own, beside CBOR and JSON; a client gets one if it asks for its subprotocol.
        ssl: the TLS settings and certificate; None for no TLS.
        origins: the origins of web pages that may connect, None among them for clients that name none; by default all
            may.
        open_timeout: seconds that a client may take to open a connection.
        ping_interval: seconds between the pings that keep an idle connection alive and notice a dead one; None for
            none.
        ping_timeout: seconds that the answer to a ping may take.

    Raises:
        OSError: if it cannot listen there.
        TypeError: if `main` cannot be served: its class is no RpcTarget.
    """
    make_main = main_factory(main)
    retain(main)
    try:
        async with listen(
            host,
            port,
            make_main,
            options,
            codecs=codecs,
            ssl=ssl,
            origins=origins,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
        ) as listening:
            scheme = "ws" if ssl is None else "wss"
            url = f"{scheme}://{url_host(listening.host)}:{listening.port}/"
            yield Server(url, listening.port, listening.sessions)
    finally:
        release(main)


async def http_batch_response(body: bytes, main: Any, options: SessionOptions | None = None) -> bytes:
    """Answer a batch: the body of a POST request. Returns the body of the response, for the status 200.

        async def rpc(request: HttpRequest) -> HttpResponse:                     # a view of Django
            return HttpResponse(await http_batch_response(request.body, Api), content_type="text/plain")

    It is there when every call has ended, with the answers that the client asked for. What is wrong with the batch is
    said in the response, as the reason of an `abort`, behind the answers that were ready before. What the client was
    handed is disposed by then, and calls that wait for an answer of the client's fail: there is no way back to it.

    Which clients may call is for the caller to say, and how long they may take. Web pages of any origin can send such a
    request with their user's cookies: `asgi_app` refuses those.

    Args:
        body: of the request.
        main: what the client gets as its main object. A class or function is called for it; an instance stays the
            caller's, and is not disposed.
        options: limits, and what is told of errors.

    Raises:
        TypeError: if `main` cannot be served: its class is no RpcTarget.
    """
    make_main = main_factory(main)
    retain(main)
    return await answer_batch(body, make_main(), options)


def asgi_app(main: Any, options: SessionOptions | None = None, *, allowed_origins: Collection[str] = ()) -> RpcApp:
    """An ASGI application that serves an object over WebSocket, and in batches that are posted to it.

        app = asgi_app(Api)                                             # uvicorn module:app
        Starlette(routes=[Mount("/rpc", asgi_app(Api))])                # at /rpc/
        fastapi.mount("/rpc", asgi_app(Api))

    Web pages may use it that come from the same host, and those of `allowed_origins`; others get 403. Programs are no
    pages, and may always. Any other method than POST gets 405, a body that is too large 413. What is wrong inside a
    batch is said in its response, whose status is 200: see `http_batch_response`. When a client leaves, its calls are
    cancelled.

    Args:
        main: what a client gets as its main object. A class or function is called for each session and each batch; an
            instance is shared by all of them, and its `dispose` is called when the server ends the application's
            lifespan (which Starlette does not tell those that it mounts).
        options: limits, and what is told of errors.
        allowed_origins: more origins of web pages that may use it, as in ["https://app.example"]; ["*"] is all of them.
            Their batches are answered with the headers that CORS wants, but for those that would let them send cookies.

    Raises:
        TypeError: if `main` cannot be served: its class is no RpcTarget.
        ValueError: if one of `allowed_origins` is no origin.
    """
    return RpcApp(main_factory(main), main, options, allowed_origins)
