"""What a queue takes: its limits, and how it says that they were passed. Both channels ask here.

The limits are those of Cloudflare's documentation ("Queues: Limits", where 1 KB is 1000 bytes), the numbers those of
its page "Queues: Error codes". The runtime shows them as "<cause> (<code>)" (workerd, src/workerd/api/queue.c++).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from capnweb_py.bindings.queue_bodies import CONTENT_TYPES
from proxy_server.declined import Declined
from proxy_server.stores.queue import NewMessage, Settled

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_BATCH_MESSAGES",
    "MAX_DELAY",
    "MAX_MESSAGE_BYTES",
    "MAX_PULL_BATCH",
    "MAX_VISIBILITY",
    "QueueRefusal",
    "check_batch",
    "checked_batch_delay",
    "checked_batch_size",
    "checked_content_type",
    "checked_delay",
    "checked_visibility",
    "malformed",
    "warnings_of",
]

MAX_MESSAGE_BYTES: Final = 128_000
MAX_BATCH_MESSAGES: Final = 100
MAX_BATCH_BYTES: Final = 256_000
# In seconds.
MAX_DELAY: Final = 86_400

# Of a consumer that pulls (Cloudflare Queues documentation, "Pull consumers"): messages, and milliseconds.
MAX_PULL_BATCH: Final = 100
DEFAULT_PULL_BATCH: Final = 5
MAX_VISIBILITY: Final = 12 * 3600 * 1000


class QueueRefusal(Declined):
    """The queue does not take this. The text has the number behind it, as the runtime throws it.

    Attributes:
        status: of the HTTP response.
        code: Cloudflare's number.
        cause: the text without the number.
    """

    def __init__(self, status: int, code: int, cause: str) -> None:
        super().__init__(f"{cause} ({code})")
        self.status = status
        self.code = code
        self.cause = cause


def malformed(problem: str) -> QueueRefusal:
    """A request that is not of the form that it should have."""
    return QueueRefusal(400, 10207, problem)


def check_batch(messages: Sequence[NewMessage]) -> None:
    """Check what is sent together, in one message or in many.

    Raises:
        QueueRefusal: if it is too much.
    """
    sizes = [len(message.body) for message in messages]
    if len(sizes) > MAX_BATCH_MESSAGES:
        raise QueueRefusal(413, 10206, f"batch message count of {len(sizes)} exceeds limit of {MAX_BATCH_MESSAGES}")
    if max(sizes) > MAX_MESSAGE_BYTES:
        kind = "message length of {} bytes exceeds limit of {}"
        if len(sizes) > 1:
            kind = "message in batch has length {} bytes which exceeds single message size limit of {}"
        raise QueueRefusal(413, 10204, kind.format(max(sizes), MAX_MESSAGE_BYTES))
    if sum(sizes) > MAX_BATCH_BYTES:
        raise QueueRefusal(413, 10205, f"batch size of {sum(sizes)} bytes exceeds limit of {MAX_BATCH_BYTES}")


def checked_content_type(content_type: object) -> str:
    """A content type as the runtime writes it. Raises QueueRefusal if it is none."""
    if content_type not in CONTENT_TYPES:
        raise QueueRefusal(
            400,
            10203,
            f"message content type {content_type} is invalid; if specified, must be one of 'text', 'json', 'bytes',"
            " or 'v8'",
        )
    return str(content_type)


def checked_delay(delay: object, default: int) -> int:
    """The delay of a message in seconds, or the default where there is none.

    Raises:
        QueueRefusal: if it is none, or too long.
    """
    return _delay(delay, default, "message", 10203)


def checked_batch_delay(delay: object, default: int) -> int:
    """The delay of all messages of a batch that have none of their own, as `checked_delay`."""
    return _delay(delay, default, "batch", 10202)


def _delay(delay: object, default: int, what: str, code: int) -> int:
    if delay is None:
        return default
    if type(delay) is not int or not 0 <= delay <= MAX_DELAY:
        problem = f"{what} delay {delay} is invalid: a whole number of seconds from 0 to {MAX_DELAY} is one"
        raise QueueRefusal(400, code, problem)
    return delay


def warnings_of(settled: Settled) -> list[str]:
    """What the settling of leases says of those that it has not found."""
    return [f"the queue has no message with the lease {lease}" for lease in settled.unknown]


def checked_batch_size(size: object, default: int) -> int:
    """How many messages to pull, or the default. Raises QueueRefusal if that is no number of them."""
    if size is None:
        return default
    if type(size) is not int or not 1 <= size <= MAX_PULL_BATCH:
        raise malformed(f"batch size {size} is invalid: a whole number from 1 to {MAX_PULL_BATCH} is one")
    return size


def checked_visibility(milliseconds: object, default: int) -> int:
    """For how long messages are leased. Raises QueueRefusal if that is no time."""
    if milliseconds is None:
        return default
    if type(milliseconds) is not int or not 1 <= milliseconds <= MAX_VISIBILITY:
        raise malformed(
            f"visibility timeout {milliseconds} is invalid: a whole number of milliseconds from 1 to {MAX_VISIBILITY}"
            " is one"
        )
    return milliseconds
