"""Keeping a WebSocket connection alive with pings, and dropping one whose peer is gone. The same on both event loops.

`websockets` can do the first by itself. A peer that has answered no ping will not answer a close frame either, though,
and it would wait for that, too, for as long as any closing may take.
"""

from __future__ import annotations

from typing import Any, Final

import anyio
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from ..loops import on_asyncio

__all__ = ["keep_alive"]

# What the peer is told, should it be there after all.
_REASON: Final = "keepalive ping timeout"

# How long, in seconds, telling it may take.
_LAST_WORD: Final = 0.2


async def keep_alive(connection: Any, interval: float, timeout: float | None) -> None:  # noqa: ASYNC109 - of the answer
    """Ping until the connection ends, or is dropped because an answer did not come.

    Args:
        connection: of `websockets`, of the running event loop's kind.
        interval: seconds between an answer and the next ping.
        timeout: seconds that an answer may take; None for any number.
    """
    drop = _drop_on_asyncio if on_asyncio() else _drop_on_trio
    try:
        while await _answers(connection, interval, timeout):
            pass
    except ConnectionClosed:
        return
    await drop(connection)


async def _answers(connection: Any, interval: float, timeout: float | None) -> bool:  # noqa: ASYNC109
    """Ping once, after the interval. Returns whether the answer came in time."""
    await anyio.sleep(interval)
    answer = await connection.ping()
    with anyio.move_on_after(timeout) as patience:
        await (answer if on_asyncio() else answer.wait())
    return not patience.cancelled_caught


async def _drop_on_asyncio(connection: Any) -> None:
    connection.protocol.fail(CloseCode.INTERNAL_ERROR, _REASON)
    connection.send_data()
    connection.transport.abort()


async def _drop_on_trio(connection: Any) -> None:
    import trio

    connection.protocol.fail(CloseCode.INTERNAL_ERROR, _REASON)
    with anyio.move_on_after(_LAST_WORD):  # a message may be on its way, which the peer does not take
        await connection.send_data()
    await trio.aclose_forcefully(connection.stream)
