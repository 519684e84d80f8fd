"""A server that echoes messages over bare `websockets`, as a program. It prints {"port": ...} once it accepts
connections, and ends when its standard input is closed. asyncio only: so is the echo's driver."""

from __future__ import annotations

import sys

import anyio
from websockets.asyncio.server import ServerConnection, serve

from ..ours.server import say


async def echo(connection: ServerConnection) -> None:
    """Send back every message."""
    async for message in connection:
        await connection.send(message)


async def run() -> None:
    """Serve until standard input is closed."""
    async with serve(echo, "127.0.0.1", 0, compression=None) as server:
        say({"port": next(iter(server.sockets)).getsockname()[1]})
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(run)
