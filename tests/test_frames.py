"""Plain frames of WebSocket: written as `websockets` reads them, and read wherever they are cut."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol

from capnweb_py.transports.frames import FrameReader, write_frames

MAX_SIZE = 4 * 1024 * 1024
LONG = 64 * 1024

SIZES = st.sampled_from([0, 1, 125, 126, 127, LONG - 1, LONG, LONG + 1, 300_000, 1024 * 1024, 3 * 1024 * 1024])
MESSAGES = st.lists(st.tuples(SIZES.map(os.urandom), st.booleans()), min_size=1, max_size=4)


class Reading:
    """A reader, fed as a connection feeds it."""

    def __init__(self, masked: bool) -> None:
        self.taken: list[tuple[bytes, bool]] = []
        self.passed_on: list[bytes] = []
        self.reader = FrameReader(
            masked, MAX_SIZE, lambda data, binary: self.taken.append((data, binary)), self.pass_on
        )

    def pass_on(self, data: bytes) -> bool:
        self.passed_on.append(data)
        return True

    def receive(self, data: bytes) -> None:
        """What one read of the socket gives: at most as much as there is room for."""
        while data:
            if not self.reader.within_long:
                self.reader.feed(data)
                return
            room = self.reader.room()
            count = min(len(room), len(data))
            room[:count] = data[:count]
            del room
            self.reader.filled(count)
            data = data[count:]


def written(messages: list[tuple[bytes, bool]], masked: bool) -> bytes:
    return b"".join(write_frames(messages, masked))


@pytest.mark.parametrize("masked", [True, False])
@given(messages=MESSAGES)
@settings(max_examples=30)
def test_websockets_reads_what_is_written(messages: list[tuple[bytes, bool]], masked: bool) -> None:
    protocol = Protocol(SERVER if masked else CLIENT, state=OPEN, max_size=None)
    protocol.receive_data(written(messages, masked))
    frames: list[Any] = protocol.events_received()
    assert [(bytes(frame.data), frame.opcode is Opcode.BINARY) for frame in frames] == messages


@pytest.mark.parametrize("masked", [True, False])
@given(messages=MESSAGES, data=st.data())
@settings(max_examples=60)
def test_frames_may_be_cut_anywhere(messages: list[tuple[bytes, bool]], masked: bool, data: st.DataObject) -> None:
    stream = written(messages, masked)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reading = Reading(masked)
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reading.receive(stream[start:end])
    assert reading.taken == messages
    assert not reading.passed_on


@pytest.mark.parametrize("size", [10, LONG, 300_000])
def test_frames_that_come_byte_by_byte_or_in_one_piece(size: int) -> None:
    messages = [(os.urandom(size), True), (b"and another", False)]
    stream = written(messages, True)
    slowly, at_once = Reading(True), Reading(True)
    step = 1 if size < LONG else 997
    for start in range(0, len(stream), step):
        slowly.receive(stream[start : start + step])
    at_once.reader.feed(stream)
    assert slowly.taken == at_once.taken == messages


def test_what_feeds_the_reader_may_ignore_the_room() -> None:
    message = os.urandom(2 * 1024 * 1024), True
    stream = written([message, message], True)
    reading = Reading(True)
    for start in range(0, len(stream), 100_000):
        reading.reader.feed(stream[start : start + 100_000])
    assert reading.taken == [message, message]


def test_a_message_that_is_only_announced_takes_little_memory() -> None:
    reading = Reading(False)
    reading.receive(b"\x82\x7f" + MAX_SIZE.to_bytes(8, "big"))
    assert len(reading.reader.room()) == 1024 * 1024


def test_the_room_grows_with_what_has_come() -> None:
    reading = Reading(False)
    message = os.urandom(MAX_SIZE)
    reading.receive(b"\x82\x7f" + MAX_SIZE.to_bytes(8, "big"))
    rooms = []
    while reading.reader.within_long:
        room = reading.reader.room()
        rooms.append(len(room))
        start = sum(rooms[:-1])
        room[:] = message[start : start + len(room)]
        del room
        reading.reader.filled(rooms[-1])
    assert [size // 1024 for size in rooms] == [1024, 1024, 2048]
    assert reading.taken == [(message, True)]


@pytest.mark.parametrize(
    ("frame", "masked"),
    [
        (Frame(Opcode.PING, b"x"), True),
        (Frame(Opcode.TEXT, b"x" * 100_000, fin=False), True),
        (Frame(Opcode.CONT, b"x" * 100_000), True),
        (Frame(Opcode.BINARY, b"x" * 100_000), False),
    ],
    ids=["control", "first fragment", "last fragment", "not masked"],
)
def test_every_other_frame_is_passed_on_whole(frame: Frame, masked: bool) -> None:
    reading = Reading(True)
    data = frame.serialize(mask=masked)
    reading.receive(data[:1000])
    reading.receive(data[1000:])
    assert b"".join(reading.passed_on) == data
    assert not reading.taken


def test_of_a_frame_that_is_too_large_the_beginning_is_enough_to_refuse_it() -> None:
    reading = Reading(True)
    data = Frame(Opcode.BINARY, b"x" * (MAX_SIZE + 1)).serialize(mask=True)
    reading.receive(data[:1000])
    assert reading.passed_on == [data[:1000]]
