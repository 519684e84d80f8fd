"""The client on grpc.aio, as a program: `python -m benchmarks.peers.grpc_client URL`, as ../lines.py says."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

import anyio
import grpc
import orjson

from .workloads import obey_on_asyncio


async def run(url: str) -> None:
    """Run what standard input says, until it is closed."""
    json = {"request_serializer": orjson.dumps, "response_deserializer": orjson.loads}
    async with grpc.aio.insecure_channel(urlsplit(url).netloc) as channel:
        add = channel.unary_unary("/Api/add", **json)
        echo = channel.unary_unary("/Api/echo", **json)
        echo_bytes = channel.unary_unary("/Api/echoBytes")
        await obey_on_asyncio(lambda i: add([i, 1]), echo, echo_bytes)


if __name__ == "__main__":
    anyio.run(run, sys.argv[1])
