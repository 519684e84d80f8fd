"""The HTTP channel: a request that was wrapped for the proxy is unwrapped, given to the binding, and answered.

The wrapping is that of Cloudflare's remote bindings: `MF-URL` is the original URL, `MF-Header-<name>` the
original headers, method and body are the request's own. Bodies stream both ways, one chunk at a time: neither
is ever held whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import closing
from typing import Any, Final, Protocol, TypeAlias

import anyio

from capnweb_py.web import Headers, ReadableStream, Request, Response
from proxy_server.bindings import BindingError
from proxy_server.channels import (
    FAILURE,
    LOG,
    REASON_PHRASES,
    Receive,
    Scope,
    Send,
    end_to_end,
    header,
    send_text,
)
from proxy_server.channels.chunks import ChunkPipe

__all__ = ["Answering", "answer", "final_headers", "serve_http", "unwrapped"]

# Makes a request of a scope, its method and its body. Raises ValueError if it is none that can be made.
Unwrap: TypeAlias = Callable[[Scope, str, ReadableStream[bytes] | None], Request]

# What a request is for when nobody says: the default of Cloudflare's own proxy worker.
_DEFAULT_URL: Final = "http://example.com"
_PREFIX: Final = b"mf-header-"

# RFC 9110, section 6.4.1: the statuses whose responses have no content, and so no length of it to declare.
_NO_CONTENT: Final = frozenset({204, 304})

# How long a response's body may take to close, in seconds, once nobody reads it any more.
_CLOSE_TIMEOUT: Final = 5.0


class Answering(Protocol):
    """What answers requests: a binding, or one side of it."""

    async def fetch(self, request: Request) -> Response:
        """As of `Binding`."""


async def serve_http(
    binding: Answering, scope: Scope, receive: Receive, send: Send, *, unwrap: Unwrap | None = None
) -> None:
    """Answer one request from the binding. `unwrap` makes it of what arrived; by default it is `unwrapped`.

    The handler is cancelled when the client goes away. What the handler raises becomes a 500 with its
    message; once the response has begun it can only be cut off, so that is raised, and the server breaks the
    connection.
    """
    with closing(_Upload(receive)) as upload:
        try:
            body = ReadableStream(upload, length=_declared_length(scope)) if _has_body(scope) else None
            request = (unwrap or unwrapped)(scope, scope["method"], body)
        except ValueError as error:
            await send_text(send, 400, f"the request cannot be passed on: {error}")
            return
        failure = await _exchange(binding, scope, request, upload, send)
    if failure is not None:
        raise failure


async def _exchange(
    binding: Answering, scope: Scope, request: Request, upload: _Upload, send: Send
) -> Exception | None:
    """Give the request to the binding and its response to the client. Returns what cut the response off."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_when_gone, upload, tasks.cancel_scope)
        response = await answer(binding, request)
        try:
            await _send_response(response, _start(response, scope), _sender(send))
        except _ClientLeftError:
            LOG.info("the client left before the end of its exchange")
        except Exception as error:
            # Returned, not raised: the task group would wrap it.
            failure = error
        finally:
            await _close(response)
        tasks.cancel_scope.cancel()
    return failure


class _ClientLeftError(ConnectionResetError):
    """Nobody is there any more: the server found out in sending, or the request's body broke off."""


def _sender(send: Send) -> Send:
    """The server's `send`, whose OSError (ASGI, section "Disconnected Client") is told from one of the body."""

    async def send_to_client(event: MutableMapping[str, Any]) -> None:
        try:
            await send(event)
        except OSError as error:
            raise _ClientLeftError from error

    return send_to_client


async def _cancel_when_gone(upload: _Upload, handler: anyio.CancelScope) -> None:
    await upload.pump()
    handler.cancel()


def unwrapped(scope: Scope, method: str, body: ReadableStream[bytes] | None) -> Request:
    """The request that the client of the proxy was given.

    Raises:
        ValueError: if it is none that can be made.
    """
    headers = Headers()
    for name, value in scope["headers"]:
        if name.startswith(_PREFIX):
            headers.append(name.removeprefix(_PREFIX).decode("latin-1"), value.decode("latin-1"))
        elif name == b"upgrade":
            # The one header that clients do not rename: the Workers runtime would refuse the response
            # otherwise.
            headers.append("upgrade", value.decode("latin-1"))
    return Request(header(scope, b"mf-url") or _DEFAULT_URL, method=method, headers=headers, body=body)


def _has_body(scope: Scope) -> bool:
    """RFC 9112, section 6.3: a request has a body if it says so. Of length 0, fetch means none."""
    return header(scope, b"transfer-encoding") is not None or (_declared_length(scope) or 0) > 0


def _declared_length(scope: Scope) -> int | None:
    """RFC 9112, section 6.3: a length beside a transfer coding is none."""
    if header(scope, b"transfer-encoding") is not None:
        return None
    length = header(scope, b"content-length")
    return None if length is None else int(length)


async def answer(binding: Answering, request: Request) -> Response:
    """The response of a binding. What its handler raises becomes a 500 with the message."""
    try:
        return await binding.fetch(request)
    except BindingError as error:
        FAILURE.get()(error)
        return Response(str(error), status=500)
    except _ClientLeftError as error:
        # No accident of this server's, and nobody hears the answer.
        LOG.info("a request was not answered: %s", error)
        FAILURE.get()(None)
        return Response(str(error), status=500)
    except (Exception, SystemExit) as error:  # a handler that exits must not end the server
        # What it says may hold what the program works with.
        LOG.debug("a binding failed to answer %s %s", request.method, request.url, exc_info=True)
        FAILURE.get()(error)
        return Response(str(error), status=500)


def _start(response: Response, scope: Scope) -> dict[str, Any]:
    """The event that starts a response."""
    pairs = final_headers(response).pairs()
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    start = {"type": "http.response.start", "status": response.status, "headers": headers}
    if response.status_text and REASON_PHRASES in scope.get("extensions", {}):
        start["reason"] = response.status_text.encode("latin-1")
    return start


async def _send_response(response: Response, start: dict[str, Any], send: Send) -> None:
    await send(start)
    if response.body is not None and response.buffered is None:
        async for chunk in response.body:
            # An int or a str would not be refused by every server, but sent as something else.
            await send({"type": "http.response.body", "body": bytes(memoryview(chunk)), "more_body": True})
    await send({"type": "http.response.body", "body": response.buffered or b"", "more_body": False})


def final_headers(response: Response) -> Headers:
    """The headers of a response as they stand on the connection to the client."""
    headers = end_to_end(response.headers)
    if response.status in _NO_CONTENT:
        return headers
    if response.body is not None and response.body.length is not None:
        headers["content-length"] = str(response.body.length)
    elif response.body is None:
        # Where a HEAD request is answered, the length is that of what GET would bring.
        headers.setdefault("content-length", "0")
    return headers


async def _close(response: Response) -> None:
    """Close the body, even while the handler is being cancelled: it may hold files and connections."""
    if response.body is None or response.buffered is not None:
        return
    with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True) as patience:
        await response.body.aclose()
    if patience.cancelled_caught:
        LOG.warning("the body of a response did not close within %s s", _CLOSE_TIMEOUT)


class _Upload:
    """The body of a request on its way from the server to the handler, and the watch for the client's departure.

    `receive` has one caller, `pump`: it runs beside the handler, one chunk ahead of it. A client that leaves
    while its own body waits to be read is noticed when the handler reads on.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._pipe = ChunkPipe(1, _client_left)

    async def pump(self) -> None:
        """Pass chunks on until the client has gone."""
        try:
            while (message := await self._receive())["type"] == "http.request":
                chunk = message.get("body", b"")
                if chunk and not await self._pipe.write(chunk):
                    # The handler closed the body: it does not want the rest, which is read and dropped.
                    LOG.debug("%d bytes of a request's body were not read", len(chunk))
                if not message.get("more_body", False):
                    self._pipe.finish()
        finally:
            self._pipe.stop_writing()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._pipe)

    async def aclose(self) -> None:
        """Stop reading: what else arrives is dropped."""
        self._pipe.stop_reading()

    def close(self) -> None:
        """The request is over. A handler that kept its body reads nothing more."""
        self._pipe.stop_writing()
        self._pipe.stop_reading()


def _client_left() -> Exception:
    return _ClientLeftError("the client left before the end of its request's body")
