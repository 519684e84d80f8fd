"""The server on py-capnweb, as a program. What it prints and reads is in ../lines.py."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import anyio
from capnweb import RpcError, RpcTarget, Server, ServerConfig

from ..lines import report_cost, say


class Api(RpcTarget):
    """What the client calls."""

    async def call(self, method: str, arguments: list[Any]) -> Any:
        if method == "add":
            return arguments[0] + arguments[1]
        if method == "echo":
            return arguments[0]
        raise RpcError.not_found(method)

    async def get_property(self, name: str) -> Any:
        raise RpcError.not_found(name)


async def run() -> None:
    """Serve until standard input is closed."""
    server = Server(ServerConfig(host="127.0.0.1", port=0))
    server.register_capability(0, Api())
    # It prints where it listens, where only our lines are wanted.
    with contextlib.redirect_stdout(io.StringIO()):
        await server.start()
    say({"port": server.port})
    await report_cost()
    await server.stop()


if __name__ == "__main__":
    anyio.run(run)
