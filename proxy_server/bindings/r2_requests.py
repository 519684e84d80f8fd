"""What a request to a bucket says, read with suspicion: it is JSON, in the form of workerd's r2-api.capnp.

Every function raises InvalidArgument for what no runtime sends.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from capnweb_py.bindings.r2_requests import HTTP_METADATA
from proxy_server.stores.r2 import CHECKSUM_NAMES, ByteRange, Conditions, Etag, Metadata, RangeRequest
from proxy_server.stores.r2_errors import InvalidArgument
from proxy_server.stores.r2_rules import check_keys, check_metadata

__all__ = [
    "checksums_of",
    "conditions_of",
    "encryption_of",
    "key_of",
    "metadata_of",
    "number",
    "objects",
    "range_of",
    "read_request",
    "string",
    "strings",
    "well_formed",
]

_METHODS: Final = frozenset(
    {
        "head",
        "get",
        "put",
        "list",
        "delete",
        "createMultipartUpload",
        "uploadPart",
        "completeMultipartUpload",
        "abortMultipartUpload",
    }
)

_STORAGE_CLASSES: Final = ("Standard", "InfrequentAccess")
# All but the date.
_HTTP_FIELDS: Final = tuple(name for name in HTTP_METADATA if name != "cacheExpiry")


def read_request(text: str | bytes) -> dict[str, Any]:
    """The request that a text is. Bytes that are no UTF-8, as workerd makes of half a character, read as JavaScript's
    TextDecoder has them.

    Raises:
        InvalidArgument: if it is none.
    """
    try:
        request = json.loads(text if isinstance(text, str) else text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise InvalidArgument from None
    method = request.get("method") if isinstance(request, dict) else None
    if not isinstance(method, str) or method not in _METHODS:
        raise InvalidArgument
    made: dict[str, Any] = request
    return made


def string(request: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A text of a request. Without a default it has to be there."""
    value = request.get(name, default)
    if not isinstance(value, str):
        raise InvalidArgument
    return well_formed(value)


def well_formed(text: str) -> str:
    """What JavaScript's `toWellFormed` makes of a text: half a character becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def strings(request: Mapping[str, Any], name: str) -> list[str]:
    """An array of texts."""
    values = request.get(name)
    if not isinstance(values, list):
        raise InvalidArgument
    return [string({"": value}, "") for value in values]


def objects(fields: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """An array of objects; empty where there is none."""
    values = fields.get(name)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise InvalidArgument
    return values


def number(fields: Mapping[str, Any], name: str) -> int | None:
    """A number. Large ones come as text: JSON of capnp has no 64 bits."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        raise InvalidArgument
    try:
        return int(value)
    except (ValueError, OverflowError):
        raise InvalidArgument from None


def key_of(request: Mapping[str, Any]) -> str:
    """The key that a request is about. Raises InvalidObjectName if it is none."""
    key = string(request, "object")
    check_keys([key])
    return key


def encryption_of(request: Mapping[str, Any]) -> bytes | None:
    """The key that its writer encrypts an object with: 32 bytes, in hexadecimal."""
    written = _fields(request, "ssec").get("key")
    if written is None:
        return None
    if not isinstance(written, str) or not re.fullmatch("[0-9a-f]{64}", written):
        raise InvalidArgument("SSE-C Key must be 32 bytes in length")
    return bytes.fromhex(written)


def metadata_of(request: Mapping[str, Any]) -> Metadata:
    """What a request says of an object. Raises MetadataTooLarge if that is too much."""
    written = _fields(request, "httpFields")
    http: dict[str, str | int] = {name: string(written, name) for name in _HTTP_FIELDS if name in written}
    if (expiry := number(written, "cacheExpiry")) is not None:
        http["cacheExpiry"] = expiry
    custom = {string(pair, "k"): string(pair, "v") for pair in objects(request, "customFields")}
    check_metadata(custom)
    check_metadata({name: str(value) for name, value in http.items()})
    storage_class = string(request, "storageClass", "Standard")
    if storage_class not in _STORAGE_CLASSES:
        raise InvalidArgument(f"The storage class is one of {', '.join(_STORAGE_CLASSES)}, not {storage_class}")
    return Metadata(http, custom, storage_class)


def _fields(request: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = request.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument
    return value


def checksums_of(request: Mapping[str, Any]) -> dict[str, bytes]:
    """The given checksums: MD5 in base64, others in hexadecimal."""
    try:
        return {
            name: base64.b64decode(request[name]) if name == "md5" else bytes.fromhex(request[name])
            for name in CHECKSUM_NAMES
            if request.get(name) is not None
        }
    except (ValueError, TypeError):
        raise InvalidArgument from None


def conditions_of(request: Mapping[str, Any]) -> Conditions | None:
    """The conditions of a request."""
    written = request.get("onlyIf")
    if written is None:
        return None
    fields = _fields(request, "onlyIf")
    return Conditions(
        _etags(fields, "etagMatches"),
        _etags(fields, "etagDoesNotMatch"),
        number(fields, "uploadedBefore"),
        number(fields, "uploadedAfter"),
        fields.get("secondsGranularity") is True,
    )


def _etags(fields: Mapping[str, Any], name: str) -> tuple[Etag, ...] | None:
    if fields.get(name) is None:
        return None
    etags = tuple(_etag(one) for one in objects(fields, name))
    if not etags:
        raise InvalidArgument
    return etags


def _etag(written: Mapping[str, Any]) -> Etag:
    match written.get("type"):
        case "wildcard":
            return Etag("wildcard")
        case "strong":
            return Etag("strong", string(written, "value"))
        case "weak":
            return Etag("weak", string(written, "value"))
    raise InvalidArgument


def range_of(request: Mapping[str, Any]) -> RangeRequest | None:
    """The range that a request is for."""
    if request.get("rangeHeader") is not None:
        return string(request, "rangeHeader")
    if request.get("range") is None:
        return None
    written = _fields(request, "range")
    parts = [number(written, part) for part in ("offset", "length", "suffix")]
    if any(part is not None and part < 0 for part in parts):
        raise InvalidArgument
    return ByteRange(*parts)
