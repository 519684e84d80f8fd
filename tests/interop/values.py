"""The values that both languages must agree on, by name: values.mjs holds the same table in JavaScript.

`same` is stricter than `==`: it tells a bool from an int, a bigint from a number and bytes from a typed array.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, Final

from capnweb_py import INVALID_DATE, UNDEFINED, BigInt, Blob, Headers, Request, Response, TypedArray, Url

_BUFFER: Final = bytes([0, 1, 2, 127, 128, 254, 255, 0, 0, 0, 0, 0, 0, 0, 240, 63])

_KINDS: Final = (
    "ArrayBuffer",
    "DataView",
    "Int8Array",
    "Uint8ClampedArray",
    "Int16Array",
    "Uint16Array",
    "Int32Array",
    "Uint32Array",
    "BigInt64Array",
    "BigUint64Array",
    "Float32Array",
    "Float64Array",
)


def _typed(kind: str) -> Callable[[], TypedArray]:
    return lambda: TypedArray(kind, _BUFFER)


# A value is made anew at each call, so that no test can see what another did to it.
VALUES: Final[dict[str, Callable[[], Any]]] = {
    "null": lambda: None,
    "true": lambda: True,
    "false": lambda: False,
    "zero": lambda: 0,
    "integer": lambda: -42,
    "largest_safe": lambda: 2**53 - 1,
    "smallest_safe": lambda: 1 - 2**53,
    "fraction": lambda: 1.5,
    "unsafe_number": lambda: float(2**53),
    "large_number": lambda: 1e17,
    "huge": lambda: 1.7976931348623157e308,
    "tiny": lambda: 5e-324,
    "infinity": lambda: math.inf,
    "minus_infinity": lambda: -math.inf,
    "nan": lambda: math.nan,
    "undefined": lambda: UNDEFINED,
    "bigint": lambda: BigInt(2**70 + 1),
    "negative_bigint": lambda: BigInt(-(2**64)),
    "bigint_just_beyond": lambda: BigInt(2**53),
    "empty_string": lambda: "",
    "string": lambda: 'héllo \U0001f600 \x00 " \\ \n',
    "lone_high_surrogate": lambda: "a\ud83db",
    "lone_low_surrogate": lambda: "\udfff",
    "reversed_surrogates": lambda: "\ude00\ud83d",
    "empty_list": list,
    "list": lambda: [1, "two", [3, [4, []]], None],
    "looks_special": lambda: ["bytes", "AAAA"],
    "list_of_undefined": lambda: [UNDEFINED, [UNDEFINED]],
    "empty_object": dict,
    "object": lambda: {"a": 1, "a b": [{"c": None}], "": {"é": True}, "undefined": UNDEFINED},
    "surrogate_beside_number": lambda: ["\ud800", 2**53 - 1],
    "surrogate_beside_bytes": lambda: ["\ud800", b"\x01\x02\x03"],
    "surrogate_key": lambda: {"\ud800": 1},
    "epoch": lambda: datetime(1970, 1, 1, tzinfo=UTC),
    "date": lambda: datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC),
    "early_date": lambda: datetime(1, 1, 1, tzinfo=UTC),
    "late_date": lambda: datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
    "invalid_date": lambda: INVALID_DATE,
    "bytes": lambda: bytes(range(256)),
    "empty_bytes": bytes,
    **{kind: _typed(kind) for kind in _KINDS},
    "empty_typed_array": lambda: TypedArray("Float64Array", b""),
    "mixed": lambda: {
        "when": datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC),
        "raw": [b"\x01\x02", BigInt(3**40)],
        "nothing": UNDEFINED,
    },
}


_URL: Final = "https://a.example/path?q=1#top"


async def _pieces(*pieces: str) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece.encode()


# The web's values, likewise: they can be read once, so they are compared by what `described` says of them.
WEB_VALUES: Final[dict[str, Callable[[], Any]]] = {
    "url": lambda: Url(_URL),
    "headers": lambda: Headers(
        [("X-B", "1"), ("Set-Cookie", "b=2"), ("x-a", "ä"), ("x-b", "2"), ("set-cookie", "a=1")]
    ),
    "plain_request": lambda: Request(_URL),
    "request": lambda: Request(_URL, method="POST", headers={"x-a": "b"}, body="the béginning"),
    "streamed_request": lambda: Request(_URL, method="PUT", body=_pieces("one ", "two")),
    "plain_response": lambda: Response(None, status=204, status_text="Nothing"),
    "response": lambda: Response("not hére", status=404, headers={"x-a": "b"}),
    "empty_response": lambda: Response(""),
    "streamed_response": lambda: Response(_pieces("one ", "two ", "three"), status=201),
    "large_response": lambda: Response("0123456789" * 100_000),
    "blob": lambda: Blob("<p>hé</p>", "text/html;charset=utf-8"),
    "plain_blob": lambda: Blob(b"\x01\x02\x03"),
    "empty_blob": lambda: Blob(b"", "image/png"),
    "large_blob": lambda: Blob("0123456789" * 100_000, "text/plain"),
}


async def described(value: Any) -> list[Any]:
    """What a web value is, to the end of its body."""
    if isinstance(value, Url):
        return ["url", value.href]
    if isinstance(value, Headers):
        return ["headers", _pairs(value)]
    if isinstance(value, Blob):
        return ["blob", value.type, value.size, await value.text()]
    if isinstance(value, Request):
        kind: list[Any] = ["request", value.method, value.url]
    else:
        kind = ["response", value.status, value.status_text]
    return [*kind, _pairs(value.headers), value.body is None, await value.text()]


def _pairs(headers: Headers) -> list[list[str]]:
    return [[name, value] for name, value in headers.combined()]


def same(left: Any, right: Any) -> bool:
    """Whether both are the same value of the same type, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(same, left.values(), right.values()))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)
