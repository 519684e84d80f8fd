"""Connecting to a peer: `connect` for its main object, `open_session` for the session around it."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from .codec import Codec
from .options import SessionOptions
from .session import RpcSession
from .stub import RpcStub
from .transports.websocket import open_websocket

__all__ = ["connect", "open_session"]


@asynccontextmanager
async def open_session(
    url: str,
    *,
    local_main: Any = None,
    options: SessionOptions | None = None,
    headers: Mapping[str, str] | None = None,
    codec: str | Codec | None = None,
    ssl: ssl_module.SSLContext | None = None,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
) -> AsyncIterator[RpcSession]:
    """Connect to a peer over WebSocket, and run a session with it until the context ends.

        async with open_session("ws://127.0.0.1:8000/") as session:
            await session.remote_main.hello("World")
            session.stats()

    What was called by then is sent before the connection closes. If the connection breaks earlier, everything pending
    on it fails with SessionClosed.

    Args:
        url: ws:// or wss://, with the host and path of the peer.
        local_main: the object that the peer gets as its `remote_main`; a target, a function, or any value that can be
            sent.
        options: limits, and what is told of errors.
        headers: more headers for the opening request, such as "Authorization".
        codec: "json", "cbor", one of your own, or None for the best that both sides speak.
        ssl: the TLS settings of a wss:// connection; None for the system's.
        open_timeout: seconds that connecting may take; None for no limit.
        ping_interval: seconds between the pings that keep an idle connection alive and notice a dead one; None for
            none.
        ping_timeout: seconds that the answer to a ping may take.

    Raises:
        OSError: if the peer cannot be reached. TimeoutError, one of them, if it does not answer in time.
        RpcError: if it refuses the connection, or does not speak the codec.
        ValueError: if the URL or the codec is none.
    """
    async with open_websocket(
        url,
        local_main,
        options,
        headers=headers,
        codec=codec,
        ssl=ssl,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
    ) as session:
        yield session


@asynccontextmanager
async def connect(
    url: str,
    *,
    local_main: Any = None,
    options: SessionOptions | None = None,
    headers: Mapping[str, str] | None = None,
    codec: str | Codec | None = None,
    ssl: ssl_module.SSLContext | None = None,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
) -> AsyncIterator[RpcStub]:
    """Connect to a peer, and yield the stub of its main object. The arguments and errors are those of `open_session`.

    async with connect("ws://127.0.0.1:8000/") as api:
        await api.hello("World")
    """
    async with open_session(
        url,
        local_main=local_main,
        options=options,
        headers=headers,
        codec=codec,
        ssl=ssl,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
    ) as session:
        yield session.remote_main
