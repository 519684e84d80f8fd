"""From expressions to Python values (protocol, section "Expressions"), in one pass, in place: the tree becomes the
value.

What passes by reference comes from an `Importer`, in practice a session. Whatever a peer sends, reading it gives a
payload or raises: `ProtocolError` or `LimitExceeded` where the peer broke a rule, `UnreadableValue` where it sent an
honest value that Python has no room for, which is that one value's failure.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Protocol

from .bigints import fits_digits, parse_decimal
from .codec import EncodingLevel
from .codec.json import base64_data
from .delivery import Deliveries
from .errors import LimitExceeded, ProtocolError, UnreadableValue, remote_error
from .hooks import ErrorHook, Hook, Path
from .mapper import Mapper, Provenance
from .names import Naming
from .options import Limits
from .payload import Located, Payload
from .streams import WritableStream
from .stub import make_promise, make_stub, stub_classes
from .values import (
    INVALID_DATE,
    MAX_SAFE_INTEGER,
    MIN_SAFE_INTEGER,
    UNDEFINED,
    BigInt,
    InvalidDate,
    TypedArray,
    Undefined,
)
from .web import Blob, Headers, ReadableStream, Request, Response, Url
from .web_forms import Body, read_headers, read_media_type, read_request, read_response, read_url

__all__ = ["DESERIALIZERS", "Deserializer", "Importer"]

# What stands for itself only at the level "structuredClonable".
_NATIVE: Final = frozenset({BigInt, datetime, Undefined, InvalidDate})

# How many levels of nesting a map inside another counts as: it costs as much of Python's stack.
_MAP_DEPTH: Final = 6

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Importer(Protocol):
    """What the deserializer needs of a session."""

    @property
    def deliveries(self) -> Deliveries | None:
        """What begins the calls that an expression makes."""

    def import_stub(self, import_id: int) -> Hook:
        """A hook on what the peer exports under the id."""

    def import_promise(self, import_id: int) -> Hook:
        """A hook on the promise that the peer exports under the id, which must be new."""

    def exported(self, export_id: int) -> Hook:
        """The hook of this side's own export, still owned by the table. Raises ProtocolError if there is none."""

    def import_writable(self, import_id: int) -> WritableStream:
        """The stream that the peer exports under the id, to be written."""

    def pipe_readable(self, export_id: int) -> ReadableStream[Any]:
        """The readable end of a pipe, once. Raises ProtocolError if there is none under the id."""

    def import_blob(self, stream: ReadableStream[Any], media_type: str) -> Hook:
        """A promise of the blob that a stream yields, which is read to its end."""

    def local(self, hook: Hook) -> Hook:
        """What to hand to the application for a hook that leads back to this side."""


class Deserializer:
    """Reads the expressions of messages, one at a time.

    What a codec need not leave as it is may always come as its special form, and bytes as base64.

    Args:
        importer: where stubs and promises come from.
        limits: how deep a value nests, and how long a bigint is.
        names: how members of these stubs and promises are named on the wire.
    """

    __slots__ = ("_importer", "_limits", "_promise_class", "_promises", "_stub_class")

    # Whether what JSON lacks may stand for itself.
    _native: ClassVar[bool] = False

    def __init__(self, importer: Importer, limits: Limits, names: Naming = "exact") -> None:
        self._importer = importer
        self._limits = limits
        self._stub_class, self._promise_class = stub_classes(names)
        # The promises found so far in the value that is being read: of the arguments of a call, while they are read.
        self._promises: list[Located] = []

    def read(self, expression: Any, depth: int = 0) -> Payload:
        """The payload of an expression, which is consumed.

        Raises:
            ProtocolError: if it is none.
            LimitExceeded: if it nests deeper, or holds a longer bigint, than the limits allow.
            UnreadableValue: if a value in it has no counterpart in Python.
        """
        outer, self._promises = self._promises, []
        payload = Payload(None, self._promises)
        try:
            payload.value = self._read(expression, payload, None, depth)
        finally:
            self._promises = outer
        return payload

    def read_hook(self, expression: Any, depth: int = 0) -> Hook | None:
        """The hook of an expression that is the promise of something of this side's, usually a call's result.

        It is what most pushes are, and needs no payload around it. None for any other expression. Raises as `read`
        does.
        """
        if type(expression) is not list or not expression or expression[0] != "pipeline":
            return None
        return self._importer.local(self._referenced(expression, depth))

    def read_call(self, arguments: list[Any], depth: int) -> Payload:
        """The payload of a call's arguments, from the bare list of their expressions."""
        outer, self._promises = self._promises, []
        try:
            payload = Payload(self._items(arguments, depth), self._promises)
        finally:
            self._promises = outer
        payload.deliveries = self._importer.deliveries
        return payload

    def _read(self, expression: Any, container: Any, key: Any, depth: int) -> Any:
        kind = type(expression)
        if kind is str or kind is bool or expression is None:
            return expression
        if kind is int:
            if MIN_SAFE_INTEGER <= expression <= MAX_SAFE_INTEGER:
                return expression
            return self._checked_bigint(BigInt(expression)) if self._native else _as_double(expression)
        if kind is float:
            return expression
        if kind is list:
            if len(expression) == 1 and type(expression[0]) is list:
                return self._items(expression[0], depth)
            read = _FORMS.get(expression[0]) if expression and type(expression[0]) is str else None
            if read is None:
                raise ProtocolError(f"unknown special value: {_excerpt(expression)}")
            return read(self, expression, container, key, depth)
        if kind is dict:
            return self._entries(expression, depth)
        if self._native and kind in _NATIVE:
            return self._native_value(expression)
        raise ProtocolError(f"a message holds a value that is no expression: {_excerpt(expression)}")

    def _items(self, items: list[Any], depth: int) -> list[Any]:
        if depth + 1 >= self._limits.max_depth and items:
            raise self._too_deep()
        for index, item in enumerate(items):
            kind = type(item)
            # Most of a record stands for itself, and stays where it is.
            if kind is str or (kind is int and MIN_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER):
                continue
            if kind is float or kind is bool or item is None:
                continue
            items[index] = self._read(item, items, index, depth + 1)
        return items

    def _entries(self, entries: dict[Any, Any], depth: int) -> dict[Any, Any]:
        if depth + 1 >= self._limits.max_depth and entries:
            raise self._too_deep()
        for key, item in entries.items():
            if type(key) is not str:
                raise ProtocolError(f"the keys of an object are strings: {_excerpt(key)}")
            kind = type(item)
            # Most of a record stands for itself, and stays where it is.
            if kind is str or (kind is int and MIN_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER):
                continue
            if kind is float or kind is bool or item is None:
                continue
            entries[key] = self._read(item, entries, key, depth + 1)
        return entries

    def _too_deep(self) -> LimitExceeded:
        """What is in a value lies one level deeper, whatever it is: npm capnweb counts so when it sends and reads."""
        return LimitExceeded(f"the message nests deeper than max_depth = {self._limits.max_depth}")

    def _native_value(self, value: Any) -> Any:
        if type(value) is BigInt:
            return self._checked_bigint(value)
        if type(value) is not datetime:
            return value
        if value.utcoffset() is None:
            raise ProtocolError(f"the codec has read a date without a time zone: {value}")
        try:
            return _EPOCH + (value - _EPOCH)
        except OverflowError:
            raise UnreadableValue(f"{value} is beyond the dates that Python has in UTC") from None

    def _checked_bigint(self, value: BigInt) -> BigInt:
        if not fits_digits(value, self._limits.max_bigint_digits):
            raise self._too_many_digits()
        return value

    def _too_many_digits(self) -> LimitExceeded:
        return LimitExceeded(f"a bigint has more than max_bigint_digits = {self._limits.max_bigint_digits} digits")

    # The special forms. Each is called with its whole expression, and where its value will sit.

    def _undefined(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        return UNDEFINED

    def _infinity(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        return float(form[0])

    def _bigint(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        digits = _field(form, 1, str)
        if len(digits) - digits.startswith("-") > self._limits.max_bigint_digits:
            raise self._too_many_digits()
        try:
            return parse_decimal(digits)
        except ValueError:
            raise ProtocolError(f"a bigint is written in decimal digits: {_excerpt(form)}") from None

    def _date(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        if len(form) == 2 and form[1] is None:
            return INVALID_DATE
        milliseconds = _field(form, 1, int, float)
        try:
            return _EPOCH + timedelta(microseconds=round(milliseconds * 1000))
        except (OverflowError, ValueError):
            raise UnreadableValue(f"{milliseconds} ms since 1970 is beyond the dates that Python has") from None

    def _bytes(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        data = _field(form, 1, str, bytes)
        if type(data) is str:
            try:
                data = base64_data(data)
            except ValueError as error:
                raise ProtocolError(f"bytes are written in base64: {error}") from None
        if len(form) == 2:
            return data
        try:
            return TypedArray(_field(form, 2, str), data)
        except ValueError as error:
            raise ProtocolError(str(error)) from None

    def _error(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        name, message = _field(form, 1, str), _field(form, 2, str)
        stack = form[3] if len(form) > 3 and type(form[3]) is str else None
        props = self._entries(_field(form, 4, dict), depth) if len(form) > 4 else {}
        return remote_error(name, message, stack, props)

    def _import(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        return make_stub(self._importer.local(self._referenced(form, depth)), self._stub_class)

    def _pipeline(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        return self._promise(self._importer.local(self._referenced(form, depth)), container, key)

    def _referenced(self, form: list[Any], depth: int) -> Hook:
        """What an "import" or "pipeline" leads to: this side's own export, a member of it, or the result of a call."""
        parts = len(form)
        if parts > 4:
            raise ProtocolError(f"a reference has too many parts: {_excerpt(form)}")
        hook = self._importer.exported(_field(form, 1, int))
        if parts == 2:
            # Of the settled hook: a stub of a stub of a stub would nest as deep as a peer likes.
            return hook.get(()) if form[0] == "pipeline" else hook.settled().dup()
        path = _checked_path(form[2])
        arguments = self.read_call(_field(form, 3, list), depth) if parts == 4 else None
        try:
            if arguments is not None:
                return hook.call(path, arguments)
            return hook.get(path, self._importer.deliveries)
        except (TypeError, LimitExceeded) as error:
            # It leads to a third party, and this call cannot be passed on to it.
            return ErrorHook(error)

    def _remap(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        if len(form) != 5:
            raise ProtocolError(f"malformed 'remap': {_excerpt(form)}")
        if depth + _MAP_DEPTH >= self._limits.max_depth:
            raise self._too_deep()
        hook, path = self._importer.exported(_field(form, 1, int)), _checked_path(form[2])
        instructions = _field(form, 4, list)
        captures = [self._captured(capture) for capture in _field(form, 3, list)]
        provenance = Provenance(self._limits, self._importer.deliveries, depth + _MAP_DEPTH, type(self))
        try:
            result = hook.map(path, Mapper(captures, instructions, provenance))
        except (TypeError, LimitExceeded) as error:
            # It leads to a third party, and cannot be passed on to it.
            result = ErrorHook(error)
        return self._promise(self._importer.local(result), container, key)

    def _captured(self, form: Any) -> Hook:
        if type(form) is list and len(form) == 2 and form[0] == "import":
            return self._importer.exported(_field(form, 1, int)).settled().dup()
        if type(form) is list and len(form) == 2 and form[0] == "export":
            return self._importer.import_stub(_field(form, 1, int))
        raise ProtocolError(f"a mapper captures imports and exports: {_excerpt(form)}")

    def _export(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        return make_stub(self._importer.import_stub(_field(form, 1, int)), self._stub_class)

    def _exported_promise(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        return self._promise(self._importer.import_promise(_field(form, 1, int)), container, key)

    def _readable(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        return self._importer.pipe_readable(_field(form, 1, int))

    def _writable(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        return self._importer.import_writable(_field(form, 1, int))

    def _url(self, form: list[Any], container: Any, key: Any, depth: int) -> Url:
        _check_parts(form, 2)
        return read_url(_field(form, 1, str))

    def _headers(self, form: list[Any], container: Any, key: Any, depth: int) -> Headers:
        _check_parts(form, 2)
        return read_headers(form[1])

    def _request(self, form: list[Any], container: Any, key: Any, depth: int) -> Request:
        _check_parts(form, 3)
        url, init = _field(form, 1, str), _field(form, 2, dict)
        return read_request(url, init, self._body(init.get("body"), depth), self._limits.max_depth - depth)

    def _response(self, form: list[Any], container: Any, key: Any, depth: int) -> Response:
        _check_parts(form, 3)
        body = self._body(form[1], depth)
        return read_response(body, _field(form, 2, dict), self._limits.max_depth - depth)

    def _body(self, expression: Any, depth: int) -> Body:
        body = self._read(expression, None, None, depth + 1)
        if isinstance(body, TypedArray) and body.kind == "Uint8Array":
            return bytes(body)
        if body is None or isinstance(body, (str, bytes, ReadableStream)):
            return body
        raise ProtocolError(f"a body is null, text, bytes or a stream, and not {type(body).__name__}")

    def _blob(self, form: list[Any], container: Any, key: Any, depth: int) -> Any:
        _check_parts(form, 3)
        media_type = read_media_type(_field(form, 1, str))
        content = self._read(form[2], None, None, depth + 1)
        if isinstance(content, Blob):
            return content  # it is copied on this side, and whole already
        if isinstance(content, ReadableStream):
            return self._promise(self._importer.import_blob(content, media_type), container, key)
        raise ProtocolError(f"what a blob holds is a stream, and not {type(content).__name__}")

    def _promise(self, hook: Hook, container: Any, key: Any) -> Any:
        self._promises.append((container, key, hook))
        return make_promise(hook, (), self._promise_class)


class _Clonable(Deserializer):
    __slots__ = ()
    _native = True


# What reads what a codec has read, by its encoding level.
DESERIALIZERS: Final[dict[EncodingLevel, type[Deserializer]]] = {
    "jsonCompatible": Deserializer,
    "jsonCompatibleWithBytes": Deserializer,
    "structuredClonable": _Clonable,
}

_FORMS: Final[dict[str, Callable[[Deserializer, list[Any], Any, Any, int], Any]]] = {
    "undefined": Deserializer._undefined,
    "inf": Deserializer._infinity,
    "-inf": Deserializer._infinity,
    "nan": Deserializer._infinity,
    "bigint": Deserializer._bigint,
    "date": Deserializer._date,
    "bytes": Deserializer._bytes,
    "error": Deserializer._error,
    "import": Deserializer._import,
    "pipeline": Deserializer._pipeline,
    "remap": Deserializer._remap,
    "export": Deserializer._export,
    "promise": Deserializer._exported_promise,
    "readable": Deserializer._readable,
    "writable": Deserializer._writable,
    "url": Deserializer._url,
    "headers": Deserializer._headers,
    "request": Deserializer._request,
    "response": Deserializer._response,
    "blob": Deserializer._blob,
}


def _checked_path(path: Any) -> Path:
    """A property path: a list of names and indices. Raises ProtocolError if it is none."""
    if type(path) is not list:
        raise ProtocolError(f"a property path is a list of names and indices: {_excerpt(path)}")
    for name in path:
        if type(name) is not str and type(name) is not int:
            raise ProtocolError(f"a property path is a list of names and indices: {_excerpt(path)}")
    return tuple(path)


def _field(form: list[Any], index: int, *types: type) -> Any:
    """One part of a special form, of one of the types."""
    if index < len(form) and type(form[index]) in types:
        return form[index]
    raise ProtocolError(f"malformed {form[0]!r}: {_excerpt(form)}")


def _check_parts(form: list[Any], count: int) -> None:
    if len(form) != count:
        raise ProtocolError(f"malformed {form[0]!r}: {_excerpt(form)}")


def _as_double(number: int) -> float:
    """What JavaScript reads for an integer that is not exact there: the nearest double."""
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


# How much of a broken message its error quotes.
_EXCERPT_CHARACTERS: Final = 100


def _excerpt(expression: Any) -> str:
    """The beginning of what a peer sent, to be quoted in an error."""
    try:
        text = ascii(expression)
    except (RecursionError, ValueError):
        return f"a {type(expression).__name__} that cannot be shown"
    return text if len(text) <= _EXCERPT_CHARACTERS else text[:_EXCERPT_CHARACTERS] + "..."
