"""R2 for stubs: the target behind `env.BUCKET`, with the names of the Workers API.

What the runtime has as an R2Object comes as a plain object with the same properties; its `checksums` are bytes. What
`get` gives has a `body`, a stream, and no readers of its own: `new Response(object.body).text()` reads it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from capnweb_py.bindings.r2_objects import date_of
from capnweb_py.bindings.r2_requests import (
    R2Error,
    abort_request,
    bytes_of,
    complete_request,
    create_request,
    delete_request,
    get_request,
    head_request,
    list_request,
    put_request,
    upload_part_request,
)
from capnweb_py.target import RpcTarget
from capnweb_py.values import UNDEFINED
from capnweb_py.web import Blob, ReadableStream
from proxy_server.bindings.r2_listing import object_fields
from proxy_server.bindings.r2_operations import R2Operations, failures_refused
from proxy_server.bindings.r2_requests import well_formed
from proxy_server.stores import r2_errors
from proxy_server.stores.r2 import CHECKSUM_NAMES

__all__ = ["MultipartUpload", "R2BucketTarget"]

_PLAIN: Final = ("version", "size", "etag", "storageClass")


@contextmanager
def _thrown_by(action: str) -> Iterator[None]:
    """Have what a store refuses raised as the runtime throws it."""
    try:
        with failures_refused():
            yield
    except r2_errors.R2Error as error:
        raise R2Error(action, str(error), error.code) from None


class R2BucketTarget(RpcTarget):
    """The main object of a session: `env.BUCKET`."""

    def __init__(self, operations: R2Operations) -> None:
        self._operations = operations

    async def head(self, key: str) -> dict[str, Any] | None:
        """An object without its content; null if there is none."""
        with _thrown_by("head"):
            try:
                return _object(await self._operations.head(head_request(key)))
            except r2_errors.NoSuchKey:
                return None

    async def get(self, key: str, options: object = None) -> dict[str, Any] | None:
        """An object with its `body`; without one if `onlyIf` does not hold; null if there is none.

        Args:
            key: its name.
            options: onlyIf and range, each an object or Headers; ssecKey.
        """
        request = get_request(key, _options(options))
        with _thrown_by("get"):
            try:
                fields, opened = await self._operations.get(request)
            except r2_errors.NoSuchKey:
                return None
            except r2_errors.PreconditionFailed as error:
                if error.info is None:
                    raise
                return _object(object_fields(error.info, (0, error.info.size)))
        return _object(fields) | {"body": opened.body}

    async def put(self, key: str, value: object, options: object = None) -> dict[str, Any] | None:
        """Write an object. Gives it, or null if `onlyIf` does not hold.

        Args:
            key: its name.
            value: a string, bytes, a Blob, a stream of bytes, or null for nothing.
            options: onlyIf, httpMetadata, customMetadata, storageClass, ssecKey, and one of the checksums.
        """
        request = put_request(key, _options(options))
        content = _content(value)
        with _thrown_by("put"):
            try:
                return _object(await self._operations.put(request, content, content.length))
            except r2_errors.PreconditionFailed:
                return None
            finally:
                await content.aclose()

    async def delete(self, keys: object) -> None:
        """Delete an object, or several."""
        if not isinstance(keys, str | list):
            raise TypeError("delete() takes a key or an array of keys")
        with _thrown_by("delete"):
            await self._operations.delete(delete_request(keys))

    async def list(self, options: object = None) -> dict[str, Any]:
        """A page of objects: {objects, truncated, cursor, delimitedPrefixes}.

        Args:
            options: limit, prefix, cursor, delimiter, startAfter, include.
        """
        request = list_request(_options(options))
        with _thrown_by("list"):
            page = await self._operations.list(request)
        return page | {"objects": [_object(fields) for fields in page["objects"]]}

    async def createMultipartUpload(self, key: str, options: object = None) -> MultipartUpload:
        """Begin a multipart upload. Options: httpMetadata, customMetadata, storageClass, ssecKey."""
        request = create_request(key, _options(options))
        with _thrown_by("createMultipartUpload"):
            created = await self._operations.create_upload(request)
        return MultipartUpload(self._operations, key, created["uploadId"])

    def resumeMultipartUpload(self, key: str, upload_id: str) -> MultipartUpload:
        """Go on with a multipart upload. Whether there is one shows when it is used."""
        return MultipartUpload(self._operations, key, upload_id)


class MultipartUpload(RpcTarget):
    """An R2MultipartUpload."""

    def __init__(self, operations: R2Operations, key: str, upload_id: str) -> None:
        self._operations = operations
        self._key = key
        self._upload_id = upload_id

    @property
    def key(self) -> str:
        """The name of the object that it will be."""
        return self._key

    @property
    def uploadId(self) -> str:
        """What `resumeMultipartUpload` takes."""
        return self._upload_id

    async def uploadPart(self, number: int, value: object, options: object = None) -> dict[str, Any]:
        """Write a part: {partNumber, etag}, for `complete`. Options: ssecKey."""
        request = upload_part_request(self._key, self._upload_id, number, _options(options))
        content = _content(value)
        with _thrown_by("uploadPart"):
            try:
                part = await self._operations.upload_part(request, content, content.length)
            finally:
                await content.aclose()
        return {"partNumber": number, "etag": part["etag"]}

    async def complete(self, parts: object) -> dict[str, Any]:
        """Make the object of these parts, and give it."""
        if not isinstance(parts, list):
            raise TypeError("complete() takes an array of parts")
        request = complete_request(self._key, self._upload_id, parts)
        with _thrown_by("completeMultipartUpload"):
            return _object(await self._operations.complete_upload(request))

    async def abort(self) -> None:
        """End the upload without an object."""
        with _thrown_by("abortMultipartUpload"):
            await self._operations.abort_upload(abort_request(self._key, self._upload_id))


def _options(options: object) -> Mapping[str, Any]:
    if options is None or options is UNDEFINED:
        return {}
    if not isinstance(options, dict):
        raise TypeError(f"options are an object, not {type(options).__name__}")
    return options


def _content(value: object) -> ReadableStream[bytes]:
    """A value as a stream of bytes."""
    if value is None:
        value = b""
    if isinstance(value, str):
        value = well_formed(value).encode()
    if (content := bytes_of(value)) is not None:
        value = Blob(content)
    if isinstance(value, Blob):
        return value.stream()
    if not isinstance(value, AsyncIterable):
        raise TypeError(f"a value is a string, bytes, a Blob, a stream of bytes or null, not {type(value).__name__}")
    return value if isinstance(value, ReadableStream) else ReadableStream(value)


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An R2Object of the fields that the runtime reads one from."""
    numbers = fields["checksums"]
    made = {"key": fields["name"], "httpEtag": f'"{fields["etag"]}"', "uploaded": date_of(fields["uploaded"])}
    made |= {name: fields[name] for name in _PLAIN}
    made["checksums"] = {
        name: bytes.fromhex(numbers[str(number)])
        for number, name in enumerate(CHECKSUM_NAMES)
        if str(number) in numbers
    }
    if "ssec" in fields:
        made["ssecKeyMd5"] = fields["ssec"]["keyMd5"]
    if "range" in fields:
        made["range"] = dict(fields["range"])
    if "httpFields" in fields:
        http = dict(fields["httpFields"])
        if "cacheExpiry" in http:
            http["cacheExpiry"] = date_of(http["cacheExpiry"])
        made["httpMetadata"] = http
    if "customFields" in fields:
        made["customMetadata"] = {pair["k"]: pair["v"] for pair in fields["customFields"]}
    return made
