"""The ways from a client to one binding behind a proxy: RPC over a WebSocket, and HTTP requests that are wrapped for
it.

They are those of Cloudflare's remote bindings (protocol.md, section "The channels"): the connection string is the key
to the proxy; a WebSocket names its binding in the query, a request in the header `MF-Binding`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..http11 import Http11Client
from ..stub import RpcStub
from ..web import Headers, Request, Response

__all__ = ["DESCRIBE", "Channel", "Channels", "ProxyAddress", "describe"]

Channel = Literal["http", "rpc"]

# The header that asks a proxy which bindings it has, and of which types. An extension of this project's.
DESCRIBE: Final = "capnweb-describe"


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

    @property
    def websocket_url(self) -> str:
        """Where WebSockets go that name their binding in a header."""
        return urlunsplit(self._parts._replace(scheme="wss" if self._parts.scheme == "https" else "ws"))

    def rpc_url(self, binding: str) -> str:
        """Where a binding speaks RPC."""
        query = urlencode([*parse_qsl(self._parts.query), ("MF-Binding", binding)])
        return urlunsplit(urlsplit(self.websocket_url)._replace(query=query))

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
    """

    def __init__(
        self,
        name: str,
        address: ProxyAddress,
        http: Http11Client,
        open_rpc: Callable[[], RpcStub],
        preferred: Channel = "http",
    ) -> None:
        self.name = name
        self.preferred: Channel = preferred
        self._address = address
        self._http = http
        self._open_rpc = open_rpc

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
            ConnectionError: if the proxy cannot be reached. Reading the body raises it if it breaks off.
            Exception: what the request's body raises.
        """
        headers = Headers({"MF-URL": request.url, "MF-Binding": self.name})
        for name, value in request.headers.pairs():
            headers.append(f"MF-Header-{name}", value)
        body = request.body if request.buffered is None else request.buffered
        wrapped = Request(self._address.http_url, method=request.method, headers=headers, body=body)
        return await self._http.exchange(wrapped, self._address.http_url, title=f"the binding {self.name!r}")


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
