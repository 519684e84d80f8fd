"""Raw TCP behind a binding, as VPC and Hyperdrive bindings have it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.abc import ByteStream

from ..errors import RpcError
from .fetcher import Fetcher
from .tunnel import open_tunnel, rpc_stream

__all__ = ["Connect"]

# The header of a request for the connection string, as Cloudflare's Hyperdrive bindings have it.
_CONNECTION_STRING = "MF-HD-Seed"


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
            RpcError: if the proxy refuses the tunnel. OSError: if it cannot be reached.
        """
        if self._channels.preferred == "rpc":
            connecting = rpc_stream(self._channels.rpc, address)
        else:
            headers = {"MF-Binding": self._channels.name, "MF-Connect-Address": address}
            connecting = open_tunnel(self._channels.websocket_url, headers)
        async with connecting as stream:
            yield stream

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
