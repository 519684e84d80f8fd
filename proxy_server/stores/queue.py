"""What a store of queues does, for the queue binding. Implementations: queue_sqlite.py and queue_redis.py.

A message is kept until it is acknowledged. Whoever pulls it has it on lease: nobody else gets it before the lease has
run out. A message that was delivered as often as it may be, and comes due once more, goes to the dead-letter queue, or
away where there is none (Cloudflare Queues documentation, "Batching, Retries and Delays" and "Dead Letter Queues").

Times are milliseconds since 1970, by the clock that a store is opened with. Queues of one store know each other by
name; a store does no more than one queue's work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import attrs

__all__ = [
    "DEFAULT_RETENTION",
    "Clock",
    "Delivered",
    "Metrics",
    "NewMessage",
    "QueueRules",
    "QueueStore",
    "Retry",
    "Settled",
    "wall_clock",
]

Clock: TypeAlias = Callable[[], int]

# How long, in seconds, a queue keeps what nobody acknowledges (Cloudflare Queues documentation, "Limits").
DEFAULT_RETENTION: Final = 4 * 24 * 3600


def wall_clock() -> int:
    """The time of this machine."""
    return int(time.time() * 1000)


@attrs.frozen
class QueueRules:
    """What a queue is called, and what becomes of messages that are not acknowledged.

    Attributes:
        name: of the queue.
        max_retries: how often a message is delivered again after its first delivery.
        dead_letter_queue: the name of the queue in the same store that takes what was delivered too often.
        retention: how long a message is kept, in seconds.
    """

    name: str
    max_retries: int
    dead_letter_queue: str | None = None
    retention: int = DEFAULT_RETENTION


@attrs.frozen
class NewMessage:
    """A message to be stored. It is delivered `delay` seconds later."""

    body: bytes
    content_type: str
    delay: int = 0


@attrs.frozen
class Delivered:
    """A message on lease.

    Attributes:
        id: the message's own; it stays the same, in a dead-letter queue too.
        lease: what acknowledges it.
        timestamp: when it was sent.
        attempts: how often it was delivered, this time included.
    """

    id: str
    lease: str
    timestamp: int
    attempts: int
    body: bytes
    content_type: str


@attrs.frozen
class Retry:
    """A lease to be given back: its message comes again `delay` seconds later."""

    lease: str
    delay: int = 0


@attrs.frozen
class Settled:
    """How many leases were acknowledged and given back, and those of which the queue has no message (any more)."""

    acked: int
    retried: int
    unknown: tuple[str, ...]


@attrs.frozen
class Metrics:
    """What a queue holds: messages that are ready, delayed or on lease.

    `oldest` is when the oldest of them was sent; 0 if there is none.
    """

    count: int
    bytes: int
    oldest: int


class QueueStore(Protocol):
    """One queue. Used by many sessions and requests at a time, and by other processes."""

    async def send(self, messages: Sequence[NewMessage]) -> Metrics:
        """Store messages, all of them or none, and return what the queue holds then."""

    async def pull(self, limit: int, visibility: int) -> list[Delivered]:
        """Take messages that are due on lease, the oldest first.

        Args:
            limit: how many at most.
            visibility: for how long, in milliseconds.
        """

    async def settle(self, acks: Sequence[str], retries: Sequence[Retry]) -> Settled:
        """End leases. One that has run out still acknowledges its message; it gives nothing back if somebody else has
        the message on lease by now. A message that may not be delivered again goes where such messages go, at once."""

    async def metrics(self) -> Metrics:
        """What the queue holds."""

    async def aclose(self) -> None:
        """Release what the store holds."""
