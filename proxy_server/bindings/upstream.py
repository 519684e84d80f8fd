"""An HTTP server elsewhere as a binding: requests are forwarded to it, and its responses come back as they are."""

from __future__ import annotations

from urllib.parse import urlsplit

from anyio.abc import TaskGroup

from capnweb_py.http11 import Http11Client
from capnweb_py.web import Request, Response, Url
from proxy_server.bindings import BindingError
from proxy_server.channels import LOG, end_to_end

__all__ = ["Upstream", "check_upstream_url", "forwarded_url"]


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
        tasks: where bodies are sent from.
    """

    def __init__(self, url: str, tasks: TaskGroup) -> None:
        self._url = url
        self._client = Http11Client(tasks.start_soon)

    def rpc_main(self) -> object:
        raise BindingError(f"upstream URLs speak HTTP only: use fetch() of {self._url}")

    async def fetch(self, request: Request) -> Response:
        outgoing = Request(request.url, method=request.method, headers=end_to_end(request.headers), body=request.body)
        try:
            answer = await self._client.exchange(outgoing, forwarded_url(self._url, request.url))
        except ConnectionError as error:
            LOG.warning("%s did not answer: %s", self._url, error)
            return Response(f"the upstream {self._url} did not answer: {error}", status=502)
        return Response(
            answer.body, status=answer.status, status_text=answer.status_text, headers=end_to_end(answer.headers)
        )

    async def aclose(self) -> None:
        await self._client.aclose()


def forwarded_url(target: str, original: str) -> str:
    """Where a request goes: its path and query, put behind the path of the target."""
    base, parts = urlsplit(target), urlsplit(original)
    path = base.path.rstrip("/") + _without_dots(parts.path or "/")
    return base._replace(path=path, query=parts.query).geturl()


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
