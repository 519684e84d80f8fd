"""The server on grpc.aio, as a program. What it prints and reads is in ../lines.py.

Values are JSON, by orjson, and bytes are bytes: the methods are registered by hand, so that no code is generated.
"""

from __future__ import annotations

from typing import Any

import anyio
import grpc
import orjson

from ..lines import report_cost, say


async def add(request: list[int], _context: object) -> int:
    return request[0] + request[1]


async def echo(request: Any, _context: object) -> Any:
    return request


async def run() -> None:
    """Serve until standard input is closed."""
    json = {"request_deserializer": orjson.loads, "response_serializer": orjson.dumps}
    methods = {
        "add": grpc.unary_unary_rpc_method_handler(add, **json),
        "echo": grpc.unary_unary_rpc_method_handler(echo, **json),
        "echoBytes": grpc.unary_unary_rpc_method_handler(echo),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Api", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say({"port": port})
    await report_cost()
    await server.stop(None)


if __name__ == "__main__":
    anyio.run(run)
