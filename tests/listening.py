"""Servers that run beside a test: ones of bytes on the test's own event loop, and a proxy server in a thread."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener
from asgi_server import asgi_server
from proxying import SECRET

from proxy_server.app import ProxyApp
from proxy_server.auth import Gate
from proxy_server.config import read


@asynccontextmanager
async def listening(handler: Callable[[Any], Awaitable[None]], tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server on loopback; yields its address."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as tcp, anyio.create_task_group() as tasks:
        listener = tcp if tls is None else TLSListener(tcp, tls, standard_compatible=False)

        async def handle(stream: Any) -> None:
            async with stream:
                try:
                    await handler(stream)
                except anyio.BrokenResourceError:
                    pass  # the proxy has reset the connection

        tasks.start_soon(listener.serve, handle)
        yield f"127.0.0.1:{tcp.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def proxy_server(**bindings: Mapping[str, Any]) -> AsyncIterator[str]:
    """A proxy server with these bindings, as tables of its configuration; yields its connection string."""
    async with proxy_server_in(Path(), **bindings) as url:
        yield url


@asynccontextmanager
async def proxy_server_in(folder: Path, **bindings: Mapping[str, Any]) -> AsyncIterator[str]:
    """The same, with its configuration in a folder."""
    app = ProxyApp(read({"bindings": bindings}, folder / "capnweb.toml").bindings, Gate(SECRET))
    server = asgi_server(app)
    authority = server.__enter__()
    try:
        yield f"http://{authority}/{SECRET}/"
    finally:
        # The servers of the tests, which run here, have to go on meanwhile.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.__exit__, None, None, None)


async def everything(stream: ByteStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def echo(stream: ByteStream) -> None:
    async for chunk in stream:
        await stream.send(chunk)
