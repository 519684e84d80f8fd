"""A queue: messages are sent as `env.QUEUE` of the Workers runtime sends them, and pulled by consumers in Python.

    await env.QUEUE.send({"id": 1}, delay_seconds=60)

    for message in await env.QUEUE.pull(batch_size=10):
        work(message.body)
        await message.ack()

A message that was pulled is on lease: nobody else gets it before the lease runs out. It is gone when it is
acknowledged, and comes again when it is not (Cloudflare Queues documentation, "Pull consumers").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs

from ..stub import RpcStub
from .channels import Channels
from .queue_bodies import ContentType, body_value, check_content_type, encoded_body
from .queue_channels import (
    HttpQueue,
    Outgoing,
    QueueChannel,
    QueueError,
    QueueMetrics,
    Received,
    RetryRequest,
    RpcQueue,
)

__all__ = ["MessageBatch", "Queue", "QueueError", "QueueMessage", "QueueMetrics", "SendRequest"]


@attrs.frozen
class SendRequest:
    """One message of a batch. A dict with these keys does as well.

    Attributes:
        body: as of `Queue.send`, as are the next two.
        content_type: "json", "text", "bytes" or "v8".
        delay_seconds: None: that of the batch.
    """

    body: Any
    content_type: ContentType = "json"
    delay_seconds: int | None = None


class Queue:
    """The facade of a queue binding."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._channel: QueueChannel = RpcQueue(channels) if channels.preferred == "rpc" else HttpQueue(channels)

    @property
    def rpc(self) -> RpcStub:
        """The stub of the remote binding, with the methods that the Workers runtime's has."""
        return self._channels.rpc

    async def send(
        self, body: Any, *, content_type: ContentType = "json", delay_seconds: int | None = None
    ) -> QueueMetrics:
        """Send a message. Once this returns, it is stored.

        Args:
            body: for "json", what JSON has a form for; for "text", a str; for "bytes", bytes; for "v8", also sets,
                aware datetimes, dicts with any keys, bytes, exceptions and circles.
            content_type: "json", "text", "bytes" or "v8".
            delay_seconds: after which it is delivered, 0 to 86,400. None: that of the queue's configuration.

        Returns:
            What the queue holds then.

        Raises:
            TypeError: if the body is of another type than its content type.
            QueueError: if the queue does not take it; `code` is Cloudflare's number for the reason.
            ConnectionError: if the proxy cannot be reached. The message may have been stored.
        """
        return await self._channel.send(_outgoing(SendRequest(body, content_type, delay_seconds)))

    async def send_batch(
        self, messages: Iterable[SendRequest | Mapping[str, Any]], *, delay_seconds: int | None = None
    ) -> QueueMetrics:
        """Send up to 100 messages of 256 KB in all: all of them, or none.

        Args:
            messages: SendRequests, or dicts such as {"body": "x", "content_type": "text"}.
            delay_seconds: of those that have none of their own.

        Returns and raises: as `send`.
        """
        outgoing = [_outgoing(_send_request(message)) for message in messages]
        if not outgoing:
            raise TypeError("sendBatch() requires at least one message")
        return await self._channel.send_batch(outgoing, delay_seconds)

    async def metrics(self) -> QueueMetrics:
        """What the queue holds."""
        return await self._channel.metrics()

    async def pull(self, *, batch_size: int | None = None, visibility_timeout: float | None = None) -> MessageBatch:
        """Take messages that are there now on lease; of none, the batch is empty.

        Args:
            batch_size: how many at most, 1 to 100. None: `max_batch_size` of the queue's configuration, or else 5.
            visibility_timeout: for how many seconds, up to 12 hours. None: that of the queue's configuration.

        Raises:
            QueueError: if the proxy has no consumers, or an argument is not valid.
            ConnectionError: if the proxy cannot be reached. Messages may be on lease until their time-out.
        """
        milliseconds = None if visibility_timeout is None else round(visibility_timeout * 1000)
        received = await self._channel.pull(batch_size, milliseconds)
        return MessageBatch(
            self._channels.name, [QueueMessage(message, self._channel) for message in received], self._channel
        )

    def __repr__(self) -> str:
        return f"<queue {self._channels.name}>"


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
        """The message is done with, and does not come again. This holds after its lease, too, if it is still there."""
        await self._channel.settle([self.lease_id], [])
        self.settled = True

    async def retry(self, *, delay_seconds: int | None = None) -> None:
        """Give the message back: it comes again, or goes to the dead-letter queue if it came as often as it may.

        Args:
            delay_seconds: after how long. None: that of the queue's configuration.
        """
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


def _send_request(message: SendRequest | Mapping[str, Any]) -> SendRequest:
    return message if isinstance(message, SendRequest) else SendRequest(**message)


def _outgoing(message: SendRequest) -> Outgoing:
    content_type = check_content_type(message.content_type)
    return Outgoing(encoded_body(message.body, content_type), content_type, message.delay_seconds)
