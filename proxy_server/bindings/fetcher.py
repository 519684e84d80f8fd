"""The "fetcher" binding: any HTTP server behind a binding of the runtime whose requests are plain HTTP.

That is what AI, Vectorize, Browser Rendering, mTLS certificates, Pipelines and others are (workerd,
src/cloudflare/internal/*-api.ts): requests and responses pass as they are, whatever the server is. It is of one of two
kinds: all requests go to one `url`, whatever host they name; or each goes to the URL that it carries, as an mTLS
binding's do, if `allow_hosts` has its host. Redirects are the Worker's to follow.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskGroup

from capnweb_py.errors import RpcError, Unreachable
from capnweb_py.http11 import Http11Client
from capnweb_py.target import RpcTarget
from capnweb_py.values import UNDEFINED
from capnweb_py.web import Headers, Request, Response, Url
from capnweb_py.web_socket import ServerWebSocket
from proxy_server.bindings import Binding, BindingError, Opener
from proxy_server.bindings.credentials import secret, tls_context
from proxy_server.bindings.upstream import carry_websocket, check_upstream_url, forwarded_url
from proxy_server.channels import LOG, end_to_end
from proxy_server.channels.handshake import Handshake
from proxy_server.channels.sockets import serve_socket
from proxy_server.egress import AddressRefused, AllowList, reason_of
from proxy_server.tables import Table

__all__ = ["Fetcher", "FetcherTarget", "parse", "request_of"]

# The ports of allowed hosts that name none.
_WEB_PORTS: Final = (80, 443)

# The binding that has a method of its own besides fetch().
_PIPELINE: Final = "pipeline"

# What a client of HTTP says by itself: a header of the configuration would be dropped, or break the connection.
_OWN_HEADERS: Final = frozenset({"connection", "content-length", "host", "transfer-encoding", "upgrade"})

# How much of a refusal's body an error quotes.
_QUOTED_CHARACTERS: Final = 200


def parse(table: Table, _state_dir: Path) -> Opener:
    """Check the table of a fetcher, and read what it names: environment variables, and files of certificates.

    Raises:
        ConfigError: if something is missing or not valid.
    """
    kind = table.text("type")
    url = table.optional_text("url")
    hosts = table.texts("allow_hosts")
    headers = _headers(table.table("headers"))
    tls = tls_context(table)
    table.finish()
    if (url is None) == (not hosts):
        raise table.error('either "url", where all requests go, or "allow_hosts", where they may go by themselves')
    if url is not None:
        _check_url(table, url, has_certificate="client_certificate" in table.written)
    try:
        allowed = AllowList.parse(hosts, _WEB_PORTS) if hosts else None
    except ValueError as error:
        raise table.error(str(error), "allow_hosts") from error

    async def open_fetcher(tasks: TaskGroup) -> Binding:
        where = allowed if url is None else url
        assert where is not None, "it was checked that there is one of the two"
        return Fetcher(tasks, where, headers, tls=tls, makes_send=kind == _PIPELINE)

    return open_fetcher


def _headers(table: Table) -> Headers:
    """The headers of the configuration, with the secrets that they name."""
    headers = Headers()
    for name, value in table.written.items():
        if name.lower() in _OWN_HEADERS:
            raise table.error("this header describes the connection, and is made with it", name)
        # Not what is wrong with the value: it may be a secret.
        try:
            headers[name] = secret(table.table(name)) if isinstance(value, dict) else table.text(name)
        except ValueError:
            raise table.error("this is no name of a header, or its value holds a line break", name) from None
    return headers


def _check_url(table: Table, url: str, *, has_certificate: bool) -> None:
    try:
        check_upstream_url(url)
    except ValueError as error:
        raise table.error(str(error), "url") from error
    scheme = urlsplit(url).scheme
    if scheme not in {"http", "https"}:
        raise table.error(f"URLs with {scheme}: are not requested: http: and https: are", "url")
    if scheme == "http" and has_certificate:
        raise table.error("a client certificate is shown over https: only", "url")


class Fetcher:
    """Answers both channels by sending requests on, and WebSockets of fetch() by opening them there.

    Args:
        tasks: where bodies are sent from.
        where: the URL where all go, whatever host they name; or where those may go that go to their own URLs.
        headers: put on each request, in place of what it has of the same names.
        tls: for https; by default, the system's certificate authorities are trusted.
        makes_send: whether the RPC side has `send(records)`, as a pipeline's.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        where: str | AllowList,
        headers: Headers | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        makes_send: bool = False,
    ) -> None:
        self._url = where if isinstance(where, str) else None
        self._allowed = None if isinstance(where, str) else where
        connector = anyio.connect_tcp if self._allowed is None else self._allowed.connect
        self._client = Http11Client(tasks.start_soon, tls=tls, connector=connector)
        self._headers = headers or Headers()
        self._tls = tls
        self._makes_send = makes_send

    def rpc_main(self) -> object:
        return PipelineTarget(self) if self._makes_send else FetcherTarget(self)

    async def fetch(self, request: Request) -> Response:
        return await self._send(request, self._destination(request))

    async def websocket(self, handshake: Handshake) -> None:
        request = handshake.request
        headers = self._outgoing(request)

        async def run(socket: ServerWebSocket) -> Response | None:
            try:
                return await self._carry(socket, self._destination(request), headers)
            except (AddressRefused, ConnectionError, ValueError) as error:
                if handshake.accepted:
                    raise
                return _unanswered(error)

        await serve_socket(handshake, run)

    async def _carry(self, socket: ServerWebSocket, url: str, headers: Headers) -> Response | None:
        url = Url(url).href
        host, port, title = _server_of(url)
        addresses: Sequence[str | None] = [None]
        if self._allowed is not None:
            try:
                addresses = await self._allowed.addresses(host, port)
            except OSError as error:
                raise Unreachable(f"{title} cannot be reached: {reason_of(error)}") from error
        problem: Unreachable | None = None
        for address in addresses:
            try:
                return await carry_websocket(socket, url, headers, title, tls=self._tls, address=address)
            except Unreachable as error:
                problem = error
        assert problem is not None, "there is an address, or an exception"
        raise problem

    async def post(self, body: bytes, content_type: str) -> Response:
        """Post something to the URL itself. Raises BindingError where each request has one of its own."""
        if self._url is None:
            raise BindingError("requests of this binding need URLs of their own")
        return await self._send(Request(self._url, method="POST", headers={"content-type": content_type}, body=body))

    def _destination(self, request: Request) -> str:
        return request.url if self._url is None else forwarded_url(self._url, request.url)

    def _outgoing(self, request: Request) -> Headers:
        headers = end_to_end(request.headers)
        headers.update(self._headers)
        return headers

    async def _send(self, request: Request, url: str | None = None) -> Response:
        headers = self._outgoing(request)
        body = request.body if request.buffered is None else request.buffered
        outgoing = Request(request.url, method=request.method, headers=headers, body=body)
        try:
            answer = await self._client.exchange(outgoing, url or request.url)
        except (AddressRefused, ConnectionError, ValueError) as error:
            return _unanswered(error)
        return Response(
            answer.body, status=answer.status, status_text=answer.status_text, headers=end_to_end(answer.headers)
        )

    async def aclose(self) -> None:
        await self._client.aclose()


def _unanswered(error: AddressRefused | ConnectionError | ValueError) -> Response:
    """What a client is told whose request went nowhere."""
    if isinstance(error, AddressRefused):
        LOG.warning("a request was %s", error)
        return Response(str(error), status=403)
    if isinstance(error, ConnectionError):
        LOG.warning("a request was not answered: %s", error)
        return Response(str(error), status=502)
    return Response(f"the request cannot be sent: {error}", status=400)


def _server_of(url: str) -> tuple[str, int, str]:
    """Host and port of a URL, and what errors call the server: nothing else of it, which may be a secret."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https", "ws", "wss"} or not parts.hostname:
        raise ValueError(f"WebSockets go to http:, https:, ws: and wss: URLs, not to one of {parts.scheme}:")
    port = parts.port or (443 if parts.scheme in {"https", "wss"} else 80)
    host = parts.hostname
    return host, port, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class FetcherTarget(RpcTarget):
    """The binding on the RPC channel: `fetch(url, {method, headers, body})`, or `fetch(request)`."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def fetch(self, request: Any, init: Any = None) -> Response:
        """Send a request. `redirect` and what else an `init` says changes nothing: no redirect is followed."""
        return await self._fetcher.fetch(request_of(request, init))


class PipelineTarget(FetcherTarget):
    """A pipeline on the RPC channel: `send(records)` posts them, as Pipelines' HTTP endpoints take them."""

    async def send(self, records: Any) -> Any:
        """Send records, a list of objects. The runtime's own `send` gives `undefined`.

        Raises:
            RpcError: if the server does not accept them.
        """
        if not isinstance(records, list):
            raise TypeError("a pipeline takes a list of records")
        body = json.dumps(records, ensure_ascii=False, allow_nan=False).encode()
        response = await self._fetcher.post(body, "application/json")
        answer = (await response.bytes()).decode(errors="replace")
        if not response.ok:
            raise RpcError(f"the pipeline answered {response.status}: {answer[:_QUOTED_CHARACTERS]}")
        return UNDEFINED


def request_of(request: Any, init: Any) -> Request:
    """The request of fetch()'s two arguments."""
    init = {} if init is None else init
    if not isinstance(init, dict):
        raise TypeError("the second argument of fetch() is an object: {method, headers, body}")
    if isinstance(request, Request):
        body = request.body if request.buffered is None else request.buffered
        given: dict[str, Any] = {"method": request.method, "headers": request.headers, "body": body}
        url: str | Url = request.url
    else:
        given, url = {}, request
    changed = {key: init[key] for key in ("method", "headers", "body") if init.get(key) is not None}
    return Request(url, **given | changed)
