"""The images binding over both channels: forms as the Workers runtime builds them, and stubs in memory.

What the engine does to pixels is checked in test_imaging.py; here a few of them tell that what was asked for
arrived there, in the right order and on the right image.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import pyvips
from pictures import BLUE, GREEN, RED, flat, pixel, size
from proxying import Reply, fetch, http_scope, proxy

from capnweb_py import (
    UNDEFINED,
    RemoteError,
    RpcPromise,
    RpcStub,
    RpcTarget,
    SessionStats,
    TypedArray,
    memory_pair,
)
from capnweb_py.codec import JsonCodec
from capnweb_py.stub import local_target
from capnweb_py.web import ReadableStream, Request
from proxy_server import imaging
from proxy_server.bindings import images_renderer, parse_binding
from proxy_server.bindings.images import MAX_FIELD_BYTES, ImagesService
from proxy_server.bindings.multipart import MAX_FORM_BYTES, MAX_PARTS
from proxy_server.imaging.options import MAX_OPERATIONS
from proxy_server.imaging.rendering import MAX_SOURCES
from proxy_server.stores.images_files import FileImageStore
from proxy_server.tables import ConfigError, Table

pytestmark = pytest.mark.anyio

WHITE = (255, 255, 255)
BOUNDARY = "--------------------------123456789012345678901234"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
CONSUMED = (
    "IMAGES_TRANSFORM_ERROR 9525: ImageTransformer consumed; you may only call .output() or draw a transformer once"
)

# A field of a form: its name, and its content. Bytes are a file, as the runtime sends them.
Entry = tuple[str, bytes | str]


# The HTTP channel


def form(*entries: Entry) -> bytes:
    """The bytes that workerd's StreamableFormData makes of these entries."""
    body = f"--{BOUNDARY}\r\n".encode()
    parts = []
    for name, content in entries:
        filename = f'; filename="{name}"' if isinstance(content, bytes) else ""
        head = f'content-disposition: form-data; name="{name}"{filename}\r\n\r\n'
        parts.append(head.encode() + (content if isinstance(content, bytes) else content.encode()) + b"\r\n")
    return body + body.join(parts) + f"--{BOUNDARY}--\r\n".encode()


def post(body: bytes | ReadableStream[bytes] | None, path: str = "/transform", **headers: str) -> Request:
    content_type = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(f"https://js.images.cloudflare.com{path}", method="POST", headers=content_type | named, body=body)


def order(image: bytes, *operations: object, **fields: str) -> list[Entry]:
    """The entries of `.output()`, without any drawn image."""
    options = {"output_format": "image/png"} | fields
    return [("image", image), ("transforms", json.dumps(operations)), *options.items()]


def service(**options: Any) -> ImagesService:
    """A binding whose hosted images nobody asks for: their store would be made at its first use."""
    return ImagesService(FileImageStore(Path("/dev/null/images")), **options)


async def transformed(*entries: Entry) -> bytes:
    response = await service().fetch(post(form(*entries)))
    assert response.status == 200, await response.text()
    return await response.bytes()


async def refusal(request: Request, binding: ImagesService | None = None) -> tuple[int, str | None, str]:
    """The status of a response, its error header, and its text."""
    response = await (binding or service()).fetch(request)
    return response.status, response.headers.get("cf-images-binding"), await response.text()


async def test_info_has_the_names_that_the_runtime_reads() -> None:
    image = flat(RED, 30, 10)
    response = await service().fetch(post(form(("image", image)), "/info"))
    assert await response.json() == {"format": "image/png", "file_size": len(image), "width": 30, "height": 10}
    assert response.headers["content-type"] == "application/json"
    response = await service().fetch(post(form(("image", SVG)), "/info"))
    assert await response.json() == {"format": "image/svg+xml"}


async def test_transforms_apply_to_the_image_in_their_order() -> None:
    image = flat(RED, 40, 20)
    # Turned before the border is added, the border is above and below; else it would be at the sides.
    steps = [{"imageIndex": 0, "rotate": 90}, {"imageIndex": 0, "border": {"color": "blue", "top": 5, "bottom": 5}}]
    result = await transformed(*order(image, *steps))
    assert size(result) == (20, 50)
    assert [pixel(result, 10, y) for y in (2, 25, 47)] == [BLUE, RED, BLUE]


async def test_drawn_images_and_texts_are_numbered_together_in_their_order() -> None:
    entries: list[Entry] = [
        ("image", flat(WHITE, 60, 60)),
        ("draw_image", flat(RED)),
        ("draw_text", json.dumps({"text": "██████", "color": "#00ff00", "size": 40})),
        ("draw_image", flat(BLUE, 10, 10)),
    ]
    steps = [
        {"drawImageIndex": 3, "targetImageIndex": 1, "top": 0, "left": 0},
        {"drawImageIndex": 1, "targetImageIndex": 0, "top": 0, "left": 0},
        {"imageIndex": 2, "width": 20, "height": 20, "fit": "squeeze"},
        {"drawImageIndex": 2, "targetImageIndex": 0, "bottom": 0, "right": 0},
    ]
    entries += [("transforms", json.dumps(steps)), ("output_format", "image/png")]
    result = await transformed(*entries)
    assert pixel(result, 5, 5) == BLUE
    assert pixel(result, 15, 15) == RED
    assert pixel(result, 30, 30) == WHITE
    # The letters are of the second drawn part, whatever the font makes of their edges.
    green = pyvips.Image.new_from_buffer(result, "").crop(40, 40, 20, 20)
    assert green.extract_band(1).avg() > green.extract_band(0).avg()


async def test_a_text_can_be_the_canvas() -> None:
    text = json.dumps({"text": "Hi", "color": "#ff0000"})
    entries = [("text_input", text), ("transforms", "[]"), ("output_format", "image/png"), ("background", "blue")]
    result = await transformed(*entries)
    # Red letters on blue, and mixtures of the two at their edges.
    red, green, blue = pyvips.Image.new_from_buffer(result, "").bandsplit()[:3]
    assert (red.max(), green.max(), blue.max()) == (255, 0, 255)


async def test_output_options_are_read_from_their_texts() -> None:
    clear = flat((0, 0, 0, 0))
    assert pixel(await transformed(*order(clear, background="#0000ff")), 5, 5) == BLUE
    response = await service().fetch(post(form(*order(clear, output_format="image/webp", output_quality="50"))))
    assert response.headers["content-type"] == "image/webp"
    frames = pyvips.Image.new_from_buffer(flat(RED), "").join(pyvips.Image.new_from_buffer(flat(BLUE), ""), "vertical")
    animation: bytes = frames.gifsave_buffer(page_height=20)
    for anim, pages in (("true", 2), ("false", 1)):
        result = await transformed(*order(animation, output_format="image/gif", anim=anim))
        image = pyvips.Image.new_from_buffer(result, "[n=-1]")
        assert image.height == 20 * pages


async def test_the_answer_is_streamed_in_pieces_of_a_known_length() -> None:
    noise: bytes = pyvips.Image.gaussnoise(400, 400).cast("uchar").pngsave_buffer()
    response = await service().fetch(post(form(*order(noise))))
    assert response.body is not None
    assert response.buffered is None
    chunks = [chunk async for chunk in response.body]
    assert len(chunks) > 1
    assert max(map(len, chunks)) <= 65_536
    assert sum(map(len, chunks)) == response.body.length
    assert size(b"".join(chunks)) == (400, 400)


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_a_form_is_read_however_it_is_cut(step: int) -> None:
    body = form(*order(flat(RED), {"imageIndex": 0, "width": 8}))

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    response = await service().fetch(post(ReadableStream(pieces())))
    assert size(await response.bytes()) == (8, 8)


GOOD = form(("image", b"x"))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (None, "the request has no body"),
        (b"", "the form is cut short"),
        (GOOD[:-4], "the form is cut short"),
        (GOOD[: len(GOOD) // 2], "the form is cut short"),
        (b"hello", "the form is malformed"),
        (GOOD.replace(b"content-disposition", b"content disposition"), "the form is malformed"),
        (GOOD.replace(b"form-data;", b"attachment;"), "part 1 has no content-disposition that names a field"),
        (GOOD.replace(b'; name="image"', b""), "part 1 has no content-disposition that names a field"),
        (GOOD.replace(b"content-disposition", b"x-" + b"y" * 10_000), "the form is malformed"),
        (form(("image", b"x"), ("image", b"x")), 'the field "image" comes 2 times, and is allowed once'),
        (form(("picture", b"x")), "there is no field 'picture' here; valid are image"),
        (f"--{BOUNDARY}--\r\n".encode(), 'the field "image" is missing'),
    ],
)
async def test_a_malformed_form_is_refused_as_the_runtime_expects(
    body: bytes | None, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    status, header, text = await refusal(post(body, "/info"))
    assert (status, header) == (400, "err=9523")
    assert text.startswith("ERROR 9523: Bad request to the Images binding: ")
    assert problem in text
    assert not caplog.records, "the client is told of its mistake, and the log is not filled with it"


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "text/plain; boundary=x", f"a/b; boundary={BOUNDARY}"],
)
async def test_a_body_of_another_type_is_no_form(content_type: str) -> None:
    request = post(GOOD, "/info", content_type=content_type)
    assert (await refusal(request))[:2] == (400, "err=9523")


async def test_an_unusable_boundary_is_refused() -> None:
    request = post(GOOD, "/info", content_type=f"multipart/form-data; boundary={'b' * 1000}")
    status, header, text = await refusal(request)
    assert (status, header) == (400, "err=9523")
    assert "the boundary of the form cannot be used" in text


def changed(**fields: str | bytes | None) -> list[Entry]:
    """A good order with some fields replaced, or left out."""
    entries: dict[str, str | bytes | None] = {**dict(order(flat(RED))), **fields}
    return [(name, content) for name, content in entries.items() if content is not None]


@pytest.mark.parametrize(
    ("entries", "code", "problem"),
    [
        (changed(image=None), 9523, 'one field "image" or "text_input" is needed, and there are 0'),
        (changed(text_input='{"text": "x"}'), 9523, 'one field "image" or "text_input" is needed, and there are 2'),
        (changed(transforms=None), 9523, 'the field "transforms" is missing'),
        (changed(transforms="{"), 9523, 'the field "transforms" is no JSON'),
        (changed(transforms="{}"), 9523, 'the field "transforms" is no JSON array'),
        (changed(transforms="[" * 10_000), 9523, 'the field "transforms" is no JSON'),
        (changed(transforms=b"\xff"), 9523, 'the field "transforms" is no UTF-8'),
        (changed(transforms="[1]"), 9523, "transforms[0] must be an object"),
        (changed(transforms='[{"imageIndex": 0, "wdith": 1}]'), 9401, "unknown option 'wdith'"),
        (changed(transforms='[{"imageIndex": 1, "width": 1}]'), 9401, "imageIndex"),
        (changed(draw_text="[]"), 9523, 'the field "draw_text" is no JSON object with a "text"'),
        (changed(draw_text='{"content": "x"}'), 9523, 'the field "draw_text" is no JSON object with a "text"'),
        (changed(draw_text='{"text": "x", "weight": 1}'), 9401, "text has the unknown option 'weight'"),
        (
            changed(draw_text='{"text": "x", "font": {"url": "http://127.0.0.1/a.ttf"}}'),
            9401,
            "text.font.url is not supported: this server downloads no fonts",
        ),
        (changed(output_format=None), 9523, 'the field "output_format" is missing'),
        (changed(output_format="undefined"), 9401, "output.format must be one of image/jpeg"),
        (changed(output_quality="101"), 9401, "output.quality must be a whole number from 1 to 100"),
        (changed(output_quality="best"), 9401, "output.quality must be 1 to 100, or one of low"),
        (changed(anim="yes"), 9401, "output.anim must be true or false, not 'yes'"),
        (changed(hue="1"), 9523, "there is no field 'hue' here"),
    ],
)
async def test_a_form_that_asks_for_nonsense_is_refused(entries: list[Entry], code: int, problem: str) -> None:
    status, header, text = await refusal(post(form(*entries)))
    assert (status, header) == (400, f"err={code}")
    assert text.startswith(f"ERROR {code}: ")
    assert problem in text


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [(b"hello", 415, 9412), (b"BM" + b"\0" * 30, 415, 9520), (flat(RED)[:60], 422, 9516)],
)
async def test_an_image_that_cannot_be_read_has_the_engines_status_and_number(
    image: bytes, status: int, code: int
) -> None:
    assert (await refusal(post(form(*order(image)))))[:2] == (status, f"err={code}")
    if code != 9516:
        assert (await refusal(post(form(("image", image)), "/info")))[:2] == (status, f"err={code}")


@pytest.mark.parametrize(("method", "path"), [("GET", "/info"), ("POST", "/"), ("POST", "/upload")])
async def test_other_requests_are_answered_by_what_there_is(method: str, path: str) -> None:
    status, header, text = await refusal(Request(f"https://js.images.cloudflare.com{path}", method=method))
    assert (status, header) == (404, "err=9523")
    assert text.endswith(f"{method} {path} is nothing that this binding answers: POST /info and POST /transform are")


async def test_images_fields_parts_and_forms_have_caps() -> None:
    small = service(max_input_bytes=100)
    assert (await refusal(post(form(("image", b"x" * 101)), "/info"), small))[:2] == (413, "err=9402")
    assert (await refusal(post(form(("image", b"x" * 100)), "/info"), small))[:2] == (415, "err=9412")
    status, header, text = await refusal(post(form(*changed(transforms="[" + " " * MAX_FIELD_BYTES + "]"))))
    assert (status, header) == (400, "err=9523")
    assert f'the field "transforms" has more than {MAX_FIELD_BYTES} bytes' in text
    many = [("draw_image", b"")] * (MAX_PARTS + 1)
    assert f"more than {MAX_PARTS} parts" in (await refusal(post(form(*many))))[2]
    drawn = [("draw_image", flat(RED))] * MAX_SOURCES
    assert f"There are {MAX_SOURCES + 1} images" in (await refusal(post(form(*order(flat(RED)), *drawn))))[2]


async def test_a_form_that_goes_on_for_ever_is_given_up_and_its_body_closed() -> None:
    megabyte = b"x" * 1_000_000
    sent = 0
    closed = False

    async def endless() -> AsyncIterator[bytes]:
        nonlocal closed, sent
        try:
            while True:
                # Parts of 10 MB each: none is too large by itself.
                yield form(("draw_image", b""))[: -(len(BOUNDARY) + 8)] if sent % 10 == 0 else megabyte
                sent += 1
                if sent % 10 == 0:
                    yield b"\r\n"
        finally:
            closed = True

    status, header, text = await refusal(post(ReadableStream(endless())))
    assert (status, header) == (400, "err=9523")
    assert f"the form has more than {MAX_FORM_BYTES} bytes" in text
    assert closed
    assert sent < 130


async def through_the_proxy(path: str, *chunks: bytes) -> Reply:
    """The same as a request that a local runtime wraps for the proxy."""
    headers = [
        ("mf-url", f"https://js.images.cloudflare.com{path}"),
        ("mf-header-content-type", f"multipart/form-data; boundary={BOUNDARY}"),
        ("transfer-encoding", "chunked"),
    ]
    async with proxy(IMAGES=parse_binding(Table({"type": "images"}, Path("a.toml"), "bindings.IMAGES"), Path())) as app:
        return await fetch(app, http_scope("IMAGES", method="POST", headers=headers), *chunks)


async def test_the_running_proxy_answers_forms() -> None:
    body = form(*order(flat(RED, 40, 20), {"imageIndex": 0, "width": 10}, output_format="image/webp"))
    reply = await through_the_proxy("/transform", body[:50], body[50:])
    assert (reply.status, reply.header("content-type")) == (200, "image/webp")
    assert reply.header("content-length") == str(len(reply.body))
    assert size(reply.body) == (10, 5)
    reply = await through_the_proxy("/info", form(("image", flat(RED, 40, 20))))
    assert json.loads(reply.body)["width"] == 40
    reply = await through_the_proxy("/info", GOOD[:40])
    assert (reply.status, reply.header("cf-images-binding")) == (400, "err=9523")


# The configuration


def test_the_table_of_the_binding_is_checked() -> None:
    def mistake(**values: object) -> str:
        with pytest.raises(ConfigError) as caught:
            parse_binding(Table({"type": "images"} | values, Path("a.toml"), "bindings.I"), Path())
        return str(caught.value)

    assert (
        mistake(store="x")
        == "a.toml: bindings.I.store: unknown key: known here: id, max_input_bytes, public_url, remote, type"
    )
    assert "0 is out of range: 1 to 20000000 are valid" in mistake(max_input_bytes=0)
    assert "an integer is needed here" in mistake(max_input_bytes="1 MB")


# The RPC channel


@asynccontextmanager
async def stub(binding: ImagesService | None = None, **options: Any) -> AsyncIterator[RpcStub]:
    """`env.IMAGES` on the other side of a session."""
    async with memory_pair(None, (binding or service()).rpc_main(), **options) as (client, _server):
        yield client.remote_main


async def error_of(promise: RpcPromise) -> tuple[int, str]:
    with pytest.raises(RemoteError) as caught:
        await promise
    assert caught.value.name == "ImagesError"
    assert set(caught.value.props) == {"code"}
    return caught.value.code, caught.value.message  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{}, {"codec": "cbor"}], ids=["json", "cbor"])
async def test_info_over_rpc(options: dict[str, Any]) -> None:
    image = flat(RED, 30, 10)
    known = {"format": "image/png", "fileSize": len(image), "width": 30, "height": 10}
    async with stub(**options) as images:
        assert await images.info(image) == known
        assert await images.info(TypedArray("ArrayBuffer", image)) == known
        assert await images.info(base64.b64encode(image), {"encoding": "base64"}) == known
        assert await images.info(base64.b64encode(image).decode(), encoding="base64") == known
        assert await images.info(SVG) == {"format": "image/svg+xml"}


async def test_a_whole_chain_is_one_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_pair(None, service().rpc_main()) as (client, _):
        kinds: list[str] = []
        decode = JsonCodec.decode

        def noted(codec: JsonCodec, data: bytes | str, binary: bool) -> Any:
            message = decode(codec, data, binary)
            kinds.append(message[0])
            return message

        monkeypatch.setattr(JsonCodec, "decode", noted)
        images = client.remote_main
        logo = images.input(flat(BLUE)).draw(flat(GREEN, 5, 5), {"top": 0, "left": 0})
        picture = images.input(flat(RED, 80, 40)).transform({"width": 40}).draw(logo, {"right": 0, "bottom": 0})
        result = await picture.output({"format": "image/png"}).image()
        # All that the server is sent, then all that the client is.
        assert [answered for answered, _ in itertools.groupby(kinds, lambda kind: kind == "resolve")] == [False, True]
        assert size(result) == (40, 20)
        assert pixel(result, 5, 5) == RED
        assert pixel(result, 22, 2) == GREEN
        assert pixel(result, 30, 10) == BLUE


async def test_nothing_stays_referred_to_after_a_chain() -> None:
    one_entry_each = SessionStats(imports=1, exports=1)
    async with memory_pair(None, service().rpc_main()) as (client, server):
        logo = client.remote_main.input(flat(BLUE))
        result = client.remote_main.input(flat(RED)).draw(logo).output({"format": "image/png"})
        await result.image()
        del logo, result
        with anyio.fail_after(60):
            while (client.stats(), server.stats()) != (one_entry_each, one_entry_each):
                await anyio.lowlevel.checkpoint()


async def test_the_parts_of_a_result() -> None:
    async with stub() as images:
        result = await images.input(flat(RED)).output({"format": "image/webp"})
        data = await result.image()
        assert await result.contentType() == "image/webp"
        assert await result.image({"encoding": "base64"}) == base64.b64encode(data)
        assert size(data) == (20, 20)


async def test_keywords_and_objects_of_options_are_the_same() -> None:
    async with stub() as images:
        chain = images.input(flat(RED, 40, 40)).transform(width=10).transform({"rotate": 90, "height": None})
        assert size(await chain.draw(flat(BLUE, 4, 4), top=0).output(format="image/png").image()) == (10, 10)


async def test_options_that_are_undefined_are_absent() -> None:
    async with stub() as images:
        options = {"width": 10, "height": UNDEFINED, "trim": {"top": 2, "border": UNDEFINED}}
        chain = images.input(flat(RED, 20, 22), UNDEFINED).transform(options)
        assert size(await chain.output({"format": "image/png", "quality": UNDEFINED}).image()) == (10, 10)


async def test_a_text_is_drawn() -> None:
    async with stub() as images:
        text = images.text("██", {"size": 30, "color": "#0000ff"}).transform(width=10, height=10, fit="squeeze")
        result = (
            await images.input(flat(WHITE)).draw(text, {"top": 5, "left": 5}).output({"format": "image/png"}).image()
        )
        drawn = pyvips.Image.new_from_buffer(result, "").crop(5, 5, 10, 10)
        assert drawn.extract_band(2).avg() > drawn.extract_band(0).avg()
        assert pixel(result, 1, 1) == WHITE


async def test_a_transformer_is_used_up_by_output_and_by_being_drawn() -> None:
    png = {"format": "image/png"}
    async with stub() as images:
        canvas, logo = await images.input(flat(WHITE)), await images.input(flat(RED))
        await canvas.draw(logo)
        assert await error_of(logo.output(png)) == (9525, CONSUMED)
        assert await error_of(images.input(flat(BLUE)).draw(logo)) == (9525, CONSUMED)
        assert pixel(await canvas.output(png).image(), 10, 10) == RED
        assert await error_of(canvas.output(png)) == (9525, CONSUMED)
        own = await images.input(flat(BLUE))
        await own.draw(own)
        assert await error_of(own.output(png)) == (9525, CONSUMED)


async def test_what_cannot_be_drawn_says_so_and_uses_nothing_up() -> None:
    async with stub() as images:
        canvas, logo = await images.input(flat(WHITE)), await images.input(flat(RED))
        with pytest.raises(TypeError, match=r"a transformer of this binding, not another stub"):
            await canvas.draw(images)
        with pytest.raises(TypeError, match=r"a transformer of this binding, not another stub"):
            await canvas.draw(lambda: flat(RED))
        with pytest.raises(TypeError, match=r"draw\(\) takes the bytes of an image, or a stream of them, not int"):
            await canvas.draw(5)
        with pytest.raises(TypeError, match=r"draw\(\) takes its options as an object, not as str"):
            await canvas.draw(logo, "top")
        assert size(await canvas.draw(logo).output({"format": "image/png"}).image()) == (20, 20)


@pytest.mark.parametrize(
    ("ask", "code", "message"),
    [
        (lambda images: images.info(b"hello"), 9412, "IMAGES_INFO_ERROR 9412: The input is not an image"),
        (
            lambda images: images.info(b"!", {"encoding": "base64"}),
            9412,
            "IMAGES_INFO_ERROR 9412: The input is not bas",
        ),
        (lambda images: images.info(b"", {"encoding": "hex"}), 9401, "IMAGES_INFO_ERROR 9401: info.encoding must be"),
        (lambda images: images.info(b"", {"encoding": []}), 9401, "IMAGES_INFO_ERROR 9401: info.encoding must be"),
        (lambda images: images.input(b"", {"code": 1}), 9401, "IMAGES_TRANSFORM_ERROR 9401: input has the unknown"),
        (lambda images: images.input(b"x" * 5001), 9402, "IMAGES_TRANSFORM_ERROR 9402: The image is too large"),
        (
            lambda images: images.input(b"BM" + b"\0" * 30).transform({}).output({"format": "image/png"}).image(),
            9520,
            "IMAGES_TRANSFORM_ERROR 9520: Unsupported image type BMP",
        ),
        (
            lambda images: images.input(flat(RED)).transform({"width": -1}).output({"format": "image/png"}),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: transforms[0].width must be",
        ),
        (lambda images: images.input(flat(RED)).output({}), 9401, "IMAGES_TRANSFORM_ERROR 9401: output.format must be"),
        (
            lambda images: images.input(flat(RED)).output({"format": "image/png", "size": 1}),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: output has the unknown option 'size'",
        ),
        (
            lambda images: images.input(flat(RED)).transform({"imageIndex": 1}),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: transform has the unknown option 'imageIndex'",
        ),
        (
            lambda images: images.text("x", {"font": {"url": "http://127.0.0.1:9/a.ttf"}}),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: text.font.url is not supported: this server downloads no fonts",
        ),
        (
            lambda images: images.input(flat(RED)).output({"format": "image/png"}).image({"encoding": "hex"}),
            9401,
            "IMAGES_TRANSFORM_ERROR 9401: image.encoding must be",
        ),
    ],
)
async def test_errors_over_rpc_are_those_of_the_runtime(
    ask: Callable[[RpcStub], RpcPromise], code: int, message: str
) -> None:
    async with stub(service(max_input_bytes=5000)) as images:
        seen_code, seen = await error_of(ask(images))
        assert seen_code == code
        assert seen.startswith(message)


async def test_an_image_of_a_wrong_type_is_a_type_error() -> None:
    async with stub() as images:
        with pytest.raises(TypeError, match=r"input\(\) takes the bytes of an image, or a stream of them, not str"):
            await images.input("photo.jpg")
        with pytest.raises(TypeError, match=r"info\(\) takes bytes or a str of base64, or a stream of them, not int"):
            await images.info(5, {"encoding": "base64"})
        with pytest.raises(TypeError, match=r"transform\(\) takes its options as an object, not as list"):
            await images.input(flat(RED)).transform([])


async def test_operations_and_images_have_caps_when_they_are_recorded() -> None:
    async with stub() as images:
        canvas = await images.input(flat(RED))
        for _ in range(MAX_OPERATIONS):
            await canvas.transform({"blur": 1})
        assert (await error_of(canvas.transform({"blur": 1})))[0] == 9401
        logo = await images.input(flat(BLUE))
        assert (await error_of(canvas.draw(logo)))[0] == 9401
        # Refused, the drawing did not use it up. Each of these is drawn on the next, deeper than Python's stack.
        tower = logo
        for _ in range(1100):
            tower = images.input(flat(BLUE, 1, 1)).draw(tower)
        code, message = await error_of(tower.output({"format": "image/png"}))
        assert code == 9523
        assert f"more than {MAX_SOURCES} images" in message


async def test_pictures_are_made_off_the_event_loop_and_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loop_thread = threading.get_ident()
    real = imaging.render
    gate = threading.Event()
    running, most = set[int](), 0

    def render(*arguments: Any) -> Any:
        nonlocal most
        running.add(threading.get_ident())
        most = max(most, len(running))
        # Opened by the event loop, which is free meanwhile.
        assert gate.wait(60)
        try:
            return real(*arguments)
        finally:
            running.discard(threading.get_ident())

    monkeypatch.setattr(images_renderer, "render", render)
    results: list[bytes] = []

    async def make(images: RpcStub) -> None:
        results.append(await images.input(flat(RED)).output({"format": "image/png"}).image())

    async with stub() as images, anyio.create_task_group() as tasks:
        for _ in range(images_renderer.MAX_RENDERS + 2):
            tasks.start_soon(make, images)
        with anyio.fail_after(60):
            while len(running) < images_renderer.MAX_RENDERS:
                await anyio.lowlevel.checkpoint()
        assert loop_thread not in running
        gate.set()
    assert len(results) == images_renderer.MAX_RENDERS + 2
    assert most == images_renderer.MAX_RENDERS


async def test_nothing_private_of_the_targets_is_reachable() -> None:
    async with stub() as images:
        transformer = await images.input(flat(RED))
        for name in ("_consume", "_source", "_steps", "_renderer"):
            with pytest.raises(TypeError):
                await transformer[name]()


# What the core gives for it


async def test_the_target_behind_a_stub_is_known_on_its_own_side_alone() -> None:
    class Thing(RpcTarget):
        def me(self) -> Thing:
            return self

        def is_me(self, other: Any) -> list[bool]:
            return [local_target(other) is self, local_target(other.me) is None]

        def is_foreign(self, other: Any) -> bool:
            return local_target(other) is None

    thing = Thing()
    assert local_target(RpcStub(thing)) is thing
    assert local_target(RpcStub({"a": 1})) is None
    async with memory_pair(None, thing) as (client, _server):
        remote = client.remote_main
        assert local_target(remote) is None
        assert await remote.is_me(remote) == [True, True]
        assert await remote.is_me(remote.me()) == [True, True]
        assert await remote.is_me(await remote.me()) == [True, True]
        assert await remote.is_foreign(lambda: None)
