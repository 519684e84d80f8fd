"""What a chain of transformations comes to: pictures by number, and one list of operations.

The canvas is 0, pictures to draw are 1, 2, 3 ... in the order in which they come up, those that are drawn on them
included; what is done to one comes before it is drawn. So the Workers runtime numbers them (workerd,
src/cloudflare/internal/images-api.ts), for the HTTP channel. Over RPC the same chain is a chain of calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs

from .images_source import PictureStream

__all__ = ["Chain", "Drawing", "Order", "TextPicture", "ordered"]


@attrs.frozen
class TextPicture:
    """A picture of a text: what it says, and how it looks."""

    content: str
    options: Mapping[str, Any]


Picture: TypeAlias = bytes | PictureStream | TextPicture


@attrs.frozen
class Drawing:
    """A picture to draw, with what is done to it before, and how to draw it."""

    chain: Chain
    options: Mapping[str, Any]


@attrs.frozen
class Chain:
    """A picture, and what to do to it, in order: transformations and drawings."""

    picture: Picture
    steps: list[Mapping[str, Any] | Drawing] = attrs.field(factory=list)


@attrs.frozen
class Order:
    """A chain, flat."""

    pictures: list[Picture] = attrs.field(factory=list)
    operations: list[dict[str, Any]] = attrs.field(factory=list)


def ordered(chain: Chain) -> Order:
    """A chain as its pictures and operations."""
    order = Order()
    _add(order, chain)
    return order


def _add(order: Order, chain: Chain) -> int:
    number = len(order.pictures)
    order.pictures.append(chain.picture)
    for step in chain.steps:
        if isinstance(step, Drawing):
            drawn = _add(order, step.chain)
            order.operations.append({"drawImageIndex": drawn, "targetImageIndex": number, **step.options})
        else:
            order.operations.append({"imageIndex": number, **step})
    return number
