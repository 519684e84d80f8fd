"""SQL's values on their way to and from the wire, where there are no more types than JSON has.

Numbers are doubles, as for every Worker: a parameter is bound as one, and an integer beyond 2^53 comes back as the
nearest.
"""

from __future__ import annotations

import math
from typing import Any

from capnweb_py.bindings.d1_values import MAX_SAFE_INTEGER

from .d1 import D1Failure, SqlValue

__all__ = ["param_from_wire", "wire_cell"]


def wire_cell(value: SqlValue) -> Any:
    """A cell as the runtime gets it. Bytes are an array of numbers; what no JSON number is, is null."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        # As JavaScript writes it.
        return int(value) if value.is_integer() and abs(value) <= MAX_SAFE_INTEGER else value
    if isinstance(value, int):
        return value if abs(value) <= MAX_SAFE_INTEGER else float(value)
    return list(value) if isinstance(value, bytes) else value


def param_from_wire(value: Any) -> SqlValue:
    """A parameter, as the runtime sends it.

    Raises:
        D1Failure: it is nothing that can be bound.
    """
    if value is None or isinstance(value, (str, bytes)):
        return value
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, list) and all(isinstance(element, (int, float)) for element in value):
        return bytes(int(element) & 0xFF for element in value)
    raise D1Failure(f"a parameter is a number, a string, null or an array of bytes, not {type(value).__name__}")
