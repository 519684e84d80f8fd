"""What the clients of peers on asyncio do, when each has said how it makes a call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ..lines import Found, obey
from ..records import MEBIBYTE, RECORD

__all__ = ["obey_on_asyncio"]

Call = Callable[[Any], Awaitable[Any]]


async def in_flight(width: int, count: int, call: Callable[[int], Awaitable[Any]]) -> None:
    """Make `count` calls, `width` at once, then the next `width`."""
    for _ in range(0, count, width):
        await asyncio.gather(*[call(i) for i in range(width)])


async def obey_on_asyncio(add: Callable[[int], Awaitable[int]], echo: Call, echo_bytes: Call | None = None) -> None:
    """Run what standard input says, until it is closed.

    Args:
        add: calls the server's `add` with this number and 1.
        echo: calls its `echo` with a record.
        echo_bytes: the same with bytes; None for a peer that has none.
    """

    async def run(name: str, count: int) -> Found:
        if name == "sequential":
            for i in range(count):
                await add(i)
        elif name == "record50":
            await in_flight(50, count, lambda _: echo(RECORD))
        elif name == "echo1MiB" and echo_bytes is not None:
            for _ in range(count):
                await echo_bytes(MEBIBYTE)
        else:
            await in_flight(int(name.removeprefix("concurrent")), count, add)
        return {}

    await obey(run)
