"""`env.IMAGES` of a Python program, over both channels of a real proxy: the same results and the same errors."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, get_args

import anyio
import pytest
from pictures import BLUE, GREEN, RED, flat, is_like, picture_format, pixel, size
from proxying import serving

from capnweb_py import ReadableStream, RemoteError, RpcStub
from capnweb_py.bindings.channels import Channel, Channels, ProxyAddress
from capnweb_py.bindings.images import MAX_INPUT_BYTES, Images, ImageSource
from capnweb_py.bindings.images_hosted import MAX_HOSTED_BYTES
from capnweb_py.http11 import Http11Client
from capnweb_py.remote import Env, connect_env
from proxy_server.bindings import images_options
from proxy_server.imaging.sources import MAX_IMAGE_BYTES

pytestmark = pytest.mark.anyio

PNG: Final = "image/png"
SVG: Final = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a proxy server with an images binding, and one that takes small pictures only."""
    config: Path = tmp_path_factory.mktemp("images") / "capnweb.toml"
    config.write_text('[bindings.IMAGES]\ntype = "images"\n[bindings.SMALL]\ntype = "images"\nmax_input_bytes = 1000\n')
    with serving(config) as server:
        yield server.url


@pytest.fixture(params=get_args(Channel))
async def env(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Env]:
    with anyio.fail_after(60):
        async with connect_env(url, channel=request.param) as env:
            yield env


class Pieces:
    """A picture in pieces, as an async iterable that tells whether it was closed."""

    def __init__(self, data: bytes, *, step: int = 50, failure: Exception | None = None) -> None:
        self._pieces = iter([data[at : at + step] for at in range(0, len(data), step)])
        self._failure = failure
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


async def generated(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50):
        yield data[at : at + 50]


async def refused(promise: Any) -> tuple[str, dict[str, Any], str]:
    """Name, properties and message of what awaiting it raises."""
    with pytest.raises(RemoteError) as caught:
        await promise
    return caught.value.name, caught.value.props, str(caught.value)


# Looking, and making


async def test_image_info(env: Env) -> None:
    image = flat(RED, 40, 20)
    for source in (image, bytearray(image), memoryview(image), generated(image), ReadableStream(generated(image))):
        info = await env.IMAGES.info(source)
        assert (info.format, info.file_size, info.width, info.height) == (PNG, len(image), 40, 20)
    svg = await env.IMAGES.info(SVG)
    assert (svg.format, svg.file_size, svg.width) == ("image/svg+xml", None, None)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "avif"])
async def test_an_image_is_made_in_every_format(env: Env, kind: str) -> None:
    result = await env.IMAGES.input(flat(RED, 40, 20)).transform(width=20).output(format=f"image/{kind}")
    assert result.content_type == f"image/{kind}"
    assert (picture_format(result.data), size(result.data)) == ("heif" if kind == "avif" else kind, (20, 10))
    assert is_like(pixel(result.data, 10, 5), RED)


async def test_steps_and_drawn_images(env: Env) -> None:
    badge = env.IMAGES.input(generated(flat(BLUE, 8, 8))).transform(width=4).draw(flat(GREEN, 1, 1), top=0, left=0)
    picture = (
        env.IMAGES.input(flat(RED, 40, 20))
        .transform(rotate=90, height=None)
        .transform(height=20)
        .draw(badge, right=0, bottom=0)
    )
    made = (await picture.output(format=PNG)).data
    assert size(made) == (10, 20)
    assert [pixel(made, *at) for at in ((0, 0), (5, 15), (6, 16), (7, 17))] == [RED, RED, GREEN, BLUE]


async def test_drawn_pictures_keep_their_order_however_they_are_given(env: Env) -> None:
    inner = env.IMAGES.input(generated(flat(GREEN, 2, 2)))
    outer = env.IMAGES.input(flat(BLUE, 6, 6)).draw(inner, top=0, left=0).transform(rotate=90)
    picture = (
        env.IMAGES.input(generated(flat(RED, 20, 20)))
        .draw(outer, top=0, left=0)
        .draw(generated(flat((9, 9, 9), 3, 3)), bottom=0, right=0)
    )
    made = (await picture.output(format=PNG)).data
    # Turned by 90 degrees, what was at the left is at the right.
    assert [pixel(made, *at) for at in ((5, 0), (0, 0), (10, 10), (19, 19))] == [GREEN, BLUE, RED, (9, 9, 9)]


async def test_a_text_is_drawn(env: Env) -> None:
    text = env.IMAGES.text("M", size=30, color="#0000ff")
    made = await env.IMAGES.input(flat(RED, 60, 60)).draw(text, top=5, left=5).output(format=PNG)
    assert any(is_like(pixel(made.data, x, y), BLUE) for x in range(60) for y in range(60))


async def test_a_text_can_be_the_canvas(env: Env) -> None:
    noisy = await env.IMAGES.text("noise", size=40).output(format=PNG, background="#ffffff")
    poor, good = [
        await env.IMAGES.input(noisy.data).output(format="image/jpeg", quality=quality) for quality in (5, 95)
    ]
    assert len(poor.data) < len(good.data)
    named = await env.IMAGES.input(noisy.data).output(format="image/jpeg", quality="low", anim=False)
    assert len(poor.data) < len(named.data) < len(good.data)


async def test_a_result_in_all_its_forms(env: Env) -> None:
    result = await env.IMAGES.input(flat(RED, 4, 4)).output(format=PNG)
    streamed = b"".join([chunk async for chunk in result.image()])
    assert bytes(result) == await result.bytes() == result.data == streamed
    response = result.response(headers={"x-one": "1"})
    assert (response.headers["content-type"], response.headers["x-one"]) == (PNG, "1")
    assert await response.bytes() == result.data


async def test_a_transformer_is_used_once(env: Env) -> None:
    picture = env.IMAGES.input(flat(RED, 4, 4))
    await picture.output(format=PNG)
    with pytest.raises(RuntimeError, match="this transformer was used already"):
        await picture.output(format=PNG)
    with pytest.raises(RuntimeError, match="this transformer was used already"):
        env.IMAGES.input(flat(RED, 4, 4)).draw(picture)


async def test_base64(env: Env) -> None:
    image = flat(RED, 40, 20)
    encoded = base64.b64encode(image)
    for source in (encoded, b" " + encoded + b"\n", Pieces(encoded, step=7), Pieces(encoded, step=1)):
        assert (await env.IMAGES.info(source, encoding="base64")).file_size == len(image)
    made = await env.IMAGES.input(generated(encoded), encoding="base64").transform(width=20).output(format=PNG)
    assert size(made.data) == (20, 10)


@pytest.mark.parametrize("text", [b"!!!!", b"QUJ", b"QUI=QUI=", b"QUI=\nQUI="])
@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_what_is_no_base64(env: Env, text: bytes, step: int) -> None:
    name, props, message = await refused(env.IMAGES.info(Pieces(text, step=step), encoding="base64"))
    assert (name, props) == ("ImagesError", {"code": 9412})
    assert message.startswith("IMAGES_INFO_ERROR 9412: The input is not base64: ")
    assert (await refused(env.IMAGES.info(text, encoding="base64")))[1] == {"code": 9412}


# Streams


async def test_a_large_picture_streams(env: Env) -> None:
    """More than goes through at a time, in pieces of any size."""
    image = flat(RED, 40, 20) + bytes(5_000_000)
    assert (await env.IMAGES.info(Pieces(image, step=300_000))).file_size == len(image)


async def test_pictures_that_were_read_are_closed(env: Env) -> None:
    canvas, drawn = Pieces(flat(RED, 4, 4)), Pieces(flat(BLUE, 4, 4))
    await env.IMAGES.input(canvas).draw(drawn).output(format=PNG)
    assert (canvas.closed, drawn.closed) == (True, True)


async def test_pictures_that_nobody_needed_to_read_are_closed(env: Env) -> None:
    canvas, drawn = Pieces(b"no image"), Pieces(flat(BLUE, 4, 4))
    with pytest.raises(TypeError, match="image has to be bytes, or an async iterable of bytes, not int"):
        await env.IMAGES.input(canvas).draw(drawn).draw(5).output(format=PNG)
    assert (canvas.closed, drawn.closed) == (True, True)


async def test_an_error_of_the_source_is_the_callers(env: Env) -> None:
    failing = Pieces(flat(RED, 4, 4), failure=LookupError("nothing more today"))
    with pytest.raises(LookupError, match="nothing more today") as caught:
        await env.IMAGES.info(failing)
    assert type(caught.value) is LookupError
    assert failing.closed
    drawn = Pieces(flat(RED, 4, 4), failure=LookupError("nothing more today"))
    with pytest.raises(LookupError, match="nothing more today"):
        await env.IMAGES.input(flat(RED, 4, 4)).draw(drawn).output(format=PNG)
    # The connection, or the session, goes on.
    assert (await env.IMAGES.info(flat(RED, 4, 4))).width == 4


@pytest.mark.parametrize(
    "use",
    [
        lambda images, source: images.info(source),
        lambda images, source: images.input(flat(RED)).draw(source).output(format=PNG),
        lambda images, source: images.hosted.upload(source, id="given-up"),
    ],
)
async def test_a_call_that_is_given_up_ends_its_source(env: Env, use: Callable[[Images, ImageSource], Any]) -> None:
    waiting, ended = anyio.Event(), anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield flat(RED)
            waiting.set()
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use, env.IMAGES, endless())
        await waiting.wait()
        tasks.cancel_scope.cancel()
    assert ended.is_set()
    assert (await env.IMAGES.info(flat(RED, 4, 4))).width == 4
    assert await env.IMAGES.hosted.image("given-up").details() is None


async def test_a_source_that_yields_no_bytes(env: Env) -> None:
    async def words() -> AsyncIterator[Any]:
        yield "word"

    with pytest.raises(TypeError, match="a picture's pieces are bytes, not str"):
        await env.IMAGES.info(words())


# Errors


@pytest.mark.parametrize(
    ("ask", "code", "message"),
    [
        (lambda images: images.info(b"no image"), 9412, "IMAGES_INFO_ERROR 9412: The input is not an image"),
        (lambda images: images.info(b""), 9412, "IMAGES_INFO_ERROR 9412: The input is not an image"),
        (lambda images: images.info(generated(b"")), 9412, "IMAGES_INFO_ERROR 9412: The input is not an image"),
        (
            lambda images: images.info(flat(RED)[:60]),
            9516,
            "IMAGES_INFO_ERROR 9516: The PNG image is corrupt or cut short",
        ),
        (
            lambda images: images.input(flat(RED, 200, 200)[:-40]).output(format=PNG),
            9516,
            "IMAGES_TRANSFORM_ERROR 9516: The PNG image is corrupt or cut short: it can't be decoded",
        ),
        (
            lambda images: images.input(b"BM" + bytes(30)).output(format=PNG),
            9520,
            "IMAGES_TRANSFORM_ERROR 9520: Unsupported image type BMP",
        ),
        (
            lambda images: images.input(SVG).output(format=PNG),
            9412,
            "IMAGES_TRANSFORM_ERROR 9412: Conversion between SVG and raster formats is not supported",
        ),
        (
            lambda images: images.input(flat(RED)).transform(width=-1).output(format=PNG),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: transforms[0].width must be a whole number from 1 to 12000, not -1",
        ),
        (
            lambda images: images.input(flat(RED)).draw(images.input(flat(BLUE)).transform(wdith=1)).output(format=PNG),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: transforms[0] has the unknown option 'wdith'",
        ),
        (
            lambda images: images.input(flat(RED)).draw(flat(BLUE), opacity=2).output(format=PNG),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: transforms[0].opacity must be a number from 0 to 1, not 2",
        ),
        (
            lambda images: images.input(flat(RED)).output(format="image/tiff"),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: output.format must be one of image/jpeg",
        ),
        (
            lambda images: images.input(flat(RED)).output(format=PNG, quality=101),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: output.quality must be a whole number from 1 to 100, not 101",
        ),
        (
            lambda images: images.input(flat(RED)).output(format=PNG, quality="best"),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: output.quality must be 1 to 100, or one of low",
        ),
        (
            lambda images: images.input(flat(RED)).output(format=PNG, background="reddish"),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: output.background must be a CSS colour",
        ),
        (
            lambda images: images.text("x", color="reddish").output(format=PNG),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: text.color must be a CSS colour",
        ),
    ],
)
async def test_errors_are_cloudflares(url: str, ask: Callable[[Images], Any], code: int, message: str) -> None:
    """To the letter the same over both channels."""
    texts: list[str] = []
    for channel in get_args(Channel):
        async with connect_env(url, channel=channel) as env:
            name, props, text = await refused(ask(env.IMAGES))
        assert (name, props) == ("ImagesError", {"code": code})
        assert text.startswith(message)
        texts.append(text)
    assert texts[0] == texts[1]


async def test_options_that_there_are_not(env: Env) -> None:
    with pytest.raises(TypeError, match="brightness"):
        await env.IMAGES.input(flat(RED, 4, 4)).output(format=PNG, brightness=2)
    with pytest.raises(TypeError, match="quality"):
        env.IMAGES.input(flat(RED, 4, 4), quality=2)
    with pytest.raises(TypeError, match=r"transform\(\) takes no option 'imageIndex'"):
        env.IMAGES.input(flat(RED, 4, 4)).transform(imageIndex=1)
    with pytest.raises(TypeError, match=r"draw\(\) takes no option 'targetImageIndex'"):
        env.IMAGES.input(flat(RED, 4, 4)).draw(flat(RED), targetImageIndex=1)
    with pytest.raises(ValueError, match="the encoding of a picture is \"base64\", or None, not 'hex'"):
        await env.IMAGES.info(b"", encoding="hex")
    with pytest.raises(TypeError, match="image has to be bytes, or an async iterable of bytes, not str"):
        await env.IMAGES.info("a path")


# Limits


async def test_a_picture_that_is_too_large_is_refused_as_the_binding_would_but_before_it_is_sent(env: Env) -> None:
    def nothing_is_sent() -> RpcStub:
        raise AssertionError("nothing is sent")

    images = Images(Channels("IMAGES", ProxyAddress("http://127.0.0.1:1/"), Http11Client(print), nothing_is_sent))
    beyond = bytes(MAX_INPUT_BYTES + 1)
    assert await refused(images.info(beyond)) == await refused(env.IMAGES.rpc.info(beyond))
    thrown = await refused(env.IMAGES.rpc.input(beyond).output({"format": PNG}))
    assert await refused(images.input(beyond).output(format=PNG)) == thrown
    assert MAX_INPUT_BYTES == MAX_IMAGE_BYTES


async def test_of_a_picture_in_pieces_no_more_is_read_than_tells_that_it_is_too_large(env: Env) -> None:
    async def zeros() -> AsyncIterator[bytes]:
        yield bytes(MAX_INPUT_BYTES + 1)
        pytest.fail("a picture that is too large is read no further")

    name, props, message = await refused(env.IMAGES.info(zeros()))
    assert (name, props) == ("ImagesError", {"code": 9402})
    assert message == f"IMAGES_INFO_ERROR 9402: The image is too large: at most {MAX_INPUT_BYTES} bytes are allowed"


@pytest.mark.parametrize("make", [bytes, lambda count: generated(bytes(count))])
async def test_the_binding_may_have_a_lower_limit(env: Env, make: Callable[[int], ImageSource]) -> None:
    message = "IMAGES_INFO_ERROR 9402: The image is too large: at most 1000 bytes are allowed"
    assert await refused(env.SMALL.info(make(1001))) == ("ImagesError", {"code": 9402}, message)
    assert (await refused(env.SMALL.info(make(1000))))[1] == {"code": 9412}


async def test_the_limit_of_a_picture_is_that_of_the_bytes_that_base64_stands_for(env: Env) -> None:
    # A multiple of three: no padding, which would have to be the end.
    largest = base64.b64encode(bytes(MAX_INPUT_BYTES - 2))
    assert (await refused(env.IMAGES.info(largest, encoding="base64")))[1] == {"code": 9412}
    assert (await refused(env.IMAGES.info(largest + b"AAAA", encoding="base64")))[1] == {"code": 9402}


# Hosted images


async def whole(stream: ReadableStream[bytes] | None) -> bytes | None:
    return None if stream is None else b"".join([piece async for piece in stream])


async def test_a_hosted_image_from_upload_to_deletion(env: Env) -> None:
    image = flat(RED, 40, 20)
    hosted = env.IMAGES.hosted
    kept = await hosted.upload(
        generated(image), id="a/ü.png", filename="ü.png", metadata={"k": [1, None]}, creator="me"
    )
    assert kept.uploaded is not None
    assert abs(datetime.now(UTC) - kept.uploaded) < timedelta(minutes=1)
    assert (kept.id, kept.filename, kept.meta, kept.creator) == ("a/ü.png", "ü.png", {"k": [1, None]}, "me")
    assert (kept.require_signed_urls, kept.variants, kept.draft) == (False, ["public"], False)
    handle = hosted.image("a/ü.png")
    assert await handle.details() == kept
    assert await whole(await handle.bytes()) == image
    changed = await handle.update(metadata={"d": True})
    assert (changed.meta, changed.creator, changed.uploaded) == ({"d": True}, "me", kept.uploaded)
    assert await handle.delete()
    assert not await handle.delete()


async def test_uploads_in_all_forms(env: Env) -> None:
    image = flat(RED, 40, 20)
    encoded = base64.b64encode(image)
    for source, options in [
        (image, {}),
        (memoryview(image), {}),
        (Pieces(image), {}),
        (encoded, {"encoding": "base64"}),
        (Pieces(encoded, step=7), {"encoding": "base64", "require_signed_urls": True}),
    ]:
        kept = await env.IMAGES.hosted.upload(source, **options)
        assert kept.require_signed_urls is options.get("require_signed_urls", False)
        handle = env.IMAGES.hosted.image(kept.id)
        assert await whole(await handle.bytes()) == image
        assert await handle.delete()


async def test_a_large_image_streams_both_ways(env: Env) -> None:
    image = flat(RED, 40, 20) + bytes(MAX_HOSTED_BYTES - len(flat(RED, 40, 20)))
    kept = await env.IMAGES.hosted.upload(Pieces(image, step=100_000))
    stream = await env.IMAGES.hosted.image(kept.id).bytes()
    assert stream is not None
    received = 0
    async for piece in stream:
        received += len(piece)
        assert len(piece) <= 65_536
    assert received == MAX_HOSTED_BYTES
    assert await env.IMAGES.hosted.image(kept.id).delete()


async def test_a_stream_can_be_left_half_read(env: Env) -> None:
    kept = await env.IMAGES.hosted.upload(flat(RED, 40, 20) + bytes(3_000_000))
    stream = await env.IMAGES.hosted.image(kept.id).bytes()
    assert stream is not None
    async for _ in stream:
        break
    await stream.aclose()
    assert await env.IMAGES.hosted.image(kept.id).delete()


async def test_a_hosted_image_is_transformed(env: Env) -> None:
    kept = await env.IMAGES.hosted.upload(flat(RED, 40, 20))
    stream = await env.IMAGES.hosted.image(kept.id).bytes()
    assert stream is not None
    made = await env.IMAGES.input(stream).transform(width=10).output(format=PNG)
    assert size(made.data) == (10, 5)
    assert await env.IMAGES.hosted.image(kept.id).delete()


async def test_hosted_images_are_listed_in_pages(env: Env) -> None:
    ids = [f"listed/{number}" for number in range(5)]
    for image_id in ids:
        await env.IMAGES.hosted.upload(flat(RED), id=image_id, creator="lister")
    seen: list[str] = []
    cursor = None
    while True:
        page = await env.IMAGES.hosted.list(limit=2, cursor=cursor, creator="lister")
        seen += [image.id for image in page.images]
        assert page.list_complete is (page.cursor is None)
        if page.list_complete:
            break
        cursor = page.cursor
    assert seen == ids
    newest = await env.IMAGES.hosted.list(sort_order="desc", creator="lister", limit=1)
    assert [image.id for image in newest.images] == [ids[-1]]
    # Deleting what a cursor stands at changes nothing of what follows it.
    first = await env.IMAGES.hosted.list(limit=1, creator="lister")
    for image_id in ids[:2]:
        await env.IMAGES.hosted.image(image_id).delete()
    after = await env.IMAGES.hosted.list(creator="lister", cursor=first.cursor)
    assert [image.id for image in after.images] == ids[2:]
    for image_id in ids[2:]:
        await env.IMAGES.hosted.image(image_id).delete()
    assert await env.IMAGES.hosted.list(creator="lister") == type(after)([], True)


async def test_hosted_images_are_found_by_their_metadata(env: Env) -> None:
    kept = [await env.IMAGES.hosted.upload(flat(RED), metadata={"found": {"number": number}}) for number in range(3)]
    page = await env.IMAGES.hosted.list(metadata_filter={"found.number": {"gte": 1}})
    assert page.images == kept[1:]
    for image in kept:
        await env.IMAGES.hosted.image(image.id).delete()


async def test_bindings_of_one_server_share_their_hosted_images(env: Env) -> None:
    kept = await env.IMAGES.hosted.upload(flat(RED))
    assert await env.SMALL.hosted.image(kept.id).details() == kept
    assert await env.SMALL.hosted.image(kept.id).delete()


@pytest.mark.parametrize(
    ("ask", "code", "message"),
    [
        (lambda hosted: hosted.upload(b"no image"), 9412, "IMAGES_UPLOAD_ERROR 9412: The input is not an image"),
        (lambda hosted: hosted.upload(flat(RED)[:60]), 9516, "IMAGES_UPLOAD_ERROR 9516: The PNG image is corrupt"),
        (
            lambda hosted: hosted.upload(bytes(MAX_HOSTED_BYTES + 1)),
            9402,
            "IMAGES_UPLOAD_ERROR 9402: The image is too large: at most 10000000 bytes are allowed",
        ),
        (
            lambda hosted: hosted.upload(generated(b"!"), encoding="base64"),
            9412,
            "IMAGES_UPLOAD_ERROR 9412: The input is not base64",
        ),
        (lambda hosted: hosted.upload(flat(RED), id="x/"), 9401, "IMAGES_UPLOAD_ERROR 9401: upload.id must be a path"),
        (
            lambda hosted: hosted.upload(flat(RED), metadata={"k": "x" * 1024}),
            9401,
            "IMAGES_UPLOAD_ERROR 9401: upload.metadata has 1032 bytes as JSON; at most 1024 are allowed",
        ),
        (
            lambda hosted: hosted.upload(flat(RED), metadata={"when": datetime.now(UTC)}),
            9401,
            "IMAGES_UPLOAD_ERROR 9401: upload.metadata is nothing that JSON can say",
        ),
        (
            lambda hosted: hosted.upload(flat(RED), metadata={"k": float("nan")}),
            9401,
            "IMAGES_UPLOAD_ERROR 9401: upload.metadata is nothing that JSON can say",
        ),
        (lambda hosted: hosted.list(limit=1001), 9401, "IMAGES_LIST_ERROR 9401: list.limit must be"),
        (lambda hosted: hosted.list(cursor="é"), 9401, "IMAGES_LIST_ERROR 9401: list.cursor must be"),
        (lambda hosted: hosted.image("none").update(creator="me"), 5404, "Image not found: none"),
        (lambda hosted: hosted.image("none").update(creator=""), 9401, "IMAGES_UPDATE_ERROR 9401: update.creator must"),
        (lambda hosted: hosted.image("\ud800").update(creator="x"), 5404, "Image not found: \ud800"),
    ],
)
async def test_errors_of_hosted_images(env: Env, ask: Callable[[Any], Any], code: int, message: str) -> None:
    name, props, text = await refused(ask(env.IMAGES.hosted))
    assert (name, props) == ("ImagesError", {"code": code})
    assert text.startswith(message)


async def test_what_is_not_hosted(env: Env) -> None:
    handle = env.IMAGES.hosted.image("none")
    assert (await handle.details(), await handle.bytes(), await handle.delete()) == (None, None, False)
    with pytest.raises(TypeError, match=r"image\(\) takes the id of an image, a string, not int"):
        await env.IMAGES.hosted.image(5).details()


async def test_an_upload_whose_source_fails_keeps_nothing(env: Env) -> None:
    failing = Pieces(flat(RED), failure=LookupError("nothing more today"))
    with pytest.raises(LookupError, match="nothing more today") as caught:
        await env.IMAGES.hosted.upload(failing, id="failed")
    assert type(caught.value) is LookupError
    assert failing.closed
    assert await env.IMAGES.hosted.image("failed").details() is None


def test_both_sides_have_the_same_limit() -> None:
    assert MAX_HOSTED_BYTES == images_options.MAX_HOSTED_BYTES
