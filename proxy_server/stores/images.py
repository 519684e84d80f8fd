"""What keeps hosted images: the protocol of a store, and the values that go in and out.

A store checks nothing: what an id, a file or a limit may be is the binding's matter (bindings/images_hosted.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from capnweb_py.web import ReadableStream

__all__ = ["Changes", "Condition", "Draft", "HostedImage", "ImageStore", "Position", "Scalar", "Selection"]

# What a member of metadata is compared with.
Scalar: TypeAlias = str | float | bool


@attrs.frozen
class HostedImage:
    """What is known of a hosted image.

    Attributes:
        id: its name in the store.
        uploaded: when it came, in milliseconds since 1970, UTC; of a draft, when that was made.
        filename: what its uploader calls the file; None of a draft.
        require_signed_urls: whether a public URL of it would have to be signed.
        meta: the uploader's own JSON object.
        creator: the uploader's own name for whoever made it.
        draft: whether its bytes are still to come.
    """

    id: str
    uploaded: int
    filename: str | None
    require_signed_urls: bool = False
    meta: Mapping[str, Any] = attrs.field(factory=dict)
    creator: str | None = None
    draft: bool = False

    @property
    def position(self) -> Position:
        """Where it stands in a list."""
        return Position(self.uploaded, self.id)


@attrs.frozen
class Draft:
    """An image that somebody may upload, once.

    Attributes:
        image: what is known of it already.
        ticket: what its uploader has to show. A store is given no more than a hash of that.
        expires: until when, in milliseconds since 1970, UTC. Afterwards there is no such draft.
    """

    image: HostedImage
    ticket: str
    expires: int


@attrs.frozen
class Position:
    """A place in the order of a list: by the time of the upload, and by the id where that is the same."""

    uploaded: int
    id: str


@attrs.frozen
class Changes:
    """What to change of a hosted image. None leaves it as it is."""

    require_signed_urls: bool | None = None
    meta: Mapping[str, Any] | None = None
    creator: str | None = None


@attrs.frozen
class Condition:
    """What a member of an image's metadata has to be.

    Attributes:
        path: the names that lead to it, from the outermost.
        operator: "in": one of the values, and of the same type; or a comparison with the one value, a number, which
            what is no number never meets.
        values: one or more.
    """

    path: tuple[str, ...]
    operator: Literal["in", "gt", "gte", "lt", "lte"]
    values: tuple[Scalar, ...]


@attrs.frozen
class Selection:
    """Which images to list.

    Attributes:
        limit: how many at most.
        after: only those that follow this position, whether there is an image at it or not.
        newest_first: from the last to the first.
        creator: only those of this creator.
        conditions: only those that meet all of these.
    """

    limit: int
    after: Position | None = None
    newest_first: bool = False
    creator: str | None = None
    conditions: tuple[Condition, ...] = ()


class ImageStore(Protocol):
    """A store of hosted images and drafts. What has returned is kept, whatever happens to the process."""

    async def add(self, image: HostedImage, data: bytes) -> bool:
        """Keep a new image. False, and nothing is changed, if there is one of this id, or a draft."""

    async def reserve(self, draft: Draft) -> bool:
        """Keep a new draft. False, and nothing is changed, if there is an image of this id, or another draft."""

    async def drafted(self, ticket: str) -> HostedImage | None:
        """The draft of a ticket; None if there is none."""

    async def fill(self, ticket: str, filename: str, uploaded: int, data: bytes) -> HostedImage | None:
        """Make the draft of a ticket an image. What is known of it then; None, and nothing is changed, if there is no
        such draft any more."""

    async def details(self, image_id: str) -> HostedImage | None:
        """What is known of an image or a draft; None if there is none of this id."""

    async def data(self, image_id: str) -> ReadableStream[bytes] | None:
        """The bytes of an image; None if there is none of this id, or a draft. Deleting it does not disturb who reads
        them."""

    async def update(self, image_id: str, changes: Changes) -> HostedImage | None:
        """Change what is known of an image or a draft. What is known then; None if there is none of this id."""

    async def delete(self, image_id: str) -> bool:
        """Remove an image or a draft. Whether there was one of this id."""

    async def select(self, selection: Selection) -> list[HostedImage]:
        """Some of the images, in order. Drafts are not among them."""

    async def signing_key(self) -> bytes:
        """The secret that public URLs of these images are signed with: always the same one."""

    async def known_signing_key(self) -> bytes | None:
        """The same, for strangers: None where nobody has asked for it yet. It changes nothing."""

    async def aclose(self) -> None:
        """Let go of what the store holds open. Safe where nothing was opened."""
