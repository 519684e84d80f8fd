"""Raw TCP behind a binding, as VPC and Hyperdrive bindings have it."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import ByteStream, SocketAttribute

from ..errors import RpcError
from .fetcher import Fetcher
from .tunnel import rpc_stream

__all__ = ["Connect"]

_log = logging.getLogger("capnweb_py")

# The header of a request for the connection string, as Cloudflare's Hyperdrive bindings have it.
_CONNECTION_STRING: Final = "MF-HD-Seed"


class Connect(Fetcher):
    """The facade of a binding that makes TCP connections. `fetch` sends HTTP requests to the same addresses.

    async with env.DB.connect("db.internal:5432") as stream:
        await stream.send(b"...")
        answer = await stream.receive()
    """

    @asynccontextmanager
    async def connect(self, address: str) -> AsyncIterator[ByteStream]:
        """Connect, and yield an anyio byte stream, which the end of the block closes.

        The proxy says that it cannot or may not connect where the stream is first used: `receive` and `send` raise
        TunnelError, which tells why. Over the HTTP channel a tunnel has one end: `send_eof` delivers all that was sent
        and ends both directions. Over the RPC channel it ends one, and `receive` goes on.

        Args:
            address: "host:port".

        Raises:
            ConnectionError: if the proxy cannot be reached, or refuses the tunnel.
        """
        if self._channels.preferred == "rpc":
            connecting = rpc_stream(self._channels.rpc, address)
        else:
            connecting = self._channels.tunnel(address)
        async with connecting as stream:
            yield stream

    @asynccontextmanager
    async def forward(self, address: str) -> AsyncIterator[int]:
        """Listen on a port of this machine's loopback, and yield it: each connection to it leads to the address.

        It is for what opens its connections by itself, as drivers of databases do. Whoever can reach loopback can use
        the port meanwhile.

            async with env.DB.forward("db.internal:5432") as port:
                await asyncpg.connect(host="127.0.0.1", port=port, user="app", password=password)

        Args:
            address: "host:port".
        """

        async def handle(local: ByteStream) -> None:
            async with local:
                try:
                    async with self.connect(address) as remote:
                        await _relay(local, remote)
                except (RpcError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                    _log.warning("a connection to %s ended: %s", address, error)

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle, tasks)
            yield listener.extra(SocketAttribute.local_port)
            tasks.cancel_scope.cancel()

    async def connection_string(self) -> str:
        """What a database's driver needs: a secret.

        Raises:
            RpcError: if the binding has none.
            ConnectionError: if the proxy cannot be reached.
        """
        if self._channels.preferred == "rpc":
            text: str = await self._channels.rpc.getConnectionString()
            return text
        response = await self._channels.ask({_CONNECTION_STRING: "true"})
        body = await response.bytes()
        if not response.ok:
            raise RpcError(f"no connection string: {body.decode(errors='replace')}")
        seeded: str = json.loads(body)["connectionString"]
        return seeded

    def __repr__(self) -> str:
        return f"<connect {self._channels.name}>"


async def _relay(local: ByteStream, remote: ByteStream) -> None:
    """Pass bytes on both ways until each side has ended."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_copy, local, remote)
        await _copy(remote, local)


async def _copy(source: ByteStream, target: ByteStream) -> None:
    try:
        async for chunk in source:
            await target.send(chunk)
        await target.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        # Both directions: what has not come does not come any more.
        await source.aclose()
        await target.aclose()
        if isinstance(error, RpcError):
            _log.warning("a connection ended: %s", error)
