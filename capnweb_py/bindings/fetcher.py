"""A fetcher: an HTTP server behind a binding (AI, Vectorize, Browser Rendering, mTLS certificates, Pipelines ...)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ..stub import RpcStub
from ..web import BodyInit, HeadersInit, Request, Response
from ..web_socket import WebSocket
from .channels import Channels

__all__ = ["Fetcher", "Pipeline"]


class Fetcher:
    """The facade of a binding that is plain HTTP.

    response = await env.AI.fetch("https://ai/run", method="POST", body=b"...")
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    @property
    def rpc(self) -> RpcStub:
        """The stub of the remote binding, which has `fetch` as JavaScript's."""
        return self._channels.rpc

    async def fetch(
        self,
        request: Request | str,
        *,
        method: str = "GET",
        headers: HeadersInit | None = None,
        body: BodyInit = None,
    ) -> Response:
        """Send an HTTP request. Both bodies stream; no redirect is followed, and nothing is decoded.

        Where the binding has one server, the host of the URL means nothing: its path and query are asked for there.
        Where it has an allow-list of hosts, the request goes to its URL, or comes back with the status 403.

        Args:
            request: the request, or its URL, which the further arguments then make one of.

        Raises:
            ConnectionError: if the proxy cannot be reached, or refuses the request. Reading the body raises it if it
                breaks off.
            SessionClosed: if the session is lost meanwhile, over the RPC channel.
        """
        if isinstance(request, str):
            request = Request(request, method=method, headers=headers, body=body)
        if self._channels.preferred == "rpc":
            response: Response = await self._channels.rpc.fetch(request)
            return response
        return await self._channels.fetch(request)

    @asynccontextmanager
    async def websocket(
        self, url: str, *, subprotocols: Sequence[str] = (), headers: HeadersInit | None = None
    ) -> AsyncIterator[WebSocket]:
        """Open a WebSocket to where `fetch` sends a request with this URL. It is closed at the end of the block.

        Args:
            url: http, https, ws or wss.
            subprotocols: what to offer, what is liked best first. `socket.subprotocol` is what was chosen.
            headers: of the handshake.

        Raises:
            WebSocketRefused: if the answer is an ordinary response, which is its `response`.
            ConnectionError: if the proxy cannot be reached.
        """
        async with self._channels.websocket(Request(url, headers=headers), subprotocols) as socket:
            yield socket

    def __repr__(self) -> str:
        return f"<fetcher {self._channels.name}>"


class Pipeline(Fetcher):
    """The facade of a pipeline."""

    async def send(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Send records. They go over the RPC channel.

        Raises:
            RpcError: if they are not accepted.
        """
        await self._channels.rpc.send([dict(record) for record in records])

    def __repr__(self) -> str:
        return f"<pipeline {self._channels.name}>"
