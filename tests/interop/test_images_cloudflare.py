"""`env.IMAGES` of a Python program behind the proxy Worker that npm wrangler ships.

Behind that is Miniflare's images service: a small one, on the image library sharp. What the two channels have in common
is in test_images_facade.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio
import pytest
from pictures import RED, flat, is_like, picture_format, pixel, size

from capnweb_py import ProxyError, ReadableStream, RemoteError
from capnweb_py.remote import Env, connect_env

from .runtime import cloudflare_proxy

pytestmark = pytest.mark.anyio

IMAGE: Final = flat(RED, 40, 20)


@pytest.fixture(scope="module")
def url(node: str) -> Iterator[str]:
    """The connection string of Cloudflare's proxy Worker. Its IMAGES is the service behind Miniflare's binding."""
    with cloudflare_proxy(node, images={"binding": "IMAGES"}) as url:
        yield url


@pytest.fixture
async def env(url: str) -> AsyncIterator[Env]:
    with anyio.fail_after(60):
        async with connect_env(url, bindings={"IMAGES": "images", "NONE": "images"}) as env:
            yield env


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50):
        yield data[at : at + 50]


async def whole(stream: ReadableStream[bytes] | None) -> bytes | None:
    return None if stream is None else b"".join([piece async for piece in stream])


async def test_info(env: Env) -> None:
    for source in (IMAGE, in_pieces(IMAGE)):
        info = await env.IMAGES.info(source)
        assert (info.format, info.file_size, info.width, info.height) == ("image/png", len(IMAGE), 40, 20)
    svg = await env.IMAGES.info(b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>')
    assert (svg.format, svg.file_size) == ("image/svg+xml", None)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "avif"])
async def test_an_image_is_made(env: Env, kind: str) -> None:
    result = await env.IMAGES.input(in_pieces(IMAGE)).transform(width=20, height=10).output(format=f"image/{kind}")
    assert (result.content_type, size(result.data)) == (f"image/{kind}", (20, 10))
    assert picture_format(result.data) == ("heif" if kind == "avif" else kind)
    assert is_like(pixel(result.data, 10, 5), RED)


async def test_steps_and_drawn_images_are_understood(env: Env) -> None:
    """This service draws nothing, and reads the form nevertheless."""
    picture = env.IMAGES.input(IMAGE).transform(rotate=90).draw(in_pieces(flat(RED)), top=0)
    made = await picture.output(format="image/png", quality=80, background="#fff", anim=False)
    assert size(made.data) == (20, 40)


async def test_errors_are_those_of_the_service(env: Env) -> None:
    with pytest.raises(RemoteError) as caught:
        await env.IMAGES.input(IMAGE).output(format="image/gif")
    assert (caught.value.name, caught.value.props) == ("ImagesError", {"code": 9520})
    assert str(caught.value) == "IMAGES_TRANSFORM_ERROR 9520: ERROR: GIF output is not supported in local mode"
    with pytest.raises(RemoteError, match="IMAGES_TRANSFORM_ERROR 9523: ERROR: Internal Images binding error"):
        await env.IMAGES.input(IMAGE).transform(width="wide").output(format="image/png")
    with pytest.raises(RemoteError, match="Unexpected error response 500: Error: Input buffer contains") as caught:
        await env.IMAGES.info(b"no image")
    assert caught.value.props == {"code": 9523}
    with pytest.raises(ProxyError, match="has no binding 'NONE'"):
        await env.NONE.info(IMAGE)


async def test_hosted_images(env: Env) -> None:
    hosted = env.IMAGES.hosted
    kept = await hosted.upload(in_pieces(IMAGE), id="a/ü", metadata={"k": [1, None]}, creator="me")
    assert kept.uploaded is not None
    assert abs(datetime.now(UTC) - kept.uploaded) < timedelta(minutes=1)
    assert (kept.id, kept.meta, kept.creator, kept.variants) == ("a/ü", {"k": [1, None]}, "me", ["public"])
    handle = hosted.image("a/ü")
    assert await handle.details() == kept
    assert await whole(await handle.bytes()) == IMAGE
    assert (await handle.update(metadata={}, require_signed_urls=True)).require_signed_urls
    other = await hosted.upload(IMAGE)
    assert other.creator is None
    page = await hosted.list(limit=1)
    assert ([image.id for image in page.images], page.list_complete) == (["a/ü"], False)
    last = await hosted.list(limit=1, cursor=page.cursor)
    assert ([image.id for image in last.images], last.list_complete, last.cursor) == ([other.id], True, None)
    assert [await handle.delete(), await hosted.image(other.id).delete()] == [True, True]
    assert (await handle.details(), await handle.bytes(), await handle.delete()) == (None, None, False)
    with pytest.raises(RemoteError, match="Image not found: a/ü"):
        await handle.update(creator="nobody")
