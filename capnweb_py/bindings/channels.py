"""The ways from a client to one binding behind a proxy: RPC over a WebSocket, and HTTP requests that are wrapped for
it.

They are those of Cloudflare's remote bindings (protocol.md, section "The channels"): the connection string is the key
to the proxy; a WebSocket names its binding in the query, a request in the header `MF-Binding`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Literal, get_args

import attrs
from anyio.abc import ByteStream

from ..backoff import Backoff, can_be_repeated
from ..errors import ProxyError, RpcError, Unreachable
from ..hooks import ErrorHook
from ..http11 import Http11Client, os_reason
from ..stub import RpcStub, make_stub
from ..web import Headers, Request, Response
from ..web_socket import WebSocket, WebSocketRefused
from ..websocket_client import open_web_socket
from .address import ProxyAddress
from .answers import Answers, Stopping, shown
from .tunnel import open_tunnel

__all__ = [
    "DISPATCH_OPTIONS",
    "FOREIGN",
    "TYPE",
    "Block",
    "Channel",
    "Channels",
    "ProxyAddress",
    "check_channel",
    "rpc_url",
]

Channel = Literal["http", "rpc"]

# As which type the binding is used: a header of a request, or a parameter of a session's URL. A proxy that knows it
# refuses to be used as something else. An extension of this project's.
TYPE: Final = "capnweb-type"

# RFC 9110, section 15.5: what is asked for is not there, or not of this kind. Where a binding has an answer of its own
# to all that its facade asks, these are of something else.
FOREIGN: Final = frozenset({404, 405})

# What says which service of a dispatch namespace is meant: a header of a request, or a parameter of a session's URL.
DISPATCH_OPTIONS: Final = "MF-Dispatch-Namespace-Options"


def check_channel(channel: str) -> None:
    """Raise a ValueError for what is none of the channels that facades choose from."""
    if channel not in get_args(Channel):
        raise ValueError(f'channel={channel!r}: "http" is valid, and "rpc"')


@attrs.define
class Block:
    """The `async with` of an env, whose bindings are of no use past its end.

    Attributes:
        left: whether it has ended.
    """

    left: bool = False


class Channels:
    """Both channels of one binding.

    Args:
        name: of the binding.
        address: of the proxy.
        http: sends the requests.
        open_rpc: gives the main stub of the binding's session, which is opened for the first caller.
        preferred: the channel of a facade that can use either. Cloudflare's own proxy serves HTTP alone for most types.
        open_other: gives the main stub of the session at another URL of the binding's.
        metadata: headers of every request, beside the binding's name.
        kind: the type that the binding is used as; None to leave it unsaid.
        answers: tells whose answers they are; by default, one of its own does.
        backoff: how a proxy is asked again that is shutting down; by default, it is asked once.
        block: in which the binding can be used.
    """

    def __init__(
        self,
        name: str,
        address: ProxyAddress,
        http: Http11Client,
        open_rpc: Callable[[], RpcStub],
        preferred: Channel = "http",
        open_other: Callable[[str], RpcStub] | None = None,
        metadata: Mapping[str, str] | None = None,
        kind: str | None = None,
        answers: Answers | None = None,
        backoff: Backoff | None = None,
        block: Block | None = None,
    ) -> None:
        self.name = name
        self.preferred: Channel = preferred
        self._address = address
        self._http = http
        self._open_rpc = open_rpc
        self._open_other = open_other
        self._metadata = dict(metadata or {})
        self._kind = kind
        self._where = f"the binding {name!r} of {address.title}"
        self._answers = answers or Answers(address, http)
        self._backoff = backoff or Backoff(patience=0)
        self._block = block or Block()

    @property
    def rpc(self) -> RpcStub:
        """The binding's main object. Using it needs no waiting: calls queue until the session is open."""
        if self._block.left:
            return make_stub(ErrorHook(self._left()))
        return self._open_rpc()

    async def ask(self, headers: Mapping[str, str]) -> Response:
        """Ask the proxy about the binding, in headers of the request.

        Raises:
            ConnectionError: if the proxy cannot be reached, or refuses the request.
        """
        return await self._exchange(Request(self._address.http_url, headers={**headers, **self._own_headers()}))

    async def fetch(self, request: Request) -> Response:
        """Send a request to the binding. Its body streams there and the response's body back, both at a time.

        The response is as the binding made it: a body whose headers say that it is compressed still is.

        Raises:
            ConnectionError: if the proxy cannot be reached, is shutting down, or refuses the request. Reading the body
                raises it if it breaks off.
            Exception: what the request's body raises.
        """
        body = request.body if request.buffered is None else request.buffered
        wrapped = Request(self._address.http_url, method=request.method, headers=self._wrapped(request), body=body)
        return await self._exchange(wrapped)

    @asynccontextmanager
    async def websocket(self, request: Request, subprotocols: Sequence[str] = ()) -> AsyncIterator[WebSocket]:
        """Open a WebSocket of the binding's, as fetch() with the header Upgrade does in the Workers runtime.

        Args:
            request: its URL and headers.
            subprotocols: what to offer, what is liked best first.

        Raises: as `open_web_socket`, and as `fetch` where the proxy refuses the handshake.
        """
        self._check_block()
        headers = self._wrapped(request)
        if subprotocols:
            headers["MF-Header-Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
        async with AsyncExitStack() as stack:

            async def attempt() -> WebSocket:
                # They are offered to the proxy, too: a client is not answered with what it did not ask for.
                opening = open_web_socket(
                    self._address.websocket_url, headers=headers, subprotocols=subprotocols, title=self._where
                )
                try:
                    return await stack.enter_async_context(opening)
                except WebSocketRefused as error:
                    response = await self._answers.of_binding(error.response, self.name, self._kind)
                    raise WebSocketRefused(self._where, response) from None

            yield await self._http.reach(self._address.http_url, attempt, can_be_repeated)

    @asynccontextmanager
    async def tunnel(self, address: str) -> AsyncIterator[ByteStream]:
        """Open a raw connection through the binding, which is closed at the end of the block.

        Args:
            address: "host:port".

        Raises:
            ConnectionError: if the proxy cannot be reached, or refuses it.
        """
        self._check_block()
        headers = {**self._own_headers(), "MF-Connect-Address": address}
        async with AsyncExitStack() as stack:

            async def attempt() -> ByteStream:
                opening = self._answers.opened(open_tunnel(self._address.websocket_url, headers), self.name, self._kind)
                try:
                    return await stack.enter_async_context(opening)
                except ProxyError:
                    raise
                except (OSError, RpcError) as error:
                    raise Unreachable(f"{self._where} cannot be reached: {os_reason(error)}") from error

            yield await self._http.reach(self._address.http_url, attempt, can_be_repeated)

    def dispatched(self, name: str, options: str) -> Channels:
        """The channels of one service of a dispatch namespace.

        Args:
            name: of the service.
            options: the `get`, as JSON.
        """
        metadata = {DISPATCH_OPTIONS: options}
        open_other = self._open_other
        if open_other is None:
            raise TypeError(f"the binding {self.name!r} has no services to choose from here")
        url = rpc_url(self._address, self.name, self._kind, metadata)

        def open_rpc() -> RpcStub:
            return open_other(url)

        return Channels(
            self.name,
            self._address,
            self._http,
            open_rpc,
            self.preferred,
            metadata=metadata,
            kind=self._kind,
            answers=self._answers,
            backoff=self._backoff,
            block=self._block,
        )

    def strange(self, response: Response, kind: str) -> ProxyError:
        """The error of an answer that no binding of a type gives. A proxy that knows no types passes everything on."""
        return ProxyError(
            f"{self._where} does not answer as one of the type {kind!r} does: it said {shown(response)}. Has it another"
            " type there?",
            "type",
        )

    def _check_block(self) -> None:
        if self._block.left:
            raise self._left()

    def _left(self) -> Unreachable:
        what_to_do = "use it inside of the `async with` that opened it"
        return Unreachable(f"the binding {self.name!r}: its env has been left: {what_to_do}")

    async def _exchange(self, request: Request) -> Response:
        self._check_block()

        async def attempt() -> Response:
            response = await self._http.exchange(request, self._address.http_url, title=self._where)
            return await self._answers.of_binding(response, self.name, self._kind)

        # Of a body that is a stream some may have been read.
        whole = request.body is None or request.buffered is not None
        return await self._backoff.retry(attempt, lambda error: whole and isinstance(error, Stopping))

    def _own_headers(self) -> dict[str, str]:
        kind = {} if self._kind is None else {TYPE: self._kind}
        return {"MF-Binding": self.name, **kind, **self._metadata}

    def _wrapped(self, request: Request) -> Headers:
        headers = Headers({"MF-URL": request.url, **self._own_headers()})
        for name, value in request.headers.pairs():
            headers.append(f"MF-Header-{name}", value)
        return headers


def rpc_url(
    address: ProxyAddress, name: str, kind: str | None = None, metadata: Mapping[str, str] | None = None
) -> str:
    """Where a binding speaks RPC, for who uses it as a type."""
    return address.rpc_url(name, {**({} if kind is None else {TYPE: kind}), **(metadata or {})})
