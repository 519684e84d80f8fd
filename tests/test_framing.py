"""Framings: messages to bytes and back, wherever the bytes are cut, and whatever a peer sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capnweb_py import LimitExceeded, ProtocolError
from capnweb_py.codec import CBOR, JSON
from capnweb_py.session import Message
from capnweb_py.transports.framing import Framing, LengthFraming, LineFraming, framing_named

MIXED: list[Message] = [(b'["push",1]', False), (b"\x82\n\x00", True), (b"", False), (b"x" * 300, True)]
LINES: list[Message] = [(b'["push",1]', False), (b"[1]", False), ('"ä"'.encode(), False)]


def taken(framing: Framing, data: bytes, cuts: list[int]) -> list[Message]:
    """The messages that come out when the bytes arrive cut into pieces."""
    messages: list[Message] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        framing.feed(data[start:end])
        while (message := framing.next()) is not None:
            messages.append(message)
    return messages


@given(st.lists(st.integers(0, 300)).map(sorted), st.sampled_from([(LengthFraming, MIXED), (LineFraming, LINES)]))
def test_messages_come_back_wherever_the_bytes_are_cut(cuts: list[int], case: tuple[type, list[Message]]) -> None:
    kind, messages = case
    framing = kind(300)
    assert taken(framing, framing.write(messages), cuts) == messages
    assert not framing.within


@pytest.mark.parametrize(("kind", "messages"), [(LengthFraming, MIXED), (LineFraming, LINES)])
def test_a_framing_knows_whether_it_is_inside_a_message(kind: type, messages: list[Message]) -> None:
    data = kind(300).write(messages[:1])
    for end in range(1, len(data)):
        framing = kind(300)
        assert taken(framing, data[:end], []) == []
        assert framing.within
        assert taken(framing, data[end:], []) == messages[:1]
        assert not framing.within


def test_the_header_is_a_kind_and_a_length() -> None:
    assert LengthFraming(10).write([(b"[]", False), (b"\x80", True)]) == b"\1\0\0\0\2[]\2\0\0\0\1\x80"


@pytest.mark.parametrize("kind", [0, 3, ord("["), ord("{"), 255])
def test_a_header_of_another_kind_is_refused_after_what_came_before(kind: int) -> None:
    framing = LengthFraming(10)
    framing.feed(b"\1\0\0\0\2[]" + bytes([kind]) + b"\0\0\0\0")
    assert framing.next() == (b"[]", False)
    with pytest.raises(ProtocolError, match=f"a message begins with the byte {kind}, not with 1 for text or 2 for bin"):
        framing.next()


@pytest.mark.parametrize("length", [11, 2**31, 2**32 - 1])
def test_a_length_past_the_limit_is_refused_at_the_header(length: int) -> None:
    framing = LengthFraming(10)
    framing.feed(b"\2" + length.to_bytes(4, "big"))
    with pytest.raises(LimitExceeded, match=f"a message of {length} bytes is larger than max_message_size = 10"):
        framing.next()


def test_a_message_of_the_longest_length_is_taken() -> None:
    for framing in (LengthFraming(10), LineFraming(10)):
        data = framing.write([(b"1234567890", False)])
        assert taken(framing, data, [10]) == [(b"1234567890", False)]


@pytest.mark.parametrize("data", [b"12345678901", b"12345678901\n", b"[]\n12345678901"])
def test_a_line_past_the_limit_is_refused_without_its_end(data: bytes) -> None:
    with pytest.raises(LimitExceeded, match="a message on one line is larger than max_message_size = 10"):
        taken(LineFraming(10), data, [])


def test_lines_may_end_as_they_do_on_windows_and_be_empty() -> None:
    framing = LineFraming(100)
    assert taken(framing, b"\n[1]\r\n\r\n  \n[2]\n\n", []) == [(b"[1]\r", False), (b"[2]", False)]
    assert not framing.within


def test_a_long_line_that_comes_in_pieces_is_searched_once() -> None:
    class Counting(bytearray):
        searched = 0

        def find(self, sub: bytes, start: int = 0) -> int:  # type: ignore[override]
            Counting.searched += len(self) - start
            return super().find(sub, start)

    framing = LineFraming(100_000)
    framing._buffer = Counting()
    for _ in range(1000):
        framing.feed(b"x" * 100)
        assert framing.next() is None
    assert Counting.searched == 100_000


class Long(bytes):
    """Bytes longer than a test has memory for."""

    def __len__(self) -> int:
        return 2**32


def test_a_message_longer_than_a_header_can_say_is_not_written() -> None:
    with pytest.raises(LimitExceeded, match="a message of 4294967296 bytes is longer than a header can say"):
        LengthFraming(10).write([(Long(), False)])


def test_lines_carry_json_alone() -> None:
    assert isinstance(framing_named("newline", 10, JSON), LineFraming)
    assert isinstance(framing_named("length", 10, CBOR), LengthFraming)
    with pytest.raises(
        ValueError, match="'newline' carries JSON text alone, and not the codec 'cbor': use framing='len"
    ):
        framing_named("newline", 10, CBOR)
    with pytest.raises(ValueError, match="unknown framing 'line'; one of length, newline"):
        framing_named("line", 10, JSON)  # type: ignore[arg-type]
