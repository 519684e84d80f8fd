"""V8's serialization format as a queue's consumer reads it. Right values are those of a real V8 (interop/
test_workerd_queue.py); here is what anybody may send."""

from __future__ import annotations

import math
import random
import re
import struct
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from capnweb_py.bindings.v8_format import MAX_DEPTH
from capnweb_py.bindings.v8_reading import loads
from capnweb_py.bindings.v8_writing import dumps
from capnweb_py.errors import remote_error
from capnweb_py.values import INVALID_DATE, UNDEFINED, BigInt, TypedArray

HEADER: Final = b"\xff\x0f"
# What `{a: [1, "x", new Date(0)], b: new Map([[1, new Set(["y"])]]), c: new Uint8Array([1, 2])}` is in the format.
VALUE: Final = HEADER + (
    b'o"\x01aA\x03I\x02"\x01xD' + struct.pack("<d", 0) + b'$\x00\x03"\x01b;I\x02\'"\x01y,\x01:\x02'
    b'"\x01cB\x02\x01\x02VB\x00\x02\x00{\x03'
)


def test_a_value() -> None:
    value = loads(VALUE)
    assert value["a"][:2] == [1, "x"]
    assert value["a"][2].timestamp() == 0
    assert (value["b"], value["c"]) == ({1: {"y"}}, b"\1\2")


def test_every_beginning_of_a_value_is_refused() -> None:
    for length in range(len(VALUE)):
        with pytest.raises(ValueError, match="the bytes are no value in V8's format"):
            loads(VALUE[:length])


def test_random_changes_end_in_a_value_or_in_a_value_error() -> None:
    source = random.Random(1)
    for _ in range(20_000):
        changed = bytearray(VALUE)
        for _ in range(source.randint(1, 4)):
            changed[source.randrange(2, len(changed))] = source.randrange(256)
        try:
            loads(bytes(changed))
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "they do not begin as one"),
        (b'{"a": 1}', "they do not begin as one"),
        (b"\xff\x0c0", "version 12"),
        (b"\xff\x100", "version 16"),
        (HEADER + b"\\", "the tag '\\\\' of V8's format"),
        (HEADER + b"R\x22\x01a\x00", "the tag 'R' of V8's format"),
        (HEADER + b"^\x00", "an object that it does not have yet"),
        (HEADER + b"s^\x00", "an object that it does not have yet"),
        (HEADER + b"A\xff\xff\xff\xff\x0f0$\x00\x00", "they end too early"),
        (HEADER + b"a\xff\xff\xff\xff\x0f@\x00\x00", "nearly all of which are missing"),
        (HEADER + b"I\xff\xff\xff\xff\xff\xff", "a number is too long"),
        (HEADER + b"Z\xfe\xff\xff\xff\x0f\x01", "they end too early"),
        (HEADER + b"o00{\x01", "a property whose name is none"),
        (HEADER + b";o{\x000:\x02", "a Map whose keys are objects"),
        (HEADER + b"'A\x00$\x00\x00,\x01", "a Set of objects"),
        (HEADER + b"B\x02\x00\x00VB\x01\x02\x00", "a view of an ArrayBuffer that is not valid"),
        (HEADER + b"B\x02\x00\x00VZ\x00\x02\x00", "a view of an ArrayBuffer that is not valid"),
        (HEADER + b"B\x03\x00\x00\x00VW\x00\x03\x00", "3 bytes do not fill"),
        (HEADER + b"c\x01a", "a text that is none"),
        (HEADER + b"S\x01\xff", "a text that is none"),
        (HEADER + b"r?.", "an error that is not valid"),
        (HEADER + b"rmI\x02.", "an error that is not valid"),
        (HEADER + b"A\x01" * 10_000, f"nested deeper than {MAX_DEPTH} levels"),
        (HEADER + b"s" * 10_000, f"nested deeper than {MAX_DEPTH} levels"),
        (HEADER + b"r" + b"cr" * 10_000, f"nested deeper than {MAX_DEPTH} levels"),
    ],
)
def test_what_is_no_value(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        loads(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (HEADER + b"D" + struct.pack("<d", float("nan")), INVALID_DATE),
        (HEADER + b"D" + struct.pack("<d", 8.64e15), INVALID_DATE),
        (HEADER + b"c\x02\x00\xd8", "\ud800"),
        (HEADER + b"\0\0_", UNDEFINED),
        (HEADER + b"A\x02-0$\x00\x02", [UNDEFINED, None]),
        (HEADER + b"~\x01\x08\x07", b"\7"),
        (b"\xff\x0dB\x02\x01\x02VB\x01\x01", b"\2"),
    ],
)
def test_rare_values(data: bytes, value: Any) -> None:
    assert loads(data) == value


CIRCLE: Final[dict[str, Any]] = {}
CIRCLE["self"] = CIRCLE
SHARED: Final = [1]


@pytest.mark.parametrize(
    "value",
    [
        None,
        UNDEFINED,
        True,
        [0, 1, -1, 2**31 - 1, -(2**31), 2**31, 2**53 - 1, -(2**53 - 1)],
        [0.5, -0.0, math.inf],
        [BigInt(0), BigInt(5), BigInt(-5), 2**53, -(2**200)],
        ["", "latin é", "wide \u0416\U0001f600", "\ud800", "x" * 300],
        ["odd", "\u0416", "even", "\u0416"],
        {"a": {"b": [{}, []]}, "7": "seven"},
        {1: "one", None: 2, "k": []},
        {"a", 1, None},
        [datetime(2026, 1, 1, tzinfo=UTC), datetime(1900, 1, 1, 0, 0, 0, 1000, tzinfo=UTC), INVALID_DATE],
        [b"", b"\0\xff", SHARED, SHARED, b"\1" * 200],
        [TypedArray("Float64Array", b"\0" * 16), TypedArray("Int8Array", b"\xff"), TypedArray("DataView", b"x")],
    ],
)
def test_what_is_written_is_read(value: Any) -> None:
    assert loads(dumps(value)) == value


def test_what_is_one_object_stays_one() -> None:
    circle = loads(dumps(CIRCLE))
    assert circle["self"] is circle
    one, data, other = loads(dumps([SHARED, b"x", SHARED]))
    assert one is other
    assert data == b"x"


def test_errors_are_written() -> None:
    errors = loads(dumps([TypeError("no \u0416"), KeyError("x"), remote_error("RangeError", "far")]))
    assert [(error.name, error.message) for error in errors] == [
        ("TypeError", "no \u0416"),
        ("Error", "'x'"),
        ("RangeError", "far"),
    ]


def test_what_is_nested_too_deeply_is_not_written() -> None:
    value: list[Any] = []
    for _ in range(MAX_DEPTH):
        value = [value]
    with pytest.raises(ValueError, match="nested deeper"):
        dumps(value)
