"""The requests that the Workers runtime's `env.BUCKET` makes of its methods' arguments, and what it refuses to send.

They are JSON objects, the same on both channels (workerd, src/workerd/api/r2-api.capnp and r2-bucket.c++). Options
come as in JavaScript: mappings with the names of the Workers API, dates as datetimes, checksums as bytes or hex digits.
What the runtime throws as a TypeError is a TypeError here, a RangeError a ValueError.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from ..errors import RpcError
from ..values import UNDEFINED, TypedArray
from ..web import Headers
from .given import given

__all__ = [
    "CHECKSUMS",
    "HTTP_METADATA",
    "INCLUDES",
    "R2Error",
    "RangeError",
    "abort_request",
    "bytes_of",
    "complete_request",
    "create_request",
    "delete_request",
    "get_request",
    "head_request",
    "list_request",
    "put_request",
    "upload_part_request",
]

_VERSION: Final = 1

# The checksums, in the order of their numbers in answers: their names, those in messages, and their lengths in bytes.
CHECKSUMS: Final = (
    ("md5", "MD5", 16),
    ("sha1", "SHA-1", 20),
    ("sha256", "SHA-256", 32),
    ("sha384", "SHA-384", 48),
    ("sha512", "SHA-512", 64),
)

# HTTP metadata, and the headers that say the same.
HTTP_METADATA: Final = {
    "contentType": "content-type",
    "contentLanguage": "content-language",
    "contentDisposition": "content-disposition",
    "contentEncoding": "content-encoding",
    "cacheControl": "cache-control",
    "cacheExpiry": "expires",
}

# What a list can include, by the numbers that the wire has for them.
INCLUDES: Final = {"httpMetadata": 0, "customMetadata": 1}

# What is between ETags in a header, and how one begins; with "W" alone it is a weak one that is not quoted.
_ETAG_BEGIN: Final = re.compile(r'([ \t,]*)(\*|W/"|W|")')
_NO_COMMA: Final = "Comma was expected to separate etags. Encountered a {} instead.{}"
_ETAG_BEGINNINGS: Final = {
    "*": ("wildcard character '*'", ""),
    "W": ("weak quotation character 'W'", " This would otherwise indicate the start of a new weak etag."),
    '"': ("double quote character '\"'", " This would otherwise indicate the start of a new strong etag."),
}


class R2Error(RpcError):
    """What the bucket refused. The message is the runtime's: "put: The specified object name is not valid. (10020)".

    Attributes:
        action: the method.
        code: R2's number (https://developers.cloudflare.com/r2/api/error-codes/).
    """

    def __init__(self, action: str, message: str, code: int) -> None:
        super().__init__(f"{action}: {message} ({code})")
        self.action = action
        self.code = code


class RangeError(ValueError):
    """JavaScript's RangeError: the peer knows it by this name."""


def head_request(key: str) -> dict[str, Any]:
    """The request of `head`."""
    return {"version": _VERSION, "method": "head", "object": _text("key", key)}


def get_request(key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The request of `get`. Options: onlyIf, range, ssecKey.

    Raises:
        TypeError, RangeError: if an option is not valid.
    """
    request = {"version": _VERSION, "method": "get", "object": _text("key", key), **_only_if(options)}
    wanted = _option(options, "range")
    if isinstance(wanted, Headers):
        if "range" in wanted:
            request["rangeHeader"] = wanted["range"]
    elif wanted is not None:
        request["range"] = _range(wanted)
    return request | _encryption(options)


def put_request(key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The request of `put`. Options: onlyIf, httpMetadata, customMetadata, storageClass, ssecKey, and one checksum.

    Raises:
        TypeError: if an option is not valid.
    """
    request = {"version": _VERSION, "method": "put", "object": _text("key", key)}
    return request | _only_if(options) | _metadata(options) | _checksum(options) | _encryption(options)


def delete_request(keys: str | Sequence[str]) -> dict[str, Any]:
    """The request of `delete`."""
    request: dict[str, Any] = {"version": _VERSION, "method": "delete"}
    if isinstance(keys, str):
        return request | {"object": keys}
    return request | {"objects": [_text("key", key) for key in keys]}


def list_request(options: Mapping[str, Any]) -> dict[str, Any]:
    """The request of `list`. Options: limit, prefix, cursor, delimiter, startAfter, include.

    Raises:
        TypeError, RangeError: if an option is not valid.
    """
    request: dict[str, Any] = {"version": _VERSION, "method": "list", "newRuntime": True}
    limit = _option(options, "limit")
    if limit is not None:
        request["limit"] = _integer("limit", limit)
    for name in ("prefix", "cursor", "delimiter", "startAfter"):
        if (value := _option(options, name)) is not None:
            request[name] = _text(name, value)
    request["include"] = [_include(name) for name in _option(options, "include") or ()]
    return request


def create_request(key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The request of `createMultipartUpload`. Options: httpMetadata, customMetadata, storageClass, ssecKey."""
    request = {"version": _VERSION, "method": "createMultipartUpload", "object": _text("key", key)}
    return request | _metadata(options) | _encryption(options)


def upload_part_request(key: str, upload_id: str, number: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The request of `uploadPart`. Options: ssecKey.

    Raises:
        TypeError: if there is no part of that number.
    """
    request = {"version": _VERSION, "method": "uploadPart", "object": key, "uploadId": upload_id}
    return request | {"partNumber": _part_number(number)} | _encryption(options)


def complete_request(key: str, upload_id: str, parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The request of `complete`. A part is {"partNumber", "etag"}.

    Raises:
        TypeError: if there is no part of that number.
    """
    published = [{"etag": _text("etag", part["etag"]), "part": _part_number(part["partNumber"])} for part in parts]
    request = {"version": _VERSION, "method": "completeMultipartUpload", "object": key, "uploadId": upload_id}
    return request | {"parts": published}


def abort_request(key: str, upload_id: str) -> dict[str, Any]:
    """The request of `abort`."""
    return {"version": _VERSION, "method": "abortMultipartUpload", "object": key, "uploadId": upload_id}


def bytes_of(value: object) -> bytes | None:
    """What JavaScript has as an ArrayBuffer or a view of one; None if it is something else."""
    if isinstance(value, TypedArray):
        return bytes(value.data)
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None


def _option(options: Mapping[str, Any], name: str) -> Any:
    """An option, or None where it is not given."""
    value = options.get(name)
    return None if value is UNDEFINED else value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a string, not {type(value).__name__}")
    return value


def _integer(name: str, value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is an integer, not {type(value).__name__}")
    return value


def _part_number(value: object) -> int:
    number = _integer("part number", value)
    if not 1 <= number <= 10_000:
        raise TypeError(f"Part number must be between 1 and 10000 (inclusive). Actual value was: {number}")
    return number


def _include(name: str) -> int:
    try:
        return INCLUDES[name]
    except KeyError:
        raise RangeError(f"Unsupported include value {name}") from None


def _milliseconds(name: str, value: object) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError(f"{name} is a datetime with a time zone, not {value!r}")
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND


_MILLISECOND: Final = datetime(1970, 1, 1, 0, 0, 0, 1000) - datetime(1970, 1, 1)  # noqa: DTZ001 - a difference


def _header_milliseconds(headers: Headers, name: str) -> int | None:
    """The date of a header; None where there is none (RFC 9110, section 13.1.3: what is no date is ignored)."""
    try:
        date = parsedate_to_datetime(headers[name])
    except (KeyError, ValueError):
        return None
    return _milliseconds(name, date if date.tzinfo is not None else date.replace(tzinfo=UTC))


def _only_if(options: Mapping[str, Any]) -> dict[str, Any]:
    conditions = _option(options, "onlyIf")
    if conditions is None:
        return {}
    made = _header_conditions(conditions) if isinstance(conditions, Headers) else _conditions(conditions)
    return {"onlyIf": given(**made)}


def _conditions(conditions: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in ("etagMatches", "etagDoesNotMatch"):
        if (etag := _option(conditions, name)) is not None:
            made[name] = [_single_etag(_text(name, etag))]
    for name in ("uploadedBefore", "uploadedAfter"):
        if (date := _option(conditions, name)) is not None:
            made[name] = _milliseconds(name, date)
    if _option(conditions, "secondsGranularity"):
        made["secondsGranularity"] = True
    return made


def _single_etag(etag: str) -> dict[str, str]:
    if etag.startswith('"') and etag.endswith('"'):
        raise TypeError(f"Conditional ETag should not be wrapped in quotes ({etag}).")
    return {"type": "wildcard"} if etag == "*" else {"type": "strong", "value": etag}


def _header_conditions(headers: Headers) -> dict[str, Any]:
    return {
        "etagMatches": _header_etags(headers, "if-match"),
        "etagDoesNotMatch": _header_etags(headers, "if-none-match"),
        "uploadedAfter": _header_milliseconds(headers, "if-modified-since"),
        "uploadedBefore": _header_milliseconds(headers, "if-unmodified-since"),
        "secondsGranularity": True,
    }


def _header_etags(headers: Headers, name: str) -> list[dict[str, str]] | None:
    if name not in headers:
        return None
    etags: list[dict[str, str]] = []
    rest = headers[name]
    while begin := _ETAG_BEGIN.match(rest):
        if etags and "," not in begin[1]:
            raise ValueError(_NO_COMMA.format(*_ETAG_BEGINNINGS[begin[2][0]]))
        if begin[2] == "*":
            return [{"type": "wildcard"}]
        if begin[2] == "W":
            raise ValueError("Weak etags must start with W/ and their value must be quoted")
        value, quote, rest = rest[begin.end() :].partition('"')
        if not quote:
            raise ValueError("Unclosed double quote for Etag")
        etags.append({"type": "weak" if begin[2] == 'W/"' else "strong", "value": value})
    if not etags:
        raise ValueError(f"Invalid ETag in {name} header")
    return etags


def _range(wanted: Mapping[str, Any]) -> dict[str, int]:
    made: dict[str, int] = {}
    for name, title in (("offset", "Starting offset"), ("length", "Length"), ("suffix", "Suffix")):
        value = _option(wanted, name)
        if value is None:
            continue
        if name == "suffix" and made:
            raise TypeError(f"Suffix is incompatible with {next(iter(made))}.")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"{name} is a number, not {type(value).__name__}")
        if value < 0:
            kind = "suffix" if name == "suffix" else "range"
            raise RangeError(f"Invalid {kind}. {title} ({value}) must be greater than or equal to 0.")
        if value != int(value):
            raise RangeError(f"Invalid range. {title} ({value}) must be an integer, not floating point.")
        made[name] = int(value)
    return made


def _metadata(options: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if (custom := _option(options, "customMetadata")) is not None:
        made["customFields"] = [{"k": _text("name", k), "v": _text("customMetadata", v)} for k, v in custom.items()]
    http = _option(options, "httpMetadata")
    if isinstance(http, Headers):
        fields: dict[str, Any] = {name: http.get(header) for name, header in HTTP_METADATA.items()}
        fields["cacheExpiry"] = _header_milliseconds(http, "expires")
        made["httpFields"] = given(**fields)
    elif http is not None:
        fields = {name: _option(http, name) for name in HTTP_METADATA}
        if fields["cacheExpiry"] is not None:
            fields["cacheExpiry"] = _milliseconds("cacheExpiry", fields["cacheExpiry"])
        made["httpFields"] = given(**fields)
    if (storage_class := _option(options, "storageClass")) is not None:
        made["storageClass"] = _text("storageClass", storage_class)
    return made


def _checksum(options: Mapping[str, Any]) -> dict[str, str]:
    made: dict[str, str] = {}
    for name, title, length in CHECKSUMS:
        value = _option(options, name)
        if value is None:
            continue
        if made:
            raise TypeError("You cannot specify multiple hashing algorithms.")
        digest = _digest(value, title, length)
        made[name] = base64.b64encode(digest).decode() if name == "md5" else digest.hex()
    return made


def _digest(value: object, title: str, length: int) -> bytes:
    if isinstance(value, str):
        if len(value) != 2 * length:
            raise TypeError(f"{title} is {2 * length} hex characters, not {len(value)}")
        if not re.fullmatch("[0-9A-Fa-f]*", value):
            raise TypeError(f"Provided {title} wasn't a valid hex string")
        return bytes.fromhex(value)
    digest = bytes_of(value)
    if digest is None:
        raise TypeError(f"{title} is bytes or a hex string, not {type(value).__name__}")
    if len(digest) != length:
        raise TypeError(f"{title} is {length} bytes, not {len(digest)}")
    return digest


def _encryption(options: Mapping[str, Any]) -> dict[str, Any]:
    """The key of an object's writer, which it is encrypted with."""
    key = _option(options, "ssecKey")
    if key is None:
        return {}
    content = bytes_of(key)
    text = _text("ssecKey", key) if content is None else content.hex()
    if content is None and not re.fullmatch("[0-9a-f]+", text):
        raise ValueError("SSE-C Key has invalid format")
    if len(text) != 64:
        raise ValueError("SSE-C Key must be 32 bytes in length")
    return {"ssec": {"key": text}}
