"""A WebSocket that is passed on: what comes at one end goes out at the other, no faster than it is taken."""

from __future__ import annotations

import anyio

from capnweb_py.transports.driver import cut_reason
from capnweb_py.web_socket import WebSocket, WebSocketClosed, sendable_code

__all__ = ["relay"]


async def relay(one: WebSocket, other: WebSocket) -> None:
    """Carry messages both ways until one side closes; the other one is closed with the same code and reason."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_carry, one, other)
        tasks.start_soon(_carry, other, one)


async def _carry(source: WebSocket, sink: WebSocket) -> None:
    try:
        while True:
            message = await source.receive()
            try:
                await sink.send(message)
            except WebSocketClosed:
                return  # how, the task of the other direction hears, and says to the source
    except WebSocketClosed as end:
        await sink.close(sendable_code(end.code), cut_reason(end.reason))
