"""An HTTP server elsewhere as a binding, or several that do the same: requests and WebSockets are forwarded, and what
is answered comes back as it is."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from anyio.abc import TaskGroup

from capnweb_py.errors import Unreachable
from capnweb_py.http11 import Http11Client
from capnweb_py.web import Headers, Request, Response, Url
from capnweb_py.web_socket import ServerWebSocket, WebSocketRefused
from capnweb_py.websocket_client import open_web_socket
from proxy_server.bindings import BindingError
from proxy_server.bindings.relay import relay
from proxy_server.bindings.replicas import Replicas
from proxy_server.channels import LOG, end_to_end
from proxy_server.channels.handshake import Handshake
from proxy_server.channels.sockets import serve_socket

__all__ = ["Upstream", "carry_websocket", "check_upstream_url", "forward_websocket", "forwarded_url"]


def check_upstream_url(url: str) -> None:
    """Check that requests can be forwarded to a URL.

    Raises:
        ValueError: if it is malformed, or has more than a scheme, a host, a port and a path.
    """
    parts = urlsplit(Url(url).href)
    if parts.username is not None:
        raise ValueError("a target's URL has no credentials: clients send their own Authorization header")
    if parts.query or parts.fragment:
        raise ValueError("a target's URL has no query and no fragment: they come with each request")


class Upstream:
    """Answers the HTTP channel by forwarding to a URL. It has no RPC side.

    A request keeps its path and query, which are put behind the path of the URL; its host is replaced by the
    URL's.

    Args:
        urls: one that `check_upstream_url` accepts, or several, over which requests are spread.
        tasks: where bodies are sent from.
    """

    def __init__(self, urls: str | Sequence[str], tasks: TaskGroup) -> None:
        self._replicas = Replicas(urls)
        self._client = Http11Client(tasks.start_soon)

    def rpc_main(self) -> object:
        raise BindingError(f"upstream URLs speak HTTP only: use fetch() of {self._replicas.title}")

    async def fetch(self, request: Request) -> Response:
        outgoing = Request(request.url, method=request.method, headers=end_to_end(request.headers), body=request.body)

        async def send_to(url: str) -> Response:
            return await self._client.exchange(outgoing, forwarded_url(url, request.url), keep_unsent=True)

        try:
            answer = await self._replicas.reach(send_to)
        except ConnectionError as error:
            if isinstance(error, Unreachable) and outgoing.body is not None:
                await outgoing.body.aclose()
            return _unanswered(self._replicas, error)
        return Response(
            answer.body, status=answer.status, status_text=answer.status_text, headers=end_to_end(answer.headers)
        )

    async def websocket(self, handshake: Handshake) -> None:
        await forward_websocket(handshake, self._replicas)

    async def aclose(self) -> None:
        await self._client.aclose()


async def forward_websocket(handshake: Handshake, replicas: Replicas) -> None:
    """Have a server elsewhere answer a handshake, and pass on what both sides say."""
    request = handshake.request

    async def run(socket: ServerWebSocket) -> Response | None:
        async def carry(url: str) -> Response | None:
            forwarded = forwarded_url(url, request.url)
            return await carry_websocket(socket, forwarded, end_to_end(request.headers), f"the upstream {url}")

        try:
            return await replicas.reach(carry)
        except ConnectionError as error:
            if handshake.accepted:
                raise
            return _unanswered(replicas, error)

    await serve_socket(handshake, run)


async def carry_websocket(
    socket: ServerWebSocket,
    url: str,
    headers: Headers,
    title: str,
    *,
    tls: ssl.SSLContext | None = None,
    address: str | None = None,
) -> Response | None:
    """Have one server answer a handshake, and pass on what both sides say. Returns what it answers instead.

    Args:
        socket: of the client, which is accepted as the server does it.
        url: of the server; of http or https, too.
        headers: of the handshake with it.
        title, tls, address: see `open_web_socket`.

    Raises: as `open_web_socket`.
    """
    opening = open_web_socket(
        _as_websocket(url),
        headers=headers,
        subprotocols=socket.subprotocols,
        title=title,
        tls=tls,
        address=address,
    )
    try:
        async with opening as upstream:
            await socket.accept(subprotocol=upstream.subprotocol, headers=upstream.headers)
            await relay(socket, upstream)
    except WebSocketRefused as refusal:
        return refusal.response
    return None


def _unanswered(replicas: Replicas, error: ConnectionError) -> Response:
    LOG.warning("%s did not answer: %s", replicas.title, error)
    return Response(f"the upstream {replicas.title} did not answer: {error}", status=502)


def forwarded_url(target: str, original: str) -> str:
    """Where a request goes: its path and query, put behind the path of the target."""
    base, parts = urlsplit(target), urlsplit(original)
    path = base.path.rstrip("/") + _without_dots(parts.path or "/")
    return base._replace(path=path, query=parts.query).geturl()


def _as_websocket(url: str) -> str:
    parts = urlsplit(url)
    secure = parts.scheme.lower() in {"https", "wss"}
    return parts._replace(scheme="wss" if secure else "ws", fragment="").geturl()


def _without_dots(path: str) -> str:
    """The path with its dot segments resolved (URL standard, "path state"): none climbs out of the target."""
    segments: list[str] = []
    last = ""
    # The URL standard takes a backslash for a slash in URLs of http.
    for segment in path.replace("\\", "/").split("/")[1:]:
        last = segment.lower().replace("%2e", ".")
        if last == "..":
            del segments[-1:]
        elif last != ".":
            segments.append(segment)
    return "/" + "/".join([*segments, ""] if last in {".", ".."} else segments)
