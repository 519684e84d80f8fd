"""R2 over the HTTP channel: what the Workers runtime's own `env.BUCKET` sends (workerd, src/workerd/api/r2-rpc.c++).

A GET has its request as JSON in a header; a PUT has it before the content, with its size in a header. Answers have JSON
before the content in the same way, and errors theirs in a header.
"""

from __future__ import annotations

import json
from typing import Any

from capnweb_py.bindings.r2_framing import ERROR_HEADER, REQUEST_HEADER, SIZE_HEADER, prefixed, split
from capnweb_py.web import ReadableStream, Request, Response
from proxy_server.bindings.r2_listing import object_fields
from proxy_server.bindings.r2_operations import R2Operations, failures_refused
from proxy_server.bindings.r2_requests import read_request
from proxy_server.stores.r2_errors import InternalError, InvalidArgument, PreconditionFailed, R2Error

__all__ = ["R2Http"]

# How large the JSON before the content may be: the longest is a delete of 1000 keys, each byte of them escaped.
_MAX_METADATA_BYTES = 8 * 1024 * 1024


class R2Http:
    """Answers requests with a bucket's operations."""

    def __init__(self, operations: R2Operations) -> None:
        self._operations = operations

    async def fetch(self, request: Request) -> Response:
        """Answer a request. What is refused is a response that says so."""
        try:
            with failures_refused():
                return await (self._read(request) if request.method == "GET" else self._write(request))
        except R2Error as error:
            return _refusal(error)
        finally:
            if request.body is not None:
                # Of content that is refused, the rest is not read.
                await request.body.aclose()

    async def _read(self, request: Request) -> Response:
        text = request.headers.get(REQUEST_HEADER)
        if text is None:
            raise InvalidArgument
        # The runtime writes UTF-8 into the header.
        wanted = read_request(text.encode("latin-1"))
        match wanted["method"]:
            case "head":
                return _answer(await self._operations.head(wanted))
            case "list":
                return _answer(await self._operations.list(wanted))
            case "get":
                fields, opened = await self._operations.get(wanted)
                return _answer(fields, opened.body)
        raise InternalError

    async def _write(self, request: Request) -> Response:
        size = request.headers.get(SIZE_HEADER, "")
        if request.method != "PUT" or request.body is None or not size.isdecimal() or len(size) > 7:
            raise InvalidArgument
        if int(size) > _MAX_METADATA_BYTES:
            raise InvalidArgument
        try:
            text, content = await split(request.body, int(size))
        except ValueError:
            raise InvalidArgument from None
        wanted = read_request(text)
        match wanted["method"]:
            case "put":
                return _answer(await self._operations.put(wanted, content, content.length))
            case "uploadPart":
                return _answer(await self._operations.upload_part(wanted, content, content.length))
            case "createMultipartUpload":
                return _answer(await self._operations.create_upload(wanted))
            case "completeMultipartUpload":
                return _answer(await self._operations.complete_upload(wanted))
            case "abortMultipartUpload":
                await self._operations.abort_upload(wanted)
                return Response()
            case "delete":
                await self._operations.delete(wanted)
                return Response()
        raise InternalError


def _answer(fields: dict[str, Any], content: ReadableStream[bytes] | None = None, status: int = 200) -> Response:
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {SIZE_HEADER: str(len(text)), "content-type": "application/json"}
    return Response(text if content is None else prefixed(text, content), status=status, headers=headers)


def _refusal(error: R2Error) -> Response:
    info = error.info if isinstance(error, PreconditionFailed) else None
    # The object that was not given is described all the same.
    fields = None if info is None else object_fields(info, (0, info.size))
    response = Response(status=error.status) if fields is None else _answer(fields, status=error.status)
    response.headers[ERROR_HEADER] = json.dumps({"version": 1, "v4code": error.code, "message": str(error)})
    return response
