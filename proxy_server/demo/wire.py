"""A link of a known length between a client and a server, that counts how often the client had to wait for the server.

A round trip is counted where it happens, on the wire: bytes from the server that follow bytes from the client end
one. The link delays everything by a fixed time, as a network would, so that the cost of a round trip can be seen
on one machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream, SocketAttribute

__all__ = ["Link", "linked"]


class Link:
    """A running link.

    Attributes:
        port: where clients connect, on the loopback address.
        round_trips: how many there have been.
    """

    def __init__(self, port: int, delay: float) -> None:
        self.port = port
        self.round_trips = 0
        self._delay = delay
        # Whether the bytes that went last over any connection came from the client.
        self._client_spoke = False

    def note(self, from_client: bool) -> None:
        """Bytes set out."""
        if self._client_spoke and not from_client:
            self.round_trips += 1
        self._client_spoke = from_client

    async def carry(self, client: ByteStream, server_port: int) -> None:
        """Carry one connection both ways until both ends have closed."""
        server = await anyio.connect_tcp("127.0.0.1", server_port)
        async with client, server, anyio.create_task_group() as tasks:
            tasks.start_soon(self._one_way, client, server, True)
            tasks.start_soon(self._one_way, server, client, False)

    async def _one_way(self, source: ByteStream, destination: ByteStream, from_client: bool) -> None:
        """Carry bytes, each of which arrives `delay` seconds after it set out, however many are on their way."""
        into, out_of = anyio.create_memory_object_stream[tuple[float, bytes]](1000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._arrive, out_of, destination)
            async with into:
                try:
                    async for chunk in source:
                        self.note(from_client)
                        await into.send((anyio.current_time() + self._delay, chunk))
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass  # the source is gone, and what it has sent arrives yet

    async def _arrive(
        self, arriving: anyio.abc.ObjectReceiveStream[tuple[float, bytes]], destination: ByteStream
    ) -> None:
        async with arriving:
            try:
                async for when, chunk in arriving:
                    await anyio.sleep_until(when)
                    await destination.send(chunk)
                await destination.send_eof()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # the destination is gone, and the other direction ends by itself


@asynccontextmanager
async def linked(server_port: int, delay: float) -> AsyncIterator[Link]:
    """A link to a server on this machine.

    Args:
        server_port: where the server listens, on the loopback address.
        delay: how long a byte takes from one end to the other, in seconds.
    """
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        link = Link(listener.extra(SocketAttribute.local_port), delay)
        tasks.start_soon(listener.serve, lambda client: link.carry(client, server_port))
        yield link
        tasks.cancel_scope.cancel()
