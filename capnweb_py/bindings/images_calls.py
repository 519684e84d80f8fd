"""An images binding over RPC: calls of its methods, in one round trip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..gathering import gather
from ..stub import RpcStub
from ..web import ReadableStream
from .channels import Channels
from .given import given
from .images_order import Chain, Drawing, TextPicture
from .images_source import PictureStream

__all__ = ["rpc_info", "rpc_output", "sent"]


async def rpc_info(channels: Channels, picture: bytes | PictureStream) -> Mapping[str, Any]:
    """What a picture is, by the names of the Workers API."""
    info: Mapping[str, Any] = await channels.rpc.info(sent(picture))
    return info


async def rpc_output(channels: Channels, chain: Chain, output: Mapping[str, Any]) -> tuple[str, bytes]:
    """The picture that a chain makes: its type, and its bytes."""
    result = _transformer(channels, chain).output(given(**output))
    content_type, data = await gather(result.contentType(), result.image())
    return content_type, data


def sent(picture: bytes | PictureStream) -> bytes | ReadableStream[bytes]:
    """A picture as an argument of a call."""
    return picture if isinstance(picture, bytes) else ReadableStream(picture)


def _transformer(channels: Channels, chain: Chain) -> RpcStub:
    """The promise of the remote transformer with all steps taken."""
    if isinstance(chain.picture, TextPicture):
        remote: RpcStub = channels.rpc.text(chain.picture.content, *_optional(chain.picture.options))
    else:
        remote = channels.rpc.input(sent(chain.picture))
    for step in chain.steps:
        if isinstance(step, Drawing):
            remote = remote.draw(_transformer(channels, step.chain), *_optional(step.options))
        else:
            remote = remote.transform(dict(step))
    return remote


def _optional(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Options as an argument, which is left out where there are none."""
    return [dict(options)] if options else []
