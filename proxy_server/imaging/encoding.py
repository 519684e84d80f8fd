"""Pictures to bytes: the output formats.

Formats without animation take the first frame, and formats without transparency (JPEG, rgb) a white ground
where no background was asked for. No metadata is written, but for the copyright tag in JPEG, which is
Cloudflare's default.
"""

from __future__ import annotations

import attrs
import pyvips

from .colors import WHITE, Color
from .errors import BROKEN_IMAGE, TOO_MANY_PIXELS, ImagingError
from .fields import Fields
from .geometry import Size
from .picture import RGB, RGBA, Picture, underlay, with_alpha
from .sources import COPYRIGHT_FIELD
from .stopping import Stop

DEFAULT_QUALITY = 85

# Cloudflare's names for perceptual qualities, with Miniflare's numbers.
_NAMED_QUALITY = {"low": 35, "medium-low": 50, "medium-high": 70, "high": 90}

# An AVIF of this size takes about 5 seconds of one core; Cloudflare too makes none of a large image.
MAX_AVIF_PIXELS = 25_000_000

# Speed against size. From here on both encoders take several times as long for a few per cent.
_AVIF_EFFORT = 2
_GIF_EFFORT = 3

# Which metadata libvips writes. Left to itself it makes up EXIF where there was none.
_KEEP_NOTHING, _KEEP_EXIF = pyvips.ForeignKeep.NONE, pyvips.ForeignKeep.EXIF

# Cloudflare writes progressive JPEG between these sizes, and baseline outside of them.
_SMALLEST_PROGRESSIVE = 50
_LARGEST_PROGRESSIVE = 3000

_FORMATS = ("image/jpeg", "image/png", "image/webp", "image/avif", "image/gif", "rgb", "rgba")
_ANIMATED_FORMATS = frozenset({"image/webp", "image/gif"})


@attrs.frozen
class Output:
    """What to make of the picture: the options of `.output()`.

    `format` is "image/jpeg", "image/png", "image/webp", "image/avif" or "image/gif", or "rgb" or "rgba" for
    the bare pixels, row by row. `quality` is 1 to 100, or "low", "medium-low", "medium-high" or "high" (None:
    85; for PNG a quality means a palette of at most 256 colours, and for WebP 100 means lossless).
    `background` is a CSS colour to put underneath. `anim=False` keeps the first frame of an animation only.
    """

    format: str
    quality: int | str | None = None
    background: str | None = None
    anim: bool = True


@attrs.frozen
class Rendered:
    """A finished image: its MIME type ("application/octet-stream" for bare pixels) and its bytes."""

    content_type: str
    data: bytes


@attrs.frozen
class Encoding:
    """An Output found valid. `animates`: an animation stays one."""

    format: str
    quality: int | None
    background: Color | None
    animates: bool


def parse_output(output: Output) -> Encoding:
    """Check the options, before any work is done. ImagingError 9401 names the one that is not valid."""
    fields = Fields("output", attrs.asdict(output))
    if output.format not in _FORMATS:
        raise fields.wrong("format", f"one of {', '.join(_FORMATS)}")
    animates = fields.flag("anim") is not False and output.format in _ANIMATED_FORMATS
    return Encoding(output.format, _quality(fields), fields.color("background"), animates)


def _quality(fields: Fields) -> int | None:
    value = fields.values["quality"]
    if not isinstance(value, str):
        return fields.integer("quality", 1, 100)
    # A form field, in which the runtime sends it, holds digits.
    quality = int(value) if value.isdecimal() and len(value) <= 3 else _NAMED_QUALITY.get(value, 0)
    if not 1 <= quality <= 100:
        raise fields.wrong("quality", f"1 to 100, or one of {', '.join(_NAMED_QUALITY)}")
    return quality


def encode(picture: Picture, encoding: Encoding, stop: Stop) -> Rendered:
    """The picture as a file. ImagingError: 9413 too large for the format, 9516 the encoder failed."""
    if (ground := encoding.background) is not None:
        picture = picture.map(lambda frame: underlay(frame, ground))
    try:
        return _encode(picture, encoding, stop)
    except pyvips.Error as error:
        raise ImagingError(BROKEN_IMAGE, f"The result can't be encoded as {encoding.format}", status=500) from error


def _encode(picture: Picture, encoding: Encoding, stop: Stop) -> Rendered:
    still = picture.frames[0]
    match encoding.format:
        case "image/jpeg":
            data = _jpeg(stop.watched(underlay(still, WHITE)), encoding, picture.copyright)
        case "image/png":
            data = _png(stop.watched(still), encoding)
        case "image/avif":
            data = _avif(stop.watched(still), encoding)
        case "image/webp":
            data = _webp(stop.watched(_strip(picture)), picture.size, encoding)
        case "image/gif":
            data = stop.watched(_strip(picture)).gifsave_buffer(
                keep=_KEEP_NOTHING, page_height=picture.size.height, effort=_GIF_EFFORT
            )
        case "rgb":
            return Rendered("application/octet-stream", _raw(stop.watched(underlay(still, WHITE)), RGB))
        case _:
            return Rendered("application/octet-stream", _raw(stop.watched(with_alpha(still)), RGBA))
    return Rendered(encoding.format, data)


def _jpeg(image: pyvips.Image, encoding: Encoding, copyright_notice: str | None) -> bytes:
    longest, shortest = max(image.width, image.height), min(image.width, image.height)
    if copyright_notice is not None:
        image = image.copy()
        image.set_type(pyvips.GValue.gstr_type, COPYRIGHT_FIELD, copyright_notice)
    data: bytes = image.jpegsave_buffer(
        Q=encoding.quality or DEFAULT_QUALITY,
        keep=_KEEP_NOTHING if copyright_notice is None else _KEEP_EXIF,
        optimize_coding=True,
        interlace=shortest >= _SMALLEST_PROGRESSIVE and longest <= _LARGEST_PROGRESSIVE,
    )
    return data


def _png(image: pyvips.Image, encoding: Encoding) -> bytes:
    # Without a palette libvips leaves Q out of account.
    quality = encoding.quality or DEFAULT_QUALITY
    data: bytes = image.pngsave_buffer(keep=_KEEP_NOTHING, palette=encoding.quality is not None, Q=quality)
    return data


def _avif(image: pyvips.Image, encoding: Encoding) -> bytes:
    if image.width * image.height > MAX_AVIF_PIXELS:
        raise ImagingError(
            TOO_MANY_PIXELS,
            f"The result has {image.width}x{image.height} pixels, too many for AVIF "
            f"(at most {MAX_AVIF_PIXELS}); make it smaller, or ask for image/webp or image/jpeg",
        )
    quality = encoding.quality or DEFAULT_QUALITY
    data: bytes = image.heifsave_buffer(keep=_KEEP_NOTHING, compression="av1", Q=quality, effort=_AVIF_EFFORT)
    return data


def _webp(strip: pyvips.Image, page: Size, encoding: Encoding) -> bytes:
    quality = encoding.quality or DEFAULT_QUALITY
    data: bytes = strip.webpsave_buffer(keep=_KEEP_NOTHING, page_height=page.height, Q=quality, lossless=quality == 100)
    return data


def _strip(picture: Picture) -> pyvips.Image:
    """The frames below each other with their timing, which is how libvips takes an animation."""
    if not picture.animated:
        return picture.frames[0]
    strip = pyvips.Image.arrayjoin(list(picture.frames), across=1).copy()
    strip.set_type(pyvips.GValue.array_int_type, "delay", list(picture.delays))
    strip.set_type(pyvips.GValue.gint_type, "loop", picture.loop)
    return strip


def _raw(image: pyvips.Image, bands: int) -> bytes:
    return bytes(image.extract_band(0, n=bands).write_to_memory())
