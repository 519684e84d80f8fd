"""What reading (v8_reading.py) and writing (v8_writing.py) V8's serialization format share: tags, and a limit."""

from __future__ import annotations

from typing import Final

__all__ = ["ERRORS", "MAX_DEPTH", "VIEWS"]

# How deep a value may be nested: each level is a call in Python.
MAX_DEPTH: Final = 200

# Views, by the second byte of their tag. There is no Float16Array among the values of values.py.
VIEWS: Final = {
    "b": "Int8Array",
    "B": "Uint8Array",
    "C": "Uint8ClampedArray",
    "w": "Int16Array",
    "W": "Uint16Array",
    "d": "Int32Array",
    "D": "Uint32Array",
    "f": "Float32Array",
    "F": "Float64Array",
    "q": "BigInt64Array",
    "Q": "BigUint64Array",
    "?": "DataView",
}
ERRORS: Final = {
    "E": "EvalError",
    "R": "RangeError",
    "F": "ReferenceError",
    "S": "SyntaxError",
    "T": "TypeError",
    "U": "URIError",
}
