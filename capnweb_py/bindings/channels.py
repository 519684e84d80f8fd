"""The ways from a client to one binding behind a proxy: RPC over a WebSocket, and HTTP requests that are wrapped for
it.

They are those of Cloudflare's remote bindings (protocol.md, section "The channels"): the connection string is the key
to the proxy; a WebSocket names its binding in the query, a request in the header `MF-Binding`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..errors import Unreachable
from ..http11 import Http11Client
from ..stub import RpcStub
from ..web import Headers, Request, Response
from ..web_socket import WebSocket
from ..websocket_client import open_web_socket

__all__ = ["DESCRIBE", "DISPATCH_OPTIONS", "NOT_RUN", "Channel", "Channels", "ProxyAddress", "describe"]

Channel = Literal["http", "rpc"]

# The header that asks a proxy which bindings it has, and of which types. An extension of this project's.
DESCRIBE: Final = "capnweb-describe"


# The header of a response that says that the proxy has not run the request: it is shutting down.
NOT_RUN: Final = "capnweb-not-run"

# What says which service of a dispatch namespace is meant: a header of a request, or a parameter of a session's URL.
DISPATCH_OPTIONS: Final = "MF-Dispatch-Namespace-Options"


class ProxyAddress:
    """A connection string, and the addresses that follow from it.

    Raises:
        ValueError: if it is no http(s) URL.
    """

    def __init__(self, connection_string: str) -> None:
        parts = urlsplit(connection_string)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a connection string is an http:// or https:// URL, as the proxy server prints it")
        self.http_url: str = connection_string
        self._parts = parts

    def rpc_url(self, binding: str, metadata: Mapping[str, str] | None = None) -> str:
        """Where a binding speaks RPC."""
        query = urlencode([*parse_qsl(self._parts.query), ("MF-Binding", binding), *(metadata or {}).items()])
        return urlunsplit(urlsplit(self.websocket_url)._replace(query=query))

    @property
    def websocket_url(self) -> str:
        """Where a binding has WebSockets that are not RPC: its name is in a header."""
        return urlunsplit(self._parts._replace(scheme="wss" if self._parts.scheme == "https" else "ws"))

    def __repr__(self) -> str:
        # Not the path: it is the secret.
        return f"<proxy at {self._parts.hostname}:{self._parts.port or self._parts.scheme}>"


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
    ) -> None:
        self.name = name
        self.preferred: Channel = preferred
        self._address = address
        self._http = http
        self._open_rpc = open_rpc
        self._open_other = open_other
        self._metadata = dict(metadata or {})

    @property
    def rpc(self) -> RpcStub:
        """The binding's main object. Using it needs no waiting: calls queue until the session is open."""
        return self._open_rpc()

    @property
    def websocket_url(self) -> str:
        """Where WebSockets to the binding go. It holds the secret."""
        return self._address.websocket_url

    async def ask(self, headers: Mapping[str, str]) -> Response:
        """Ask the proxy about the binding, in headers of the request.

        Raises:
            ConnectionError: if the proxy cannot be reached.
        """
        request = Request(self._address.http_url, headers={**headers, "MF-Binding": self.name})
        return await self._http.exchange(request, self._address.http_url, title=f"the binding {self.name!r}")

    async def fetch(self, request: Request) -> Response:
        """Send a request to the binding. Its body streams there and the response's body back, both at a time.

        The response is as the binding made it: a body whose headers say that it is compressed still is.

        Raises:
            ConnectionError: if the proxy cannot be reached, or is shutting down. Reading the body raises it if it
                breaks off.
            Exception: what the request's body raises.
        """
        body = request.body if request.buffered is None else request.buffered
        wrapped = Request(self._address.http_url, method=request.method, headers=self._wrapped(request), body=body)
        title = f"the binding {self.name!r}"
        response = await self._http.exchange(wrapped, self._address.http_url, title=title)
        if NOT_RUN in response.headers:
            raise Unreachable(f"{title} cannot be reached: {await response.text()}")
        return response

    @asynccontextmanager
    async def websocket(self, request: Request, subprotocols: Sequence[str] = ()) -> AsyncIterator[WebSocket]:
        """Open a WebSocket of the binding's, as fetch() with the header Upgrade does in the Workers runtime.

        Args:
            request: its URL and headers.
            subprotocols: what to offer, what is liked best first.

        Raises: as `open_web_socket`.
        """
        headers = self._wrapped(request)
        if subprotocols:
            headers["MF-Header-Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
        # They are offered to the proxy, too: a client is not answered with what it did not ask for.
        opening = open_web_socket(
            self._address.websocket_url, headers=headers, subprotocols=subprotocols, title=f"the binding {self.name!r}"
        )
        async with opening as socket:
            yield socket

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
        url = self._address.rpc_url(self.name, metadata)

        def open_rpc() -> RpcStub:
            return open_other(url)

        return Channels(self.name, self._address, self._http, open_rpc, self.preferred, metadata=metadata)

    def _wrapped(self, request: Request) -> Headers:
        headers = Headers({"MF-URL": request.url, "MF-Binding": self.name, **self._metadata})
        for name, value in request.headers.pairs():
            headers.append(f"MF-Header-{name}", value)
        return headers


async def describe(address: ProxyAddress, http: Http11Client) -> dict[str, Any] | None:
    """The bindings of a proxy, by name: {"IMAGES": {"type": "images"}}. None if it does not tell.

    Raises:
        ConnectionError: if the proxy cannot be reached.
        PermissionError: if it refuses the connection string.
    """
    try:
        response = await http.exchange(Request(address.http_url, headers={DESCRIBE: "1"}), address.http_url)
        answer = await response.bytes()
    except ConnectionError as error:
        raise ConnectionError(f"no proxy server answers at {address!r}: {error}") from error
    if response.status in (401, 403):
        raise PermissionError(f"the proxy server refuses the connection string: {answer.decode(errors='replace')}")
    if response.headers.get(DESCRIBE) is None:
        return None
    bindings: dict[str, Any] = json.loads(answer)["bindings"]
    return bindings
