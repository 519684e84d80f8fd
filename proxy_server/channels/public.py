"""The way in without the secret: URLs that bindings give out (`PublicBinding`), each of which is a secret of its own.

They are `/public/<binding>/<what the binding says>`. To whoever has none of them, all look the same: there is nothing
here, whichever bindings there are.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import attrs

from capnweb_py.web import Headers, ReadableStream, Request, Response
from proxy_server.bindings import Binding, PublicBinding
from proxy_server.channels import LOG, Receive, Scope, Send, header
from proxy_server.channels.http import serve_http

__all__ = ["placed", "public_path", "serve_public"]

_SEGMENT: Final = "public"

# How the schemes of ASGI's scopes are written in the URLs of requests.
_SCHEMES: Final = {"ws": "http", "wss": "https"}

_FAILED: Final = "the server failed: its log says how"
_NOTHING: Final = "there is nothing here: this URL was given to nobody, or has been used, or has expired"


def public_path(scope: Scope) -> tuple[str, str] | None:
    """Of a request for a public URL, the name of the binding and the rest of the path."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    parts = path.removeprefix("/").split("/", 2)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == _SEGMENT else None


def placed(binding: Binding, name: str, scope: Scope) -> Binding:
    """A binding for the client of a scope: one that gives out URLs gets to know where the client finds this server."""
    host = header(scope, b"host")
    if host is None or not isinstance(binding, PublicBinding):
        return binding
    scheme = scope.get("scheme", "http")
    server = f"{_SCHEMES.get(scheme, scheme)}://{host}{quote(scope.get('root_path', ''))}/"
    return binding.at(server, f"{_SEGMENT}/{quote(name, safe='')}/")


async def serve_public(binding: Binding | None, path: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request for a public URL, of a binding or of one that there is not."""
    await serve_http(_PublicSide(binding, path), scope, receive, send, unwrap=_as_it_is)


@attrs.frozen
class _PublicSide:
    """One public URL."""

    binding: Binding | None
    path: str

    async def fetch(self, request: Request) -> Response:
        response = await self._answer(request)
        # The page that asks is anybody's, and may read every answer.
        response.headers["access-control-allow-origin"] = "*"
        return response

    async def _answer(self, request: Request) -> Response:
        response = None
        try:
            if isinstance(self.binding, PublicBinding):
                response = await self.binding.public(self.path, request)
        except ConnectionError:
            raise  # the client left
        except Exception as error:
            # What it says is not for strangers.
            LOG.warning("a public URL failed: %s", type(error).__name__)
            LOG.debug("what it failed with", exc_info=True)
            return Response(_FAILED, status=500)
        finally:
            if request.body is not None:
                # Of a form that is refused, the rest is not read.
                await request.body.aclose()
        return Response(_NOTHING, status=404) if response is None else response


def _as_it_is(scope: Scope, method: str, body: ReadableStream[bytes] | None) -> Request:
    headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    url = f"http://public.invalid/?{scope['query_string'].decode('latin-1')}"
    return Request(url, method=method, headers=headers, body=body)
