"""From Python values to expressions (protocol, section "Expressions"), in one pass.

An expression is a tree of dict, list, str, int, float, bool, None and bytes; a codec writes it, and its encoding level
may ask for no bytes, or for more types (see codec/). What passes by reference goes through an `Exporter`, in practice a
session: this file knows nothing of tables and messages.
"""

from __future__ import annotations

import array
import traceback
from collections.abc import AsyncIterable, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from io import IOBase
from pathlib import PurePath
from types import AsyncGeneratorType, GeneratorType
from typing import Any, ClassVar, Final, Protocol
from uuid import UUID

from .bigints import decimal_digits, fits_digits
from .codec import Codec, EncodingLevel
from .codec.cbor import CborCodec
from .codec.json import LONG, Double, JsonCodec, LongBytes, base64_text, packed
from .errors import ErrorParts, Unsendable, describe_error
from .handle import Handle
from .hooks import Hook
from .options import Limits
from .payload import Payload
from .streams import WritableStream, as_readable
from .target import CALLABLE_TYPES, RpcTarget, field_values, is_record
from .values import MAX_SAFE_INTEGER, MIN_SAFE_INTEGER, BigInt, InvalidDate, TypedArray, Undefined
from .web import Blob, Headers, ReadableStream, Request, Response, Url
from .web_forms import request_init, response_init, written_headers

__all__ = [
    "SERIALIZERS",
    "Exporter",
    "Serializer",
    "TextSerializer",
    "check_sendable",
    "serializer_for",
    "stands_for_itself",
]

# MAX_SAFE_INTEGER, of the type that floats are quickly compared with.
_LARGEST_EXACT: Final = float(MAX_SAFE_INTEGER)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Exporter(Protocol):
    """What the serializer needs of a session."""

    def import_id(self, hook: Hook) -> int | None:
        """The id of the peer's own object that the hook stands for, or None if it stands for something else."""

    def export_target(self, target: Any) -> int:
        """Export a target or function, and return its id."""

    def export_stub(self, hook: Hook) -> int:
        """Export what a hook stands for, taking the hook over."""

    def export_promise(self, hook: Hook) -> int:
        """Export a promise, taking its hook over; its resolution follows when it is there."""

    def export_writable(self, stream: WritableStream) -> int:
        """Export a stream that the peer is to write, taking it over. Raises TypeError if it was given away."""

    def create_pipe(self, stream: ReadableStream[Any]) -> int:
        """Open a pipe, and write into it what a stream yields. Returns its id, which is the peer's count.

        Raises TypeError if the stream has been read.
        """

    def export_blob(self, blob: Blob) -> int:
        """Open a pipe, and write into it what a blob holds. Returns its id."""

    def unexport(self, ids: list[int]) -> None:
        """Take back exports and pipes: the expression that they were made for is not sent."""

    def on_send_error(self, error: BaseException) -> BaseException | None:
        """The exception to send instead, with its traceback, or None for the same without."""


def stands_for_itself(value: Any) -> bool:
    """Whether a value is its own expression, and an expression its own value, without a look inside."""
    kind = type(value)
    return (
        kind is str or kind is bool or value is None or (kind is int and MIN_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER)
    )


class Serializer:
    """Writes one message's value, for a codec of the level "jsonCompatibleWithBytes".

    Args:
        exporter: where stubs, targets and functions go.
        limits: `max_depth` and `max_bigint_digits` hold for what is sent, too: a peer would refuse it.
        holder: the payload that the value belongs to, which holds the targets found in it; None if nobody needs to.
    """

    __slots__ = ("_exported", "_exporter", "_holder", "_limits")

    # Whether bytes stay bytes, and whether what JSON lacks stands for itself.
    _raw_bytes: ClassVar[bool] = True
    _native: ClassVar[bool] = False
    # Whether floats that JSON text has to spell are marked for it.
    _as_text: ClassVar[bool] = False

    def __init__(self, exporter: Exporter, limits: Limits, holder: Payload | None = None) -> None:
        self._exporter = exporter
        self._limits = limits
        self._holder = holder
        # What this expression exported, to be taken back if it comes to nothing.
        self._exported: list[int] = []

    def write(self, value: Any, root: str = "the value") -> Any:
        """The expression of a value.

        Args:
            value: the value.
            root: what an error calls it.

        Raises:
            TypeError: if something in it cannot be sent; the message names its type and where it sits. Nothing that
                was exported for it stays exported.
        """
        try:
            expression = self._write(value, 0)
        except BaseException as error:
            self._exporter.unexport(self._exported)
            if isinstance(error, RecursionError):
                raise TypeError(f"there is no room on Python's stack for what {root} nests") from None
            if not isinstance(error, Unsendable):
                raise
            raise TypeError(f"{error.problem} ({_place(root, error.steps)})") from None
        if self._holder is not None:
            self._holder.targets_known()
        return expression

    def write_arguments(self, arguments: list[Any]) -> Any:
        """The expressions of a call's arguments, in a bare list. Raises as `write` does."""
        expression: list[list[Any]] = self.write(arguments, "arguments")
        return expression[0]

    def packed(self, expression: Any) -> tuple[Any, int]:
        """What stands for an expression in the tree of a message, and its size in bytes if it is written already."""
        return expression, 0

    def _write(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        write = _WRITERS.get(kind)
        if write is None:
            write = _writer_of(value)
        return write(self, value, depth)

    def _number(self, value: int, depth: int) -> Any:
        if MIN_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            return int(value)
        return self._bigint(value, depth)

    def _bigint(self, value: int, depth: int) -> Any:
        if not fits_digits(value, self._limits.max_bigint_digits):
            raise Unsendable(f"the int has more digits than max_bigint_digits = {self._limits.max_bigint_digits}")
        return BigInt(value) if self._native else ["bigint", decimal_digits(value)]

    def _float(self, value: float, depth: int) -> Any:
        if 1.0 < value < _LARGEST_EXACT or -_LARGEST_EXACT < value < -1.0:
            # JavaScript has one type of number, and writes those without a fraction as integers.
            whole = int(value)
            return whole if whole == value else value
        if value.is_integer():
            if -_LARGEST_EXACT <= value <= _LARGEST_EXACT:
                return int(value)
            return Double.make(value) if self._as_text else value
        if -1.0 < value < 1.0:
            return Double.make(value) if self._as_text else value
        if self._native:
            return value
        return ["nan"] if value != value else ["inf"] if value > 0 else ["-inf"]

    def _float_like(self, value: float, depth: int) -> Any:
        # A subclass may say what it likes of itself, and is sent as the number that it is.
        return self._float(float.__float__(value), depth)

    def _text(self, value: str, depth: int) -> Any:
        return str.__str__(value)

    def _list(self, value: Any, depth: int) -> Any:
        if value and depth + 1 >= self._limits.max_depth:
            raise self._too_deep()
        items: list[Any] = []
        try:
            for item in value:
                # What JSON has and is no container stands for itself: most of any record. Not worth a call each.
                kind = type(item)
                if kind is str or (kind is int and MIN_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER):
                    items.append(item)
                elif kind is float:
                    items.append(self._float(item, depth))
                else:
                    items.append(self._write(item, depth + 1))
        except Unsendable as error:
            error.steps.append(len(items))
            raise
        # A bare list would be read as a special form: an array is a list in a list.
        return [items]

    def _dict(self, value: dict[Any, Any], depth: int) -> Any:
        if value and depth + 1 >= self._limits.max_depth:
            raise self._too_deep()
        entries: dict[str, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():
                if type(key) is not str:
                    key = self._key(key)
                kind = type(item)
                if kind is str or (kind is int and MIN_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER):
                    entries[key] = item
                elif kind is float:
                    entries[key] = self._float(item, depth)
                else:
                    entries[key] = self._write(item, depth + 1)
        except Unsendable as error:
            error.steps.append(key)
            raise
        return entries

    def _key(self, key: Any) -> str:
        if isinstance(key, str):
            return str.__str__(key)
        raise Unsendable(f"a dict's keys must be str to be sent, and {key!r} is {_type_name(key)}")

    def _record(self, value: Any, depth: int) -> Any:
        return self._dict(field_values(value), depth)

    def _undefined(self, value: Undefined, depth: int) -> Any:
        return value if self._native else ["undefined"]

    def _date(self, value: datetime, depth: int) -> Any:
        if value.utcoffset() is None:
            raise Unsendable("a naive datetime cannot be sent: give it a time zone, such as datetime.UTC")
        if self._native:
            return self._utc(value)
        microseconds = (value - _EPOCH) // _MICROSECOND
        milliseconds, rest = divmod(microseconds, 1000)
        exact = microseconds / 1000
        # A double holds the microseconds of this age, not those of the year 9999, which would round into the next one.
        return ["date", exact if rest and round(exact * 1000) == microseconds else milliseconds]

    def _utc(self, value: datetime) -> datetime:
        try:
            return _EPOCH + (value - _EPOCH)
        except OverflowError:
            raise Unsendable("the datetime is beyond the dates that Python has in UTC") from None

    def _invalid_date(self, value: InvalidDate, depth: int) -> Any:
        return value if self._native else ["date", None]

    def _bytes(self, value: Any, depth: int) -> Any:
        data = bytes(value)
        if self._as_text and len(data) >= LONG:
            return ["bytes", LongBytes(data)]
        return ["bytes", data if self._raw_bytes else base64_text(data)]

    def _typed_array(self, value: TypedArray, depth: int) -> Any:
        return [*self._bytes(value.data, depth), value.kind]

    def _buffer(self, value: Any, depth: int) -> Any:
        if type(value) is memoryview and value.format in ("B", "c"):
            return self._bytes(value.tobytes(), depth)
        try:
            return self._typed_array(TypedArray.of(value), depth)
        except (TypeError, ValueError, BufferError) as error:
            raise Unsendable(f"{_type_name(value)} cannot be sent: {error}") from None

    def _error(self, value: BaseException, depth: int) -> Any:
        rewritten = self._exporter.on_send_error(value)
        parts = describe_error(value if rewritten is None else rewritten)
        props: dict[str, Any] = {}
        for name, prop in parts.props.items():
            self._error_prop(props, name, prop, depth)
        expression: list[Any] = ["error", parts.name, parts.message]
        stack = None if rewritten is None else _stack(rewritten, parts)
        if stack or props:
            expression.append(stack)
        if props:
            expression.append(props)
        return expression

    def _error_prop(self, props: dict[str, Any], name: str, prop: Any, depth: int) -> None:
        """Add a property of an error, unless it cannot be sent: the error itself must always make it through."""
        if depth + 1 >= self._limits.max_depth:
            return
        before = len(self._exported)
        try:
            props[name] = self._write(prop, depth + 1)
        except (Unsendable, RecursionError):
            self._exporter.unexport(self._exported[before:])
            del self._exported[before:]

    def _target(self, value: Any, depth: int) -> Any:
        if self._holder is not None:
            self._holder.hold(value)
        return ["export", self._export(self._exporter.export_target(value))]

    def _handle(self, value: Handle, depth: int) -> Any:
        hook, path = value._hook.settled(), value._path
        import_id = self._exporter.import_id(hook)
        if import_id is not None:
            if path is None:
                return ["import", import_id]
            return ["pipeline", import_id, list(path)] if path else ["pipeline", import_id]
        if path is None:
            return ["export", self._export(self._exporter.export_stub(hook.dup()))]
        return ["promise", self._export(self._exporter.export_promise(hook.get(path)))]

    def _readable(self, value: Any, depth: int) -> Any:
        return ["readable", self._export(self._checked(self._exporter.create_pipe, as_readable(value)))]

    def _writable(self, value: WritableStream, depth: int) -> Any:
        return ["writable", self._export(self._checked(self._exporter.export_writable, value))]

    def _checked(self, write: Callable[..., Any], *values: Any) -> Any:
        """What `write` makes of values; a TypeError of its is about them."""
        try:
            return write(*values)
        except TypeError as error:
            raise Unsendable(str(error)) from None

    def _url(self, value: Url, depth: int) -> Any:
        return ["url", value.href]

    def _headers(self, value: Headers, depth: int) -> Any:
        return ["headers", written_headers(value)]

    def _request(self, value: Request, depth: int) -> Any:
        body = self._body(value, depth)
        return ["request", value.url, self._checked(request_init, value, body, self._limits.max_depth - depth)]

    def _response(self, value: Response, depth: int) -> Any:
        body = self._body(value, depth)
        return ["response", body, self._checked(response_init, value, self._limits.max_depth - depth)]

    def _body(self, value: Request | Response, depth: int) -> Any:
        body = value.to_send()
        return None if body is None else self._readable(body, depth)

    def _blob(self, value: Blob, depth: int) -> Any:
        return ["blob", value.type, ["readable", self._export(self._checked(self._exporter.export_blob, value))]]

    def _export(self, export_id: int) -> int:
        self._exported.append(export_id)
        return export_id

    def _too_deep(self) -> Unsendable:
        return Unsendable(f"the value nests deeper than max_depth = {self._limits.max_depth}: does it contain itself?")


class TextSerializer(Serializer):
    """Writes for the codecs of this package, whose JSON is that of JavaScript to the byte."""

    __slots__ = ()
    _as_text = True

    def packed(self, expression: Any) -> tuple[Any, int]:
        return packed(expression)


class _WithoutBytes(Serializer):
    __slots__ = ()
    _raw_bytes = False


class _Clonable(Serializer):
    __slots__ = ()
    _native = True


# What writes for somebody else's codec, by its encoding level.
SERIALIZERS: Final[dict[EncodingLevel, type[Serializer]]] = {
    "jsonCompatible": _WithoutBytes,
    "jsonCompatibleWithBytes": Serializer,
    "structuredClonable": _Clonable,
}


def serializer_for(codec: Codec) -> type[Serializer]:
    """What writes for a codec."""
    return TextSerializer if isinstance(codec, (JsonCodec, CborCodec)) else SERIALIZERS[codec.encoding_level]


_Writer = Callable[[Serializer, Any, int], Any]

# By exact type, for speed. What is not here is looked at by `_writer_of`.
_WRITERS: dict[type, _Writer] = {
    int: Serializer._number,
    float: Serializer._float,
    list: Serializer._list,
    tuple: Serializer._list,
    dict: Serializer._dict,
    BigInt: Serializer._bigint,
    Undefined: Serializer._undefined,
    InvalidDate: Serializer._invalid_date,
    datetime: Serializer._date,
    bytes: Serializer._bytes,
    bytearray: Serializer._bytes,
    memoryview: Serializer._buffer,
    array.array: Serializer._buffer,
    TypedArray: Serializer._typed_array,
    ReadableStream: Serializer._readable,
    WritableStream: Serializer._writable,
    Blob: Serializer._blob,
    Headers: Serializer._headers,
    Request: Serializer._request,
    Response: Serializer._response,
    Url: Serializer._url,
    AsyncGeneratorType: Serializer._readable,
    GeneratorType: Serializer._readable,
    **dict.fromkeys(CALLABLE_TYPES, Serializer._target),
}

# What is sent as its base type is.
_BY_BASE: Final[tuple[tuple[type, _Writer], ...]] = (
    (Handle, Serializer._handle),
    (RpcTarget, Serializer._target),
    (BaseException, Serializer._error),
    (BigInt, Serializer._bigint),
    (int, Serializer._number),
    (float, Serializer._float_like),
    (str, Serializer._text),
    (bytes, Serializer._bytes),
    (bytearray, Serializer._bytes),
    (datetime, Serializer._date),
    (dict, Serializer._dict),
    (list, Serializer._list),
    (tuple, Serializer._list),
    (ReadableStream, Serializer._readable),
    (WritableStream, Serializer._writable),
    (Blob, Serializer._blob),
    (Headers, Serializer._headers),
    (Request, Serializer._request),
    (Response, Serializer._response),
    (Url, Serializer._url),
)


def _writer_of(value: Any) -> _Writer:
    """How a value of no listed type is written. Raises Unsendable if it cannot be."""
    for base, writer in _BY_BASE:
        if isinstance(value, base):
            return writer
    if isinstance(value, type):
        raise Unsendable(f"the class {value.__qualname__} cannot be sent: pass an instance of it, or a function")
    if isinstance(value, AsyncIterable):
        return Serializer._readable  # a dataclass, too: anyio's memory streams are
    if is_record(value):
        return Serializer._record
    if hasattr(type(value), "__array_interface__") and getattr(value, "ndim", 0) > 0:
        if hasattr(value, "mask"):
            raise Unsendable(
                f"a {_type_name(value)} cannot be sent, for its mask would be lost: "
                "send value.filled(...), or the mask beside it"
            )
        return Serializer._buffer
    raise Unsendable(f"a value of the type {_type_name(value)} cannot be sent{_advice(value)}")


def check_sendable(value: Any) -> None:
    """Raises TypeError, with advice, if a value is of a type that cannot be sent. What is inside it is not looked
    at."""
    if not stands_for_itself(value) and type(value) not in _WRITERS:
        try:
            _writer_of(value)
        except Unsendable as error:
            raise TypeError(error.problem) from None


def _advice(value: Any) -> str:
    if isinstance(value, (set, frozenset, range)):
        return ": send a list"
    if isinstance(value, (UUID, Decimal, PurePath)):
        return ": send str(value)"
    if isinstance(value, Enum):
        return ": send value.value"
    if isinstance(value, timedelta):
        return ": send value.total_seconds()"
    if isinstance(value, Awaitable):
        return ": was an await forgotten? To send what is not there yet, make an RpcPromise of it"
    if isinstance(value, IOBase):
        return ": send its content, or an async generator of its blocks"
    if hasattr(type(value), "isoformat"):
        return ": send an aware datetime, or its text"
    if hasattr(type(value), "item") and hasattr(type(value), "dtype"):
        return ": send value.item()"
    if callable(value):
        return ": only functions and methods pass by reference, and instances of RpcTarget"
    return (
        ": make it a dict, an attrs class or a dataclass to pass it by value, or an RpcTarget to pass it by reference"
    )


def _type_name(value: object) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _place(root: str, steps: list[str | int]) -> str:
    """Where a value sits, as Python would reach it: arguments[0]['items'][3]."""
    return "at " + root + "".join(f"[{step!r}]" for step in reversed(steps))


def _stack(error: BaseException, parts: ErrorParts) -> str | None:
    """The stack that a rewritten error is sent with: its own text, or its traceback."""
    if parts.stack:
        return parts.stack
    return "".join(traceback.format_exception(error)) if error.__traceback__ is not None else None
