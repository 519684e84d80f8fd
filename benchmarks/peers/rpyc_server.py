"""The server on rpyc, as a program. What it prints and reads is in ../lines.py.

rpyc passes dicts and lists by reference. So that the record goes there and back, it travels as JSON, by orjson.
"""

from __future__ import annotations

import socket
from threading import Thread

import anyio
import orjson
import rpyc
from rpyc.utils.server import ThreadedServer

from ..lines import report_cost, say


class Api(rpyc.Service):
    """What the client calls."""

    def exposed_add(self, a: int, b: int) -> int:
        return a + b

    def exposed_echo(self, record: bytes) -> bytes:
        return orjson.dumps(orjson.loads(record))

    def exposed_echo_bytes(self, value: bytes) -> bytes:
        return value


async def run() -> None:
    """Serve, in threads, until standard input is closed."""
    server = ThreadedServer(Api, hostname="127.0.0.1", port=0)
    # The connections that it accepts have it, too: without, small messages wait for acknowledgements, 40 ms each time.
    server.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Thread(target=server.start, daemon=True).start()
    say({"port": server.port})
    await report_cost()
    server.close()


if __name__ == "__main__":
    anyio.run(run)
