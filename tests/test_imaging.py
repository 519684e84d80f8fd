"""The images engine, checked on real pixels: every output is decoded again and looked at.

Test images are made here by libvips itself (a few flat colours, so that a position tells what happened), but
for the one photograph. Nothing here speaks RPC or HTTP.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import pyvips
from pictures import bomb, packed, scanned

from proxy_server import imaging
from proxy_server.imaging import ImagingError, Output, Probed, Rendered, Text, check, probe, render
from proxy_server.imaging.colors import Color, parse_color
from proxy_server.imaging.encoding import MAX_AVIF_PIXELS
from proxy_server.imaging.geometry import Size, plan_fit
from proxy_server.imaging.options import MAX_OPERATIONS, Fit
from proxy_server.imaging.picture import MAX_FRAMES
from proxy_server.imaging.rendering import MAX_SOURCES
from proxy_server.imaging.sources import MAX_IMAGE_BYTES

PHOTO = (Path(imaging.__file__).parents[1] / "demo" / "grace_hopper.jpg").read_bytes()  # 512 x 600

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
CLEAR = (0, 0, 0, 0)
FORMATS = ("image/jpeg", "image/png", "image/webp", "image/avif", "image/gif")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:9/x"/></svg>'


# Making images, and looking at them


def flat(width: int, height: int, color: tuple[int, ...]) -> pyvips.Image:
    pixels = pyvips.Image.black(width, height, bands=len(color)) + list(color)
    return pixels.cast("uchar").copy(interpretation="srgb")


def png(image: pyvips.Image) -> bytes:
    data: bytes = image.pngsave_buffer()
    return data


def quarters(size: int = 40) -> pyvips.Image:
    """Red and green above, blue and white below: any turn or flip can be told."""
    half = size // 2
    top = flat(half, half, RED).join(flat(half, half, GREEN), "horizontal")
    bottom = flat(half, half, BLUE).join(flat(half, half, WHITE), "horizontal")
    return top.join(bottom, "vertical")


def stripes() -> pyvips.Image:
    """60 x 20: red, green and blue side by side."""
    return flat(20, 20, RED).join(flat(20, 20, GREEN), "horizontal").join(flat(20, 20, BLUE), "horizontal")


def animation(save: str = "gifsave_buffer", colors: tuple[tuple[int, ...], ...] = (RED, GREEN, BLUE)) -> bytes:
    strip = pyvips.Image.arrayjoin([flat(20, 10, color) for color in colors], across=1).copy()
    strip.set_type(pyvips.GValue.array_int_type, "delay", [100 * (n + 1) for n in range(len(colors))])
    strip.set_type(pyvips.GValue.gint_type, "loop", 3)
    options = {} if save.startswith("gif") else {"lossless": True}
    data: bytes = getattr(strip, save)(page_height=10, **options)
    return data


def decoded(result: Rendered, *, animated: bool = False) -> pyvips.Image:
    return pyvips.Image.new_from_buffer(result.data, "[n=-1]" if animated else "")


def run(
    source: bytes | pyvips.Image,
    *operations: Mapping[str, object],
    mime: str = "image/png",
    **output: object,
) -> pyvips.Image:
    """Apply operations to one image (as image 0, unless they name one), and decode what comes out."""
    data = source if isinstance(source, bytes) else png(source)
    steps = [{"imageIndex": 0, **operation} for operation in operations]
    return decoded(render([data], steps, Output(mime, **output)))  # type: ignore[arg-type]


def draw(canvas: pyvips.Image, overlay: pyvips.Image, **options: object) -> pyvips.Image:
    steps = [{"drawImageIndex": 1, "targetImageIndex": 0, **options}]
    return decoded(render([png(canvas), png(overlay)], steps, Output("image/png")))


def pixel(image: pyvips.Image, x: int, y: int) -> tuple[int, ...]:
    return tuple(int(value) for value in image(x, y))


def size(image: pyvips.Image) -> tuple[int, int]:
    return image.width, image.height


def close(seen: tuple[int, ...], expected: tuple[int, ...], tolerance: int = 6) -> bool:
    return len(seen) == len(expected) and all(abs(a - b) <= tolerance for a, b in zip(seen, expected, strict=True))


def refused(
    source: bytes, *operations: Mapping[str, object], output: Output | None = None, sources: int = 1
) -> ImagingError:
    with pytest.raises(ImagingError) as caught:
        render([source] * sources, list(operations), output or Output("image/png"))
    return caught.value


# Information


@pytest.mark.parametrize("mime", FORMATS)
def test_probe_tells_kind_and_size_of_each_format(mime: str) -> None:
    data = render([PHOTO], [{"imageIndex": 0, "width": 64}], Output(mime)).data
    assert probe(data) == Probed(mime, len(data), 64, 75)


def test_probe_reads_the_photograph() -> None:
    assert probe(PHOTO) == Probed("image/jpeg", 61306, 512, 600)


@pytest.mark.parametrize(
    "svg",
    [
        SVG,
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- made\nby hand -->\n<svg/>',
        b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://example.com/svg11.dtd"><svg></svg>',
    ],
)
def test_probe_knows_of_an_svg_only_that_it_is_one(svg: bytes) -> None:
    assert probe(svg) == Probed("image/svg+xml")


def test_probe_gives_the_size_as_shown() -> None:
    lying = flat(30, 10, RED).copy()
    lying.set_type(pyvips.GValue.gint_type, "orientation", 6)
    info = probe(lying.jpegsave_buffer())
    assert (info.width, info.height) == (10, 30)


def test_probe_gives_the_size_of_one_frame() -> None:
    info = probe(animation())
    assert (info.width, info.height) == (20, 10)


# Output formats


@pytest.mark.parametrize("mime", FORMATS)
def test_every_format_keeps_the_picture(mime: str) -> None:
    result = render([png(quarters())], [], Output(mime, quality=100))
    image = decoded(result)
    assert result.content_type == mime == probe(result.data).format
    assert size(image) == (40, 40)
    for x, y, color in ((8, 8, RED), (32, 8, GREEN), (8, 32, BLUE), (32, 32, WHITE)):
        assert close(pixel(image, x, y)[:3], color, 12)


@pytest.mark.parametrize("mime", ["image/webp", "image/png", "image/avif"])
def test_transparency_is_kept(mime: str) -> None:
    image = run(flat(16, 16, (255, 0, 0, 128)), mime=mime, quality=100)
    assert close(pixel(image, 8, 8), (255, 0, 0, 128), 4)


def test_jpeg_puts_transparency_on_white_or_on_the_background() -> None:
    clear = flat(16, 16, CLEAR)
    assert close(pixel(run(clear, mime="image/jpeg"), 8, 8), WHITE)
    assert close(pixel(run(clear, mime="image/jpeg", background="blue"), 8, 8), BLUE)


def test_raw_pixels() -> None:
    row = flat(1, 1, (1, 2, 3, 255)).join(flat(1, 1, CLEAR), "horizontal")
    rgb = render([png(row)], [], Output("rgb"))
    rgba = render([png(row)], [], Output("rgba"))
    assert rgb == Rendered("application/octet-stream", bytes([1, 2, 3, 255, 255, 255]))
    assert rgba.data == bytes([1, 2, 3, 255, 0, 0, 0, 0])
    assert render([png(flat(1, 1, RED))], [], Output("rgba")).data == bytes([255, 0, 0, 255])


@pytest.mark.parametrize("mime", ["image/jpeg", "image/webp", "image/avif", "image/png"])
def test_quality_trades_size(mime: str) -> None:
    small, large = (render([PHOTO], [{"imageIndex": 0, "width": 200}], Output(mime, q)) for q in ("low", 95))
    assert len(small.data) < len(large.data)


@pytest.mark.parametrize(("name", "number"), [("low", 35), ("medium-low", "50"), ("medium-high", 70), ("high", 90)])
def test_named_qualities_are_numbers(name: str, number: int | str) -> None:
    assert render([PHOTO], [], Output("image/jpeg", name)) == render([PHOTO], [], Output("image/jpeg", number))


def test_the_default_quality_is_85() -> None:
    assert render([PHOTO], [], Output("image/webp")) == render([PHOTO], [], Output("image/webp", 85))


def test_webp_of_quality_100_is_lossless() -> None:
    plain = run(PHOTO, {"width": 100})
    assert (run(plain, mime="image/webp", quality=100) - plain).abs().max() == 0


def test_png_with_a_quality_has_a_palette() -> None:
    plain = render([PHOTO], [], Output("image/png")).data
    palette = render([PHOTO], [], Output("image/png", 80)).data
    assert (plain[25], palette[25]) == (2, 3)  # the colour type in IHDR


@pytest.mark.parametrize(("side", "multiscan"), [(49, 0), (50, 1), (3000, 1), (3001, 0)])
def test_jpeg_is_progressive_between_50_and_3000_pixels(side: int, multiscan: int) -> None:
    image = run(flat(side, max(50, side) if side < 3000 else 50, RED), mime="image/jpeg")
    assert (image.get("jpeg-multiscan") if image.get_typeof("jpeg-multiscan") else 0) == multiscan


# Fitting


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (60, 20)),
        ({"width": 30}, (30, 10)),
        ({"height": 10}, (30, 10)),
        ({"width": 600}, (60, 20)),
        ({"width": 30, "height": 5}, (15, 5)),
        ({"width": 120, "height": 120, "fit": "scale-down"}, (60, 20)),
        ({"width": 120, "height": 120, "fit": "contain"}, (120, 40)),
        ({"width": 120, "fit": "contain"}, (120, 40)),
        ({"width": 90, "height": 90, "fit": "cover"}, (90, 90)),
        ({"height": 40, "fit": "cover"}, (120, 40)),
        ({"width": 10, "height": 10, "fit": "crop"}, (10, 10)),
        ({"width": 100, "height": 10, "fit": "crop"}, (60, 10)),
        ({"width": 120, "height": 120, "fit": "crop"}, (60, 20)),
        ({"width": 120, "height": 120, "fit": "aspect-crop"}, (20, 20)),
        ({"width": 10, "height": 10, "fit": "aspect-crop"}, (10, 10)),
        ({"width": 50, "height": 80, "fit": "pad"}, (50, 80)),
        ({"width": 50, "fit": "pad"}, (50, 17)),
        ({"width": 33, "height": 77, "fit": "squeeze"}, (33, 77)),
        ({"width": 33, "fit": "squeeze"}, (33, 20)),
        ({"width": 30.0, "height": None}, (30, 10)),
        ({"width": 1}, (1, 1)),
    ],
)
def test_fit(options: Mapping[str, object], expected: tuple[int, int]) -> None:
    assert size(run(stripes(), options)) == expected


def test_aspect_crop_as_documented() -> None:
    options = {"width": 1920, "height": 1120, "fit": "aspect-crop"}
    assert size(run(flat(612, 613, RED), options)) == (612, 357)


@pytest.mark.parametrize(
    ("gravity", "color"),
    [
        (None, GREEN),
        ("center", GREEN),
        ("left", RED),
        ("right", BLUE),
        ("top", GREEN),
        ("bottom", GREEN),
        ({"x": 0, "y": 0.5}, RED),
        ({"x": 1}, BLUE),
        ({"x": 0.25, "mode": "box-center"}, None),
        ({"x": 1 / 6, "mode": "box-center"}, RED),
        ({"x": 0.9, "mode": "remainder"}, BLUE),
    ],
)
def test_gravity_says_what_a_crop_keeps(gravity: object, color: tuple[int, ...] | None) -> None:
    image = run(stripes(), {"width": 20, "height": 20, "fit": "cover", "gravity": gravity})
    assert size(image) == (20, 20)
    if color is None:  # the point 15 of 60 in the middle: pixels 5 to 25, so red and then green
        assert (pixel(image, 10, 10), pixel(image, 18, 10)) == (RED, GREEN)
    else:
        assert close(pixel(image, 10, 10), color)


@pytest.mark.parametrize("gravity", ["auto", "entropy", "face"])
def test_gravity_finds_what_stands_out(gravity: str) -> None:
    canvas = flat(200, 50, (128, 128, 128)).draw_rect([255, 0, 0], 160, 10, 30, 30, fill=True)
    noise = pyvips.Image.gaussnoise(30, 30, mean=128, sigma=60, seed=1).cast("uchar")
    busy = canvas.insert(noise.bandjoin(noise).bandjoin(noise.invert()).copy(interpretation="srgb"), 160, 10)
    image = run(busy, {"width": 50, "height": 50, "fit": "cover", "gravity": gravity, "zoom": 0.5})
    assert size(image) == (50, 50)
    assert image.deviate() > 20


def test_pad_fills_with_white_or_with_the_background() -> None:
    options = {"width": 60, "height": 60, "fit": "pad"}
    white = run(stripes(), options)
    assert [pixel(white, 30, y) for y in (10, 30, 50)] == [WHITE, GREEN, WHITE]
    gold = run(stripes(), {**options, "background": "gold"})
    assert pixel(gold, 30, 10) == (255, 215, 0)
    clear = run(stripes(), {**options, "background": "rgb(0 0 0 / 0)"})
    assert pixel(clear, 30, 10) == CLEAR
    assert pixel(clear, 30, 30) == (*GREEN, 255)


def test_resizing_does_not_darken_the_edge_of_transparency() -> None:
    half = flat(20, 40, (255, 255, 255, 255)).join(flat(20, 40, (255, 0, 0, 0)), "horizontal")
    image = run(half, {"width": 13, "fit": "contain"})
    visible = [pixel(image, x, 5) for x in range(image.width) if pixel(image, x, 5)[3] > 30]
    assert visible
    assert all(min(seen[:3]) >= 250 for seen in visible)


# Turning


@pytest.mark.parametrize(
    ("options", "corners"),
    [
        ({"rotate": 0}, (RED, GREEN, BLUE, WHITE)),
        ({"rotate": 90}, (BLUE, RED, WHITE, GREEN)),
        ({"rotate": 180}, (WHITE, BLUE, GREEN, RED)),
        ({"rotate": 270}, (GREEN, WHITE, RED, BLUE)),
        ({"rotate": 360}, (RED, GREEN, BLUE, WHITE)),
        ({"flip": "h"}, (GREEN, RED, WHITE, BLUE)),
        ({"flip": "v"}, (BLUE, WHITE, RED, GREEN)),
        ({"flip": "hv"}, (WHITE, BLUE, GREEN, RED)),
        ({"rotate": 90, "flip": "h"}, (WHITE, GREEN, BLUE, RED)),
    ],
)
def test_rotate_and_flip(options: Mapping[str, object], corners: tuple[tuple[int, ...], ...]) -> None:
    image = run(quarters(), options)
    assert tuple(pixel(image, x, y) for x, y in ((5, 5), (35, 5), (5, 35), (35, 35))) == corners


def test_width_and_height_are_those_after_rotation() -> None:
    assert size(run(stripes(), {"rotate": 90, "width": 10})) == (10, 30)


def test_transforms_apply_in_their_order() -> None:
    turned_first = run(stripes(), {"rotate": 90}, {"width": 10})
    resized_first = run(stripes(), {"width": 10}, {"rotate": 90})
    assert (size(turned_first), size(resized_first)) == ((10, 30), (3, 10))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = quarters()
    # What has to be done to the stored pixels to show them (EXIF 2.32, tag 0x0112), undone here.
    stored = {
        1: upright,
        2: upright.fliphor(),
        3: upright.rot180(),
        4: upright.flipver(),
        5: upright.rot270().flipver(),
        6: upright.rot270(),
        7: upright.rot90().flipver(),
        8: upright.rot90(),
    }[orientation].copy()
    stored.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image = run(stored.jpegsave_buffer(Q=100))
    corners = [pixel(image, x, y) for x, y in ((5, 5), (35, 5), (5, 35), (35, 35))]
    assert all(close(seen, color) for seen, color in zip(corners, (RED, GREEN, BLUE, WHITE), strict=True))
    assert not image.get_typeof("orientation")


# Trimming and borders


@pytest.mark.parametrize(
    ("trim", "expected", "first"),
    [
        ({"left": 20}, (40, 20), GREEN),
        ({"left": 20, "right": 20, "top": 5, "bottom": 3}, (20, 12), GREEN),
        ({"width": 20}, (20, 20), RED),
        ({"left": 40, "width": 10, "height": 7}, (10, 7), BLUE),
        ({"right": 20, "width": 20}, (20, 20), GREEN),
        ({"left": 20, "right": 10, "width": 600}, (30, 20), GREEN),
        ({}, (60, 20), RED),
    ],
)
def test_trim_cuts_sides(trim: object, expected: tuple[int, int], first: tuple[int, ...]) -> None:
    image = run(stripes(), {"trim": trim})
    assert (size(image), pixel(image, 0, 0)) == (expected, first)


@pytest.mark.parametrize("save", ["jpegsave_buffer", "webpsave_buffer"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("width", "height"), [(100, None), (101, None), (None, 37), (60, 60)])
def test_what_is_decoded_smaller_has_the_size_and_the_colours_of_the_whole(
    save: str, orientation: int, width: int | None, height: int | None
) -> None:
    """1,003 pixels are no multiple of what loaders divide by, and the sizes that they come to are rounded up."""
    large = quarters(1_004).crop(0, 0, 1_003, 801).copy()
    large.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    source = getattr(large, save)(Q=95, keep="all")
    options = {"imageIndex": 0, "fit": "contain"} | ({"width": width} if width else {})
    result = decoded(render([source], [options | ({"height": height} if height else {})], Output("image/png")))
    upright = large.autorot()
    plan = plan_fit(Size(upright.width, upright.height), width, height, Fit.CONTAIN)
    assert (result.width, result.height) == attrs.astuple(plan.scaled)
    expected = upright.thumbnail_image(result.width, height=result.height, size="force")
    assert (result.extract_band(0, n=3) - expected.extract_band(0, n=3)).abs().avg() < 1.5


def test_what_is_drawn_on_before_it_is_made_smaller_is_decoded_whole() -> None:
    source = quarters(1_000).jpegsave_buffer(Q=95)
    operations = [{"drawImageIndex": 1, "targetImageIndex": 0, "top": 0, "left": 0}, {"imageIndex": 0, "width": 100}]
    result = decoded(render([source, png(flat(500, 500, BLACK))], operations, Output("image/png")))
    assert result(25, 25)[:3] == [0, 0, 0]
    assert result(75, 25)[1] > 200
    assert (result.width, result.height) == (100, 100)


def test_trim_comes_before_rotation_and_fit() -> None:
    image = run(stripes(), {"rotate": 90, "width": 10, "trim": {"left": 40}})
    assert (size(image), pixel(image, 5, 5)) == ((10, 10), BLUE)


@pytest.mark.parametrize(
    ("trim", "expected"),
    [
        ("border", (12, 8)),
        ({"border": True}, (12, 8)),
        ({"border": False}, (40, 30)),
        ({"border": {"keep": 2}}, (16, 12)),
        ({"border": {"keep": 99}}, (40, 30)),
        ({"border": {"color": "#fff"}}, (12, 8)),
        ({"border": {"color": "blue"}}, (40, 30)),
        ({"border": {"tolerance": 255}}, (40, 30)),
        ({"border": True, "left": 2}, (10, 8)),
    ],
)
def test_trim_finds_a_border(trim: object, expected: tuple[int, int]) -> None:
    framed = flat(40, 30, WHITE).draw_rect(list(RED), 9, 7, 12, 8, fill=True)
    assert size(run(framed, {"trim": trim})) == expected


def test_trim_finds_a_transparent_border() -> None:
    framed = flat(40, 30, CLEAR).draw_rect([0, 0, 0, 255], 9, 7, 12, 8, fill=True)
    image = run(framed, {"trim": "border"})
    assert (size(image), pixel(image, 0, 0)) == ((12, 8), (0, 0, 0, 255))


def test_trimming_an_image_of_one_colour_leaves_it() -> None:
    assert size(run(flat(10, 10, RED), {"trim": "border"})) == (10, 10)


def test_border_of_one_width_and_of_four() -> None:
    even = run(quarters(), {"border": {"color": "#123456", "width": 3}})
    assert (size(even), pixel(even, 0, 0), pixel(even, 3, 3)) == ((46, 46), (0x12, 0x34, 0x56), RED)
    sides = run(quarters(), {"border": {"color": "blue", "top": 1, "right": 2, "bottom": 3, "left": 4}})
    assert (size(sides), pixel(sides, 3, 1), pixel(sides, 4, 1), pixel(sides, 4, 0)) == (
        (46, 44),
        BLUE,
        RED,
        BLUE,
    )
    clear = run(quarters(), {"border": {"color": "transparent", "width": 1}})
    assert (pixel(clear, 0, 0)[3], pixel(clear, 1, 1)) == (0, (*RED, 255))
    assert pixel(run(quarters(), {"border": {"width": 1}}), 0, 0) == BLACK


def test_border_is_added_after_resizing() -> None:
    assert size(run(quarters(), {"width": 10, "border": {"width": 5}})) == (20, 20)


# Colours and filters


def test_background_goes_underneath() -> None:
    half_red = flat(8, 8, (255, 0, 0, 128))
    assert close(pixel(run(half_red, {"background": "#00f"}), 4, 4), (128, 0, 127), 2)
    veiled = pixel(run(flat(8, 8, CLEAR), {"background": "rgba(0,255,0,0.5)"}), 4, 4)
    assert close(veiled, (0, 255, 0, 128), 2)
    assert pixel(run(quarters(), {"background": "black"}), 5, 5) == RED


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"brightness": 2}, (100, 200, 255)),
        ({"brightness": 0.5}, (25, 50, 75)),
        ({"brightness": 0}, (50, 100, 150)),
        ({"contrast": 2}, (0, 72, 172)),
        ({"contrast": 0.5}, (89, 114, 139)),
        ({"contrast": 0}, (50, 100, 150)),
        ({"gamma": 2}, (113, 160, 196)),
        ({"gamma": 0.5}, (10, 39, 88)),
        ({"gamma": 0}, (50, 100, 150)),
        ({"saturation": 0}, (93, 93, 93)),
        ({"saturation": 2}, (7, 107, 207)),
        ({"saturation": 1}, (50, 100, 150)),
    ],
)
def test_tones(options: Mapping[str, object], expected: tuple[int, ...]) -> None:
    opaque = pixel(run(flat(4, 4, (50, 100, 150)), options), 2, 2)
    assert opaque == expected
    veiled = pixel(run(flat(4, 4, (50, 100, 150, 77)), options), 2, 2)
    assert veiled == (*expected, 77)


@pytest.mark.parametrize("radius", [1, 5, 60, 250])
def test_blur_spreads_an_edge_and_keeps_the_size(radius: int) -> None:
    edge = flat(100, 40, BLACK).join(flat(100, 40, WHITE), "horizontal")
    image = run(edge, {"blur": radius})
    assert size(image) == (200, 40)
    ramp = [pixel(image, x, 20)[0] for x in range(0, 200, 5)]
    assert ramp == sorted(ramp)
    left, right = pixel(image, 99, 20)[0], pixel(image, 100, 20)[0]
    assert 0 < left <= right < 255
    assert close((left + right,), (255,), 4)
    # Of a Gaussian, 16 % lie more than one standard deviation (half the radius) from the middle.
    if 1 < radius < 200:
        assert close(pixel(image, 100 + radius // 2, 20)[:1], (round(255 * 0.84),), 35)


def test_blur_does_not_pull_hidden_colours_in() -> None:
    half = flat(20, 40, (100, 100, 100, 255)).join(flat(20, 40, (255, 0, 0, 0)), "horizontal")
    seen = pixel(run(half, {"blur": 10}), 22, 20)
    assert 0 < seen[3] < 255
    assert close(seen[:3], (100, 100, 100), 2)


def test_blur_of_a_tiny_image() -> None:
    assert pixel(run(flat(1, 1, RED), {"blur": 250}), 0, 0) == RED


def test_sharpen_steepens_an_edge() -> None:
    edge = flat(20, 20, (100, 100, 100)).join(flat(20, 20, (150, 150, 150)), "horizontal")
    plain, sharp, sharper = (run(edge, {"sharpen": s}) for s in (0, 1, 5))
    assert pixel(plain, 19, 10)[0] == 100
    assert pixel(sharper, 19, 10)[0] < pixel(sharp, 19, 10)[0] < 100
    assert pixel(sharper, 20, 10)[0] > pixel(sharp, 20, 10)[0] > 150
    assert pixel(sharper, 5, 10)[0] == 100


# Drawing


@pytest.mark.parametrize(
    ("options", "corner"),
    [
        ({}, (15, 15)),
        ({"top": 0, "left": 0}, (0, 0)),
        ({"top": 3}, (15, 3)),
        ({"left": 4}, (4, 15)),
        ({"bottom": 0, "right": 0}, (30, 30)),
        ({"bottom": 5, "right": 7}, (23, 25)),
    ],
)
def test_draw_places_an_image(options: Mapping[str, object], corner: tuple[int, int]) -> None:
    image = draw(flat(40, 40, BLUE), flat(10, 10, RED), **options)
    red = image.extract_band(0)
    left, top, width, height = red.find_trim(background=[0], threshold=10, line_art=True)
    assert (left, top, width, height) == (*corner, 10, 10)
    assert (size(image), image.bands) == ((40, 40), 3)


def test_draw_cuts_off_what_lies_outside() -> None:
    image = draw(flat(20, 20, BLUE), flat(10, 10, RED), left=-5, top=15)
    assert (pixel(image, 4, 15), pixel(image, 5, 15), pixel(image, 4, 14)) == (RED, BLUE, BLUE)
    assert pixel(draw(flat(20, 20, BLUE), flat(10, 10, RED), left=500), 10, 10) == BLUE
    assert pixel(draw(flat(20, 20, BLUE), flat(90, 90, RED)), 0, 0) == RED


def test_draw_opacity() -> None:
    blue = flat(20, 20, BLUE)
    assert close(pixel(draw(blue, flat(20, 20, RED), opacity=0.5), 5, 5), (128, 0, 127), 2)
    assert pixel(draw(blue, flat(20, 20, RED), opacity=0), 5, 5) == BLUE
    assert close(pixel(draw(blue, flat(20, 20, (255, 0, 0, 128)), opacity=0.5), 5, 5), (64, 0, 191), 2)


@pytest.mark.parametrize(
    ("repeat", "columns", "rows"),
    [
        (False, {12}, {12}),
        (True, {2, 12, 22, 32}, {2, 12, 22, 32}),
        ("x", {2, 12, 22, 32}, {12}),
        ("y", {12}, {2, 12, 22, 32}),
    ],
)
def test_draw_repeats_tiles(repeat: object, columns: set[int], rows: set[int]) -> None:
    tile = flat(10, 10, CLEAR).draw_rect([*RED, 255], 0, 0, 1, 1, fill=True)
    image = draw(flat(40, 40, BLUE), tile, left=12, top=12, repeat=repeat)
    dots = {(x, y) for x in range(40) for y in range(40) if pixel(image, x, y) == RED}
    assert dots == {(x, y) for x in columns for y in rows}


@pytest.mark.parametrize(
    ("mode", "both", "canvas_only", "overlay_only"),
    [
        ("over", (*GREEN, 255), (*RED, 255), (*GREEN, 255)),
        ("in", (*GREEN, 255), CLEAR, CLEAR),
        ("atop", (*GREEN, 255), (*RED, 255), CLEAR),
        ("out", CLEAR, CLEAR, (*GREEN, 255)),
        ("xor", CLEAR, (*RED, 255), (*GREEN, 255)),
        ("lighter", (255, 255, 0, 255), (*RED, 255), (*GREEN, 255)),
    ],
)
def test_composite_modes_change_the_drawn_area_alone(
    mode: str, both: tuple[int, ...], canvas_only: tuple[int, ...], overlay_only: tuple[int, ...]
) -> None:
    # Canvas: red on the left, nothing on the right. Overlay, in its middle: green above, nothing below.
    canvas = flat(20, 40, (*RED, 255)).join(flat(20, 40, CLEAR), "horizontal")
    overlay = flat(20, 10, (*GREEN, 255)).join(flat(20, 10, CLEAR), "vertical")
    image = draw(canvas, overlay, composite=mode)
    seen = [pixel(image, 15, 15), pixel(image, 15, 25), pixel(image, 25, 15), pixel(image, 25, 25)]
    for got, expected in zip(seen, (both, canvas_only, overlay_only, CLEAR), strict=True):
        assert got == expected or (got[3] == expected[3] == 0)
    assert (pixel(image, 2, 2), pixel(image, 37, 37)) == ((*RED, 255), CLEAR)


def test_draws_nest_as_the_runtime_sends_them() -> None:
    """The transforms of workerd's own test of nested draws, with real images."""
    steps = [
        {"imageIndex": 0, "rotate": 90},
        {"imageIndex": 1, "rotate": 180},
        {"drawImageIndex": 1, "targetImageIndex": 0, "left": 0, "top": 0},
        {"drawImageIndex": 3, "targetImageIndex": 2, "left": 0},
        {"imageIndex": 2, "rotate": 270},
        {"drawImageIndex": 2, "targetImageIndex": 0, "right": 0, "top": 0},
        {"drawImageIndex": 4, "targetImageIndex": 0, "bottom": 0, "left": 0},
    ]
    images = [
        flat(40, 40, BLACK),
        flat(10, 10, RED),
        flat(10, 10, GREEN),
        flat(3, 10, WHITE),
        flat(10, 10, BLUE),
    ]
    image = decoded(render([png(each) for each in images], steps, Output("image/png")))
    assert [pixel(image, x, y) for x, y in ((5, 5), (35, 5), (35, 9), (5, 35))] == [RED, GREEN, WHITE, BLUE]


def test_a_drawn_animation_shows_its_first_frame() -> None:
    steps = [{"drawImageIndex": 1, "targetImageIndex": 0}]
    image = decoded(render([png(flat(20, 10, BLACK)), animation()], steps, Output("image/png")))
    assert pixel(image, 5, 5) == RED


# Text


def test_text_is_drawn_in_its_colour_on_nothing() -> None:
    large = decoded(render([Text("Hello & <b>", size=40, color="#ff0000")], [], Output("image/png")))
    small = decoded(render([Text("Hello & <b>", font="serif", size=10)], [], Output("image/png")))
    assert large.width > small.width > 10
    assert large.extract_band(3).max() == 255
    assert large.extract_band(3).min() == 0
    assert (large.extract_band(0).min(), large.extract_band(1).max()) == (255, 0)


def test_text_can_be_drawn_on_an_image() -> None:
    steps = [{"drawImageIndex": 1, "targetImageIndex": 0, "left": 0, "top": 0}]
    image = decoded(render([png(flat(60, 60, WHITE)), Text("XX", size=30, color="blue")], steps, Output("image/png")))
    assert image.extract_band(0).min() == 0
    assert image.extract_band(2).min() == 255


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (Text(""), "text.content"),
        (Text("x" * 1001), "text.content must be a visible text of at most 1000 characters"),
        (Text(5), "text.content"),  # type: ignore[arg-type]
        (Text("x", size="large"), "text.size"),  # type: ignore[arg-type]
        (Text("x", color=5), "text.color"),  # type: ignore[arg-type]
        (Text("x", font="Sans 99"), "text.font"),
        (Text("x", size=0), "text.size"),
        (Text("x", size=1e9), "text.size"),
        (Text("x", color="no"), "text.color"),
        (Text("x", font="https://example.com/a.ttf"), "text.font"),
        (Text("x" * 900, size=900), "maximum dimension"),
    ],
)
def test_bad_text_is_refused(text: Text, named: str) -> None:
    with pytest.raises(ImagingError, match=named):
        render([text], [], Output("image/png"))


# Animation


@pytest.mark.parametrize("save", ["gifsave_buffer", "webpsave_buffer"])
@pytest.mark.parametrize("mime", ["image/gif", "image/webp"])
def test_animations_stay_animated(save: str, mime: str) -> None:
    step = {"imageIndex": 0, "rotate": 90, "height": 10}
    image = decoded(render([animation(save)], [step], Output(mime, 100)), animated=True)
    assert (image.width, image.get("page-height"), image.get("n-pages")) == (5, 10, 3)
    assert (image.get("delay"), image.get("loop")) == ([100, 200, 300], 3)
    assert all(close(pixel(image, 2, 10 * n + 5)[:3], color) for n, color in enumerate((RED, GREEN, BLUE)))


@pytest.mark.parametrize(("mime", "anim"), [("image/webp", False), ("image/png", True), ("image/jpeg", True)])
def test_a_still_takes_the_first_frame(mime: str, anim: bool) -> None:
    result = render([animation()], [], Output(mime, 100, anim=anim))
    image = decoded(result)
    assert size(image) == (20, 10)
    assert not image.get_typeof("n-pages") or image.get("n-pages") == 1
    assert close(pixel(image, 5, 5)[:3], RED)


def test_an_animation_is_cropped_as_its_first_frame() -> None:
    grey = flat(60, 20, (128, 128, 128))
    frames = [grey.draw_rect(list(RED), left, 5, 10, 10, fill=True) for left in (5, 45)]
    strip = pyvips.Image.arrayjoin(frames, across=1)
    step = {"imageIndex": 0, "width": 20, "height": 20, "fit": "cover", "gravity": "auto"}
    moving = render([strip.gifsave_buffer(page_height=20)], [step], Output("image/webp", 100))
    image = decoded(moving, animated=True)
    assert image.crop(0, 0, 20, 20).extract_band(0).max() == 255
    assert image.crop(0, 20, 20, 20).extract_band(0).max() == 128


def test_every_frame_is_drawn_on() -> None:
    steps = [{"drawImageIndex": 1, "targetImageIndex": 0, "left": 0, "top": 0}]
    image = decoded(render([animation(), png(flat(4, 4, WHITE))], steps, Output("image/gif")), animated=True)
    assert [pixel(image, 1, 10 * n + 1)[:3] for n in range(3)] == [WHITE] * 3
    assert pixel(image, 10, 15)[:3] == GREEN


# Colours and metadata of the input


@pytest.mark.parametrize(
    "image",
    [
        flat(8, 8, RED).cast("ushort") * 257,
        flat(8, 8, RED),
    ],
)
def test_sixteen_bits_become_eight(image: pyvips.Image) -> None:
    wide = image.cast("ushort").copy(interpretation="rgb16") if image.format != "uchar" else image
    assert pixel(run(wide), 4, 4) == RED


def test_grey_becomes_rgb_and_keeps_its_opacity() -> None:
    grey = flat(8, 8, (100, 50)).copy(interpretation="b-w")
    assert render([png(grey)], [], Output("rgba")).data[:4] == bytes([100, 100, 100, 50])
    assert render([png(flat(8, 8, (100,)).copy(interpretation="b-w"))], [], Output("rgb")).data[:3] == b"ddd"


def test_cmyk_becomes_rgb() -> None:
    ink = flat(16, 16, (0, 255, 255, 0)).copy(interpretation="cmyk").jpegsave_buffer()
    red, green, blue = pixel(run(ink), 8, 8)
    assert red > 200
    assert max(green, blue) < 80


def test_a_colour_profile_is_applied() -> None:
    stored = flat(8, 8, (200, 60, 60))
    wide = stored.pngsave_buffer(profile="p3")
    shown = pyvips.Image.pngload_buffer(wide)
    image = run(wide)
    assert pixel(shown, 4, 4) != pixel(image, 4, 4)
    assert close(pixel(image, 4, 4), (217, 42, 53), 3)  # Display P3 is the wider: the same red, as sRGB
    assert not image.get_typeof("icc-profile-data")


def test_a_broken_colour_profile_is_passed_over() -> None:
    garbage = zlib.compress(b"not a profile" * 20)
    data = with_chunk(png(flat(8, 8, (200, 60, 60))), b"iCCP", b"x\x00\x00" + garbage)
    assert pixel(run(data), 4, 4) == (200, 60, 60)


def test_metadata_is_dropped_but_for_the_copyright_in_jpeg() -> None:
    image = flat(60, 60, RED).copy()
    for field, value in {
        "exif-ifd0-Copyright": "(c) A. Person",
        "exif-ifd0-Artist": "Somebody",
        "exif-ifd3-GPSLatitude": "10/1 0/1 0/1",
    }.items():
        image.set_type(pyvips.GValue.gstr_type, field, value)
    xmp: Any = b"<x:xmpmeta/>"  # for pyvips' stubs no metadata is bytes
    image.set_type(pyvips.GValue.blob_type, "xmp-data", xmp)
    source = image.jpegsave_buffer()
    assert b"Somebody" in source
    for mime in FORMATS:
        data = render([source], [{"imageIndex": 0, "width": 50}], Output(mime)).data
        assert b"Somebody" not in data
        assert b"xmpmeta" not in data
        assert (b"(c) A. Person" in data) is (mime == "image/jpeg")
        fields = decoded(Rendered(mime, data)).get_fields()
        assert not [field for field in fields if "GPS" in field]
        assert ("exif-data" in fields) is (mime == "image/jpeg")


# Refusals


def with_chunk(data: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with one chunk more behind its header."""
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data[:33] + chunk + data[33:]


def test_errors_read_as_the_runtime_expects() -> None:
    error = refused(b"<html>404</html>")
    assert (error.code, error.status) == (9412, 415)
    assert str(error).startswith("ERROR 9412: The input is not an image")


@pytest.mark.parametrize("data", [b"", b"GIF", b"hello", b"<html><svg></html>", b"\x00" * 100])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    assert refused(data).code == 9412
    with pytest.raises(ImagingError, match="ERROR 9412"):
        probe(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (flat(4, 4, RED).tiffsave_buffer(), "TIFF"),
        (b"BM" + b"\x46\x00\x00\x00" + b"\x00" * 40, "BMP"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\x00\x01", "PSD"),
    ],
)
def test_images_of_other_kinds_are_refused_by_name(data: bytes, kind: str) -> None:
    error = refused(data)
    assert (error.code, error.status) == (9520, 415)
    assert f"Unsupported image type {kind}, expected one of: JPEG" in str(error)
    with pytest.raises(ImagingError, match="ERROR 9520"):
        probe(data)


def test_svg_is_not_turned_into_pixels() -> None:
    assert "SVG" in str(refused(SVG))
    assert refused(SVG).code == 9412


def test_loaders_for_untrusted_formats_are_shut() -> None:
    with pytest.raises(pyvips.Error, match="blocked"):
        pyvips.Image.svgload_buffer(SVG)


def test_the_library_keeps_no_image_after_the_answer() -> None:
    assert pyvips.cache_get_max() == 0


def test_a_source_must_be_bytes_or_a_text() -> None:
    with pytest.raises(ImagingError, match=r"ERROR 9523: images\[1\] must be the bytes .* not int"):
        render([PHOTO, 5], [], Output("image/png"))  # type: ignore[list-item]


@pytest.mark.parametrize("mime", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_images_cut_short_are_refused(mime: str, share: float) -> None:
    data = render([PHOTO], [{"imageIndex": 0, "width": 200}], Output(mime)).data
    error = refused(data[: int(len(data) * share)])
    assert (error.code, error.status) == (9516, 422)
    assert "corrupt or cut short" in str(error)


def test_corrupt_images_are_refused() -> None:
    data = bytearray(png(run(PHOTO)))
    data[len(data) // 2 : len(data) // 2 + 50] = b"\xff" * 50
    assert refused(bytes(data)).code == 9516
    with pytest.raises(ImagingError, match="ERROR 9516"):
        probe(b"\x89PNG\r\n\x1a\n" + b"\x00" * 30)


@pytest.mark.parametrize("side", [(12_001, 1), (1, 12_001), (12_000, 12_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_before_they_are_decoded(side: tuple[int, int]) -> None:
    error = refused(bomb(*side))
    # What libpng itself takes for impossible is a broken header.
    assert error.code in ((9413,) if max(side) < 2**20 else (9413, 9516))


MEASURE = """
import resource, sys
from proxy_server.imaging import Output, probe, render
render([open(sys.argv[1], "rb").read()], [], Output("image/png"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = open(sys.argv[2], "rb").read()
probe(data)
render([data], [], Output("image/png"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"IDAT"])
def test_what_unpacks_to_much_more_is_not_unpacked(kind: bytes, tmp_path: Path) -> None:
    """A colour profile, a text and pixels, each of 256 megabytes, in files of a quarter of one."""
    (tmp_path / "small").write_bytes(png(flat(10, 10, RED)))
    (tmp_path / "packed").write_bytes(packed(kind, 256))
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "small", tmp_path / "packed"], stdout=subprocess.PIPE, check=True
    )
    assert int(measured.stdout) < 64, "megabytes"


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    """Each would be a pass over all pixels."""
    assert refused(scanned(3_000)).code == 9516


def test_a_picture_of_a_client_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert refused(packed(b"IDAT", 1)[:-500]).code == 9516
    assert not caplog.records


def test_what_may_be_kept() -> None:
    """Any image that is read, animations and those of EXIF that lie on their side included, and an SVG."""
    for data in (PHOTO, SVG, png(flat(1, 1, RED)), animation(colors=(RED, GREEN)), bomb(12_000, 8_000)):
        check(data)
    frames = animation(colors=(RED, GREEN) * (MAX_FRAMES // 2) + (BLUE,))
    for bad, code in (
        (b"no image", 9412),
        (b"BM" + bytes(30), 9520),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), 9516),
        (bomb(12_001, 1), 9413),
        (bomb(12_000, 12_000), 9413),
        (frames, 9413),
    ):
        with pytest.raises(ImagingError, match=f"ERROR {code}: "):
            check(bad)


def test_many_images_count_together() -> None:
    large = bomb(8_000, 8_000)
    error = refused(large, {"drawImageIndex": 1, "targetImageIndex": 0}, sources=2)
    assert error.code == 9413
    assert "128000000 pixels" in str(error)


def test_animations_count_all_their_frames() -> None:
    many = animation(colors=(RED, GREEN) * (MAX_FRAMES // 2) + (BLUE,))
    assert "1001 frames" in str(refused(many, output=Output("image/gif")))
    assert render([many], [], Output("image/png")).data


def test_an_image_of_too_many_bytes_is_refused() -> None:
    data = PHOTO + b"\x00" * MAX_IMAGE_BYTES
    error = refused(data)
    assert (error.code, error.status) == (9402, 413)
    with pytest.raises(ImagingError, match="20000000 are allowed"):
        probe(data)


@pytest.mark.parametrize(
    "options",
    [
        {"width": 12_000, "height": 12_000, "fit": "squeeze"},
        {"width": 1, "height": 12_000, "fit": "cover", "trim": {"height": 20}},
        {"border": {"width": 6_000}},
        {"width": 11_000, "height": 11_000, "fit": "pad"},
    ],
)
def test_results_that_are_too_large_are_refused(options: Mapping[str, object]) -> None:
    error = refused(png(flat(100, 200, RED)), {"imageIndex": 0, **options})
    assert (error.code, error.status) == (9413, 403)


def test_avif_that_would_take_too_long_is_refused() -> None:
    side = 5_001
    assert side * side > MAX_AVIF_PIXELS
    step = {"imageIndex": 0, "width": side, "height": side, "fit": "squeeze"}
    assert "too many for AVIF" in str(refused(png(flat(1, 1, RED)), step, output=Output("image/avif")))


def test_trimming_everything_away_is_refused() -> None:
    error = refused(png(quarters()), {"imageIndex": 0, "trim": {"left": 20, "right": 20}})
    assert error.code == 9413
    assert "size 0" in str(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 5}, "transforms[0] has the unknown option 'widht'; valid are imageIndex, width"),
        ({"width": "wide"}, "transforms[0].width must be a whole number from 1 to 12000, not 'wide'"),
        ({"width": True}, "transforms[0].width must be"),
        ({"width": 0}, "transforms[0].width must be"),
        ({"width": 2.5}, "transforms[0].width must be"),
        ({"width": float("nan")}, "transforms[0].width must be"),
        ({"width": 10**400}, "transforms[0].width must be"),
        ({"height": 12_001}, "transforms[0].height must be"),
        ({"fit": "stretch"}, "transforms[0].fit must be one of scale-down, contain"),
        ({"fit": []}, "transforms[0].fit must be"),
        ({"gravity": "north"}, "transforms[0].gravity must be one of face, left"),
        ({"gravity": {"x": 2}}, "transforms[0].gravity.x must be a number from 0 to 1"),
        ({"gravity": {"z": 2}}, "transforms[0].gravity has the unknown option 'z'"),
        ({"gravity": {"mode": "middle"}}, "transforms[0].gravity.mode must be one of remainder, box-center"),
        ({"zoom": 2}, "transforms[0].zoom must be"),
        ({"rotate": 45}, "transforms[0].rotate must be 0, 90, 180 or 270, not 45"),
        ({"flip": "x"}, "transforms[0].flip must be one of h, v, hv"),
        ({"background": "reddish"}, "transforms[0].background must be a CSS colour"),
        ({"background": 7}, "transforms[0].background must be a CSS colour"),
        ({"blur": 251}, "transforms[0].blur must be a number from 0 to 250"),
        ({"sharpen": -1}, "transforms[0].sharpen must be a number from 0 to 10"),
        ({"brightness": -1}, "transforms[0].brightness must be"),
        ({"trim": 5}, 'transforms[0].trim must be an object or "border"'),
        ({"trim": {"up": 5}}, "transforms[0].trim has the unknown option 'up'"),
        ({"trim": {"border": "yes"}}, "transforms[0].trim.border must be true or false"),
        ({"trim": {"border": {"color": "#12"}}}, "transforms[0].trim.border.color must be a CSS colour"),
        ({"border": 5}, "transforms[0].border must be an object"),
        ({"border": {"width": -5}}, "transforms[0].border.width must be"),
        ({"segment": "foreground"}, "transforms[0].segment is not supported by this server"),
        ({"segment": "sky"}, "transforms[0].segment must be one of foreground"),
        ({"imageIndex": 1}, "transforms[0].imageIndex must be a whole number from 0 to 0"),
    ],
)
def test_bad_options_are_refused_by_name(options: Mapping[str, object], message: str) -> None:
    error = refused(PHOTO, {"imageIndex": 0, **options})
    assert (error.code, error.status) == (9401, 400)
    assert message in str(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opacity": 2}, "transforms[0].opacity must be a number from 0 to 1"),
        ({"repeat": "z"}, 'transforms[0].repeat must be true, false, "x" or "y"'),
        ({"repeat": "both"}, "transforms[0].repeat must be"),
        ({"composite": "multiply"}, "transforms[0].composite must be one of over, in"),
        ({"left": 1, "right": 1}, "transforms[0] sets both left and right"),
        ({"top": 1, "bottom": 0}, "transforms[0] sets both top and bottom"),
        ({"top": "1"}, "transforms[0].top must be"),
        ({"width": 5}, "transforms[0] has the unknown option 'width'; valid are drawImageIndex"),
        ({"drawImageIndex": 2}, "transforms[0].drawImageIndex must be a whole number from 0 to 1"),
    ],
)
def test_bad_draw_options_are_refused_by_name(options: Mapping[str, object], message: str) -> None:
    error = refused(PHOTO, {"drawImageIndex": 1, "targetImageIndex": 0, **options}, sources=2)
    assert error.code == 9401
    assert message in str(error)


@pytest.mark.parametrize("step", ["rotate", None, 5, ["rotate"]])
def test_an_operation_must_be_an_object(step: object) -> None:
    with pytest.raises(ImagingError, match=r"ERROR 9523: transforms\[0\] must be an object"):
        render([PHOTO], [step], Output("image/png"))


def test_an_operation_must_name_its_image() -> None:
    assert "lacks imageIndex" in str(refused(PHOTO, {"rotate": 90}))
    assert "lacks targetImageIndex" in str(refused(PHOTO, {"drawImageIndex": 0}))


def test_an_image_can_be_drawn_once() -> None:
    once = {"drawImageIndex": 1, "targetImageIndex": 0}
    for again in (once, {"imageIndex": 1, "rotate": 90}):
        error = refused(PHOTO, once, again, sources=2)
        assert (error.code, error.status) == (9525, 400)
        assert "transforms[1]" in str(error)


def test_an_image_cannot_be_drawn_on_itself() -> None:
    assert refused(PHOTO, {"drawImageIndex": 1, "targetImageIndex": 1}, sources=2).code == 9523
    assert refused(PHOTO, {"drawImageIndex": 0, "targetImageIndex": 1}, sources=2).code == 9523


def test_too_many_operations_or_images_are_refused() -> None:
    steps = [{"imageIndex": 0}] * (MAX_OPERATIONS + 1)
    assert "at most 64" in str(refused(PHOTO, *steps))
    assert "1 to 32" in str(refused(PHOTO, sources=MAX_SOURCES + 1))
    with pytest.raises(ImagingError, match="There are 0 images"):
        render([], [], Output("image/png"))


@pytest.mark.parametrize(
    ("output", "named"),
    [
        (Output("image/bmp"), "output.format must be one of image/jpeg"),
        (Output("image/jpeg", 0), "output.quality must be a whole number from 1 to 100"),
        (Output("image/jpeg", 101), "output.quality"),
        (Output("image/jpeg", "best"), "output.quality must be 1 to 100, or one of low, medium-low"),
        (Output("image/jpeg", True), "output.quality"),
        (Output("image/jpeg", 2.5), "output.quality"),  # type: ignore[arg-type]
        (Output("image/jpeg", "1" * 5000), "output.quality"),
        (Output("image/jpeg", background="none"), "output.background must be a CSS colour"),
        (Output("image/jpeg", background=7), "output.background must be a CSS colour"),  # type: ignore[arg-type]
        (Output("image/gif", anim="yes"), "output.anim must be true or false"),  # type: ignore[arg-type]
    ],
)
def test_bad_output_options_are_refused_by_name(output: Output, named: str) -> None:
    error = refused(PHOTO, output=output)
    assert error.code == 9401
    assert named in str(error)


# CSS colours


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red", Color(255, 0, 0)),
        (" RebeccaPurple ", Color(0x66, 0x33, 0x99)),
        ("transparent", Color(0, 0, 0, 0)),
        ("#f80", Color(255, 136, 0)),
        ("#F808", Color(255, 136, 0, 136)),
        ("#ff8800", Color(255, 136, 0)),
        ("#ff880040", Color(255, 136, 0, 64)),
        ("rgb(240,40,145)", Color(240, 40, 145)),
        ("rgb(255 255 0)", Color(255, 255, 0)),
        ("rgba(255 255 0 100)", Color(255, 255, 0)),
        ("rgba(240, 40, 145, 0)", Color(240, 40, 145, 0)),
        ("rgb(100% 0% 20% / 50%)", Color(255, 0, 51, 128)),
        ("rgb(999, -5, 0)", Color(255, 0, 0)),
        ("hsl(120, 100%, 50%)", Color(0, 255, 0)),
        ("hsl(240deg 100% 50% / .5)", Color(0, 0, 255, 128)),
        ("hsla(0.5turn, 100%, 25%, 1)", Color(0, 128, 128)),
        ("hsl(-120 100 50)", Color(0, 0, 255)),
    ],
)
def test_css_colours(text: str, expected: Color) -> None:
    assert parse_color(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "reddish",
            "#12",
            "#12345",
            "#ggg",
            "rgb(1,2)",
            "rgb(1,2,3,4,5)",
            "rgb(a,b,c)",
            "hsl(50%,1%,1%)",
        ),
        *("rgb(1deg,2,3)", "rgb(1,2,3", "url(x)", "rgb(" + "1" * 5000 + ")", "hsl(1e999 1% 1%)"),
    ],
)
def test_what_is_no_css_colour(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_color(text)


# The main job


def test_the_photograph_becomes_a_thumbnail_with_an_overlay() -> None:
    badge = png(flat(100, 100, (255, 215, 0, 255)))
    steps = [
        {"imageIndex": 0, "width": 256},
        {"imageIndex": 1, "width": 32},
        {"drawImageIndex": 1, "targetImageIndex": 0, "bottom": 8, "right": 8, "opacity": 0.9},
    ]
    for mime in ("image/webp", "image/avif"):
        result = render([PHOTO, badge], steps, Output(mime))
        image = decoded(result)
        assert size(image) == (256, 300)
        red, green, blue = pixel(image, 232, 276)[:3]
        assert red > 200 > blue
        assert green > 150
        assert len(result.data) < len(PHOTO) / 2
