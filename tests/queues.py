"""Queues for tests: a server with many, of which each test has one that nobody else uses."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from proxying import Server, serving

from capnweb_py.bindings.channels import Channel
from capnweb_py.bindings.queue import Queue
from capnweb_py.remote import connect_env

__all__ = ["own_queue", "queue_server"]

# As many as the tests of one file may ask for.
QUEUES: Final = 160
_NUMBERS: Final = itertools.count()

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


@contextmanager
def queue_server(directory: Path) -> Iterator[Server]:
    """A server with queues and their dead-letter queues, for the length of a block."""
    config = directory / "capnweb.toml"
    config.write_text("".join(_TABLES.format(number) for number in range(QUEUES)))
    with serving(config) as server:
        yield server


@asynccontextmanager
async def own_queue(server: Server, channel: Channel) -> AsyncIterator[tuple[Queue, Queue]]:
    """A queue that was never used before, and its dead-letter queue."""
    number = next(_NUMBERS)
    async with connect_env(server.url, channel=channel) as env:
        yield env[f"Q{number}"], env[f"DEAD{number}"]
