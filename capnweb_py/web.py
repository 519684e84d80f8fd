"""The web's own value types: URLs, headers, blobs, requests and responses, and the streams that are their bodies.

Pure values after the Fetch and URL standards, validated where they are built. Nothing here opens a
connection, and how they travel over RPC is in web_forms.py. What a runtime adds (redirects, caches, cookies)
is carried along at most, and never acted on.
"""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from typing import Any, Final, Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit

import attrs

__all__ = ["Blob", "BodyInit", "Headers", "HeadersInit", "ReadableStream", "Request", "Response", "Url"]

ChunkT_co = TypeVar("ChunkT_co", covariant=True)

# RFC 9110, section 5.6.2: the characters of a header's name, and of a method's.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# RFC 3986, section 3.1. The schemes whose URLs mean nothing without a host are those that the URL standard
# calls special, without "file".
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_SCHEMES_WITH_HOST: Final = frozenset({"http", "https", "ws", "wss", "ftp"})

# The Fetch standard writes these methods in capitals, and leaves every other one as it is.
_NORMALIZED_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"})
_FORBIDDEN_METHODS: Final = frozenset({"CONNECT", "TRACE", "TRACK"})
_BODILESS_METHODS: Final = frozenset({"GET", "HEAD"})
# The Fetch standard's "null body statuses" that a Response can have.
_BODILESS_STATUSES: Final = frozenset({204, 205, 304})

# How much of what is in memory a stream over it yields at a time, as a Blob's does in Node: each chunk that is sent is
# a message, which peers let be so long and no longer.
_PIECE_BYTES: Final = 65536

_TEXT_TYPE: Final = "text/plain;charset=UTF-8"
_JSON_TYPE: Final = "application/json"


def _encode(text: str) -> bytes:
    """UTF-8. As in JavaScript, surrogates that stand in pairs are one character, and others become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _octets(data: object) -> bytes:
    """The bytes of a body that is held in memory."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return _encode(data)
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    if isinstance(data, dict | list):
        raise TypeError(f"a {type(data).__name__} is no body: use Response.from_json(value), or send json.dumps(value)")
    raise TypeError(f"a {type(data).__name__} is no body: bytes, str, a Blob, an async iterable of bytes or None is")


@attrs.frozen
class Url:
    """An absolute URL, as the peer's `URL` object: `str(url)` and `url.href` are its text.

    Args:
        href: the text. It is kept as it is written, neither resolved nor normalized.

    Raises:
        TypeError: if `href` is no string.
        ValueError: if it is not absolute, holds white space or a control character, lacks the host that its
            scheme needs, or has a port that is none. A space may stand where the URL standard leaves one: in a
            path that does not begin with a slash, such as that of a data: URL.
    """

    href: str = attrs.field()

    @href.validator
    def _check(self, _attribute: attrs.Attribute[str], value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"a URL is a str, not {type(value).__name__}")
        scheme = _SCHEME.match(value)
        if scheme is None:
            raise ValueError(f"{value!r} is not an absolute URL: it begins with no scheme, such as https:")
        opaque = not value.startswith("/", scheme.end())
        if any((character <= " " and not (opaque and character == " ")) or character == "\x7f" for character in value):
            raise ValueError(f"the URL {value!r} holds white space or a control character: percent-encode it")
        if scheme[1].lower() in _SCHEMES_WITH_HOST:
            _check_authority(value)

    def __str__(self) -> str:
        return self.href


def _check_authority(href: str) -> None:
    try:
        parts = urlsplit(href)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{href!r} is not a valid URL: {error}") from error
    if not host:
        raise ValueError(f"{href!r} is not a valid URL: it names no host")


HeadersInit: TypeAlias = "Headers | Mapping[str, str] | Iterable[tuple[str, str]]"


class Headers(MutableMapping[str, str]):
    """HTTP headers: a mapping that ignores the case of names and keeps every value that a name was given.

    Names are lower-cased and keep the order in which they came. `headers[name]` joins several values with ",
    ", as fetch does; of several `set-cookie` headers, which cannot be joined, it is the first, and `get_all`
    has them all. Assigning replaces all values of a name, `append` adds one.

    Args:
        init: other headers, a mapping, or pairs of name and value (in which a name may come more than once).

    Raises:
        TypeError: if a name or a value is no string.
        ValueError: if a name is no token (RFC 9110, section 5.6.2), or a value holds a line break, a NUL, or
            a character beyond U+00FF, which a header cannot carry. White space around a value is dropped.
    """

    __slots__ = ("_pairs",)

    def __init__(self, init: HeadersInit = ()) -> None:
        self._pairs: list[tuple[str, str]] = []
        if isinstance(init, Headers):
            pairs: Iterable[tuple[str, str]] = init.pairs()
        else:
            pairs = init.items() if isinstance(init, Mapping) else init
        for name, value in pairs:
            self.append(name, value)

    def append(self, name: str, value: str) -> None:
        """Add a value to a name, beside those that it has."""
        self._pairs.append((_header_name(name), _header_value(name, value)))

    def pairs(self) -> list[tuple[str, str]]:
        """Every name with each of its values, in the order in which they were added."""
        return list(self._pairs)

    def combined(self) -> list[tuple[str, str]]:
        """Every name with its value, sorted by name, as JavaScript iterates them: only of `set-cookie` may there be
        several."""
        values: dict[str, list[str]] = {}
        for name, value in self._pairs:
            values.setdefault(name, []).append(value)
        cookies = values.pop("set-cookie", [])
        pairs = [(name, ", ".join(several)) for name, several in values.items()]
        return sorted(pairs + [("set-cookie", cookie) for cookie in cookies], key=_name_of)

    def get_all(self, name: str) -> list[str]:
        """All values of a name, in the order in which they were added; an empty list if there is none."""
        name = name.lower()
        return [value for key, value in self._pairs if key == name]

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return values[0] if name.lower() == "set-cookie" else ", ".join(values)

    def __setitem__(self, name: str, value: str) -> None:
        replacement = (_header_name(name), _header_value(name, value))
        self._pairs = [pair for pair in self._pairs if pair[0] != replacement[0]]
        self._pairs.append(replacement)

    def __delitem__(self, name: str) -> None:
        kept = [pair for pair in self._pairs if pair[0] != name.lower()]
        if len(kept) == len(self._pairs):
            raise KeyError(name)
        self._pairs = kept

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(key == name.lower() for key, _ in self._pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._pairs))

    def __len__(self) -> int:
        return len({name for name, _ in self._pairs})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        # The order of values under one name means something, the order of names does not.
        return sorted(self._pairs, key=_name_of) == sorted(other._pairs, key=_name_of)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Headers({self._pairs!r})"


def _name_of(pair: tuple[str, str]) -> str:
    return pair[0]


def _header_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a header's name is a str, not {type(name).__name__}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a header: letters, digits and !#$%&'*+-.^_`|~ can")
    return name.lower()


def _header_value(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the header {name!r} has a str as its value, not {type(value).__name__}")
    value = value.strip(" \t")
    if any(character in "\r\n\0" or character > "\xff" for character in value):
        raise ValueError(f"the value of the header {name!r} holds a line break, a NUL or a character beyond U+00FF")
    return value


class ReadableStream(Generic[ChunkT_co]):
    """A stream of chunks that is read once: `async for chunk in stream`.

    Nothing is read ahead: the source is asked for a chunk when the reader asks for one. A reader that stops
    early calls `aclose()`, which closes the source too.

    Args:
        source: where the chunks come from, usually an async generator. The stream owns it.
        length: how many bytes there will be in all, where that is known; it becomes the `content-length`.

    Raises:
        TypeError: if `source` is not async-iterable.
    """

    __slots__ = ("_closed", "_iterator", "_source", "length")

    def __init__(self, source: AsyncIterable[ChunkT_co], *, length: int | None = None) -> None:
        if not isinstance(source, AsyncIterable):
            raise TypeError(f"a ReadableStream reads from an async iterable, not from {type(source).__name__}")
        self.length = length
        self._source = source
        self._iterator: AsyncIterator[ChunkT_co] | None = None
        self._closed = False

    @property
    def locked(self) -> bool:
        """Whether reading has begun, or the stream is closed: it cannot be iterated any more."""
        return self._closed or self._iterator is not None

    def __aiter__(self) -> AsyncIterator[ChunkT_co]:
        """Begin to read.

        Raises:
            RuntimeError: if reading has begun before, or the stream is closed.
        """
        if self._closed:
            raise RuntimeError("the stream is closed: nothing more can be read from it")
        if self._iterator is not None:
            raise RuntimeError("the stream is already being read: a ReadableStream can be iterated once")
        # The source's own iterator, with nothing wrapped around it: cancelling one read then does to the
        # stream what it does to its source, and no more.
        self._iterator = aiter(self._source)
        return self._iterator

    def take(self) -> AsyncIterator[ChunkT_co]:
        """The chunks, for who takes the stream over. Raises TypeError if it is read already, or closed."""
        if self.locked:
            raise TypeError("the ReadableStream is being read, or was: only an unread one can be sent, and once")
        return ReadableStream.__aiter__(self)

    def give_back(self) -> None:
        """What it was taken for did not come about, and nothing was read."""
        self._iterator = None

    async def aclose(self) -> None:
        """Stop reading and close the source, where it can be closed. Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        # A source that is not its own iterator, and holds something that reading needs, is closed after it.
        own = self._iterator is None or self._iterator is self._source
        closing = [self._source] if own else [self._iterator, self._source]
        for closes in closing:
            aclose = getattr(closes, "aclose", None)
            if aclose is not None:
                await aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "locked" if self.locked else "unread"
        return f"<ReadableStream {state}>"


def _lowered(media_type: str) -> str:
    return media_type.lower()


def _check_media_type(_blob: Blob, _attribute: attrs.Attribute[str], media_type: str) -> None:
    if not all(" " <= character <= "~" for character in media_type):
        raise ValueError(f"{media_type!r} is no media type: it holds a character outside printable ASCII")


@attrs.frozen(repr=False)
class Blob:
    """Immutable bytes with a media type.

    Args:
        data: the content; a `str` becomes UTF-8.
        type: the media type, such as "image/png", in printable ASCII; lower-cased.

    Raises:
        TypeError: if `data` is neither bytes nor `str`.
        ValueError: if `type` holds a character outside printable ASCII.
    """

    _data: bytes = attrs.field(converter=_octets)
    type: str = attrs.field(default="", converter=_lowered, validator=_check_media_type)

    @property
    def size(self) -> int:
        """The length, in bytes."""
        return len(self._data)

    async def bytes(self) -> builtins.bytes:
        """The content."""
        return self._data

    async def text(self) -> str:
        """The content as UTF-8 text; what is malformed reads as U+FFFD, and a byte order mark is dropped."""
        return _decode(self._data)

    async def json(self) -> Any:
        """The content as a JSON value.

        Raises:
            json.JSONDecodeError: if it is none.
        """
        return json.loads(_decode(self._data))

    def stream(self) -> ReadableStream[builtins.bytes]:
        """A new stream over the content."""
        return _stream_of(self._data)

    def __repr__(self) -> str:
        return f"<Blob {self.size} bytes {self.type}".rstrip() + ">"


BodyInit: TypeAlias = "bytes | bytearray | memoryview | str | Blob | AsyncIterable[bytes] | None"


class _Body:
    """What requests and responses share: headers, and a body in memory or in a stream (Fetch, "Body")."""

    __slots__ = ("_data", "_stream", "headers", "init")

    def __init__(self, body: BodyInit, headers: HeadersInit | None, init: Mapping[str, Any] | None) -> None:
        self.headers = Headers(() if headers is None else headers)
        self.init: dict[str, Any] = dict(init or {})
        self._data: bytes | None = None
        self._stream: ReadableStream[bytes] | None = None
        if isinstance(body, AsyncIterable):
            self._stream = body if isinstance(body, ReadableStream) else ReadableStream(body)
        elif isinstance(body, Blob):
            self._data = body._data
        elif body is not None:
            self._data = _octets(body)
        media_type = _TEXT_TYPE if isinstance(body, str) else body.type if isinstance(body, Blob) else ""
        if media_type and "content-type" not in self.headers:
            self.headers["content-type"] = media_type

    @property
    def body(self) -> ReadableStream[builtins.bytes] | None:
        """The body as a stream, which is read once; None where there is no body."""
        if self._stream is None and self._data is not None:
            self._stream = _stream_of(self._data)
        return self._stream

    @property
    def buffered(self) -> builtins.bytes | None:
        """The whole body where it is in memory already; None where it is a stream, or there is none."""
        return self._data

    def to_send(self) -> ReadableStream[builtins.bytes] | None:
        """The body as a stream for somebody else: its own one, or, where it is in memory, one more over it."""
        return self._stream if self._data is None else _stream_of(self._data)

    async def bytes(self) -> builtins.bytes:
        """The whole body; empty where there is none.

        A body that was made from bytes or text can be read again and again, a stream once.

        Raises:
            RuntimeError: if the body is a stream that has been read, or is being read.
            TypeError: if the stream has a chunk that is not bytes.
        """
        if self._data is not None:
            return self._data
        if self._stream is None:
            return b""
        if self._stream.locked:
            raise RuntimeError("the body has already been read: it is a stream, which is read once")
        return b"".join([_chunk(chunk) async for chunk in self._stream])

    async def text(self) -> str:
        """The whole body as UTF-8 text; what is malformed reads as U+FFFD, and a byte order mark is dropped.

        Raises: as `bytes()`.
        """
        return _decode(await self.bytes())

    async def json(self) -> Any:
        """The whole body as a JSON value.

        Raises: as `bytes()`, and
            json.JSONDecodeError: if it is no JSON.
        """
        return json.loads(_decode(await self.bytes()))


class Request(_Body):
    """An HTTP request.

    Args:
        url: an absolute URL.
        method: GET, POST, ... or any other token.
        headers: see `Headers`. Text brings its content-type along, where the headers name none.
        body: bytes, text (sent as UTF-8), a Blob, an async iterable of bytes, or None.
        init: what else a JavaScript peer says of the request, by the names of its `RequestInit`: "redirect", "cache",
            "cf" ... Nothing here acts on it; it travels over RPC.

    Raises:
        TypeError: if the body is of another type.
        ValueError: if the URL, the method or a header is not valid, or GET or HEAD comes with a body.
    """

    __slots__ = ("method", "url")

    def __init__(
        self,
        url: str | Url,
        *,
        method: str = "GET",
        headers: HeadersInit | None = None,
        body: BodyInit = None,
        init: Mapping[str, Any] | None = None,
    ) -> None:
        self.url = url.href if isinstance(url, Url) else Url(url).href
        self.method = _method(method)
        if body is not None and self.method in _BODILESS_METHODS:
            raise ValueError(f"a {self.method} request has no body: send it with POST, PUT or PATCH")
        super().__init__(body, headers, init)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url}>"


class Response(_Body):
    """An HTTP response.

    Args:
        body: bytes, text (sent as UTF-8), a Blob, an async iterable of bytes, or None.
        status: 200 to 599.
        status_text: the reason phrase; HTTP/2 and later carry none.
        headers: see `Headers`. Text brings its content-type along, where the headers name none.
        init: what else a JavaScript peer says of the response: "cf" and "encodeBody". Nothing here acts on it; it
            travels over RPC.

    Raises:
        TypeError: if the body is of another type (`Response.from_json` takes any JSON value), or the status
        no int.
        ValueError: if the status, its text or a header is not valid, or the status allows no body and there
            is one.
    """

    __slots__ = ("status", "status_text")

    def __init__(
        self,
        body: BodyInit = None,
        *,
        status: int = 200,
        status_text: str = "",
        headers: HeadersInit | None = None,
        init: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = _status(status)
        self.status_text = _header_value("status_text", status_text)
        if body is not None and status in _BODILESS_STATUSES:
            raise ValueError(f"a response with the status {status} has no body")
        super().__init__(body, headers, init)

    @classmethod
    def from_json(cls, value: Any, *, status: int = 200, headers: HeadersInit | None = None) -> Response:
        """A response whose body is a JSON value, with the content-type of one unless the headers name another.

        Raises:
            TypeError: if JSON has no form for the value.
            ValueError: if it holds an infinite number or NaN, or as the constructor.
        """
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        response = cls(text.encode(), status=status, headers=headers)
        response.headers.setdefault("content-type", _JSON_TYPE)
        return response

    @property
    def ok(self) -> bool:
        """Whether the status is one of success, 200 to 299."""
        return 200 <= self.status <= 299

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def _method(method: str) -> str:
    if not isinstance(method, str) or not _TOKEN.fullmatch(method):
        raise ValueError(f"{method!r} is no HTTP method")
    capitals = method.upper()
    if capitals in _FORBIDDEN_METHODS:
        raise ValueError(f"the method {capitals} is about a connection, and a Request has none")
    return capitals if capitals in _NORMALIZED_METHODS else method


def _status(status: int) -> int:
    if not isinstance(status, int) or isinstance(status, bool):
        raise TypeError(f"a status is an int, not {type(status).__name__}")
    if status == 101:
        raise ValueError("the status 101 switches the protocol of a connection, and a Response has none")
    if not 200 <= status <= 599:
        raise ValueError(f"the status {status} is none that a Response can have: 200 to 599 are")
    return status


def _chunk(chunk: object) -> bytes:
    if not isinstance(chunk, bytes | bytearray | memoryview):
        raise TypeError(f"the body's stream yielded {type(chunk).__name__}: every chunk has to be bytes")
    return bytes(chunk)


def _decode(data: bytes) -> str:
    """The Encoding standard's "UTF-8 decode": a byte order mark goes, and no input is an error."""
    return data.decode("utf-8", "replace").removeprefix("\ufeff")


def _stream_of(data: bytes) -> ReadableStream[bytes]:
    return ReadableStream(_pieces(data), length=len(data))


async def _pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]
