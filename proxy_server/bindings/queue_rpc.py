"""The queue binding for stubs: `env.QUEUE` with the names of the Workers API, and a consumer that pulls.

    await env.QUEUE.send({id: 1}, {delaySeconds: 60});
    const { messages } = await env.QUEUE.pull({ batchSize: 10 });
    await env.QUEUE.ack({ acks: messages.map(({ leaseId }) => ({ leaseId })) });

Method names are the Workers API's own, and those of its REST API for `pull` and `ack`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from capnweb_py.bindings.queue_bodies import body_value, check_content_type, encoded_body
from capnweb_py.target import RpcTarget
from capnweb_py.values import UNDEFINED
from proxy_server.bindings.nesting import nests_deeper
from proxy_server.bindings.queue_rules import (
    QueueRefusal,
    checked_batch_delay,
    checked_batch_size,
    checked_delay,
    checked_visibility,
    malformed,
    warnings_of,
)
from proxy_server.declined import Error
from proxy_server.stores.queue import Delivered, Metrics, NewMessage, Retry

if TYPE_CHECKING:
    from proxy_server.bindings.queue import Queue

__all__ = ["QueueTarget"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


# How deep a body may nest to be delivered as a value, in the list of a batch: a session takes 256 levels in all.
_MAX_DEPTH: Final = 240


class QueueTarget(RpcTarget):
    """The main object of a session: `env.QUEUE`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def send(self, body: object = UNDEFINED, options: object = None) -> dict[str, object]:
        """Send a message.

        Args:
            body: what its content type has a form for.
            options: contentType ("json" where it is left out, "text", "bytes", "v8"), delaySeconds, raw (true: the body
                is bytes, as they are to be stored).

        Raises:
            TypeError: if the body is of another type than its content type.
            Error: if the queue does not take it; `code` is Cloudflare's number.
        """
        with _thrown():
            message = self._message({**_options("send", options), "body": body}, self._queue.settings.delivery_delay)
            return _sent(await self._queue.send([message]))

    async def sendBatch(self, messages: object, options: object = None) -> dict[str, object]:
        """Send up to 100 messages, all or none.

        Args:
            messages: a list of objects with body, contentType, delaySeconds and raw, as of `send`.
            options: delaySeconds, of messages that have none of their own.
        """
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise TypeError("sendBatch() takes an array of objects, each with a body")
        if not messages:
            raise TypeError("sendBatch() requires at least one message")
        with _thrown():
            given = _options("sendBatch", options)
            delay = checked_batch_delay(given.get("delaySeconds"), self._queue.settings.delivery_delay)
            batch = [self._message(_defined(message), delay) for message in messages]
            return _sent(await self._queue.send(batch))

    async def metrics(self) -> dict[str, object]:
        """What the queue holds: backlogCount, backlogBytes, oldestMessageTimestamp."""
        with _thrown():
            return _measures(await self._queue.metrics())

    async def pull(self, options: object = None) -> dict[str, object]:
        """Take messages on lease.

        Args:
            options: batchSize (1 to 100), visibilityTimeoutMs, raw (true: bodies stay the bytes that they are).

        Returns:
            {messages: [{id, leaseId, timestamp, attempts, contentType, body}]}. The body of a message of the content
            type "v8" is its bytes in any case, as is one that is not what its content type says.
        """
        given = _options("pull", options)
        with _thrown():
            messages = await self._queue.pull(
                checked_batch_size(given.get("batchSize"), self._queue.settings.batch_size),
                checked_visibility(given.get("visibilityTimeoutMs"), self._queue.settings.visibility),
            )
        return {"messages": [_delivered(message, raw=bool(given.get("raw"))) for message in messages]}

    async def ack(self, options: object) -> dict[str, object]:
        """End leases.

        Args:
            options: acks, a list of {leaseId}, and retries, a list of {leaseId, delaySeconds}.

        Returns:
            {ackCount, retryCount, warnings}: a warning for each lease without a message.
        """
        given = _options("ack", options)
        with _thrown():
            acks = [_lease(entry) for entry in _entries(given, "acks")]
            retries = [
                Retry(_lease(entry), checked_delay(entry.get("delaySeconds"), self._queue.settings.retry_delay))
                for entry in _entries(given, "retries")
            ]
            settled = await self._queue.settle(acks, retries)
        return {"ackCount": settled.acked, "retryCount": settled.retried, "warnings": warnings_of(settled)}

    def _message(self, request: Mapping[str, Any], default_delay: int) -> NewMessage:
        content_type = check_content_type(request.get("contentType", "json"))
        body = encoded_body(request.get("body", UNDEFINED), "bytes" if request.get("raw") is True else content_type)
        return NewMessage(body, content_type, checked_delay(request.get("delaySeconds"), default_delay))


@contextmanager
def _thrown() -> Iterator[None]:
    """Have what the queue refuses raised as the runtime throws it."""
    try:
        yield
    except QueueRefusal as refusal:
        raise Error(str(refusal), code=refusal.code) from None


def _options(method: str, options: object) -> dict[str, Any]:
    if options is None or options is UNDEFINED:
        return {}
    if not isinstance(options, dict):
        raise TypeError(f"{method}() takes its options as an object, not as {type(options).__name__}")
    return _defined(options)


def _defined(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is undefined: to JavaScript that is absent."""
    return {key: value for key, value in options.items() if value is not UNDEFINED}


def _entries(options: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = options.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise malformed(f'"{key}" is no array of objects')
    return [_defined(entry) for entry in entries]


def _lease(entry: Mapping[str, Any]) -> str:
    lease = entry.get("leaseId")
    if not isinstance(lease, str):
        raise malformed('"leaseId" is no string')
    return lease


def _delivered(message: Delivered, *, raw: bool) -> dict[str, object]:
    return {
        "id": message.id,
        "leaseId": message.lease,
        "timestamp": _date(message.timestamp),
        "attempts": message.attempts,
        "contentType": message.content_type,
        "body": message.body if raw or message.content_type == "v8" else _body(message),
    }


def _body(message: Delivered) -> Any:
    try:
        value = body_value(message.body, message.content_type)
    except ValueError:
        return message.body
    # One message that cannot be sent would keep those beside it from being delivered.
    return message.body if nests_deeper(value, _MAX_DEPTH) else value


def _sent(metrics: Metrics) -> dict[str, object]:
    return {"metadata": {"metrics": _measures(metrics)}}


def _measures(metrics: Metrics) -> dict[str, object]:
    """As the runtime shows them: no timestamp where nothing is stored."""
    measures: dict[str, object] = {"backlogCount": metrics.count, "backlogBytes": metrics.bytes}
    if metrics.oldest:
        measures["oldestMessageTimestamp"] = _date(metrics.oldest)
    return measures


def _date(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)
