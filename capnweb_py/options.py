"""What a session can be told: its limits and its options. Values only, checked where they are built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
from attrs.validators import ge, instance_of, le

from .names import Naming, check_naming

__all__ = ["DEFAULT_OPTIONS", "Limits", "OnCall", "SessionOptions", "with_names"]

OnCall: TypeAlias = Callable[[str], Callable[[BaseException | None], object]]

# A level of nesting costs two levels of Python's stack, which holds 1,000.
_DEEPEST: Final = 400


def _count(default: int, *, at_least: int = 1, at_most: int | None = None) -> int:
    checks = [instance_of(int), ge(at_least)] + ([le(at_most)] if at_most is not None else [])
    number: int = attrs.field(default=default, validator=checks)
    return number


@attrs.frozen(kw_only=True)
class Limits:
    """How much one peer may ask of one session. Every default is far above honest use.

    They are the receiver's own decision, and the peer never learns them. The first three defaults are those of npm
    capnweb; the others it does not have. Passing one aborts the session with `LimitExceeded` as the reason, except
    where it is said below what fails instead, and except what this side itself sends, which fails with `LimitExceeded`
    here.

    Attributes:
        max_message_size: bytes of one incoming message.
        max_depth: values inside one another in one message, the innermost included; at most 400.
        max_bigint_digits: decimal digits of one bigint: reading them takes time that grows with their square.
        max_exports: live entries of the export table: what the peer holds of this side, results included.
        max_imports: live entries of the import table: what this side holds of the peer.
        max_calls: calls of the peer in progress: asynchronous methods that run, and calls that wait for an argument;
            one more fails.
        max_running: asynchronous methods that run at a time for the peer; others wait, in order. Not below `max_calls`
            by default, since methods may wait for each other. Where none does, this bounds the results that are there
            before any of them is sent.
        max_copied: values (items of lists and dicts, and each 256 bytes of text or bytes) that are put in the place of
            promises because of one message; the call that they are for fails.
        max_map_steps: what maps do: items, and for each item the parts of all instructions, which are the items of
            every array and object in them. Of one message, and of all results that the peer holds; past it the map
            fails.
        max_streams: streams that the peer has made to write into them, and has not released.
        max_unread: bytes of chunks that the peer has written into streams and nobody has read, with what it takes to
            hold them; the write that passes it fails, and its stream ends.
        max_blob_size: bytes of the peer's blobs that are on their way in, all of them added up; the blob that passes it
            fails, and with it the call that it is for.
        max_unsent: bytes of answers that wait for the network; past it the session reads nothing more until they went,
            and no asynchronous method begins that the peer has called before. And bytes of chunks of all streams that
            this side sends; past it none takes its next chunk from its source until they went.
        max_batch_size: bytes of the body of one HTTP batch, request or response, read or written.
        max_batch_messages: lines of that body.
    """

    max_message_size: int = _count(32 * 1024 * 1024)
    max_depth: int = _count(256, at_most=_DEEPEST)
    max_bigint_digits: int = _count(16_384)
    max_exports: int = _count(262_144)
    max_imports: int = _count(262_144)
    max_calls: int = _count(16_384)
    max_running: int = _count(16_384)
    max_copied: int = _count(250_000)
    max_map_steps: int = _count(500_000)
    max_streams: int = _count(16_384)
    max_unread: int = _count(64 * 1024 * 1024)
    max_blob_size: int = _count(256 * 1024 * 1024)
    max_unsent: int = _count(8 * 1024 * 1024)
    max_batch_size: int = _count(32 * 1024 * 1024)
    max_batch_messages: int = _count(65_536)


@attrs.frozen(kw_only=True)
class SessionOptions:
    """The options of a session.

    Attributes:
        on_send_error: called with every exception that is about to be sent, thrown or passed as a value. Return None to
            send it without its traceback, or another exception (or the same one) to send that, traceback included.
        on_call: called with the name of every method that the peer calls, member that it reads or map that it asks for.
            What it returns is called at the end of that, once: with None, or with the exception that it failed with,
            which is a SessionClosed if the session ended before. Neither may raise.
        limits: how much the peer may ask.
        names: how members are named for the peer in calls on its stubs: "exact", as they are written here, or "camel",
            for a peer in JavaScript: `stub.get_user(max_items=3)` calls `getUser` with {"maxItems": 3}. It holds for
            all stubs and promises that come over the session, and for none of the keys of values. `stub["get_user"]`
            is exact. (What peers call is named by the targets' own classes: see `RpcTarget`.)
        busy_poll: whether an asyncio loop stays awake for a moment after it has sent a WebSocket message, since the
            answer to a small call comes sooner than a process that sleeps is woken. It does so only as long as that
            saves more than it costs (see transports/busy_polling.py).
    """

    on_send_error: Callable[[BaseException], BaseException | None] | None = None
    on_call: OnCall | None = None
    limits: Limits = attrs.field(factory=Limits, validator=instance_of(Limits))
    names: Naming = attrs.field(default="exact", validator=lambda _self, _field, names: check_naming(names))
    busy_poll: bool = attrs.field(default=True, validator=instance_of(bool))


# What a session is told that is told nothing: one object for all of them.
DEFAULT_OPTIONS: Final = SessionOptions()


def with_names(options: SessionOptions | None, names: Naming | None) -> SessionOptions:
    """The options, or the default ones, with another naming; None for their own."""
    options = options or DEFAULT_OPTIONS
    return options if names is None else attrs.evolve(options, names=names)
