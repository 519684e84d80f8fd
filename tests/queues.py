"""Queues for tests: a server with many, of which each test has one that nobody else uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import attrs
from proxying import serving

from capnweb_py.bindings.channels import Channel
from capnweb_py.bindings.queue import Queue
from capnweb_py.remote import connect_env

__all__ = ["QueueServer", "own_queue", "queue_server"]

# As many as the tests of one file may ask for.
QUEUES: Final = 160

# Leases are long: what comes again does so for another reason.
_TABLES: Final = """
[bindings.Q{0}]
type = "queue"
max_retries = 1
dead_letter_queue = "dead-{0}"
visibility_timeout_ms = 3600000

[bindings.DEAD{0}]
type = "queue"
queue = "dead-{0}"
"""


@attrs.frozen
class QueueServer:
    """A running server: its connection string, and the numbers of the queues that nobody has used yet."""

    url: str
    unused: Iterator[int] = attrs.field(factory=lambda: iter(range(QUEUES)))


@contextmanager
def queue_server(directory: Path) -> Iterator[QueueServer]:
    """A server with queues and their dead-letter queues, for the length of a block."""
    config = directory / "capnweb.toml"
    config.write_text("".join(_TABLES.format(number) for number in range(QUEUES)))
    with serving(config) as server:
        yield QueueServer(server.url)


@asynccontextmanager
async def own_queue(server: QueueServer, channel: Channel) -> AsyncIterator[tuple[Queue, Queue]]:
    """A queue that was never used before, and its dead-letter queue."""
    number = next(server.unused)
    async with connect_env(server.url, channel=channel) as env:
        yield env[f"Q{number}"], env[f"DEAD{number}"]
