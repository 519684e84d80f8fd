"""The ways from a client to one binding behind a proxy: RPC over a WebSocket, and HTTP requests that are wrapped for
it.

They are those of Cloudflare's remote bindings (protocol.md, section "The channels"): the connection string is the key
to the proxy; a WebSocket names its binding in the query, a request in the header `MF-Binding`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx2

from ..stub import RpcStub
from ..web import Headers, ReadableStream, Request, Response

__all__ = ["Channels", "ProxyAddress"]

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

    def rpc_url(self, binding: str) -> str:
        """Where a binding speaks RPC."""
        scheme = "wss" if self._parts.scheme == "https" else "ws"
        query = urlencode([*parse_qsl(self._parts.query), ("MF-Binding", binding)])
        return urlunsplit(self._parts._replace(scheme=scheme, query=query))

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
    """

    def __init__(
        self, name: str, address: ProxyAddress, http: httpx2.AsyncClient, open_rpc: Callable[[], RpcStub]
    ) -> None:
        self.name = name
        self._address = address
        self._http = http
        self._open_rpc = open_rpc

    @property
    def rpc(self) -> RpcStub:
        """The binding's main object. Using it needs no waiting: calls queue until the session is open."""
        return self._open_rpc()

    async def fetch(self, request: Request) -> Response:
        """Send a request to the binding. Its body streams there, the response's body streams back.

        Raises:
            ConnectionError: if the proxy cannot be reached.
        """
        headers = Headers({"MF-URL": request.url, "MF-Binding": self.name})
        for name, value in request.headers.pairs():
            headers.append(f"MF-Header-{name}", value)
        wrapped = self._http.build_request(
            request.method, self._address.http_url, headers=headers.pairs(), content=request.buffered or request.body
        )
        try:
            response = await self._http.send(wrapped, stream=True, follow_redirects=False)
        except httpx2.TransportError as error:
            raise ConnectionError(f"the binding {self.name!r} cannot be reached: {error}") from error
        return self._unwrapped(response)

    def _unwrapped(self, response: httpx2.Response) -> Response:
        headers = Headers(response.headers.multi_items())
        # The body is handed out decoded, so these two do not describe it.
        for name in ("content-encoding", "content-length") if "content-encoding" in headers else ():
            headers.pop(name, None)
        body = None if response.status_code in (204, 205, 304) else ReadableStream(self._chunks(response))
        return Response(body, status=response.status_code, status_text=response.reason_phrase, headers=headers)

    async def _chunks(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """The body. Raises ConnectionError if it breaks off."""
        try:
            async for chunk in response.aiter_bytes():
                yield chunk
        except httpx2.TransportError as error:
            raise ConnectionError(f"the response of the binding {self.name!r} broke off: {error}") from error
        finally:
            await response.aclose()


async def describe(address: ProxyAddress, http: httpx2.AsyncClient) -> dict[str, Any] | None:
    """The bindings of a proxy, by name: {"IMAGES": {"type": "images"}}. None if it does not tell.

    Raises:
        ConnectionError: if the proxy cannot be reached.
        PermissionError: if it refuses the connection string.
    """
    try:
        response = await http.get(address.http_url, headers={DESCRIBE: "1"})
    except httpx2.TransportError as error:
        raise ConnectionError(f"no proxy server answers at {address!r}: {error}") from error
    if response.status_code in (401, 403):
        raise PermissionError(f"the proxy server refuses the connection string: {response.text}")
    if response.headers.get(DESCRIBE) is None:
        return None
    bindings: dict[str, Any] = response.json()["bindings"]
    return bindings
