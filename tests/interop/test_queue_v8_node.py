"""What Python writes in V8's format, read by the V8 of Node."""

from __future__ import annotations

import base64
import json
import math
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from capnweb_py.bindings.v8_writing import dumps
from capnweb_py.values import UNDEFINED, BigInt, TypedArray

from .node import CLIENT_DEADLINE, HERE

CIRCLE: Final[dict[str, Any]] = {"name": "circle"}
CIRCLE["self"] = CIRCLE
SHARED: Final = [1]
WIDE: Final = "\u0416\U0001f600"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

VALUES: Final[dict[str, Any]] = {
    "simple": [None, UNDEFINED, True, False],
    "integers": [0, 1, -1, 2**31 - 1, -(2**31), 2**31, 2**53 - 1, -(2**53 - 1)],
    "floats": [0.5, -0.25, 1e300, math.inf, math.nan],
    "bigints": [BigInt(0), BigInt(5), BigInt(-5), 2**53, -(2**200)],
    "strings": ["", "latin é", WIDE, "x" * 300, "\ud800"],
    "aligned": ["odd", WIDE, "even", WIDE, {WIDE: WIDE}],
    "object": {"a": {"b": [{}, ()]}, "7": "seven"},
    "map": {1: "one", None: 2, "k": []},
    "set": {"a", 1, None},
    "dates": [EPOCH + timedelta(milliseconds=1700000000123), EPOCH - timedelta(milliseconds=1)],
    "bytes": [b"", b"\0\xff"],
    "arrays": [
        TypedArray("Float64Array", b"\0\0\0\0\0\0\xe0\x3f"),
        TypedArray("Int8Array", b"\xff"),
        TypedArray("ArrayBuffer", b"\7"),
    ],
    "circle": CIRCLE,
    "shared": {"one": SHARED, "data": b"\1", "other": SHARED},
    "error": TypeError(WIDE),
}


def test_a_real_v8_reads_what_python_writes(node: str) -> None:
    encoded = {name: base64.b64encode(dumps(value)).decode() for name, value in VALUES.items()}
    done = subprocess.run(
        [node, "v8.mjs"],
        cwd=HERE,
        input=json.dumps(encoded),
        stdout=subprocess.PIPE,
        text=True,
        timeout=CLIENT_DEADLINE,
        check=True,
    )
    assert json.loads(done.stdout) == dict.fromkeys(VALUES)
