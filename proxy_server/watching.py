"""What a server's users do, counted and timed by binding and channel: for Prometheus, and in a line of the log for each
call that fails. One that the binding declines has a line that is shown at the level "info".

Nothing that is counted or logged is a value: of a call there is the name of the method, of a request the method and the
path without its query, of an error its type. What errors say stays out of it.

The numbers are plain ones, and prometheus_client turns them into text when it is asked to: its own counters take locks,
and its default registry is one for the whole process.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from capnweb_py.errors import RemoteError, SessionClosed
from proxy_server.channels import CONNECT_ADDRESS, FAILURE, LOG, MAX_LOGGED, Receive, Scope, Send, header
from proxy_server.declined import Declined

__all__ = ["CONTENT_TYPE", "Watch"]

# The text format's own type (Prometheus documentation, "Exposition formats").
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

# In seconds: a call of a small service takes one millisecond, a large picture some.
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# From here on, a status says that the client is at fault, or the server (RFC 9110, section 15).
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500

# What is not there, has not changed or is not as it was supposed to be: asking whether it is, is what these are for.
_FINE_STATUSES: Final = frozenset({404, 410, 412})


@attrs.define
class _Tally:
    """The numbers of one binding on one channel."""

    calls: int = 0
    errors: int = 0
    received: int = 0
    sent: int = 0
    seconds: float = 0.0
    # How many calls took as long as each bucket says, and how many longer.
    buckets: list[int] = attrs.field(factory=lambda: [0] * (len(_BUCKETS) + 1))


@attrs.frozen
class _Outcome:
    """How a call ended that brought nothing.

    Attributes:
        problem: in a word.
        failed: whether the server is at fault; if not, the binding has declined to do what was asked.
    """

    problem: str
    failed: bool

    @classmethod
    def of(cls, error: BaseException) -> _Outcome:
        """The outcome that an error is. Those of the runtime's words are raised while a binding declines."""
        declined = next((one for one in (error, error.__context__) if isinstance(one, Declined)), None)
        if declined is None:
            return cls(_type_of(error), failed=True)
        if declined.status in _FINE_STATUSES:
            return _FINE
        return cls(f"{type(declined).__name__}, HTTP {declined.status}", failed=declined.status >= _SERVER_ERROR)

    @classmethod
    def of_status(cls, status: int) -> _Outcome:
        """The outcome that a response is."""
        if status < _CLIENT_ERROR or status in _FINE_STATUSES:
            return _FINE
        return cls(f"HTTP {status}", failed=status >= _SERVER_ERROR)


_FINE: Final = _Outcome("", failed=False)


class Watch(Collector):
    """The numbers of one application.

    Args:
        bindings: how many bindings there are now.
        clock: what time it is, in seconds.
        refusals: how many requests were refused before a binding saw them, by reason.
    """

    def __init__(
        self,
        bindings: Callable[[], int],
        clock: Callable[[], float] = time.perf_counter,
        refusals: Mapping[str, int] | None = None,
    ) -> None:
        self._bindings = bindings
        self._refusals = {} if refusals is None else refusals
        self._clock = clock
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._sessions: dict[str, int] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def calls_of(self, binding: str) -> Callable[[str], Callable[[BaseException | None], object]]:
        """What watches the calls of a session with a binding: see `SessionOptions.on_call`."""

        def on_call(method: str) -> Callable[[BaseException | None], object]:
            begun = self._clock()

            def on_end(error: BaseException | None) -> None:
                # A session that ends takes its calls with it: the client has gone, which is no failure of theirs.
                outcome = _FINE if error is None or isinstance(error, SessionClosed) else _Outcome.of(error)
                self._ended(binding, "rpc", ascii(method)[1:-1], begun, outcome)

            return on_end

        return on_call

    @contextmanager
    def session(self, binding: str) -> Iterator[None]:
        """There is a session with a binding for the length of the block."""
        self._sessions[binding] = self._sessions.get(binding, 0) + 1
        try:
            yield
        finally:
            self._sessions[binding] -= 1

    @contextmanager
    def request(self, binding: str, channel: str, scope: Scope, send: Send) -> Iterator[Send]:
        """Watch a request for a binding, or a WebSocket. Yields what it is to be answered with instead of `send`."""
        begun = self._clock()
        failures: list[BaseException | None] = []
        status = 0

        async def watched_send(event: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = event.get("status", status)
            await send(event)

        token = FAILURE.set(failures.append)
        try:
            yield watched_send
        except Exception as error:
            failures.append(error)
            raise
        finally:
            FAILURE.reset(token)
            outcome = _Outcome.of_status(status)
            if failures:
                outcome = _FINE if failures[0] is None else _Outcome.of(failures[0])
            self._ended(binding, channel, _request_name(scope), begun, outcome)

    def counted(self, binding: str, channel: str, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """The same channel, on which bytes are counted."""
        tally = self._tally(binding, channel)

        async def counted_receive() -> MutableMapping[str, Any]:
            event = await receive()
            tally.received += _size(event)
            return event

        async def counted_send(event: MutableMapping[str, Any]) -> None:
            tally.sent += _size(event)
            await send(event)

        return counted_receive, counted_send

    def exposition(self) -> bytes:
        """The numbers in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """As prometheus_client asks for it."""
        yield GaugeMetricFamily("capnweb_bindings", "Bindings that are open.", self._bindings())
        sessions = GaugeMetricFamily("capnweb_sessions", "RPC sessions that are open.", labels=["binding"])
        for binding, count in self._sessions.items():
            sessions.add_metric([binding], count)
        yield sessions
        refusals = CounterMetricFamily("capnweb_refusals", "Requests that no binding has seen.", labels=["reason"])
        for reason, count in self._refusals.items():
            refusals.add_metric([reason], count)
        yield refusals
        labels = ["binding", "channel"]
        calls = CounterMetricFamily("capnweb_calls", "Calls and requests that have ended.", labels=labels)
        errors = CounterMetricFamily("capnweb_errors", "Those that failed.", labels=labels)
        traffic = CounterMetricFamily("capnweb_bytes", "Bytes of bodies and messages.", labels=[*labels, "direction"])
        seconds = HistogramMetricFamily("capnweb_call_seconds", "How long they took.", labels=labels)
        for (binding, channel), tally in self._tallies.items():
            place = [binding, channel]
            calls.add_metric(place, tally.calls)
            errors.add_metric(place, tally.errors)
            traffic.add_metric([*place, "in"], tally.received)
            traffic.add_metric([*place, "out"], tally.sent)
            seconds.add_metric(place, _cumulative(tally.buckets), tally.seconds)
        yield from (calls, errors, traffic, seconds)

    def _tally(self, binding: str, channel: str) -> _Tally:
        return self._tallies.setdefault((binding, channel), _Tally())

    def _ended(self, binding: str, channel: str, name: str, begun: float, outcome: _Outcome) -> None:
        took = self._clock() - begun
        tally = self._tally(binding, channel)
        tally.calls += 1
        tally.seconds += took
        tally.buckets[bisect_left(_BUCKETS, took)] += 1
        if outcome is _FINE:
            return
        tally.errors += outcome.failed
        level = logging.WARNING if outcome.failed else logging.INFO
        if LOG.isEnabledFor(level):
            call = {
                "binding": binding,
                "channel": channel,
                "call": name[:MAX_LOGGED],
                "error": outcome.problem[:MAX_LOGGED],
                "ms": round(took * 1000, 3),
            }
            verb = "failed" if outcome.failed else "was declined"
            LOG.log(
                level,
                f"%(binding)s %(channel)s %(call)s {verb}: %(error)s, after %(ms)s ms",
                call,
                extra={"call": call},
            )


def _type_of(error: BaseException) -> str:
    return ascii(error.name)[1:-1] if isinstance(error, RemoteError) else type(error).__name__


def _request_name(scope: Scope) -> str:
    """The method and the path of a request for a binding; of a WebSocket, what it is and where it leads."""
    address = header(scope, CONNECT_ADDRESS)
    if address is not None:
        return ascii(f"CONNECT {address}")[1:-1]
    try:
        path = urlsplit(header(scope, b"mf-url") or "").path or "/"
    except ValueError:
        path = "?"
    return ascii(f"{scope.get('method', 'WEBSOCKET')} {path}")[1:-1]


def _size(event: MutableMapping[str, Any]) -> int:
    """The bytes of an ASGI event: of a body, or of a message."""
    data = event.get("body") or event.get("bytes") or event.get("text")
    return len(data) if data else 0


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    """The buckets as Prometheus counts them: each with all that are smaller."""
    total = 0
    counted: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, _BUCKETS), "+Inf"), buckets, strict=True):
        total += count
        counted.append((bound, total))
    return counted
