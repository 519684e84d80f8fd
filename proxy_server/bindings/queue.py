"""The "queue" binding: its configuration, and what both channels do with a queue.

The HTTP channel (queue_http.py) speaks what `env.QUEUE` of the Workers runtime sends, and Cloudflare's REST calls for
consumers that pull. The RPC channel (queue_rpc.py) has the same operations as methods. The messages are in a store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs
from anyio.abc import TaskGroup

from capnweb_py.web import Request, Response
from proxy_server.bindings import Binding, Opener
from proxy_server.bindings.queue_http import answer
from proxy_server.bindings.queue_rpc import QueueTarget
from proxy_server.bindings.queue_rules import (
    DEFAULT_PULL_BATCH,
    MAX_DELAY,
    MAX_PULL_BATCH,
    MAX_VISIBILITY,
    QueueRefusal,
    check_batch,
)
from proxy_server.bindings.store_urls import check_redis, scheme_of, sqlite_path
from proxy_server.channels import LOG
from proxy_server.stores.queue import (
    DEFAULT_RETENTION,
    Clock,
    Delivered,
    Metrics,
    NewMessage,
    QueueRules,
    QueueStore,
    Retry,
    Settled,
    wall_clock,
)
from proxy_server.stores.queue_sqlite import SqliteQueue
from proxy_server.tables import Table

__all__ = ["FILE", "Queue", "QueueSettings", "parse"]

ResultT = TypeVar("ResultT")

# The file of the embedded store, in `state_dir`. It holds all queues there, so that one can be another's dead-letter
# queue.
FILE: Final = "queues.sqlite3"

# Cloudflare Queues documentation, "Configure Queues" and "Limits".
_DEFAULT_RETRIES: Final = 3
_MAX_RETRIES: Final = 100
_DEFAULT_VISIBILITY: Final = 30_000
_MIN_RETENTION: Final = 60
_MAX_RETENTION: Final = 14 * 24 * 3600


@attrs.frozen
class QueueSettings:
    """What senders and consumers get where they do not say it themselves.

    Attributes:
        delivery_delay: of messages that are sent, in seconds.
        retry_delay: of messages that are given back, in seconds.
        visibility: how long messages are on lease, in milliseconds.
        batch_size: how many are pulled at a time, at most.
    """

    delivery_delay: int = 0
    retry_delay: int = 0
    visibility: int = _DEFAULT_VISIBILITY
    batch_size: int = DEFAULT_PULL_BATCH


def parse(table: Table, state_dir: Path, clock: Clock = wall_clock) -> Opener:
    """Check the table of a queue binding.

    Raises:
        ConfigError: if a key is unknown, its value not valid, or a package that the store needs is not installed.
    """
    binding = table.name
    rules = QueueRules(
        name=table.text("queue", binding),
        max_retries=table.integer("max_retries", _DEFAULT_RETRIES, low=0, high=_MAX_RETRIES),
        dead_letter_queue=table.optional_text("dead_letter_queue"),
        retention=table.integer("message_retention_period", DEFAULT_RETENTION, low=_MIN_RETENTION, high=_MAX_RETENTION),
    )
    settings = QueueSettings(
        delivery_delay=table.integer("delivery_delay", 0, low=0, high=MAX_DELAY),
        retry_delay=table.integer("retry_delay", 0, low=0, high=MAX_DELAY),
        visibility=table.integer("visibility_timeout_ms", _DEFAULT_VISIBILITY, low=1, high=MAX_VISIBILITY),
        batch_size=table.integer("max_batch_size", DEFAULT_PULL_BATCH, low=1, high=MAX_PULL_BATCH),
    )
    url = table.text("store", f"sqlite:///{FILE}")
    table.finish()
    if rules.dead_letter_queue == rules.name:
        raise table.error("a queue cannot be its own dead-letter queue", "dead_letter_queue")
    if scheme_of(table, url) == "redis":
        return _redis_opener(table, url, rules, settings, clock)
    path = sqlite_path(table, url, state_dir)

    async def open_queue(_tasks: TaskGroup) -> Binding:
        return Queue(await SqliteQueue.open(path, rules, clock), rules.name, settings)

    return open_queue


def _redis_opener(table: Table, url: str, rules: QueueRules, settings: QueueSettings, clock: Clock) -> Opener:
    check_redis(table, url)
    from proxy_server.stores.queue_redis import RedisQueue

    async def open_queue(tasks: TaskGroup) -> Binding:
        return Queue(await RedisQueue.open(url, rules, tasks, clock), rules.name, settings)

    return open_queue


class Queue:
    """A queue for both channels.

    Args:
        store: where the messages are.
        name: of the queue.
        settings: what it does where it is not told.
    """

    def __init__(self, store: QueueStore, name: str, settings: QueueSettings | None = None) -> None:
        self._store = store
        self.name = name
        self.settings = settings or QueueSettings()

    def rpc_main(self) -> object:
        return QueueTarget(self)

    async def fetch(self, request: Request) -> Response:
        return await answer(self, request)

    async def aclose(self) -> None:
        await self._store.aclose()

    async def send(self, messages: Sequence[NewMessage]) -> Metrics:
        """Store messages. Raises QueueRefusal if they are too large, or too many."""
        check_batch(messages)
        return await self._asked(self._store.send(messages))

    async def pull(self, limit: int, visibility: int) -> list[Delivered]:
        """Lease messages that are due."""
        return await self._asked(self._store.pull(limit, visibility))

    async def settle(self, acks: Sequence[str], retries: Sequence[Retry]) -> Settled:
        """End leases."""
        return await self._asked(self._store.settle(acks, retries))

    async def metrics(self) -> Metrics:
        """What the queue holds."""
        return await self._asked(self._store.metrics())

    async def _asked(self, operation: Awaitable[ResultT]) -> ResultT:
        """What the store answers. Why it fails is for the log; its users learn that it did, in the runtime's words."""
        try:
            return await operation
        except Exception as error:
            LOG.error("the store of the queue %s failed: %s", self.name, error)
            raise QueueRefusal(500, 15000, "Unknown Internal Error") from error
