"""D1's values: what may be bound to a statement, and what its cells are.

The rules and texts are those of the Workers runtime (workerd, src/cloudflare/internal/d1-api.ts, `bind`) and of D1's
table of type conversions: numbers are doubles, as in JavaScript, and blobs come back as arrays of numbers, which are
bytes here.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from ..stub import RpcStub
from ..values import UNDEFINED, BigInt, TypedArray

__all__ = ["MAX_SAFE_INTEGER", "D1Value", "bindable", "readable", "unbindable"]

# What a parameter may be in Python.
D1Value: TypeAlias = bool | int | float | str | bytes | bytearray | memoryview | None

# The integers that a double holds exactly end here.
MAX_SAFE_INTEGER: Final = (1 << 53) - 1


def bindable(value: Any) -> int | float | str | bytes | None:
    """A value as SQL takes it: a bool as 1 or 0, everything of bytes as bytes.

    Raises:
        ValueError: it is of a type that cannot be bound. The text is the runtime's.
    """
    if value is None or isinstance(value, (str, float)):
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not isinstance(value, BigInt):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, TypedArray):
        return bytes(int(element) & 0xFF for element in value)
    if isinstance(value, (list, tuple)) and all(_is_byte(element) for element in value):
        return bytes(int(element) for element in value)
    raise unbindable(value)


def unbindable(value: Any) -> ValueError:
    """The error about a value of a type that cannot be bound."""
    return ValueError(f"Type '{_type_of(value)}' not supported for value '{_text_of(value)}'")


def _is_byte(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 256


def _type_of(value: object) -> str:
    """What JavaScript's typeof says."""
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, int):
        return "bigint"
    return "function" if callable(value) or isinstance(value, RpcStub) else "object"


def _text_of(value: object) -> str:
    if value is UNDEFINED:
        return "undefined"
    return "[object Object]" if isinstance(value, dict) else str(value)


def readable(cell: Any) -> Any:
    """A cell as it came, in Python: an array of numbers is bytes; an integer that is not exact is a float."""
    if isinstance(cell, list):
        return bytes(cell)
    if isinstance(cell, int) and abs(cell) > MAX_SAFE_INTEGER:
        return float(cell)
    return cell
