"""What is done with hosted images without the binding's secret, at URLs that the binding gives out: an image that was
announced is uploaded, once (Cloudflare: "Accept user-uploaded images"), and one is delivered to whoever has a signed
URL of it ("Serve private images").

A URL for an upload ends with a random ticket, of which the store has a hash. A signed URL may say when it expires, and
has an HMAC of all that it says. Every other URL is none: nobody learns which images there are.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote, urlsplit

import attrs

from capnweb_py.web import ReadableStream, Request, Response
from proxy_server.bindings import BindingError
from proxy_server.bindings.images_options import (
    DEFAULT_FILENAME,
    MAX_FILENAME_LENGTH,
    MAX_HOSTED_BYTES,
    described,
)
from proxy_server.bindings.images_renderer import Renderer, too_large
from proxy_server.bindings.images_uploads import TooManyUploadsError, Uploads
from proxy_server.bindings.multipart import FormError, Part, PartTooLargeError, read_form
from proxy_server.imaging import HEAD_BYTES, ImagingError, media_type
from proxy_server.imaging.errors import BAD_OPTION, BAD_REQUEST
from proxy_server.imaging.fields import Fields, shown
from proxy_server.stores.images import Draft, HostedImage, ImageStore

__all__ = ["DEFAULT_UPLOAD_SECONDS", "MAX_UPLOAD_SECONDS", "MIN_UPLOAD_SECONDS", "PublicImages"]

# "Accept user-uploaded images": how long an upload may be waited for, in seconds.
MIN_UPLOAD_SECONDS: Final = 120
MAX_UPLOAD_SECONDS: Final = 6 * 3600
DEFAULT_UPLOAD_SECONDS: Final = 1800

# How long a signed URL may say that it is good for, in seconds: a hundred years.
_MAX_SIGNED_SECONDS: Final = 100 * 365 * 86_400

# What a variant may be called ("Create variants": alphanumeric, up to 99 characters), with what else its names have.
_VARIANT: Final = re.compile(r"[A-Za-z0-9_-]{1,99}")

_SIGNED: Final = re.compile(r"(?P<expires>(?:exp=(?P<exp>[0-9]{1,12})&)?)sig=(?P<sig>[0-9a-f]{64})")

# 256 bits: nothing that is tried over a network finds it.
_TICKET_BYTES: Final = 32

# The field of the form, as Cloudflare's documentation has it.
_FIELD: Final = "file"

# In seconds, as HTTP has it.
_RETRY_AFTER: Final = "5"

_UPLOAD: Final = "upload/"
_IMAGE: Final = "image/"

# An image is shown, and nothing else is done with it: an SVG may hold scripts.
_ONLY_SHOWN: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "x-content-type-options": "nosniff",
}


class PublicImages:
    """The public side of one binding's hosted images.

    Args:
        renderer: looks at what is uploaded.
        store: of the images.
        uploads: counts what is under way.
        url: what all public URLs begin with; None where no server answers them.
    """

    def __init__(self, renderer: Renderer, store: ImageStore, uploads: Uploads, url: str | None) -> None:
        self._renderer = renderer
        self._store = store
        self._uploads = uploads
        self._url = url

    async def announce(self, image: HostedImage, options: Fields) -> str | None:
        """Keep a draft for `expiresIn` seconds. Returns the URL of the upload; None if the id is taken.

        Raises:
            ImagingError: 9401, the time is not valid.
            BindingError: there is no server.
        """
        seconds = options.integer("expiresIn", MIN_UPLOAD_SECONDS, MAX_UPLOAD_SECONDS) or DEFAULT_UPLOAD_SECONDS
        url = self._public_url("uploads")
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        draft = Draft(image, _hash(ticket), expires=_now() + seconds * 1000)
        return f"{url}{_UPLOAD}{ticket}" if await self._store.reserve(draft) else None

    async def signed_url(self, image_id: str, options: Fields) -> str:
        """A URL of an image that is good for `expiresIn` seconds, or for ever.

        Raises:
            ImagingError: 9401, an option is not valid.
            BindingError: there is no server.
        """
        variant = options.values.get("variant")
        if not isinstance(variant, str) or not _VARIANT.fullmatch(variant):
            raise ImagingError(
                BAD_OPTION, f"{options.where}.variant must be 1 to 99 letters, digits, - and _, not {shown(variant)}"
            )
        if options.values.get("keyName") not in (None, "default"):
            raise options.wrong("keyName", "default, or left out: there is one key here")
        seconds = options.integer("expiresIn", 1, _MAX_SIGNED_SECONDS)
        signed = f"{quote(image_id, errors='replace')}/{variant}"
        url = f"{self._public_url('deliveries')}{_IMAGE}{signed}"
        expires = "" if seconds is None else f"exp={_now() // 1000 + seconds}&"
        return f"{url}?{expires}sig={_signature(await self._store.signing_key(), signed, expires)}"

    async def answer(self, path: str, request: Request) -> Response | None:
        """Answer a request for a public URL. None if it is none that was given out, or is one no more."""
        if path.startswith(_UPLOAD):
            return await self._upload(_hash(path.removeprefix(_UPLOAD)), request)
        if path.startswith(_IMAGE):
            return await self._deliver(path.removeprefix(_IMAGE), request)
        return None

    def _public_url(self, what: str) -> str:
        if self._url is None:
            raise BindingError(
                f"public {what} need a server, and this binding runs in its program's own process: serve it with"
                ' "python -m proxy_server serve", and use it with remote = true'
            )
        return self._url

    async def _upload(self, ticket: str, request: Request) -> Response | None:
        if await self._store.drafted(ticket) is None:
            return None
        if request.method == "OPTIONS":
            allowed = {"access-control-allow-methods": "POST", "access-control-allow-headers": "*"}
            return Response(None, status=204, headers=allowed)
        if request.method != "POST":
            return Response("POST a form here", status=405, headers={"allow": "POST, OPTIONS"})
        try:
            with self._uploads.place(ticket):
                return await self._take(ticket, request)
        except TooManyUploadsError as error:
            return Response(str(error), status=429, headers={"retry-after": _RETRY_AFTER})
        except ImagingError as error:
            return _envelope(None, error)

    async def _take(self, ticket: str, request: Request) -> Response | None:
        part = await self._file(request)
        await self._renderer.check(part.data)
        filename = (part.filename or DEFAULT_FILENAME)[:MAX_FILENAME_LENGTH]
        image = await self._store.fill(ticket, filename, _now(), part.data)
        return None if image is None else _envelope(image, None)

    async def _file(self, request: Request) -> Part:
        try:
            parts = await read_form(request, {_FIELD: MAX_HOSTED_BYTES})
        except PartTooLargeError as error:
            raise too_large(error.limit) from error
        except FormError as error:
            raise ImagingError(BAD_REQUEST, f"Bad request: {error}") from error
        if len(parts) != 1:
            raise ImagingError(BAD_REQUEST, f'Bad request: one field "{_FIELD}" is needed, and there are {len(parts)}')
        return parts[0]

    async def _deliver(self, path: str, request: Request) -> Response | None:
        image_id, _, variant = path.rpartition("/")
        signed = f"{quote(image_id, errors='replace')}/{quote(variant, errors='replace')}"
        match = _SIGNED.fullmatch(urlsplit(request.url).query)
        if match is None or (key := await self._store.known_signing_key()) is None:
            return None
        if not hmac.compare_digest(match["sig"], _signature(key, signed, match["expires"])):
            return None
        if match["exp"] is not None and int(match["exp"]) <= _now() // 1000:
            return None
        if request.method not in {"GET", "HEAD"}:
            return Response("GET the image here", status=405, headers={"allow": "GET, HEAD"})
        stream = await self._store.data(image_id)
        if stream is None:
            return None
        try:
            file = await _File.begun(stream)
            headers = {"content-type": media_type(file.head), **_ONLY_SHOWN}
        except BaseException:
            await stream.aclose()
            raise
        if request.method == "HEAD":
            await stream.aclose()
            length = {} if stream.length is None else {"content-length": str(stream.length)}
            return Response(None, headers={**headers, **length})
        return Response(ReadableStream(file, length=stream.length), headers=headers)


@attrs.define(eq=False)
class _File(AsyncIterator[bytes]):
    """The pieces of a file whose beginning was looked at. Slow readers are many: none has the whole of it in memory.

    Attributes:
        head: the beginning, until it is read: HEAD_BYTES or more of it, where there are so many.
    """

    head: bytes
    _stream: ReadableStream[bytes]
    _rest: AsyncIterator[bytes]

    @classmethod
    async def begun(cls, stream: ReadableStream[bytes]) -> _File:
        rest = aiter(stream)
        head = b""
        while len(head) < HEAD_BYTES and (piece := await anext(rest, b"")):
            head += piece
        return cls(head, stream, rest)

    async def __anext__(self) -> bytes:
        head, self.head = self.head, b""
        return head or await anext(self._rest)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _envelope(image: HostedImage | None, error: ImagingError | None) -> Response:
    """What the REST API answers with. Metadata is "never shared with end-users", and whose image it is neither."""
    errors = [] if error is None else [{"code": error.code, "message": str(error)}]
    result = None if image is None else described(attrs.evolve(image, meta={}, creator=None))
    envelope = {"result": result, "result_info": None, "success": not errors, "errors": errors, "messages": []}
    return Response.from_json(envelope, status=200 if error is None else error.status)


def _hash(ticket: str) -> str:
    return hashlib.sha256(ticket.encode("utf-8", "replace")).hexdigest()


def _signature(key: bytes, signed: str, expires: str) -> str:
    return hmac.new(key, f"{signed}?{expires}".encode(), hashlib.sha256).hexdigest()


def _now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
