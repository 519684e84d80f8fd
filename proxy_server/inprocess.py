"""The channels of a binding that is open in the program's own process: RPC over a session in memory, HTTP by calling
the binding. No socket, no other process.

They do what the channels of a proxy do, so that a facade, and whoever uses it, cannot tell: values are copied, errors
of a handler are responses with the status 500, bodies stream and are closed when nobody reads them any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from capnweb_py.bindings.channels import Block, Channel, Channels
from capnweb_py.errors import RpcError
from capnweb_py.lazy import LazySession
from capnweb_py.loops import last_step, running_loop
from capnweb_py.options import SessionOptions
from capnweb_py.session import ABORTED, RpcSession
from capnweb_py.transports.memory import memory_pair
from capnweb_py.web import Headers, ReadableStream, Request, Response
from capnweb_py.web_socket import WebSocket
from proxy_server.bindings import Binding, BindingError
from proxy_server.bindings.dispatching import Dispatch, Dispatcher
from proxy_server.channels import FAILURE
from proxy_server.channels.http import answer, final_headers
from proxy_server.inprocess_sockets import open_local_socket

__all__ = ["InProcessChannels"]

# What a facade raises where its binding has answered nothing that could be refused in its words.
_UNANSWERED: Final = (ConnectionError, RpcError)


class InProcessChannels(Channels):
    """Both channels of one binding that is open here.

    Args:
        name: of the binding.
        binding: it.
        tasks: where its sessions run, and bodies are closed that nobody reads. It must outlive `aclose`.
        preferred: the channel of a facade that can use either.
        options: of the RPC sessions.
        over_remote: whether the binding lies over a remote one. What that one's facade raises, the caller of `fetch`
            gets as it is: that the proxy is not to be reached is no failure of the binding's.
        block: in which the binding can be used; `aclose` ends it.
    """

    def __init__(
        self,
        name: str,
        binding: Binding,
        tasks: TaskGroup,
        preferred: Channel = "http",
        options: SessionOptions | None = None,
        *,
        over_remote: bool = False,
        block: Block | None = None,
    ) -> None:
        self.name = name
        self.preferred = preferred
        self._where = f"the binding {name!r}"
        self._block = block or Block()
        self._binding = binding
        self._tasks = tasks
        self._session_options = options
        self._passed: tuple[type[Exception], ...] = _UNANSWERED if over_remote else ()
        self._session = LazySession(partial(_session, binding, options), f"the binding {name!r}", tasks.start_soon)
        self._open_rpc = self._session.main
        # Bodies of responses that are neither read to their end nor closed.
        self._bodies: set[_Body] = set()
        # Of a dispatch namespace: the channels of what was got of it.
        self._services: dict[str, InProcessChannels] = {}

    async def fetch(self, request: Request) -> Response:
        """As of `Channels`."""
        self._check_block()
        # A binding that awaits nothing would let nobody else have a turn.
        await anyio.lowlevel.checkpoint()
        upload = _Upload(request)
        try:
            response, failure = await self._answer(_handed_over(request, upload))
            if upload.failure is not None:
                await _close(response)
                raise upload.failure
            if isinstance(failure, self._passed):
                raise failure
        except BaseException:
            with anyio.CancelScope(shield=True):
                await upload.aclose()
            raise
        headers = final_headers(response)
        body: bytes | ReadableStream[bytes] | None = response.buffered or None
        if response.body is None or response.buffered is not None:
            await upload.aclose()
        else:
            body = ReadableStream(self._tracked(response.body, upload), length=response.body.length)
        return Response(body, status=response.status, status_text=response.status_text, headers=headers)

    async def _answer(self, request: Request) -> tuple[Response, BaseException | None]:
        """The response of the binding, and what has failed, of which the response may say no more than a status."""
        if not self._passed:
            return await answer(self._binding, request), None
        failures: list[BaseException | None] = [None]
        token = FAILURE.set(failures.append)
        try:
            return await answer(self._binding, request), failures[-1]
        finally:
            FAILURE.reset(token)

    @asynccontextmanager
    async def websocket(self, request: Request, subprotocols: Sequence[str] = ()) -> AsyncIterator[WebSocket]:
        """As of `Channels`."""
        self._check_block()
        opening = open_local_socket(self._binding, request, subprotocols, self._where, self._tasks.start_soon)
        async with opening as socket:
            yield socket

    def dispatched(self, name: str, options: str) -> Channels:
        """As of `Channels`."""
        if not isinstance(self._binding, Dispatcher):
            raise TypeError(f"the binding {self.name!r} has no services to choose from here")
        if options not in self._services:
            binding = self._binding.dispatched(Dispatch.parse(options))
            self._services[options] = InProcessChannels(
                self.name, binding, self._tasks, self.preferred, self._session_options, block=self._block
            )
        return self._services[options]

    def _tracked(self, body: ReadableStream[bytes], upload: _Upload) -> _BodyReader:
        tracked = _Body(body, upload, f"the response of the binding {self.name!r}", self._passed)
        self._bodies.add(tracked)
        tracked.when_closed = partial(self._bodies.discard, tracked)
        loop = running_loop()
        return _BodyReader(tracked, lambda: loop.soon_from_anywhere(partial(self._close_later, tracked)))

    def _close_later(self, body: _Body) -> None:
        if body in self._bodies:
            self._tasks.start_soon(last_step, body.aclose())

    async def aclose(self) -> None:
        """Close the session and all bodies. The binding itself is not closed."""
        self._block.left = True
        await self._session.aclose()
        for service in self._services.values():
            await service.aclose()
        for body in list(self._bodies):
            await last_step(body.aclose())


@asynccontextmanager
async def _session(binding: Binding, options: SessionOptions | None) -> AsyncIterator[RpcSession]:
    """A session with the main object of a binding: the client's side of it."""
    refusal = None
    main = None
    try:
        main = binding.rpc_main()
    except BindingError as error:
        refusal = str(error)
    async with memory_pair(None, main, options=options) as (client, _server):
        if refusal is not None:
            # As a proxy does it, whose client hears the reason from the connection that it closes.
            client.connection_lost(None, f"the peer closed the connection: {ABORTED} {refusal}")
        yield client


def _handed_over(request: Request, upload: _Upload) -> Request:
    """The request as a binding gets it: nothing of it is the caller's own but the chunks of its body."""
    body: bytes | ReadableStream[bytes] | None = request.buffered or None
    if request.buffered is None and request.body is not None:
        body = ReadableStream(upload, length=_declared_length(request))
    return Request(request.url, method=request.method, headers=Headers(request.headers.pairs()), body=body)


def _declared_length(request: Request) -> int | None:
    if request.body is not None and request.body.length is not None:
        return request.body.length
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdigit() else None


class _Upload:
    """The body of a request, as the binding reads it. What its source raises is kept: it is for the caller to hear."""

    def __init__(self, request: Request) -> None:
        self._body = None if request.buffered is not None else request.body
        self._chunks: AsyncIterator[bytes] | None = None
        self.failure: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        assert self._body is not None, "there is a body where this is read"
        try:
            if self._chunks is None:
                self._chunks = aiter(self._body)
            return bytes(memoryview(await anext(self._chunks)))
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise

    async def aclose(self) -> None:
        if self._body is not None:
            await self._body.aclose()


class _Body:
    """The body of a response and what ends with it: the body of its request."""

    def __init__(
        self, body: ReadableStream[bytes], upload: _Upload, title: str, passed: tuple[type[Exception], ...]
    ) -> None:
        self._body = body
        self._passed = passed
        self._chunks: AsyncIterator[bytes] | None = None
        self._upload = upload
        self._where = title
        self.when_closed: Callable[[], object] = lambda: None

    async def next_chunk(self) -> bytes | None:
        """The next chunk; None at the end."""
        try:
            if self._chunks is None:
                self._chunks = aiter(self._body)
            return bytes(memoryview(await anext(self._chunks)))
        except StopAsyncIteration:
            await self.aclose()
            return None
        except Exception as error:
            await self.aclose()
            if self._upload.failure is not None:
                raise self._upload.failure from None
            if isinstance(error, self._passed):
                raise
            raise ConnectionError(f"{self._where} broke off: {error}") from error

    async def aclose(self) -> None:
        self.when_closed()
        with anyio.CancelScope(shield=True):
            try:
                await self._body.aclose()
            finally:
                await self._upload.aclose()


class _BodyReader:
    """What the reader of a response refers to. When that is collected unread, the body is closed."""

    def __init__(self, body: _Body, collected: Callable[[], object]) -> None:
        self._body = body
        self._collected = collected

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._body.next_chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        await self._body.aclose()

    def __del__(self) -> None:
        self._collected()


async def _close(response: Response) -> None:
    if response.body is not None and response.buffered is None:
        await last_step(response.body.aclose())
