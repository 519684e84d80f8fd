"""An images binding over HTTP: the forms that the Workers runtime sends, and what it makes of the answers.

As in workerd, src/cloudflare/internal/images-api.ts and streaming-forms.ts: the pictures of a form stream.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from ..web import ReadableStream, Request, Response
from .channels import FOREIGN, Channels
from .images_order import Chain, TextPicture, ordered
from .images_source import Operation, PictureStream, images_error

__all__ = ["http_info", "http_output"]

_ORIGIN: Final = "https://js.images.cloudflare.com"

# An error that is the runtime's own, or is of none of the kinds that have numbers.
_INTERNAL: Final = 9523

_ERROR_NUMBER: Final = re.compile(r"err=(\d+)")

# A field of a form: its name, and a picture, or text.
_Field: TypeAlias = tuple[str, bytes | PictureStream | str]


async def http_info(channels: Channels, picture: bytes | PictureStream) -> Mapping[str, Any]:
    """What a picture is, by the names of the Workers API."""
    response = await _post(channels, "/info", [("image", picture)])
    info: dict[str, Any] = json.loads(await _body(channels, response, "INFO"))
    # What the runtime renames. Miniflare's images service has its name already.
    if "file_size" in info:
        info["fileSize"] = info.pop("file_size")
    return info


async def http_output(channels: Channels, chain: Chain, output: Mapping[str, Any]) -> tuple[str, bytes]:
    """The picture that a chain makes: its type, and its bytes."""
    order = ordered(chain)
    names = ["image", *["draw_image"] * (len(order.pictures) - 1)]
    fields = [_field(name, picture) for name, picture in zip(names, order.pictures, strict=True)]
    fields.append(("transforms", json.dumps(order.operations)))
    options = {"output_format": output["format"], "output_quality": output.get("quality")}
    options |= {name: output.get(name) for name in ("background", "anim")}
    fields += [(name, _text(value)) for name, value in options.items() if value is not None]
    response = await _post(channels, "/transform", fields)
    data = await _body(channels, response, "TRANSFORM")
    content_type = response.headers.get("content-type")
    if content_type is None:
        raise images_error(f"IMAGES_TRANSFORM_ERROR {_INTERNAL}: No content-type on bindings response", _INTERNAL)
    return content_type, data


def _field(name: str, picture: bytes | PictureStream | TextPicture) -> _Field:
    if isinstance(picture, TextPicture):
        text = json.dumps({"text": picture.content, **picture.options})
        return {"image": "text_input", "draw_image": "draw_text"}[name], text
    return name, picture


def _text(value: object) -> str:
    """A value as JavaScript's toString() writes it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value) if isinstance(value, bool | int | float) else str(value)


async def _post(channels: Channels, path: str, fields: Sequence[_Field]) -> Response:
    boundary = "-" * 26 + secrets.token_hex(12)
    heads = [_head(boundary, name, content) for name, content in fields]
    tail = f"--{boundary}--\r\n".encode()
    length: int | None = len(tail) + sum(len(head) + 2 for head in heads)
    for _name, content in fields:
        if isinstance(content, PictureStream):
            length = None
        elif length is not None:
            length += len(content) if isinstance(content, bytes) else len(content.encode())

    async def parts() -> AsyncGenerator[bytes, None]:
        for head, (_name, content) in zip(heads, fields, strict=True):
            yield head
            if isinstance(content, PictureStream):
                async for piece in content:
                    yield piece
            else:
                yield content if isinstance(content, bytes) else content.encode()
            yield b"\r\n"
        yield tail

    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    body = ReadableStream(parts(), length=length)
    return await channels.fetch(Request(_ORIGIN + path, method="POST", headers=headers, body=body))


def _head(boundary: str, name: str, content: bytes | PictureStream | str) -> bytes:
    file = "" if isinstance(content, str) else f'; filename="{name}"'
    return f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()


async def _body(channels: Channels, response: Response, operation: Operation) -> bytes:
    """The body of an answer. Raises RemoteError if it is an error."""
    body = await response.bytes()
    number = _ERROR_NUMBER.search(response.headers.get("cf-images-binding", ""))
    if number is None and response.status in FOREIGN:
        raise channels.strange(response, "images")
    text = "" if number is None and response.status < 400 else body.decode(errors="replace")
    if number is not None:
        raise images_error(f"IMAGES_{operation}_{text}".strip(), int(number[1]))
    if response.status >= 400:
        raise images_error(f"Unexpected error response {response.status}: {text.strip()}", _INTERNAL)
    return body
