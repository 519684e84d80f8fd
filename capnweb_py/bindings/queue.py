"""A queue: messages are sent as `env.QUEUE` of the Workers runtime sends them, and pulled by consumers in Python.

    await env.QUEUE.send({"id": 1}, delay_seconds=60)

    for message in await env.QUEUE.pull(batch_size=10):
        work(message.body)
        await message.ack()

A message that was pulled is on lease: nobody else gets it before the lease runs out. It is gone when it is
acknowledged, and comes again when it is not (Cloudflare Queues documentation, "Pull consumers").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import attrs

from ..stub import RpcStub
from .arguments import check
from .channels import Channels
from .queue_bodies import ContentType, check_content_type, encoded_body
from .queue_channels import HttpQueue, Outgoing, QueueChannel, QueueError, QueueMetrics, RpcQueue
from .queue_consumer import BatchHandler, Consumer
from .queue_messages import MessageBatch, QueueMessage

__all__ = ["BatchHandler", "MessageBatch", "Queue", "QueueError", "QueueMessage", "QueueMetrics", "SendRequest"]


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
        _check_delay(delay_seconds)
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
        check("batch_size", batch_size, int | None, "a whole number")
        check("visibility_timeout", visibility_timeout, float | int | None, "a number of seconds")
        milliseconds = None if visibility_timeout is None else round(visibility_timeout * 1000)
        received = await self._channel.pull(batch_size, milliseconds)
        return MessageBatch(
            self._channels.name, [QueueMessage(message, self._channel) for message in received], self._channel
        )

    async def consume(
        self,
        handler: BatchHandler,
        *,
        batch_size: int = 10,
        batch_timeout: float = 5.0,
        concurrency: int = 1,
        visibility_timeout: float | None = None,
        retry_delay: int | None = None,
        poll_interval: float = 1.0,
    ) -> NoReturn:
        """Give a handler the queue's messages in batches, as `queue(batch)` of a consumer Worker gets them.

            async def work_off(batch: MessageBatch) -> None:
                for message in batch:
                    await work(message.body)

            await env.QUEUE.consume(work_off)  # until it is cancelled

        When the handler returns, the messages that it has not settled itself are acknowledged; when it raises, that is
        logged, and they are given back. What a consumer holds that is cancelled is given back at once. Where the queue
        cannot be reached, that is logged, and it is asked again. How often a message comes, and where it goes then, is
        the queue's own configuration.

        Args:
            handler: a function of a MessageBatch, which may be a coroutine function.
            batch_size: how many messages a batch has at most, 1 to 100.
            batch_timeout: for how many seconds its first message waits for the others, 0 to 60.
            concurrency: how many batches are worked off at a time.
            visibility_timeout: for how many seconds nobody else gets the messages, from when each is pulled. It has to
                be longer than the batch is waited for and worked off. None: that of the queue's configuration.
            retry_delay: in seconds, of messages whose handler raised. None: that of the queue's configuration.
            poll_interval: the longest wait, in seconds, between two looks at an empty queue.

        Raises:
            TypeError: if the handler is no function, or a generator function, of which a call runs nothing.
            ValueError: if an argument is out of its range, or `visibility_timeout` is no longer than `batch_timeout`.
            Exception: what the first `pull` raises, as it does.
        """
        consumer = Consumer(
            name=self._channels.name,
            pull=self.pull,
            handler=handler,
            batch_size=batch_size,
            batch_timeout=batch_timeout,
            concurrency=concurrency,
            visibility_timeout=visibility_timeout,
            retry_delay=retry_delay,
            poll_interval=poll_interval,
        )
        await consumer.run()

    def __repr__(self) -> str:
        return f"<queue {self._channels.name}>"


def _send_request(message: SendRequest | Mapping[str, Any]) -> SendRequest:
    check("each message", message, SendRequest | Mapping, 'a SendRequest, or a dict such as {"body": ...}')
    return message if isinstance(message, SendRequest) else SendRequest(**message)


def _check_delay(seconds: int | None) -> None:
    check("delay_seconds", seconds, int | None, "a whole number of seconds")


def _outgoing(message: SendRequest) -> Outgoing:
    content_type = check_content_type(message.content_type)
    _check_delay(message.delay_seconds)
    return Outgoing(encoded_body(message.body, content_type), content_type, message.delay_seconds)
