"""Flow control: a slow reader bounds what the writer has under way, and a fast one on a long link is not held back.

First the arithmetic alone, on a pipe that is made of numbers; then whole sessions on a simulated connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from itertools import cycle
from typing import Any

import anyio
import attrs
import pytest
from links import linked

from capnweb_py import RpcTarget, SessionStats
from capnweb_py.flow import INITIAL_WINDOW, MIN_WINDOW, FlowControl, Sent

KIB = 1024

# Chunks of a real stream differ; these do, too, and are the same in every run.
SIZES = (32 * KIB, 4 * KIB, 16_000, 12_345, 16, 9_999, 4_321, 8)


class Pipe:
    """A writer, a link of some bandwidth and round trip, and a reader that takes everything at once."""

    def __init__(self, round_trip: float = 0.1, bandwidth: float = 10 * 1024 * 1000) -> None:
        self.round_trip = round_trip
        self.bandwidth = bandwidth
        self.time = 1.0
        self.flow = FlowControl(lambda: self.time)
        self._busy_until = 0.0
        self._under_way: deque[tuple[float, Sent]] = deque()

    @property
    def product(self) -> float:
        """Of bandwidth and delay: what the link itself holds, in bytes."""
        return self.round_trip * self.bandwidth

    def send(self, size: int) -> None:
        self._busy_until = max(self._busy_until, self.time) + size / self.bandwidth
        self._under_way.append((self._busy_until + self.round_trip, self.flow.send(size)))

    def fill(self, size: int) -> int:
        """Send until the window is full. Returns how many chunks that took."""
        sent = 0
        while not self.flow.blocked:
            self.send(size)
            sent += 1
        return sent

    def acknowledge(self) -> None:
        """Let time pass until the oldest chunk is acknowledged."""
        self.time, sent = self._under_way.popleft()
        self.flow.acknowledge(sent)

    def saturate(self, seconds: float) -> None:
        """Write as fast as flow control lets for some time, and have everything acknowledged."""
        end, sizes = self.time + seconds, cycle(SIZES)
        while self.time < end:
            if self.flow.blocked:
                self.acknowledge()
            else:
                self.send(next(sizes))
        while self._under_way:
            self.acknowledge()


def test_the_writer_waits_when_the_window_is_full() -> None:
    pipe = Pipe()
    assert pipe.fill(64 * KIB) == 4
    assert pipe.flow.in_flight == INITIAL_WINDOW


def test_an_acknowledgement_makes_room() -> None:
    pipe = Pipe()
    pipe.fill(64 * KIB)
    pipe.acknowledge()
    assert not pipe.flow.blocked
    assert pipe.flow.in_flight == 192 * KIB


def test_the_window_grows_past_what_the_link_holds() -> None:
    pipe = Pipe()
    pipe.saturate(5 * pipe.round_trip)
    assert pipe.flow.window > pipe.product > INITIAL_WINDOW


def test_exploring_ends_when_the_window_stops_growing() -> None:
    pipe = Pipe()
    assert pipe.flow.exploring
    pipe.saturate(50 * pipe.round_trip)
    assert not pipe.flow.exploring


def test_the_window_settles_a_quarter_above_what_the_link_holds_and_stays_there() -> None:
    pipe = Pipe()
    for round_trips in (50, 20):
        pipe.saturate(round_trips * pipe.round_trip)
        assert 1.2 * pipe.product < pipe.flow.window < 1.3 * pipe.product


def test_a_writer_that_has_little_to_write_keeps_its_window() -> None:
    pipe = Pipe()
    pipe.saturate(50 * pipe.round_trip)
    window = pipe.flow.window
    for _ in range(50):
        pipe.send(KIB)
        pipe.acknowledge()
    assert pipe.flow.window == window


def test_the_window_narrows_with_the_link() -> None:
    pipe = Pipe()
    pipe.saturate(50 * pipe.round_trip)
    assert pipe.flow.window > pipe.product
    pipe.bandwidth /= 4
    pipe.saturate(200 * pipe.round_trip)
    assert pipe.flow.window < 2 * pipe.product


def test_a_refused_chunk_makes_room_and_says_nothing_of_the_link() -> None:
    pipe = Pipe()
    sent = pipe.flow.send(64 * KIB)
    assert pipe.flow.in_flight == 64 * KIB
    pipe.flow.fail(sent)
    assert (pipe.flow.in_flight, pipe.flow.window) == (0, INITIAL_WINDOW)


def test_the_window_doubles_in_a_round_trip_at_most() -> None:
    pipe = Pipe()
    pipe.fill(64 * KIB)
    pipe.acknowledge()
    before = pipe.flow.window
    pipe.fill(64 * KIB)
    while pipe.flow.in_flight:
        pipe.acknowledge()
    assert pipe.flow.window <= 2 * before + 1


def test_the_window_has_a_least_size() -> None:
    pipe = Pipe(round_trip=0.001, bandwidth=1000)
    pipe.saturate(10_000)
    assert pipe.flow.window == MIN_WINDOW


def test_a_clock_that_stands_still_changes_nothing() -> None:
    flow = FlowControl(lambda: 1.0)
    for _ in range(100):
        flow.acknowledge(flow.send(64 * KIB))
    assert (flow.window, flow.in_flight) == (INITIAL_WINDOW, 0)


# Whole sessions.

CHUNK = bytes(32 * KIB)
# What a chunk is as a JSON message, in base64.
MESSAGE = len(CHUNK) * 4 // 3


@attrs.define
class Source:
    """How much was asked of a source, and when."""

    limit: int
    taken: int = 0
    closed: bool = False

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            while self.taken < self.limit:
                self.taken += 1
                yield CHUNK
        finally:
            self.closed = True


class Reader(RpcTarget):
    """Reads streams, as fast as `pace` says: the seconds that it takes for a chunk."""

    def __init__(self, pace: float = 0.0) -> None:
        self._pace = pace
        self.link: Any = None
        self.read = 0

    async def read_all(self, stream: Any) -> int:
        async for _ in stream:
            self.read += 1
            if self._pace:
                await self.link.pass_time(self._pace)
        return self.read


async def transfer(count: int, *, pace: float = 0.0, round_trip: float = 0.1, bandwidth: float = 10e6) -> float:
    """How long a stream of so many chunks takes, in simulated seconds."""
    reader = Reader(pace)
    async with linked(reader, round_trip=round_trip, bandwidth=bandwidth) as link:
        reader.link = link
        source = Source(count)
        results: list[int] = []

        async def wait() -> None:
            results.append(await link.client.remote_main.read_all(source.chunks()))

        link.spawn(wait)
        await link.run(lambda: bool(results))
        assert results == [count]
        assert source.closed
        elapsed = link.now
        await link.run()
        assert link.client.stats() == link.server.stats() == SessionStats(1, 1)
        return elapsed


@pytest.mark.anyio
async def test_a_fast_reader_on_a_long_link_is_not_held_back() -> None:
    short, long = [await transfer(count) for count in (300, 900)]
    rate = 600 * MESSAGE / (long - short)
    # Of the 10 MB/s that the link carries. A window of the first size would give 256 KiB every 100 ms: 2.6 MB/s.
    assert rate > 9.5e6


@pytest.mark.anyio
@pytest.mark.parametrize("pace", [0.01, 0.1])
async def test_a_slow_reader_bounds_what_is_under_way(pace: float) -> None:
    reader = Reader(pace)
    async with linked(reader) as link:
        reader.link = link
        source = Source(10_000)
        promise = link.client.remote_main.read_all(source.chunks())
        most = 0
        for seconds in range(1, 20):
            await link.run(lambda: link.now > seconds)  # noqa: B023
            most = max(most, source.taken - reader.read)
        assert reader.read >= 19 / pace * 0.8
        # What the reader takes in a round trip, or the least window; the first one until anything is known.
        assert most * MESSAGE <= max(INITIAL_WINDOW, 2 * MESSAGE / pace * 0.1) + 2 * MESSAGE
        del promise


@pytest.mark.anyio
async def test_a_reader_that_reads_nothing_stops_the_writer_at_the_first_window() -> None:
    class Idle(RpcTarget):
        async def keep(self, stream: Any) -> None:
            self._stream = stream
            await anyio.sleep_forever()

    async with linked(Idle()) as link:
        source = Source(10_000)
        promise = link.client.remote_main.keep(source.chunks())
        await link.run()
        # Six chunks in base64, with their messages around them, are a little more than 256 KiB.
        assert source.taken == 6
        del promise
