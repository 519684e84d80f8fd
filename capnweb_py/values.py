"""Values that JavaScript has and Python lacks: what they are in Python, and nothing about how they travel.

Each is immutable, prints as itself, and survives `copy` and `pickle`. How they become expressions is in serialize.py.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from typing import Any, Final, Literal, final

import attrs

__all__ = [
    "INVALID_DATE",
    "MAX_SAFE_INTEGER",
    "MIN_SAFE_INTEGER",
    "UNDEFINED",
    "BigInt",
    "InvalidDate",
    "TypedArray",
    "Undefined",
]


# Integers beyond these are not exact as a JavaScript number (Number.MAX_SAFE_INTEGER and its like).
MAX_SAFE_INTEGER: Final = 2**53 - 1
MIN_SAFE_INTEGER: Final = -MAX_SAFE_INTEGER


@final
class Undefined(enum.Enum):
    """JavaScript's `undefined`, of which there is one value: `UNDEFINED`. It is falsy."""

    UNDEFINED = "undefined"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "UNDEFINED"

    __str__ = __repr__


@final
class InvalidDate(enum.Enum):
    """JavaScript's date that is none (`new Date(NaN)`), of which there is one value: `INVALID_DATE`."""

    INVALID_DATE = "invalid"

    def __repr__(self) -> str:
        return "INVALID_DATE"

    __str__ = __repr__


UNDEFINED: Final[Literal[Undefined.UNDEFINED]] = Undefined.UNDEFINED
INVALID_DATE: Final[Literal[InvalidDate.INVALID_DATE]] = InvalidDate.INVALID_DATE


class BigInt(int):
    """An `int` that travels as a JavaScript `bigint`, whatever its size.

    A plain `int` beyond ±(2^53 - 1) travels as a bigint by itself; `BigInt(5)` is for a peer that asks for `5n`.
    Every received bigint is a `BigInt`, so that it goes back as one.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"BigInt({int(self)})"

    __str__ = int.__repr__


# The kinds of byte container that the protocol names (its section "bytes"), each with the format of one element as
# `memoryview.cast` spells it. ArrayBuffer and DataView have no elements of their own: they read as bytes.
_ELEMENT_FORMATS: Final[dict[str, Literal["b", "B", "h", "H", "i", "I", "q", "Q", "f", "d"]]] = {
    "ArrayBuffer": "B",
    "DataView": "B",
    "Int8Array": "b",
    "Uint8Array": "B",
    "Uint8ClampedArray": "B",
    "Int16Array": "h",
    "Uint16Array": "H",
    "Int32Array": "i",
    "Uint32Array": "I",
    "BigInt64Array": "q",
    "BigUint64Array": "Q",
    "Float32Array": "f",
    "Float64Array": "d",
}

_NUMPY_KINDS: Final = {
    "b": "i",
    "B": "u",
    "h": "i",
    "H": "u",
    "i": "i",
    "I": "u",
    "q": "i",
    "Q": "u",
    "f": "f",
    "d": "f",
}

# The kind of a buffer, by whether its elements are signed, unsigned or floating point, and by their size in bytes.
_KIND_OF_ELEMENTS: Final = {
    ("signed", 1): "Int8Array",
    ("unsigned", 1): "Uint8Array",
    ("signed", 2): "Int16Array",
    ("unsigned", 2): "Uint16Array",
    ("signed", 4): "Int32Array",
    ("unsigned", 4): "Uint32Array",
    ("signed", 8): "BigInt64Array",
    ("unsigned", 8): "BigUint64Array",
    ("float", 4): "Float32Array",
    ("float", 8): "Float64Array",
}


@final
@attrs.frozen(repr=False, eq=False)
class TypedArray:
    """A JavaScript byte container of one of the protocol's 13 kinds.

    Args:
        kind: "Int16Array", "Float64Array", "ArrayBuffer", "DataView" ...
        data: the elements as little-endian bytes; its length is a multiple of the element's size. Kept, not copied.

    Iterating and indexing give the elements as Python numbers. NumPy reads it without a copy: `numpy.asarray(value)`.

    Raises:
        ValueError: if the kind is unknown, or the length does not fit it, or the data lies in pieces.
    """

    kind: str
    data: bytes | bytearray | memoryview

    def __attrs_post_init__(self) -> None:
        if self.kind not in _ELEMENT_FORMATS:
            raise ValueError(f"unknown kind of typed array {self.kind!r}; one of {', '.join(_ELEMENT_FORMATS)}")
        if not memoryview(self.data).c_contiguous:
            raise ValueError("the data of a typed array lies in pieces: make it whole with bytes(data)")
        if self.nbytes % self.itemsize:
            raise ValueError(
                f"{self.nbytes} bytes do not fill a whole number of {self.kind} elements of {self.itemsize} bytes"
            )

    @classmethod
    def of(cls, buffer: Any) -> TypedArray:
        """The typed array of the elements in an object with the buffer protocol (`array.array`, a NumPy array, ...).

        The elements are copied, since they may change later, unless they are those of `bytes`, which cannot.

        Raises:
            TypeError: if the buffer has several dimensions, or elements that no kind of typed array can hold.
        """
        view = memoryview(buffer)
        if view.ndim != 1:
            raise TypeError(
                f"an array of {view.ndim} dimensions has no typed array: send it flat, with its shape beside it"
            )
        order, code = (view.format[0], view.format[1:]) if view.format[0] in "@=<>!" else ("@", view.format)
        group = "signed" if code in tuple("bhilqn") else "unsigned" if code in tuple("BHILQN") else "float"
        kind = _KIND_OF_ELEMENTS.get((group, view.itemsize))
        if kind is None or code not in tuple("bBhHiIlLqQnNfd"):
            raise TypeError(f"elements of the format {view.format!r} fit no kind of typed array")
        big_endian = order in ">!" or (order in "@=" and sys.byteorder == "big")
        data = _bytes_of(view)
        return cls(kind, _swap(data, view.itemsize) if big_endian and view.itemsize > 1 else data)

    @property
    def itemsize(self) -> int:
        """The size of one element, in bytes."""
        return memoryview(b"").cast(_ELEMENT_FORMATS[self.kind]).itemsize

    @property
    def nbytes(self) -> int:
        """The size of all elements, in bytes."""
        return memoryview(self.data).nbytes

    @property
    def view(self) -> memoryview[Any]:
        """The elements, typed, without a copy (with one on a big-endian machine)."""
        data = self.data
        if sys.byteorder == "big" and self.itemsize > 1:
            data = _swap(bytes(data), self.itemsize)
        return memoryview(data).cast("B").cast(_ELEMENT_FORMATS[self.kind])

    @property
    def __array_interface__(self) -> dict[str, Any]:
        code = _NUMPY_KINDS[_ELEMENT_FORMATS[self.kind]]
        return {"version": 3, "shape": (len(self),), "typestr": f"<{code}{self.itemsize}", "data": self.data}

    def tolist(self) -> list[int] | list[float]:
        """The elements as a list of Python numbers."""
        return self.view.tolist()

    def __len__(self) -> int:
        return self.nbytes // self.itemsize

    def __iter__(self) -> Iterator[int | float]:
        return iter(self.view)

    def __getitem__(self, index: int) -> int | float:
        element: int | float = self.view[index]
        return element

    def __bytes__(self) -> bytes:
        return bytes(self.data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TypedArray):
            return NotImplemented
        return self.kind == other.kind and bytes(self.data) == bytes(other.data)

    def __hash__(self) -> int:
        return hash((self.kind, bytes(self.data)))

    def __repr__(self) -> str:
        elements = ", ".join(str(element) for element in self.view[:8])
        return f"TypedArray({self.kind}, [{elements}{', ...' if len(self) > 8 else ''}])"


def _bytes_of(view: memoryview) -> bytes:
    """What a view sees: the very `bytes` that it looks at the whole of, or a copy."""
    owner: Any = view.obj
    while getattr(owner, "base", None) is not None:  # NumPy's name for what a view looks at
        owner = owner.base
    if type(owner) is bytes and view.c_contiguous and view.nbytes == len(owner):
        return owner
    return view.tobytes()


def _swap(data: bytes, itemsize: int) -> bytes:
    """The bytes with the order inside each element reversed."""
    swapped = bytearray(len(data))
    for offset in range(itemsize):
        swapped[offset::itemsize] = data[itemsize - 1 - offset :: itemsize]
    return bytes(swapped)
