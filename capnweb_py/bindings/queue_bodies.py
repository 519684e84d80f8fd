"""The body of a queue's message, as bytes and as a value, by its content type (workerd, src/workerd/api/queue.c++).

- "json": whatever JSON has a form for; what a queue takes a message for that names no content type
- "text": a str
- "bytes": bytes
- "v8": what JavaScript can say and JSON cannot (v8_reading.py, v8_writing.py)
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal, get_args

import orjson

from ..values import UNDEFINED, TypedArray
from .v8_reading import loads
from .v8_writing import dumps

__all__ = ["CONTENT_TYPES", "ContentType", "body_value", "check_content_type", "encoded_body"]

ContentType = Literal["text", "bytes", "json", "v8"]
CONTENT_TYPES: Final[tuple[ContentType, ...]] = get_args(ContentType)


def check_content_type(content_type: object) -> ContentType:
    """The content type that a caller means, as the runtime takes it: in any case of letters.

    Raises:
        TypeError: if there is none of that name.
    """
    for known in CONTENT_TYPES:
        if isinstance(content_type, str) and content_type.lower() == known:
            return known
    raise TypeError(f"Unsupported queue message content type: {content_type}")


def encoded_body(body: object, content_type: ContentType) -> bytes:
    """A body as it is stored.

    Raises:
        TypeError: if the content type is not for such a value. The texts are the runtime's, where it has one.
    """
    if body is UNDEFINED:
        raise TypeError("Message body cannot be undefined")
    if content_type == "json":
        return _json(body)
    if content_type == "text":
        if not isinstance(body, str):
            raise TypeError(_mismatch(content_type, "string", body))
        # As the runtime writes a str: what is no character becomes the replacement character.
        return body.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
    if content_type == "bytes":
        if not isinstance(body, (bytes, bytearray, memoryview, TypedArray)):
            raise TypeError(_mismatch(content_type, "ArrayBufferView", body))
        return bytes(body)
    try:
        return dumps(body)
    except ValueError as error:
        raise TypeError(f'Content Type "v8" requires a value that JavaScript has: {error}') from None


def body_value(data: bytes, content_type: str) -> Any:
    """The value of a stored body.

    Raises:
        ValueError: if the bytes are no body of that content type, or one for which Python has no value.
    """
    if content_type == "text":
        return data.decode(errors="replace")
    if content_type == "bytes":
        return data
    if content_type == "v8":
        return loads(data)
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("the body is nested too deeply to be read") from None


def _json(body: object) -> bytes:
    try:
        return orjson.dumps(body, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError as error:
        try:
            # Integers beyond 64 bits, and lone surrogates.
            return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError):
            raise TypeError(f'Content Type "json" requires a value that JSON has a form for: {error}') from None


def _mismatch(content_type: str, wanted: str, body: object) -> str:
    return f'Content Type "{content_type}" requires a value of type {wanted}, but received: {_type_of(body)}'


def _type_of(value: object) -> str:
    """What JavaScript's `typeof` says of a value."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "function" if callable(value) else "object"
