"""Messages that a queue has delivered: each on lease, until it is acknowledged or given back (Cloudflare Queues
documentation, "Batching, Retries and Delays")."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from .queue_bodies import body_value
from .queue_channels import QueueChannel, Received, RetryRequest

__all__ = ["MessageBatch", "QueueMessage"]


class QueueMessage:
    """A message on lease.

    Attributes:
        id: its own; it stays the same however often it is delivered.
        timestamp: when it was sent.
        attempts: how often it was delivered, this time included.
        content_type: "json", "text", "bytes" or "v8".
        raw: the body as bytes.
        lease_id: what acknowledges it.
        settled: whether it was acknowledged or given back.
    """

    def __init__(self, received: Received, channel: QueueChannel) -> None:
        self.id: str = received.id
        self.timestamp: datetime = received.timestamp
        self.attempts: int = received.attempts
        self.content_type: str = received.content_type
        self.raw: bytes = received.body
        self.lease_id: str = received.lease_id
        self.settled: bool = False
        self._channel = channel

    @property
    def body(self) -> Any:
        """The body as a value.

        Raises:
            ValueError: if the bytes are not what the content type says, or Python has no value for them: see `raw`.
        """
        return body_value(self.raw, self.content_type)

    async def ack(self) -> None:
        """The message is done with, and does not come again. This holds after its lease, too, if it is still there.

        Of several calls of `ack` and `retry` the first one counts.
        """
        if not self.settled:
            await self._channel.settle([self.lease_id], [])
            self.settled = True

    async def retry(self, *, delay_seconds: int | None = None) -> None:
        """Give the message back: it comes again, or goes to the dead-letter queue if it came as often as it may.

        Args:
            delay_seconds: after how long. None: that of the queue's configuration.
        """
        if not self.settled:
            await self._channel.settle([], [RetryRequest(self.lease_id, delay_seconds)])
            self.settled = True

    def __repr__(self) -> str:
        return f"<message {self.id} of {len(self.raw)} bytes of {self.content_type}>"


class MessageBatch:
    """Messages that were pulled together: iterate it, or see `messages`.

    Attributes:
        queue: the name of the binding.
        messages: a list of them.
    """

    def __init__(self, queue: str, messages: list[QueueMessage], channel: QueueChannel) -> None:
        self.queue = queue
        self.messages = messages
        self._channel = channel

    async def ack_all(self) -> None:
        """Acknowledge every message that was neither acknowledged nor given back by itself, in one request."""
        rest = self._rest()
        await self._settle(rest, [message.lease_id for message in rest], [])

    async def retry_all(self, *, delay_seconds: int | None = None) -> None:
        """Give back every message that was neither acknowledged nor given back by itself, in one request."""
        rest = self._rest()
        await self._settle(rest, [], [RetryRequest(message.lease_id, delay_seconds) for message in rest])

    def _rest(self) -> list[QueueMessage]:
        return [message for message in self.messages if not message.settled]

    async def _settle(self, rest: list[QueueMessage], acks: list[str], retries: list[RetryRequest]) -> None:
        if rest:
            await self._channel.settle(acks, retries)
        for message in rest:
            message.settled = True

    def __iter__(self) -> Iterator[QueueMessage]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def __repr__(self) -> str:
        return f"<batch of {len(self.messages)} messages of {self.queue}>"
