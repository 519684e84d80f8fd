"""Posting a batch, with httpx2: the successor of httpx, and the maintained HTTP client for both event loops.

The only file that imports it, and only when a batch is made: it is an extra.
"""

from __future__ import annotations

import functools
import ssl as ssl_module
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ..errors import RpcError, SessionClosed, text_of
from ..options import Limits
from .http_batch import past_size
from .refusals import explanation, shown

if TYPE_CHECKING:
    import httpx2

__all__ = ["poster"]

# What fetch() in browsers and Node sends with a text: with it, a page of another origin needs no preflight.
_CONTENT_TYPE: Final = {"content-type": "text/plain;charset=UTF-8"}

# How much is read of the body of a refusal, in bytes.
_REFUSAL_SIZE: Final = 4096


def poster(
    url: str,
    limits: Limits,
    *,
    headers: Mapping[str, str] | None,
    ssl: ssl_module.SSLContext | None,
    open_timeout: float | None,
    client: httpx2.AsyncClient | None,
) -> Callable[[bytes], Awaitable[bytes]]:
    """What sends the body of a batch to a URL, and returns the body of the response. The arguments are those of
    `http_batch`.

    Raises:
        ImportError: if httpx2 is not installed.
        ValueError: if the URL is none.
    """
    http = _httpx2()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{shown(url)!r} is no URL that a batch can be sent to: it begins with http:// or https://")
    all_headers = http.Headers(_CONTENT_TYPE)
    all_headers.update(headers)

    async def post(body: bytes) -> bytes:
        try:
            async with (
                _client(client, ssl, open_timeout) as sender,
                # As fetch() does: a server that is mounted at /rpc/ redirects from /rpc, with the method and the body.
                sender.stream("POST", url, content=body, headers=all_headers, follow_redirects=True) as response,
            ):
                return await _body_of(response, url, limits)
        except http.HTTPError as error:
            raise SessionClosed(f"the batch did not reach {shown(url)} and back: {_told(error)}") from error

    return post


def _httpx2() -> ModuleType:
    try:
        import httpx2
    except ImportError as error:
        raise ImportError("http_batch() sends its request with httpx2: pip install 'capnweb-py[batch]'") from error
    return httpx2


@asynccontextmanager
async def _client(
    client: httpx2.AsyncClient | None, ssl: ssl_module.SSLContext | None, open_timeout: float | None
) -> AsyncIterator[httpx2.AsyncClient]:
    """The given client, or one for this request."""
    if client is not None:
        yield client
        return
    http = _httpx2()
    timeout = http.Timeout(None, connect=open_timeout)
    async with http.AsyncClient(verify=ssl or _system_tls(), timeout=timeout) as own:
        yield own


@functools.cache
def _system_tls() -> ssl_module.SSLContext:
    """The system's certificate authorities. Reading them takes longer than a batch: 25 ms."""
    context: ssl_module.SSLContext = _httpx2().create_ssl_context()
    return context


async def _body_of(response: httpx2.Response, url: str, limits: Limits) -> bytes:
    if not response.is_success:
        said = explanation(await _start_of(response))
        raise RpcError(
            f"{shown(url)} answered the batch with {response.status_code} {response.reason_phrase}".rstrip() + said
        )
    body = bytearray()
    async with aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            body += chunk
            excess = past_size(len(body), limits)
            if excess is not None:
                raise excess
    return bytes(body)


async def _start_of(response: httpx2.Response) -> bytes:
    async with aclosing(response.aiter_bytes(_REFUSAL_SIZE)) as chunks:
        return await anext(chunks, b"")


def _told(error: Exception) -> str:
    return text_of(error) or type(error).__name__
