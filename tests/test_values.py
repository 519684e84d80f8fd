"""Values that Python lacks: what they are by themselves."""

from __future__ import annotations

import array
import copy
import pickle
import sys

import numpy as np
import pytest

from capnweb_py import INVALID_DATE, UNDEFINED, BigInt, TypedArray

KINDS = {
    "ArrayBuffer": (1, np.uint8),
    "DataView": (1, np.uint8),
    "Int8Array": (1, np.int8),
    "Uint8Array": (1, np.uint8),
    "Uint8ClampedArray": (1, np.uint8),
    "Int16Array": (2, np.int16),
    "Uint16Array": (2, np.uint16),
    "Int32Array": (4, np.int32),
    "Uint32Array": (4, np.uint32),
    "BigInt64Array": (8, np.int64),
    "BigUint64Array": (8, np.uint64),
    "Float32Array": (4, np.float32),
    "Float64Array": (8, np.float64),
}


def test_undefined_is_falsy_and_alone() -> None:
    assert not UNDEFINED
    assert UNDEFINED is not None
    assert repr(UNDEFINED) == "UNDEFINED"
    assert repr(INVALID_DATE) == "INVALID_DATE"


@pytest.mark.parametrize("value", [UNDEFINED, INVALID_DATE, BigInt(5), TypedArray("Int16Array", b"\x01\x00")])
def test_values_survive_copy_and_pickle(value: object) -> None:
    assert copy.deepcopy(value) == value
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert type(again) is type(value)


def test_a_bigint_is_an_int() -> None:
    assert BigInt(5) + 1 == 6
    assert str(BigInt(5)) == "5"
    assert repr(BigInt(5)) == "BigInt(5)"


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_reads_every_kind_without_a_copy(kind: str) -> None:
    itemsize, dtype = KINDS[kind]
    data = bytearray(range(1, 2 * itemsize + 1))
    value = TypedArray(kind, data)
    elements = np.asarray(value)
    assert elements.dtype == np.dtype(dtype).newbyteorder("<")
    assert len(value) == len(elements) == 2
    assert value.tolist() == elements.tolist() == list(value)
    data[0] ^= 0xFF
    assert elements.tobytes() == bytes(data)


def test_a_kind_must_be_known_and_its_elements_whole() -> None:
    with pytest.raises(ValueError, match="unknown kind of typed array 'Float16Array'; one of ArrayBuffer"):
        TypedArray("Float16Array", b"")
    with pytest.raises(ValueError, match="3 bytes do not fill a whole number of Int16Array elements of 2 bytes"):
        TypedArray("Int16Array", b"abc")


@pytest.mark.parametrize("code", "bBhHiIlLqQfd")
def test_every_array_has_a_kind_of_its_size_and_sign(code: str) -> None:
    numbers = array.array(code, [1, 2, 100])
    value = TypedArray.of(numbers)
    assert value.tolist() == numbers.tolist()
    assert value.itemsize == numbers.itemsize


def test_elements_are_little_endian_wherever_they_come_from() -> None:
    big = np.array([1, 2], ">i2")
    assert TypedArray.of(big) == TypedArray("Int16Array", b"\x01\x00\x02\x00")
    native = np.array([1, 2], "=i2")
    assert (TypedArray.of(native).data == native.tobytes()) is (sys.byteorder == "little")


def test_elements_may_lie_in_pieces_or_be_read_only_or_none() -> None:
    numbers = np.arange(6, dtype="<i2")
    assert TypedArray.of(numbers[::2]).tolist() == [0, 2, 4]
    assert TypedArray.of(numbers[::-1]).tolist() == [5, 4, 3, 2, 1, 0]
    assert TypedArray.of(numbers.astype(">i2")[1::2]).tolist() == [1, 3, 5]
    numbers.setflags(write=False)
    assert TypedArray.of(numbers).tolist() == [0, 1, 2, 3, 4, 5]
    assert TypedArray.of(np.zeros(0, "<f8")) == TypedArray("Float64Array", b"")
    with pytest.raises(ValueError, match=r"lies in pieces: make it whole with bytes\(data\)"):
        TypedArray("Int8Array", memoryview(b"abcd")[::2])


def test_immutable_elements_are_not_copied_and_others_are() -> None:
    data = bytes(range(16))
    assert TypedArray.of(np.frombuffer(data, "<i4")).data is data
    assert TypedArray.of(memoryview(data).cast("h")).data is data
    received = TypedArray("Float64Array", data)
    assert TypedArray.of(np.asarray(received)).data is data
    assert TypedArray.of(np.frombuffer(data, "<i4")[1:]).tolist() == np.frombuffer(data, "<i4").tolist()[1:]
    assert TypedArray.of(np.frombuffer(data, "<u1")[::-1]).data == data[::-1]
    numbers = np.arange(4, dtype="<i4")
    before = TypedArray.of(numbers)
    numbers[0] = 9
    assert before.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("buffer", "problem"),
    [
        (np.zeros((2, 2), "u1"), "an array of 2 dimensions has no typed array: send it flat"),
        (np.zeros(2, "complex64"), "elements of the format 'Zf' fit no kind"),
        (np.zeros(2, "float16"), "elements of the format 'e' fit no kind"),
        (np.zeros(2, "bool"), "elements of the format '\\?' fit no kind"),
    ],
)
def test_what_no_typed_array_can_hold_is_refused(buffer: object, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        TypedArray.of(buffer)
