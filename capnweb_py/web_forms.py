"""The web's values and their forms on the wire: Headers, Request and Response <-> what their expressions hold beside
the body (protocol, section "Web types").

A form carries what JavaScript's constructors take, so it is checked as they check it: what they refuse is a
ProtocolError. Bodies and expressions are serialize.py's and deserialize.py's; nothing here looks into them.
"""

from __future__ import annotations

import math
from typing import Any, Final

from .errors import LimitExceeded, ProtocolError, UnreadableValue
from .values import MAX_SAFE_INTEGER
from .web import Headers, ReadableStream, Request, Response, Url

__all__ = [
    "Body",
    "read_headers",
    "read_media_type",
    "read_request",
    "read_response",
    "read_url",
    "request_init",
    "response_init",
    "written_headers",
]

Body = str | bytes | ReadableStream[Any] | None

# What a Request holds beside method, headers and body, by its name in JavaScript's RequestInit, with its type, and the
# value that goes without saying. The last two are Cloudflare's. The order is that in which npm capnweb writes them.
_REQUEST_MEMBERS: Final[dict[str, tuple[type, object]]] = {
    "cache": (str, "default"),
    "redirect": (str, "follow"),
    "integrity": (str, ""),
    "mode": (str, "cors"),
    "credentials": (str, "same-origin"),
    "referrer": (str, "about:client"),
    "referrerPolicy": (str, ""),
    "keepalive": (bool, False),
    "cf": (object, None),
    "encodeResponseBody": (str, "automatic"),
}

# The same of a Response. Both are Cloudflare's.
_RESPONSE_MEMBERS: Final[dict[str, tuple[type, object]]] = {"cf": (object, None), "encodeBody": (str, "automatic")}

# The statuses that Fetch knows of. Those outside 200 to 599 are of responses that nobody can construct, such as that of
# JavaScript's `Response.error()`.
_STATUSES: Final = range(1000)


def written_headers(headers: Headers) -> list[list[str]]:
    """The pairs of headers."""
    return [[name, value] for name, value in headers.combined()]


def request_init(request: Request, body: Any, max_depth: int) -> dict[str, Any]:
    """What the form of a request says beside its URL.

    Args:
        request: the request.
        body: the expression of its body; None where there is none.
        max_depth: how deep `request.init` may nest.

    Raises:
        TypeError: if `request.init` holds something that is no member of JavaScript's RequestInit, or no JSON.
    """
    init: dict[str, Any] = {}
    if request.method != "GET":
        init["method"] = request.method
    if request.headers:
        init["headers"] = written_headers(request.headers)
    if body is not None:
        init |= {"body": body, "duplex": "half"}
    return init | _written_members(request.init, _REQUEST_MEMBERS, "Request", max_depth)


def response_init(response: Response, max_depth: int) -> dict[str, Any]:
    """What the form of a response says beside its body. Raises as `request_init` does."""
    init: dict[str, Any] = {}
    if response.status != 200:
        init["status"] = response.status
    if response.status_text:
        init["statusText"] = response.status_text
    if response.headers:
        init["headers"] = written_headers(response.headers)
    return init | _written_members(response.init, _RESPONSE_MEMBERS, "Response", max_depth)


def read_url(text: str) -> Url:
    """The URL of a text. Raises ProtocolError if it is none."""
    try:
        return Url(text)
    except ValueError as error:
        raise ProtocolError(str(error)) from None


def read_headers(pairs: Any) -> Headers:
    """The headers of a list of pairs. Raises ProtocolError if it is none, or a name or value is not valid."""
    if type(pairs) is not list or not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        raise ProtocolError("headers are a list of pairs of a name and a value")
    try:
        return Headers((name, value) for name, value in pairs)
    except (TypeError, ValueError) as error:
        raise ProtocolError(str(error)) from None


def read_request(url: str, init: dict[str, Any], body: Body, max_depth: int) -> Request:
    """The request of a form.

    Args:
        url: its URL.
        init: what the form says beside it; the "body" in it is not looked at.
        body: what that is.
        max_depth: how deep `init` may nest.

    Raises:
        ProtocolError: if JavaScript's Request would refuse it.
        LimitExceeded: if it nests too deep.
    """
    if _is_given(init, "signal"):
        raise ProtocolError("the signal of a request cannot be sent")
    try:
        return Request(
            url,
            method=_member(init, "method", str, "GET"),
            headers=read_headers(init["headers"] if _is_given(init, "headers") else []),
            body=body,
            init=_read_members(init, _REQUEST_MEMBERS, max_depth),
        )
    except ValueError as error:
        raise ProtocolError(str(error)) from None


def read_response(body: Body, init: dict[str, Any], max_depth: int) -> Response:
    """The response of a form. Raises as `read_request` does, and UnreadableValue for a status that no response can be
    given."""
    if _is_given(init, "webSocket"):
        raise ProtocolError("the WebSocket of a response cannot be sent")
    status = _member(init, "status", int, 200)
    if status in _STATUSES and not 200 <= status <= 599:
        raise UnreadableValue(f"the status {status} is none that a Response can have: 200 to 599 are")
    try:
        return Response(
            body,
            status=status,
            status_text=_member(init, "statusText", str, ""),
            headers=read_headers(init["headers"] if _is_given(init, "headers") else []),
            init=_read_members(init, _RESPONSE_MEMBERS, max_depth),
        )
    except ValueError as error:
        raise ProtocolError(str(error)) from None


def _is_given(init: dict[str, Any], name: str) -> bool:
    """Whether a form says something under a name. JavaScript does not look at what is falsy there."""
    return init.get(name) not in (None, False, 0, "")


def read_media_type(text: str) -> str:
    """The type of a Blob: one that holds what no media type does is none, as in JavaScript."""
    return text if all(" " <= character <= "~" for character in text) else ""


def _member(init: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = init.get(name, default)
    if not (isinstance(value, kind) if kind is object else type(value) is kind):
        raise ProtocolError(f"{name!r} is not of the type {kind.__name__}: {ascii(value)[:100]}")
    return value


def _read_members(init: dict[str, Any], members: dict[str, tuple[type, object]], max_depth: int) -> dict[str, Any]:
    """Those members of an init that a Request or Response carries along: they are JSON, and not expressions. What else
    there is says nothing, as in JavaScript."""
    read: dict[str, Any] = {}
    for name, (kind, default) in members.items():
        value = _member(init, name, kind, default)
        if value != default:
            try:
                read[name] = _json_copy(value, max_depth)
            except TypeError as error:
                raise ProtocolError(f"{name!r}: {error}") from None
    return read


def _written_members(
    init: dict[str, Any], members: dict[str, tuple[type, object]], owner: str, max_depth: int
) -> dict[str, Any]:
    for name in init:
        if name not in members:
            raise TypeError(f"{name!r} in a {owner}'s init cannot be sent: {', '.join(members)} can")
    written: dict[str, Any] = {}
    for name, (kind, default) in members.items():
        value = init.get(name, default)
        if kind is not object and type(value) is not kind:
            raise TypeError(f"{name!r} in a {owner}'s init is a {kind.__name__}, not {type(value).__name__}")
        if value != default:
            try:
                written[name] = _json_copy(value, max_depth)
            except (TypeError, LimitExceeded) as error:
                raise TypeError(f"{name!r} in a {owner}'s init: {error}") from None
    return written


def _json_copy(value: Any, depth_left: int) -> Any:
    """A copy of a JSON value. Raises TypeError if it is none, and LimitExceeded if it nests too deep."""
    if value is None or type(value) in (str, bool):
        return value
    if type(value) in (int, float) and math.isfinite(value):
        return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else float(value)
    if not depth_left:
        raise LimitExceeded("it nests deeper than max_depth allows")
    if type(value) is list:
        return [_json_copy(item, depth_left - 1) for item in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _json_copy(item, depth_left - 1) for key, item in value.items()}
    raise TypeError(f"it holds a {type(value).__name__}, which JSON does not have")
