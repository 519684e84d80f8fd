"""A service: an object of somebody else's, with methods to call and, where it has one, an HTTP side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ..handle import Handle
from ..hooks import Hook
from ..stub import RpcPromise
from ..web import BodyInit, HeadersInit, Request, Response
from ..web_socket import WebSocket
from .channels import Channels

__all__ = ["Service"]


class Service(Handle):
    """The facade of a service binding: `env.GREETER.hello("World")` calls, `env.GREETER.fetch(request)` requests.

    Every name but `fetch` and `websocket` is a member of the remote object, as on a stub; `service["fetch"]` reaches
    one of that name.
    Passed in a call or a result, it arrives as a stub of the remote object.
    """

    __slots__ = ("_channels",)

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    # As a handle it stands for the main object of the session that there is at the time, and owns nothing: whoever
    # passes it on makes a second hook of this one, and the session keeps its own.

    @property
    def _hook(self) -> Hook:  # type: ignore[override]  # read, never set
        return self._channels.rpc._hook

    @property
    def _path(self) -> None:  # type: ignore[override]
        return None

    def __getattr__(self, name: str) -> RpcPromise:
        promise: RpcPromise = getattr(self._channels.rpc, name)
        return promise

    def __getitem__(self, name: str | int) -> RpcPromise:
        return self._channels.rpc[name]

    async def fetch(
        self,
        request: Request | str,
        *,
        method: str = "GET",
        headers: HeadersInit | None = None,
        body: BodyInit = None,
    ) -> Response:
        """Send an HTTP request to the service.

        Args:
            request: the request, or its URL, which the further arguments then make one of.

        Raises:
            ConnectionError: if the proxy cannot be reached.
        """
        if isinstance(request, str):
            request = Request(request, method=method, headers=headers, body=body)
        return await self._channels.fetch(request)

    @asynccontextmanager
    async def websocket(
        self, url: str, *, subprotocols: Sequence[str] = (), headers: HeadersInit | None = None
    ) -> AsyncIterator[WebSocket]:
        """Open a WebSocket to the service, which is closed at the end of the block.

            async with env.CHAT.websocket("https://chat.example/room") as socket:
                await socket.send("hello")
                async for message in socket: ...

        Args:
            url: what the service is asked for; http, https, ws or wss.
            subprotocols: what to offer, what is liked best first. `socket.subprotocol` is what was chosen.
            headers: of the handshake.

        Raises:
            WebSocketRefused: if the service answers with an ordinary response, which is its `response`.
            ConnectionError: if the proxy cannot be reached.
        """
        request = Request(url, headers=headers)
        async with self._channels.websocket(request, subprotocols) as socket:
            yield socket

    def __repr__(self) -> str:
        return f"<service {self._channels.name}>"

    # A member can be named by an index, so Python would take a service for an endless sequence.
    __iter__: Any = None
