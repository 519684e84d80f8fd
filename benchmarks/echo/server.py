"""A server that echoes messages over bare `websockets`, as a program. What it prints and reads is in ../lines.py.
asyncio only: so is the echo's driver."""

from __future__ import annotations

import anyio
from websockets.asyncio.server import ServerConnection, serve

from ..lines import report_cost, say


async def echo(connection: ServerConnection) -> None:
    """Send back every message."""
    async for message in connection:
        await connection.send(message)


async def run() -> None:
    """Serve until standard input is closed."""
    async with serve(echo, "127.0.0.1", 0, compression=None) as server:
        say({"port": next(iter(server.sockets)).getsockname()[1]})
        await report_cost()


if __name__ == "__main__":
    anyio.run(run)
