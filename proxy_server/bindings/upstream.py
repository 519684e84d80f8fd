"""An HTTP server elsewhere as a binding: requests are forwarded to it, and its responses come back as they are.

Only the transport of httpx2 is used: no redirect is followed, no cookie kept, no content decoded, no header
added beyond what a connection needs, and neither proxies nor credentials are taken from the environment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

import httpx2

from capnweb_py.web import Headers, ReadableStream, Request, Response, Url
from proxy_server.bindings import BindingError
from proxy_server.channels import BODILESS_STATUSES, LOG, end_to_end

__all__ = ["Upstream", "check_upstream_url"]

# In seconds. Only connecting is bounded: how long an answer may take is for its reader to say.
_TIMEOUTS: Final = {"connect": 10.0, "read": None, "write": None, "pool": None}

# As many connections as there are requests, of which this many stay open for the next ones.
_LIMITS: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=20)


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
        url: one that `check_upstream_url` accepts.
    """

    def __init__(self, url: str) -> None:
        self._url = httpx2.URL(url)
        self._transport = httpx2.AsyncHTTPTransport(trust_env=False, limits=_LIMITS)

    def rpc_main(self) -> object:
        raise BindingError(f"upstream URLs speak HTTP only: use fetch() of {self._url}")

    async def fetch(self, request: Request) -> Response:
        outgoing = httpx2.Request(
            request.method,
            self._forwarded_url(request.url),
            headers=_forwarded_headers(request).pairs(),
            content=request.body,
            extensions={"timeout": _TIMEOUTS},
        )
        try:
            answer = await self._transport.handle_async_request(outgoing)
        except httpx2.TransportError as error:
            LOG.warning("%s did not answer: %s: %s", self._url, type(error).__name__, error)
            return Response(f"the upstream {self._url} did not answer: {error}", status=502)
        try:
            return await _response(answer)
        except BaseException:
            await answer.aclose()
            raise

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _forwarded_url(self, original: str) -> httpx2.URL:
        parts = urlsplit(original)
        path = self._url.raw_path.decode("ascii").rstrip("/") + _without_dots(parts.path or "/")
        return self._url.copy_with(raw_path=(f"{path}?{parts.query}" if parts.query else path).encode())


def _without_dots(path: str) -> str:
    """The path with its dot segments resolved (URL standard, "path state"): none climbs out of the target."""
    segments: list[str] = []
    last = ""
    for segment in path.split("/")[1:]:
        last = segment.lower().replace("%2e", ".")
        if last == "..":
            del segments[-1:]
        elif last != ".":
            segments.append(segment)
    return "/" + "/".join([*segments, ""] if last in {".", ".."} else segments)


def _forwarded_headers(request: Request) -> Headers:
    headers = end_to_end(request.headers)
    headers.pop("host", None)
    if request.body is not None and request.body.length is not None:
        headers["content-length"] = str(request.body.length)
    return headers


async def _response(answer: httpx2.Response) -> Response:
    headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers.raw)
    status_text = answer.reason_phrase
    if answer.status_code in BODILESS_STATUSES:
        await answer.aclose()
        return Response(status=answer.status_code, status_text=status_text, headers=end_to_end(headers))
    body = ReadableStream(_RawBody(answer))
    return Response(body, status=answer.status_code, status_text=status_text, headers=end_to_end(headers))


class _RawBody:
    """The body of an answer as it came over the wire, which gives its connection back when it is closed."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._answer.aiter_raw()

    async def aclose(self) -> None:
        await self._answer.aclose()
