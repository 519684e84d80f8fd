"""The two ways to a bucket: what its facade does over HTTP and over RPC, with the same results and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from ..errors import RemoteError
from ..stub import RpcStub
from ..web import Blob, ReadableStream, Request, Response
from .channels import FOREIGN, Channels
from .r2_framing import ERROR_HEADER, REQUEST_HEADER, SIZE_HEADER, prefixed, split
from .r2_objects import R2Object, R2Objects, object_from_fields, object_from_rpc
from .r2_requests import (
    R2Error,
    abort_request,
    complete_request,
    create_request,
    delete_request,
    get_request,
    head_request,
    list_request,
    put_request,
    upload_part_request,
)

__all__ = ["BucketChannel", "Content", "HttpBucket", "RpcBucket"]

# What is written: bytes, or a stream whose length is known.
Content = bytes | ReadableStream[bytes]

# The runtime's fake host; only the binding matters.
_URL: Final = "https://fake-host/"
_NO_SUCH_KEY: Final = 10007
_INCLUDED: Final = {"httpFields": "httpMetadata", "customFields": "customMetadata"}
_PRECONDITIONS: Final = frozenset({10031, 10032})

# Bytes that are longer go over RPC as a stream: a message has a limit.
_MAX_MESSAGE_BYTES: Final = 64 * 1024


class BucketChannel(Protocol):
    """A bucket's methods. Options have the names of the Workers API; every method may raise R2Error."""

    async def head(self, key: str) -> R2Object | None: ...

    async def get(self, key: str, options: Mapping[str, Any]) -> R2Object | None: ...

    async def put(self, key: str, content: Content, options: Mapping[str, Any]) -> R2Object | None: ...

    async def delete(self, keys: str | Sequence[str]) -> None: ...

    async def list(self, options: Mapping[str, Any]) -> R2Objects: ...

    async def create_upload(self, key: str, options: Mapping[str, Any]) -> str: ...

    async def upload_part(
        self, key: str, upload_id: str, number: int, content: Content, options: Mapping[str, Any]
    ) -> str: ...

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[Mapping[str, Any]]) -> R2Object: ...

    async def abort_upload(self, key: str, upload_id: str) -> None: ...


class HttpBucket:
    """A bucket by HTTP: the protocol of the Workers runtime (workerd, src/workerd/api/r2-rpc.c++)."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def head(self, key: str) -> R2Object | None:
        answer = await self._read(head_request(key))
        return None if answer is None else object_from_fields(answer[0])

    async def get(self, key: str, options: Mapping[str, Any]) -> R2Object | None:
        answer = await self._read(get_request(key, options), with_body=True)
        return None if answer is None else object_from_fields(*answer)

    async def put(self, key: str, content: Content, options: Mapping[str, Any]) -> R2Object | None:
        try:
            fields = await self._write(put_request(key, options), content)
        except R2Error as error:
            if error.code in _PRECONDITIONS:
                return None
            raise
        return object_from_fields(fields)

    async def delete(self, keys: str | Sequence[str]) -> None:
        await self._write(delete_request(keys))

    async def list(self, options: Mapping[str, Any]) -> R2Objects:
        answer = await self._read(list_request(options))
        assert answer is not None, "a listing is always there"
        page = answer[0]
        return R2Objects(
            [object_from_fields(_included(fields, options), listed=True) for fields in page["objects"]],
            page["truncated"],
            page.get("cursor"),
            page.get("delimitedPrefixes") or [],
        )

    async def create_upload(self, key: str, options: Mapping[str, Any]) -> str:
        upload_id: str = (await self._write(create_request(key, options)))["uploadId"]
        return upload_id

    async def upload_part(
        self, key: str, upload_id: str, number: int, content: Content, options: Mapping[str, Any]
    ) -> str:
        etag: str = (await self._write(upload_part_request(key, upload_id, number, options), content))["etag"]
        return etag

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[Mapping[str, Any]]) -> R2Object:
        return object_from_fields(await self._write(complete_request(key, upload_id, parts)))

    async def abort_upload(self, key: str, upload_id: str) -> None:
        await self._write(abort_request(key, upload_id))

    async def _read(
        self, request: Mapping[str, Any], *, with_body: bool = False
    ) -> tuple[dict[str, Any], ReadableStream[bytes] | None] | None:
        """What a request finds, and its content. None if there is no such object."""
        headers = {REQUEST_HEADER: json.dumps(request)}
        response = await self._channels.fetch(Request(_URL, headers=headers))
        body = response.body or Blob(b"").stream()
        content = None
        try:
            self._check(response)
            error = _error(request, response)
            refused = error is not None and error.code in _PRECONDITIONS
            if error is not None and error.code == _NO_SUCH_KEY:
                return None
            if error is not None and not (refused and SIZE_HEADER in response.headers):
                raise error
            if SIZE_HEADER not in response.headers:
                raise self._channels.strange(response, "r2_bucket")
            text, rest = await split(body, int(response.headers[SIZE_HEADER]))
            content = rest if with_body and not refused else None
            return json.loads(text), content
        finally:
            if content is None:
                await body.aclose()

    def _check(self, response: Response) -> None:
        # A bucket names a reason for what it refuses, but for what is no request of its own.
        if response.status in FOREIGN and ERROR_HEADER not in response.headers:
            raise self._channels.strange(response, "r2_bucket")

    async def _write(self, request: Mapping[str, Any], content: Content = b"") -> dict[str, Any]:
        text = json.dumps(request).encode()
        body = text + content if isinstance(content, bytes) else prefixed(text, content)
        headers = {SIZE_HEADER: str(len(text))}
        response = await self._channels.fetch(Request(_URL, method="PUT", headers=headers, body=body))
        answer = await response.bytes()
        self._check(response)
        error = _error(request, response)
        if error is not None and not (error.code == _NO_SUCH_KEY and request["method"] == "delete"):
            raise error
        fields: dict[str, Any] = json.loads(answer) if answer else {}
        return fields


def _error(request: Mapping[str, Any], response: Response) -> R2Error | None:
    """The error that a response is."""
    if response.status < 400:
        return None
    text = response.headers.get(ERROR_HEADER, '{"v4code": 0, "message": "Unspecified error"}')
    error = json.loads(text)
    return R2Error(request["method"], error["message"], error["v4code"])


def _included(fields: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """An object of a listing without what was not asked for: some servers say that it has none."""
    include = options.get("include") or ()
    empty: dict[str, Any] = {"httpFields": {}, "customFields": []}
    asked = [name for name, option in _INCLUDED.items() if option in include]
    kept = {name: value for name, value in fields.items() if name not in empty}
    return kept | {name: fields.get(name) or empty[name] for name in asked}


class RpcBucket:
    """A bucket by RPC, with the methods of the Workers API."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def head(self, key: str) -> R2Object | None:
        head_request(key)
        with _refused():
            found = await self._rpc.head(key)
        return None if found is None else object_from_rpc(found)

    async def get(self, key: str, options: Mapping[str, Any]) -> R2Object | None:
        get_request(key, options)
        with _refused():
            found = await self._rpc.get(key, dict(options))
        return None if found is None else object_from_rpc(found)

    async def put(self, key: str, content: Content, options: Mapping[str, Any]) -> R2Object | None:
        put_request(key, options)
        with _refused():
            found = await self._rpc.put(key, _sent(content), dict(options))
        return None if found is None else object_from_rpc(found)

    async def delete(self, keys: str | Sequence[str]) -> None:
        delete_request(keys)
        with _refused():
            await self._rpc.delete(keys if isinstance(keys, str) else list(keys))

    async def list(self, options: Mapping[str, Any]) -> R2Objects:
        list_request(options)
        with _refused():
            page = await self._rpc.list(dict(options))
        objects = [object_from_rpc(fields, listed=True) for fields in page["objects"]]
        return R2Objects(objects, page["truncated"], page.get("cursor"), page["delimitedPrefixes"])

    async def create_upload(self, key: str, options: Mapping[str, Any]) -> str:
        create_request(key, options)
        with _refused():
            upload_id: str = await self._rpc.createMultipartUpload(key, dict(options)).uploadId
        return upload_id

    async def upload_part(
        self, key: str, upload_id: str, number: int, content: Content, options: Mapping[str, Any]
    ) -> str:
        upload_part_request(key, upload_id, number, options)
        with _refused():
            part = await self._upload(key, upload_id).uploadPart(number, _sent(content), dict(options))
        etag: str = part["etag"]
        return etag

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[Mapping[str, Any]]) -> R2Object:
        complete_request(key, upload_id, parts)
        with _refused():
            return object_from_rpc(await self._upload(key, upload_id).complete([dict(part) for part in parts]))

    async def abort_upload(self, key: str, upload_id: str) -> None:
        with _refused():
            await self._upload(key, upload_id).abort()

    @property
    def _rpc(self) -> RpcStub:
        return self._channels.rpc

    def _upload(self, key: str, upload_id: str) -> RpcStub:
        upload: RpcStub = self._rpc.resumeMultipartUpload(key, upload_id)
        return upload


def _sent(content: Content) -> Content:
    if isinstance(content, bytes) and len(content) > _MAX_MESSAGE_BYTES:
        return Blob(content).stream()
    return content


@contextmanager
def _refused() -> Iterator[None]:
    """Have what the bucket refused raised as over HTTP."""
    try:
        yield
    except RemoteError as error:
        code, action = error.props.get("code"), error.props.get("action")
        if not isinstance(code, int) or not isinstance(action, str):
            raise
        message = error.message.removeprefix(f"{action}: ").removesuffix(f" ({code})")
        raise R2Error(action, message, code) from error
