"""Hosted images: upload, list and manage them, as `env.IMAGES.hosted` of the Workers runtime does.

They go over RPC whatever the channel of the binding is: they have no other.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

import anyio
import attrs

from ..web import Blob, ReadableStream
from .channels import Channels
from .given import given
from .images_calls import sent
from .images_source import Encoding, ImageSource, PictureStream, picture

__all__ = ["MAX_HOSTED_BYTES", "DirectUpload", "HostedImages", "ImageHandle", "ImageList", "ImageMetadata"]

# Cloudflare's documented limit for one image that is kept.
MAX_HOSTED_BYTES: Final = 10_000_000


@attrs.frozen
class ImageMetadata:
    """What is known of a hosted image.

    Attributes:
        id: its name: the uploader's choice, or a UUID.
        filename: what its uploader calls the file.
        uploaded: when it came.
        require_signed_urls: whether a public URL of it has to be signed.
        meta: the uploader's own data.
        variants: where, or under which names, it is published.
        draft: whether its bytes are still to come.
        creator: the uploader's own name for whoever made it.
    """

    id: str
    filename: str | None = None
    uploaded: datetime | None = None
    require_signed_urls: bool = False
    meta: Mapping[str, Any] = attrs.field(factory=dict)
    variants: list[str] = attrs.field(factory=list)
    draft: bool = False
    creator: str | None = None


@attrs.frozen
class ImageList:
    """A page of a list.

    Attributes:
        images: those of the page.
        list_complete: whether it is the last page.
        cursor: what leads to the next page; None if there is none.
    """

    images: list[ImageMetadata]
    list_complete: bool
    cursor: str | None = None


@attrs.frozen
class DirectUpload:
    """An image that somebody else is to upload.

    Attributes:
        id: what it will be called.
        upload_url: where its bytes go, once: as the field "file" of a form that is posted. It is a secret, which is
            given to the uploader.
    """

    id: str
    upload_url: str


class HostedImages:
    """The images that a binding keeps: `env.IMAGES.hosted`."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def upload(
        self,
        image: ImageSource,
        *,
        id: str | None = None,  # noqa: A002 - the option's name
        filename: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        creator: str | None = None,
        require_signed_urls: bool | None = None,
        encoding: Encoding | None = None,
    ) -> ImageMetadata:
        """Keep a new image.

        Args:
            image: its bytes. An async iterable is read as fast as the binding takes it, and closed.
            id: what to call it; a UUID if it is left out. A path of up to 1024 characters, no UUID.
            filename, metadata, creator, require_signed_urls: see ImageMetadata.
            encoding: "base64" if that is how the bytes are written.

        Raises:
            RemoteError: if it is no image, or too large, an option is not valid, or the id is taken; `code` is the
                number of the reason.
        """
        content = picture(image, "UPLOAD", encoding, limit=MAX_HOSTED_BYTES)
        options = given(
            id=id, filename=filename, metadata=metadata, creator=creator, requireSignedURLs=require_signed_urls
        )
        # A stream in any case, which is what the documentation has: a large picture is no large message.
        body = sent(content) if isinstance(content, PictureStream) else Blob(content).stream()
        try:
            return _metadata(await self._channels.rpc.upload(body, *([options] if options else [])))
        except Exception:
            if isinstance(content, PictureStream) and content.failure is not None:
                raise content.failure from None
            raise
        finally:
            if isinstance(content, PictureStream):
                with anyio.CancelScope(shield=True):
                    await content.aclose()

    async def list(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        sort_order: Literal["asc", "desc"] | None = None,
        creator: str | None = None,
        metadata_filter: Mapping[str, Any] | None = None,
    ) -> ImageList:
        """A page of the images there are.

        Args:
            limit: how many at most, up to 1000; 50 if it is left out.
            cursor: that of the page before.
            sort_order: by the time of the upload: "asc", oldest first, if it is left out, or "desc".
            creator: only images of this creator.
            metadata_filter: only images whose metadata has these values: {"status": "active", "camera.make": "nikon",
                "priority": {"gte": 2, "lte": 5}}. Operators are eq, in, gt, gte, lt and lte.

        Raises:
            RemoteError: if an argument is not valid.
        """
        options = given(
            limit=limit,
            cursor=cursor,
            sortOrder=sort_order,
            creator=creator,
            filter=given(metadata=metadata_filter) or None,
        )
        page = await self._channels.rpc.list(*([options] if options else []))
        # A member that is undefined is None in Python.
        return ImageList(
            [_metadata(image) for image in page["images"]], page["listComplete"], page.get("cursor") or None
        )

    async def create_direct_upload(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the option's name
        metadata: Mapping[str, Any] | None = None,
        creator: str | None = None,
        require_signed_urls: bool | None = None,
        expires_in: int | None = None,
    ) -> DirectUpload:
        """Let somebody without access to the binding upload one image. Until then it is a draft, which `details()`
        knows and `list()` does not.

        Args:
            id, metadata, creator, require_signed_urls: as of `upload`.
            expires_in: how many seconds the uploader has: 120 to 21600; 1800 if it is left out.

        Raises:
            RemoteError: if an option is not valid, the id is taken, or no server could take the upload.
        """
        options = given(
            id=id, metadata=metadata, creator=creator, requireSignedURLs=require_signed_urls, expiresIn=expires_in
        )
        announced = await self._channels.rpc.createDirectUpload(*([options] if options else []))
        return DirectUpload(announced["id"], announced["uploadURL"])

    def image(self, id: str) -> ImageHandle:  # noqa: A002 - the option's name
        """The image of an id, whether there is one or not. Nothing is sent."""
        return ImageHandle(self._channels, id)

    def __repr__(self) -> str:
        return f"<hosted images of {self._channels.name}>"


class ImageHandle:
    """One hosted image, or one that there is not. Each method is one round trip."""

    def __init__(self, channels: Channels, id: str) -> None:  # noqa: A002 - the attribute's name
        self.id = id
        self._channels = channels

    async def details(self) -> ImageMetadata | None:
        """What is known of it; None if there is none."""
        details = await self._channels.rpc.image(self.id).details()
        return None if details is None else _metadata(details)

    async def bytes(self) -> ReadableStream[builtins.bytes] | None:
        """The file as it was uploaded; None if there is none. What is not read to its end is closed."""
        stream: ReadableStream[builtins.bytes] | None = await self._channels.rpc.image(self.id).bytes()
        return stream

    async def update(
        self,
        *,
        metadata: Mapping[str, Any] | None = None,
        creator: str | None = None,
        require_signed_urls: bool | None = None,
    ) -> ImageMetadata:
        """Change what is known of it; what is left out stays, and `metadata` replaces all of it.

        Raises:
            RemoteError: if there is no such image, or an argument is not valid.
        """
        options = given(metadata=metadata, creator=creator, requireSignedURLs=require_signed_urls)
        return _metadata(await self._channels.rpc.image(self.id).update(options))

    async def signed_url(
        self, *, variant: str = "public", expires_in: int | None = None, key_name: str | None = None
    ) -> str:
        """A URL at which whoever has it gets the image.

        Args:
            variant: which one; with our proxy all of them are the file as it was uploaded.
            expires_in: for how many seconds; for ever if it is left out.
            key_name: what to sign with; our proxy has one key.

        Raises:
            RemoteError: if an argument is not valid, or no server could deliver the image.
        """
        options = given(variant=variant, expiresIn=expires_in, keyName=key_name)
        url: str = await self._channels.rpc.image(self.id).signedUrl(options)
        return url

    async def delete(self) -> bool:
        """Remove it. Whether there was one."""
        deleted: bool = await self._channels.rpc.image(self.id).delete()
        return deleted

    def __repr__(self) -> str:
        return f"<hosted image {self.id!r} of {self._channels.name}>"


def _metadata(known: Mapping[str, Any]) -> ImageMetadata:
    """Of the members that Workers call optional, one that is missing or undefined is None."""
    uploaded = known.get("uploaded")
    return ImageMetadata(
        id=known["id"],
        filename=known.get("filename") or None,
        uploaded=datetime.fromisoformat(uploaded) if uploaded else None,
        require_signed_urls=known["requireSignedURLs"],
        meta=known.get("meta") or {},
        variants=known["variants"],
        draft=known.get("draft") or False,
        creator=known.get("creator") or None,
    )
