"""The client on py-capnweb, as a program: `python -m benchmarks.peers.py_capnweb_client URL`. See ../lines.py."""

from __future__ import annotations

import sys

import anyio
from capnweb import Client, ClientConfig

from .workloads import obey_on_asyncio


async def run(url: str) -> None:
    """Run what standard input says, until it is closed."""
    async with Client(ClientConfig(url=f"{url}rpc/ws")) as client:
        await obey_on_asyncio(
            lambda i: client.call(0, "add", [i, 1]),
            lambda record: client.call(0, "echo", [record]),
        )


if __name__ == "__main__":
    anyio.run(run, sys.argv[1])
