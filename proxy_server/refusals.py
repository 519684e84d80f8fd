"""What the proxy refuses by itself, before a binding sees it: in words, with a mark that tells it from the answer of a
binding, counted, and in a line of the log.

Whoever can reach the port can be refused any number of times, and must not fill a disk: of each reason there are so
many lines in a while, and the next one says how many there would have been.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

import attrs

from capnweb_py.bindings.answers import FORWARDED, REFUSED, STOPPING
from proxy_server.channels import LOG, MAX_LOGGED, Receive, Scope, Send, refuse_websocket, send_text

__all__ = ["NAMELESS", "STOPPED", "Refusal", "Refusals", "forwarded"]

# The events that start a response, to a request and to a WebSocket's handshake.
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})

_FORWARDED: Final = FORWARDED.lower().encode()
_REFUSED: Final = REFUSED.encode()

# How many refusals of one reason are logged within so many seconds.
MAX_LINES: Final = 10
WINDOW: Final = 60.0


@attrs.frozen
class Refusal:
    """Why a request does not pass: an HTTP status, one line of text, and the reason in a word, for programs."""

    status: int
    text: str
    reason: str


# New work for a server that stops.
STOPPED: Final = Refusal(503, "the server is shutting down, and has not run this", STOPPING)

# The words of Cloudflare's proxy worker have two spaces where the name would be.
NAMELESS: Final = Refusal(
    400, "Binding not found: the request names none in MF-Binding, a header, or a parameter for RPC", "binding"
)


@attrs.define
class _Lines:
    """What was logged of one reason since a time, and what was not."""

    since: float
    logged: int = 0
    left_out: int = 0


class Refusals:
    """Refuses, and keeps account of it.

    Args:
        clock: what time it is, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: dict[str, _Lines] = {}
        # How many there were, by reason.
        self.counts: Counter[str] = Counter()

    async def refuse(self, refusal: Refusal, name: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or the handshake of a WebSocket.

        Args:
            refusal: why.
            name: of the binding that was asked for.
            scope, receive, send: of it. Nothing has been received.
        """
        headers = [(_REFUSED, refusal.reason.encode())]
        if scope["type"] == "websocket":
            self._note(refusal, name, "websocket")
            await refuse_websocket(scope, receive, send, refusal.status, refusal.text, headers)
            return
        self._note(refusal, name, "http")
        if refusal is STOPPED:
            headers.append((b"connection", b"close"))
        await send_text(send, refusal.status, refusal.text, headers)

    def _note(self, refusal: Refusal, name: str | None, channel: str) -> None:
        self.counts[refusal.reason] += 1
        now = self._clock()
        lines = self._lines.get(refusal.reason)
        if lines is None or now - lines.since >= WINDOW:
            left_out = 0 if lines is None else lines.left_out
            lines = self._lines[refusal.reason] = _Lines(now, left_out=left_out)
        if lines.logged == MAX_LINES:
            lines.left_out += 1
            return
        lines.logged += 1
        refused = {
            "reason": refusal.reason,
            "binding": None if name is None else ascii(name[:MAX_LOGGED])[1:-1],
            "channel": channel,
            "status": refusal.status,
            "left_out": lines.left_out,
        }
        lines.left_out = 0
        _log(refused)


def _log(refused: Mapping[str, Any]) -> None:
    text = "refused a request for the binding %s: %s, HTTP %s"
    values = [refused["binding"] or "(none)", refused["reason"], refused["status"]]
    if refused["left_out"]:
        text += "; %s more like it were not logged"
        values.append(refused["left_out"])
    # A client that comes while the server stops has done nothing wrong.
    level = logging.INFO if refused["reason"] == STOPPING else logging.WARNING
    LOG.log(level, text, *values, extra={"refused": refused})


def forwarded(send: Send) -> Send:
    """The same `send`, for what a binding answers: the response has the mark that it is the binding's."""

    async def marked_send(event: MutableMapping[str, Any]) -> None:
        if event["type"] in _STARTS:
            kept = [pair for pair in event.get("headers", ()) if pair[0].lower() != _FORWARDED]
            event = {**event, "headers": [*kept, (_FORWARDED, b"true")]}
        await send(event)

    return marked_send
