"""The HTTP channel of a queue binding.

    POST /message         one message: its content type in X-Msg-Fmt, its delay in X-Msg-Delay-Secs
    POST /batch           many, in JSON, with their bodies in base64
    GET  /metrics         what the queue holds
    POST /messages/pull   messages on lease
    POST /messages/ack    leases that end

The first three are what the Workers runtime sends (workerd, src/workerd/api/queue.c++). The runtime has no consumer
that pulls: the last two are Cloudflare's REST calls of that name (Queues documentation, "Pull consumers").
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from capnweb_py.web import Request, Response
from proxy_server.bindings.queue_rules import (
    MAX_MESSAGE_BYTES,
    QueueRefusal,
    checked_batch_delay,
    checked_batch_size,
    checked_content_type,
    checked_delay,
    checked_visibility,
    malformed,
    warnings_of,
)
from proxy_server.stores.queue import Delivered, Metrics, NewMessage, Retry

if TYPE_CHECKING:
    from proxy_server.bindings.queue import Queue

__all__ = ["answer"]

# How much of a request is read at all. Up to here, a message that is too large is refused with its length.
_MAX_BODY_BYTES: Final = 1_000_000

# What the runtime reads the reason of a failure from.
_ERROR_CODE: Final = "cf-queues-error-code"
_ERROR_CAUSE: Final = "cf-queues-error-cause"


async def answer(queue: Queue, request: Request) -> Response:
    """Answer one request. What the queue refuses is a response that says so."""
    path = urlsplit(request.url).path
    operation = _OPERATIONS.get((request.method, path))
    try:
        if operation is None:
            raise QueueRefusal(404, 10207, f"{request.method} {path} is nothing that a queue answers")
        return Response.from_json(await operation(queue, request))
    except QueueRefusal as refusal:
        headers = {_ERROR_CODE: str(refusal.code), _ERROR_CAUSE: _header_text(refusal.cause)}
        return Response(refusal.cause, status=refusal.status, headers=headers)
    finally:
        if request.body is not None:
            # Of a request that is refused, the rest is not read.
            await request.body.aclose()


async def _message(queue: Queue, request: Request) -> object:
    content_type = checked_content_type(request.headers.get("x-msg-fmt", "v8"))
    delay = checked_delay(_delay_of(request), queue.settings.delivery_delay)
    body = await _body(request)
    return _sent(await queue.send([NewMessage(body, content_type, delay)]))


async def _batch(queue: Queue, request: Request) -> object:
    default = checked_batch_delay(_delay_of(request), queue.settings.delivery_delay)
    document = await _json(request)
    entries = _list(document, "messages")
    if not entries:
        raise malformed("the batch has no messages")
    return _sent(await queue.send([_entry(entry, default) for entry in entries]))


async def _metrics(queue: Queue, _request: Request) -> object:
    return _measures(await queue.metrics())


async def _pull(queue: Queue, request: Request) -> object:
    options = await _json(request)
    visibility = options.get("visibility_timeout_ms", options.get("visibility_timeout"))
    messages = await queue.pull(
        checked_batch_size(options.get("batch_size"), queue.settings.batch_size),
        checked_visibility(visibility, queue.settings.visibility),
    )
    backlog = (await queue.metrics()).count
    return _result({"message_backlog_count": backlog, "messages": [_delivered(message) for message in messages]})


async def _ack(queue: Queue, request: Request) -> object:
    document = await _json(request)
    acks = [_lease(entry) for entry in _list(document, "acks")]
    retries = [
        Retry(_lease(entry), checked_delay(entry.get("delay_seconds"), queue.settings.retry_delay))
        for entry in _list(document, "retries")
    ]
    settled = await queue.settle(acks, retries)
    return _result({"ackCount": settled.acked, "retryCount": settled.retried, "warnings": warnings_of(settled)})


_OPERATIONS: Final[Mapping[tuple[str, str], Callable[[Queue, Request], Awaitable[object]]]] = {
    ("POST", "/message"): _message,
    ("POST", "/batch"): _batch,
    ("GET", "/metrics"): _metrics,
    ("POST", "/messages/pull"): _pull,
    ("POST", "/messages/ack"): _ack,
}


async def _body(request: Request) -> bytes:
    """The body of a request, unless it is far too large."""
    whole = bytearray()
    if request.body is not None:
        async for chunk in request.body:
            whole += chunk
            if len(whole) > _MAX_BODY_BYTES:
                raise QueueRefusal(
                    413, 10204, f"message length of over {_MAX_BODY_BYTES} bytes exceeds limit of {MAX_MESSAGE_BYTES}"
                )
    return bytes(whole)


async def _json(request: Request) -> dict[str, Any]:
    try:
        document = json.loads(await _body(request))
    except (ValueError, RecursionError):
        raise QueueRefusal(400, 10208, "the request body is not valid JSON") from None
    if not isinstance(document, dict):
        raise malformed("the request body is no JSON object")
    return document


def _list(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = document.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise malformed(f'"{key}" is no array of objects')
    return entries


def _entry(entry: Mapping[str, Any], default_delay: int) -> NewMessage:
    encoded = entry.get("body")
    try:
        body = base64.b64decode(encoded if isinstance(encoded, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise malformed("a message's body is no base64") from None
    content_type = checked_content_type(entry.get("contentType", "v8"))
    return NewMessage(body, content_type, checked_delay(entry.get("delaySecs"), default_delay))


def _lease(entry: Mapping[str, Any]) -> str:
    lease = entry.get("lease_id")
    if not isinstance(lease, str):
        raise malformed('"lease_id" is no string')
    return lease


def _delay_of(request: Request) -> int | str | None:
    """The delay that a request names: a number, or a text that is none."""
    text = request.headers.get("x-msg-delay-secs")
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else text


def _delivered(message: Delivered) -> dict[str, object]:
    body = message.body.decode(errors="replace") if message.content_type == "text" else None
    return {
        "id": message.id,
        "lease_id": message.lease,
        "timestamp_ms": message.timestamp,
        "attempts": message.attempts,
        "metadata": {"CF-Content-Type": message.content_type, "CF-sourceMessageSource": "worker"},
        "body": base64.b64encode(message.body).decode() if body is None else body,
    }


def _sent(metrics: Metrics) -> dict[str, object]:
    return {"metadata": {"metrics": _measures(metrics)}}


def _measures(metrics: Metrics) -> dict[str, int]:
    return {"backlogCount": metrics.count, "backlogBytes": metrics.bytes, "oldestMessageTimestamp": metrics.oldest}


def _result(result: Mapping[str, object]) -> dict[str, object]:
    """The form of every answer of Cloudflare's REST API."""
    return {"success": True, "errors": [], "messages": [], "result": result}


def _header_text(text: str) -> str:
    """A text that may come from the request, as a header can hold it."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)
