"""Whose answer a response is: the binding's, which its facade reads, or somebody else's, which is an error.

Our proxy says so itself. What comes from a binding has the header `MF-Forwarded-Response`, as with Cloudflare's newest
proxy worker (wrangler 4.164, ProxyServerWorker.ts, "markForwardedResponse"); what the proxy refuses has
`capnweb-refused`, with the reason. Older proxies of Cloudflare mark nothing. So the first answer without a mark makes
the client ask once whether a proxy is there at all: every proxy has an answer of its own to a request that names none.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from websockets.exceptions import InvalidStatus

from ..errors import AnswerLost, ProxyDenied, ProxyError, RpcError, Unreachable
from ..http11 import Http11Client
from ..web import Headers, Request, Response
from .address import ProxyAddress

__all__ = ["DESCRIBE", "FORWARDED", "REFUSED", "STOPPING", "Answers", "Stopping", "shown"]

ConnectionT = TypeVar("ConnectionT")

# The header that asks a proxy which bindings it has, and of which types. An extension of this project's.
DESCRIBE: Final = "capnweb-describe"

# The header of a response that a binding has made.
FORWARDED: Final = "MF-Forwarded-Response"

# The header of a response with which the proxy has refused a request or a handshake: the reason, in one word. An
# extension of this project's.
REFUSED: Final = "capnweb-refused"

# The reason of a proxy that is shutting down. The others are those of ProxyError.
STOPPING: Final = "stopping"

# What Cloudflare's proxy worker answers to a request without a binding.
_NO_BINDING: Final = (400, "Binding  not found")

# What it answers where a binding has raised something: the message.
_RAISED: Final = 500

# What a plain server of WebSockets answers to a request: it may be a proxy that has RPC alone.
_UPGRADE_REQUIRED: Final = 426

# What OpenSSL calls it when the peer answers in something else than TLS.
_NO_TLS: Final = "WRONG_VERSION_NUMBER"

# How much of what somebody else says an error quotes.
_QUOTED_CHARACTERS: Final = 200


class Stopping(Unreachable):
    """The proxy is shutting down, and has not run the request."""


class Answers:
    """The answers from one address, and what they have told of who is there.

    Args:
        address: of the proxy.
        http: asks it.
    """

    def __init__(self, address: ProxyAddress, http: Http11Client) -> None:
        self._address = address
        self._http = http
        # Whether a proxy is there, and whether it marks the answers of bindings.
        self._is_proxy = False
        self._marks = False

    async def of_binding(self, response: Response, binding: str, kind: str | None) -> Response:
        """The response, if it is the binding's.

        Args:
            response: to a request for the binding. Where it is an error, its body is closed.
            binding: the name.
            kind: as which type the binding is used.

        Raises:
            ProxyError: if the proxy has refused the request, or something answers that is no proxy.
            Stopping: if the proxy is shutting down.
            AnswerLost: if something on the way has answered in the proxy's place that it has no answer.
        """
        if FORWARDED in response.headers:
            self._is_proxy = self._marks = True
            del response.headers[FORWARDED]
            return response
        reason = response.headers.get(REFUSED)
        if reason is not None:
            raise await self._refusal(reason, (await response.text()).strip(), binding, kind)
        if response.status == 400:
            body = await response.bytes()
            if body == _not_found(binding).encode():
                raise await self._refusal("binding", "", binding, kind)
            response = Response(body, status=400, status_text=response.status_text, headers=response.headers)
        if not self._is_proxy:
            await self._look(response, binding)
        if not self._marks or response.status == _RAISED:
            return response
        await _close(response)
        raise self._intercepted(response, binding)

    @asynccontextmanager
    async def opened(
        self, opening: AbstractAsyncContextManager[ConnectionT], binding: str, kind: str | None
    ) -> AsyncIterator[ConnectionT]:
        """A session with a binding, or a raw connection, for the length of the block.

        Args:
            opening: opens it.
            binding, kind: as of `of_binding`.

        Raises:
            ProxyError: if the proxy has refused the handshake, or something answers that is no proxy.
            Exception: whatever else `opening` raises.
        """
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(opening)
            except RpcError as error:
                cause = error.__cause__
                meaning = await self._of_handshake(cause, binding, kind) if isinstance(cause, InvalidStatus) else None
                raise meaning or error from cause
            yield connection

    async def _of_handshake(self, error: InvalidStatus, binding: str, kind: str | None) -> Exception | None:
        """What the refusal of a handshake means; None if it says nothing but that."""
        answer = error.response
        headers = Headers()
        for name, value in answer.headers.raw_items():
            headers.append(name, value)
        said = bytes(answer.body or b"").decode("utf-8", "replace").strip()
        reason = headers.get(REFUSED)
        if reason is not None:
            return None if reason == STOPPING else await self._refusal(reason, said, binding, kind)
        if (answer.status_code, said) == (400, _not_found(binding)):
            return await self._refusal("binding", said, binding, kind)
        if answer.status_code >= _RAISED:
            return None
        return self._no_proxy(_shown(answer.status_code, answer.reason_phrase, headers), binding)

    async def bindings(self) -> dict[str, Any] | None:
        """The bindings of the proxy, by name: {"IMAGES": {"type": "images"}}. None if it does not tell.

        Raises:
            Unreachable: if nobody answers.
            ProxyError: if the proxy refuses the connection string, or what answers is no proxy.
        """
        request = Request(self._address.http_url, headers={DESCRIBE: "1"})
        try:
            response = await self._http.exchange(request, self._address.http_url, title=self._address.title)
            answer = await response.bytes()
        except ConnectionError as error:
            # Whatever became of the request, it runs nothing.
            raise Unreachable(self._nobody(error)) from error
        said = answer.decode("utf-8", "replace")
        reason = response.headers.get(REFUSED)
        if reason is not None:
            raise await self._refusal(reason, said.strip(), None, None)
        if DESCRIBE in response.headers:
            self._is_proxy = True
            described: dict[str, Any] = json.loads(answer)["bindings"]
            return described
        if (response.status, said) != _NO_BINDING and response.status != _UPGRADE_REQUIRED:
            raise self._no_proxy(shown(response), None)
        self._is_proxy = True
        return None

    def _nobody(self, error: ConnectionError) -> str:
        """That no proxy answers, why, and what to look at."""
        reason = str(error).removeprefix(f"{self._address.title} cannot be reached: ")
        if getattr(error.__cause__, "reason", None) == _NO_TLS:
            advice = "what is there speaks no TLS: is the connection string to begin with http: instead of https:?"
        else:
            advice = 'is "python -m proxy_server serve" running, and is this the connection string that it printed?'
        return f"no proxy server answers at {self._address.host}: {reason}: {advice}"

    async def _look(self, response: Response, binding: str) -> None:
        """Find out whether a proxy has answered."""
        try:
            await self.bindings()
        except Unreachable as error:
            await _close(response)
            if isinstance(error, ProxyError):
                raise self._no_proxy(shown(response), binding) if error.reason == "no_proxy" else error from None
            raise AnswerLost(f"whether the binding {binding!r} has answered is not known: {error}") from error

    async def _refusal(self, reason: str, said: str, binding: str | None, kind: str | None) -> Exception:
        """The error of what a proxy has refused, and what to do about it."""
        proxy = self._address.title
        of_binding = "" if binding is None else f" for the binding {binding!r}"
        if reason == STOPPING:
            return Stopping(f"{proxy if binding is None else f'the binding {binding!r}'} cannot be reached: {said}")
        if reason == "secret":
            return ProxyDenied(
                f"{proxy} refused the secret{of_binding}: {said}. Use the connection string that it printed when it"
                " started: each start has another one, unless the proxy's configuration sets the secret",
                reason,
            )
        if reason == "origin":
            return ProxyDenied(f"{proxy} refused the request{of_binding}: {said}", reason)
        if reason == "binding":
            return ProxyError(f"{proxy} has no binding {binding!r}{await self._choice()}", reason)
        if reason == "type":
            return ProxyError(
                f"{proxy} has a binding {binding!r}, but not one that can be used as {kind!r}: {said}. Give it the same"
                " type at both ends",
                reason,
            )
        return ProxyError(f"{proxy} refused the request{of_binding}: {said}", reason)

    async def _choice(self) -> str:
        try:
            known = await self.bindings()
        except Unreachable:
            return ""  # what is to be said is that there is no such binding
        if known is None:
            return ""
        return f": it has {', '.join(sorted(known))}" if known else ": it has none at all"

    def _no_proxy(self, said: str, binding: str | None) -> ProxyError:
        of_binding = "" if binding is None else f" to a request for the binding {binding!r}"
        return ProxyError(
            f"what answers at {self._address.host} is no proxy server: it said {said}{of_binding}. Is the connection"
            ' string all of what "python -m proxy_server serve" printed?',
            "no_proxy",
        )

    def _intercepted(self, response: Response, binding: str) -> Unreachable | AnswerLost:
        text = f"something on the way to {self._address.title} answered in its place, for the binding {binding!r}"
        # A gateway that has passed the request on may not have received the answer.
        if response.status > _RAISED:
            return AnswerLost(f"{text}: {shown(response)}")
        return ProxyError(f"{text}: {shown(response)}", "intercepted")


def _not_found(binding: str) -> str:
    """The words of Cloudflare's proxy worker, and of ours."""
    return f'Binding "{binding}" not found'


def shown(response: Response) -> str:
    """A response in a few words: what it says of itself, and nothing of its body."""
    return _shown(response.status, response.status_text, response.headers)


def _shown(status: int, phrase: str, headers: Mapping[str, str]) -> str:
    # Never more of where it leads than the host.
    media_type = headers.get("content-type", "").partition(";")[0].strip()
    said = " ".join(["HTTP", str(status), *([phrase] if phrase else [])])[:_QUOTED_CHARACTERS]
    details = [media_type[:_QUOTED_CHARACTERS]] if media_type else []
    if 300 <= status < 400 and "location" in headers:
        details.append(f"which leads to {urlsplit(headers['location']).hostname}")
    return f"{said} ({', '.join(details)})" if details else said


async def _close(response: Response) -> None:
    if response.body is not None:
        await response.body.aclose()
