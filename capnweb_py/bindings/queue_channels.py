"""The two ways from the facade of a queue to the queue: the same operations with the same results and errors.

Bodies are bytes here, with their content type. The HTTP requests are those of the Workers runtime (workerd,
src/workerd/api/queue.c++) and of Cloudflare's REST calls for consumers that pull.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import attrs

from ..errors import RemoteError, RpcError
from ..web import Request, Response
from .channels import FOREIGN, Channels
from .given import given
from .queue_bodies import ContentType

__all__ = [
    "HttpQueue",
    "Outgoing",
    "QueueChannel",
    "QueueError",
    "QueueMetrics",
    "Received",
    "RetryRequest",
    "RpcQueue",
]

# No message goes to this host: a proxy knows which binding is meant.
_HOST: Final = "https://fake-host"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class QueueError(RpcError):
    """A queue refuses what was asked of it, or fails to do it. The text is the Workers runtime's.

    Attributes:
        code: Cloudflare's number for the reason ("Queues: Error codes"); 15000 where there is none.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@attrs.frozen
class QueueMetrics:
    """What a queue holds: messages that are ready, delayed or on lease.

    Attributes:
        backlog_count: how many.
        backlog_bytes: the size of their bodies.
        oldest_message_timestamp: when the oldest was sent; None if there is none.
    """

    backlog_count: int
    backlog_bytes: int
    oldest_message_timestamp: datetime | None = None


@attrs.frozen
class Outgoing:
    """A message to be sent, with its body as it is stored."""

    body: bytes
    content_type: ContentType
    delay_seconds: int | None


@attrs.frozen
class Received:
    """A message that was pulled, as it is stored."""

    id: str
    lease_id: str
    timestamp: datetime
    attempts: int
    content_type: str
    body: bytes


@attrs.frozen
class RetryRequest:
    """A lease to be given back, and after how many seconds its message is to come again."""

    lease_id: str
    delay_seconds: int | None


class QueueChannel(Protocol):
    """One way to a queue. Everything raises QueueError, and ConnectionError if the proxy cannot be reached."""

    async def send(self, message: Outgoing) -> QueueMetrics: ...

    async def send_batch(self, messages: Sequence[Outgoing], delay_seconds: int | None) -> QueueMetrics: ...

    async def metrics(self) -> QueueMetrics: ...

    async def pull(self, batch_size: int | None, visibility_ms: int | None) -> list[Received]: ...

    async def settle(self, acks: Sequence[str], retries: Sequence[RetryRequest]) -> list[str]: ...


class HttpQueue:
    """A queue over HTTP requests: of our proxy server, or of Cloudflare's proxy worker."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def send(self, message: Outgoing) -> QueueMetrics:
        headers = {"content-type": "application/octet-stream", "x-msg-fmt": message.content_type}
        headers |= _delay_header(message.delay_seconds)
        return _metrics_of_send(await self._exchange("POST", "/message", headers, message.body))

    async def send_batch(self, messages: Sequence[Outgoing], delay_seconds: int | None) -> QueueMetrics:
        sizes = [len(message.body) for message in messages]
        headers = {
            "content-type": "application/json",
            "cf-queue-batch-count": str(len(sizes)),
            "cf-queue-batch-bytes": str(sum(sizes)),
            "cf-queue-largest-msg": str(max(sizes)),
            **_delay_header(delay_seconds),
        }
        entries = [
            given(
                body=base64.b64encode(message.body).decode(),
                contentType=message.content_type,
                delaySecs=message.delay_seconds,
            )
            for message in messages
        ]
        body = json.dumps({"messages": entries}).encode()
        return _metrics_of_send(await self._exchange("POST", "/batch", headers, body))

    async def metrics(self) -> QueueMetrics:
        return _metrics(await self._exchange("GET", "/metrics"))

    async def pull(self, batch_size: int | None, visibility_ms: int | None) -> list[Received]:
        result = await self._consumer("pull", given(batch_size=batch_size, visibility_timeout_ms=visibility_ms))
        return [_received(message) for message in result["messages"]]

    async def settle(self, acks: Sequence[str], retries: Sequence[RetryRequest]) -> list[str]:
        given_back = [given(lease_id=retry.lease_id, delay_seconds=retry.delay_seconds) for retry in retries]
        request = {"acks": [{"lease_id": lease} for lease in acks], "retries": given_back}
        warnings: list[str] = (await self._consumer("ack", request))["warnings"]
        return warnings

    async def _consumer(self, operation: str, request: Mapping[str, Any]) -> Any:
        headers = {"content-type": "application/json"}
        answer = await self._exchange("POST", f"/messages/{operation}", headers, json.dumps(request).encode())
        return answer["result"]

    async def _exchange(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Any:
        request = Request(_HOST + path, method=method, headers=headers, body=body)
        response = await self._channels.fetch(request)
        answer = await response.bytes()
        if response.status == 404 and path.startswith("/messages/"):
            raise QueueError(
                f"the queue {self._channels.name!r} has no consumers here: its proxy only sends to it", _UNKNOWN_CODE
            )
        if response.status in FOREIGN and _ERROR_CODE not in response.headers:
            raise self._channels.strange(response, "queue")
        if response.status != 200:
            raise _error(response)
        return json.loads(answer)


class RpcQueue:
    """A queue over RPC: of our proxy server."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def send(self, message: Outgoing) -> QueueMetrics:
        with _thrown():
            return _metrics_of_send(await self._channels.rpc.send(message.body, _options(message)))

    async def send_batch(self, messages: Sequence[Outgoing], delay_seconds: int | None) -> QueueMetrics:
        batch = [_options(message) | {"body": message.body} for message in messages]
        with _thrown():
            return _metrics_of_send(await self._channels.rpc.sendBatch(batch, given(delaySeconds=delay_seconds)))

    async def metrics(self) -> QueueMetrics:
        with _thrown():
            return _metrics(await self._channels.rpc.metrics())

    async def pull(self, batch_size: int | None, visibility_ms: int | None) -> list[Received]:
        options = given(batchSize=batch_size, visibilityTimeoutMs=visibility_ms, raw=True)
        with _thrown():
            messages = (await self._channels.rpc.pull(options))["messages"]
        return [
            Received(
                message["id"],
                message["leaseId"],
                message["timestamp"],
                message["attempts"],
                message["contentType"],
                message["body"],
            )
            for message in messages
        ]

    async def settle(self, acks: Sequence[str], retries: Sequence[RetryRequest]) -> list[str]:
        request = {
            "acks": [{"leaseId": lease} for lease in acks],
            "retries": [given(leaseId=retry.lease_id, delaySeconds=retry.delay_seconds) for retry in retries],
        }
        with _thrown():
            warnings: list[str] = (await self._channels.rpc.ack(request))["warnings"]
        return warnings


# The header of a queue's own errors.
_ERROR_CODE: Final = "cf-queues-error-code"

# What the runtime says, and its number, where a queue does not tell why it failed.
_UNKNOWN_CODE: Final = 15000
_UNKNOWN_CAUSE: Final = "Unknown Internal Error"


def _error(response: Response) -> QueueError:
    """The error of a response, as the runtime makes it of the response's headers."""
    code = response.headers.get(_ERROR_CODE, str(_UNKNOWN_CODE))
    cause = response.headers.get("cf-queues-error-cause", _UNKNOWN_CAUSE)
    return QueueError(f"{cause} ({code})", int(code) if code.isascii() and code.isdigit() else _UNKNOWN_CODE)


@contextmanager
def _thrown() -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        code = error.props.get("code")
        if not isinstance(code, int):
            raise
        raise QueueError(error.message, code) from None


def _options(message: Outgoing) -> dict[str, Any]:
    """How a message is sent over RPC: not as a value, which the server would have to write again."""
    return given(contentType=message.content_type, delaySeconds=message.delay_seconds, raw=True)


def _delay_header(delay_seconds: int | None) -> dict[str, str]:
    return {} if delay_seconds is None else {"x-msg-delay-secs": str(delay_seconds)}


def _metrics_of_send(answer: Any) -> QueueMetrics:
    return _metrics(answer["metadata"]["metrics"])


def _metrics(measures: Any) -> QueueMetrics:
    oldest = measures.get("oldestMessageTimestamp")
    # Over HTTP, 0 says that there is none.
    timestamp = oldest if isinstance(oldest, datetime) else _time(oldest) if oldest else None
    return QueueMetrics(int(measures["backlogCount"]), int(measures["backlogBytes"]), timestamp)


def _received(message: Mapping[str, Any]) -> Received:
    content_type = message["metadata"]["CF-Content-Type"]
    body: str = message["body"]
    return Received(
        message["id"],
        message["lease_id"],
        _time(message["timestamp_ms"]),
        message["attempts"],
        content_type,
        body.encode() if content_type == "text" else base64.b64decode(body),
    )


def _time(milliseconds: float) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)
