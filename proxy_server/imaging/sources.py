"""Bytes to pictures: which kind of image it is, whether it may be read, and its pixels.

Input is hostile until it is decoded. What it is, is told from its first bytes, and only the one loader for
that kind is called (libvips' loaders for other formats, its text formats and SVG are never reached). Its
header is read first, and all caps are checked on that, before a pixel is decoded. An SVG is recognised and
never parsed, so nothing that it refers to is ever fetched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pyvips

from .errors import BROKEN_IMAGE, NOT_AN_IMAGE, TOO_MANY_BYTES, UNSUPPORTED_TYPE, ImagingError
from .geometry import Box, Size
from .picture import RGBA, Picture, as_pixels, check_pixels, check_size, crop
from .stopping import Stop

# Cloudflare's limit for what `.input()` takes.
MAX_IMAGE_BYTES = 20_000_000

# A browser shows a frame that names no delay for this long.
_DEFAULT_DELAY = 100

# How far into a file its <svg> element is looked for, past comments and an XML declaration. All other kinds are told
# from less.
HEAD_BYTES = 4096

# Loaders that libvips marks as unfit for input from outside stay shut in the whole process.
pyvips.block_untrusted_set(True)

# What libvips warns of is somebody's file, and its owner is told: a log that anybody can fill is none.
logging.getLogger("pyvips").setLevel(logging.ERROR)

# libvips keeps the last operations with the images that they read: one caller's pictures, held in memory
# after the answer.
pyvips.cache_set_max(0)


@attrs.frozen
class Probed:
    """What `.info()` tells. For an SVG `format` alone is known.

    `format` is a MIME type, `file_size` in bytes; `width` and `height` in pixels as the image is shown, its
    EXIF orientation applied.
    """

    format: str
    file_size: int | None = None
    width: int | None = None
    height: int | None = None


# Of a loader of libvips.
_Options = Mapping[str, Any]


@attrs.frozen
class _Kind:
    """A kind of image that is read: how to load it, whether it can be animated, and what has it decoded smaller."""

    name: str
    mime: str
    load: Callable[..., pyvips.Image]
    animates: bool = False
    smaller: Callable[[int], _Options] | None = None


def _shrunk(factor: int) -> _Options:
    return {"shrink": factor}


def _scaled(factor: int) -> _Options:
    return {"scale": 1 / factor}


_JPEG = _Kind("JPEG", "image/jpeg", pyvips.Image.jpegload_buffer, smaller=_shrunk)
_PNG = _Kind("PNG", "image/png", pyvips.Image.pngload_buffer)
_WEBP = _Kind("WebP", "image/webp", pyvips.Image.webpload_buffer, animates=True, smaller=_scaled)
_GIF = _Kind("GIF", "image/gif", pyvips.Image.gifload_buffer, animates=True)
_AVIF = _Kind("AVIF", "image/avif", pyvips.Image.heifload_buffer)

_SVG_MIME = "image/svg+xml"

_SIGNATURES = (
    (re.compile(rb"\xff\xd8\xff"), _JPEG),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _PNG),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _WEBP),
    (re.compile(rb"GIF8[79]a"), _GIF),
    # The brand, or one of the compatible brands in the same box (ISO/IEC 14496-12, 4.3).
    (re.compile(rb"....ftyp(?:....){0,14}avi[fs]", re.DOTALL), _AVIF),
)

# Images all the same, so that the error can say which kind is not read.
_OTHER_SIGNATURES = (
    (re.compile(rb"II\*\x00|MM\x00\*"), "TIFF"),
    (re.compile(rb"BM.{4}\x00{4}", re.DOTALL), "BMP"),
    (re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"\x00\x00\x01\x00"), "ICO"),
    (re.compile(rb"8BPS"), "PSD"),
    (re.compile(rb"\x00\x00\x00\x0cJXL |\xff\x0a"), "JPEG XL"),
    (re.compile(rb"\x00\x00\x00\x0cjP  "), "JPEG 2000"),
    (re.compile(rb"%PDF-"), "PDF"),
)

# Possessive: a text that is nearly an SVG is not tried in other ways.
_SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:<\?[^>]*+>\s*+|<!--(?>.*?-->)\s*+|<!DOCTYPE\s(?>[^<]*>)\s*+)*+<svg[\s>/]", re.DOTALL
)

COPYRIGHT_FIELD = "exif-ifd0-Copyright"

# libvips shows an EXIF text as "text (text, ASCII, 5 components, 5 bytes)".
_EXIF_TEXT = re.compile(r"(?P<text>.*) \((?P=text), ASCII, \d+ components, \d+ bytes\)", re.DOTALL)

_ACCEPTED = "JPEG, PNG, WebP, GIF or AVIF"


@attrs.frozen
class Encoded:
    """An image file whose header was read and found acceptable, and no pixel yet.

    `size` is that of each frame as it is stored, `shown` with the EXIF orientation applied.
    """

    kind: _Kind
    data: bytes
    size: Size
    shown: Size
    frames: int

    @property
    def pixels(self) -> int:
        """In all frames together."""
        return self.size.width * self.size.height * self.frames


def probe(data: bytes) -> Probed:
    """What kind of image `data` is, and its size, from its header alone.

    Raises ImagingError: 9402 too many bytes, 9412 not an image, 9516 a broken header, 9520 a kind of image
    that is not read.
    """
    kind = _recognise(data)
    if kind is None:
        return Probed(_SVG_MIME)
    size = _shown_size(_open(kind, data))
    return Probed(kind.mime, len(data), size.width, size.height)


def media_type(head: bytes) -> str:
    """The MIME type of an image, from its first HEAD_BYTES, or all of it where it is shorter.

    Raises ImagingError: 9412 not an image, 9520 a kind of image that is not read.
    """
    kind = _recognise(head)
    return _SVG_MIME if kind is None else kind.mime


def check(data: bytes) -> None:
    """Find out from its header alone whether `data` is an image that may be kept: any that is read, or an SVG.

    Raises ImagingError as `probe` does, and 9413 for an image that is too large, all its frames together.
    """
    if probe(data).width is not None:
        check_pixels(read_header(data, animated=True).pixels)


def read_header(data: bytes, *, animated: bool) -> Encoded:
    """An image file, found fit to be decoded; of an animation all frames where `animated`, or the first.

    Raises ImagingError as `probe` does, and 9412 for an SVG, 9413 for an image that is too large.
    """
    kind = _recognise(data)
    if kind is None:
        raise ImagingError(NOT_AN_IMAGE, "Conversion between SVG and raster formats is not supported")
    header = _open(kind, data)
    frames = _int_field(header, "n-pages", 1) if animated and kind.animates else 1
    size = Size(header.width, header.height)
    check_size(size, frames)
    return Encoded(kind, data, size, _shown_size(header), frames)


def decode(encoded: Encoded, stop: Stop, factor: float = 1.0) -> Picture:
    """The pixels of an image, upright and in sRGB.

    Args:
        encoded: the image.
        stop: what may stop the work.
        factor: how many times smaller the image is about to be made. Formats that can are decoded smaller then, though
            at twice that size at least, as libvips' own thumbnails are: finer detail is averaged all the same.
            (Measured with a JPEG of 2,000 by 2,000 that becomes 256 wide: 38 ms without, 17 with it.)

    Raises:
        ImagingError: 9516: it is corrupt or cut short.
    """
    kind = encoded.kind
    try:
        return _decode(encoded, stop, _smaller(encoded, factor)).rendered(stop)
    except pyvips.Error as error:
        raise ImagingError(
            BROKEN_IMAGE, f"The {kind.name} image is corrupt or cut short: it can't be decoded"
        ) from error


def _recognise(data: bytes) -> _Kind | None:
    """The kind of an image; None for an SVG."""
    if len(data) > MAX_IMAGE_BYTES:
        raise ImagingError(TOO_MANY_BYTES, f"The image has {len(data)} bytes; at most {MAX_IMAGE_BYTES} are allowed")
    for signature, kind in _SIGNATURES:
        if signature.match(data):
            return kind
    if _SVG.match(data, 0, HEAD_BYTES):
        return None
    for signature, name in _OTHER_SIGNATURES:
        if signature.match(data):
            raise ImagingError(UNSUPPORTED_TYPE, f"Unsupported image type {name}, expected one of: {_ACCEPTED}")
    raise ImagingError(NOT_AN_IMAGE, f"The input is not an image, expected one of: {_ACCEPTED}")


def _open(kind: _Kind, data: bytes, **options: Any) -> pyvips.Image:
    """The image with its header read; libvips decodes the pixels when they are first asked for."""
    try:
        # "error" refuses files that are cut short or corrupt, and lets those with mere oddities (warnings)
        # pass.
        return kind.load(data, fail_on="error", **options)
    except pyvips.Error as error:
        raise ImagingError(BROKEN_IMAGE, f"The {kind.name} image is corrupt or cut short: no header") from error


def _smaller(encoded: Encoded, factor: float) -> _Options:
    """The options to decode an image smaller with; none where it is worth nothing, or cannot be done."""
    shrink = next((shrink for shrink in (8, 4, 2) if factor >= 2 * shrink), 1)
    smaller = encoded.kind.smaller
    return {} if smaller is None or shrink == 1 or encoded.frames > 1 else smaller(shrink)


def _decode(encoded: Encoded, stop: Stop, smaller: _Options) -> Picture:
    animated = encoded.frames > 1
    image = _open(encoded.kind, encoded.data, **({"n": -1} if animated else smaller))
    pixels = _to_srgb(image)
    if not animated:
        full = encoded.shown if smaller else None
        return Picture((_bare(pixels.autorot()),), copyright=_copyright(image), full=full)
    # libvips gives the frames of an animation below each other in one tall image. It is decoded once, for all
    # of them.
    strip = stop.watched(pixels).copy_memory()
    frames = (crop(strip, Box(0, i * encoded.size.height, *attrs.astuple(encoded.size))) for i in range(encoded.frames))
    return Picture(
        tuple(_bare(frame.autorot()) for frame in frames),
        delays=_delays(image, encoded.frames),
        loop=_int_field(image, "loop", 0),
    )


def _to_srgb(image: pyvips.Image) -> pyvips.Image:
    """The image with three or four bands of 8 bits in sRGB, its own colour profile applied."""
    if image.get_typeof("icc-profile-data"):
        try:
            image = image.icc_transform("srgb", embedded=True, depth=8)
        except pyvips.Error:
            # A profile that can't be read says nothing about the colours. Browsers show such an image as if
            # it had none.
            image = image.colourspace("srgb")
    else:
        image = image.colourspace("srgb")
    pixels = as_pixels(image)
    return pixels if pixels.bands <= RGBA else pixels.extract_band(0, n=RGBA)


def _bare(image: pyvips.Image) -> pyvips.Image:
    """The image without any metadata."""
    private = image.copy()
    for field in private.get_fields():
        private.remove(field)
    return private


def _shown_size(header: pyvips.Image) -> Size:
    """The size with the EXIF orientation applied: 5 to 8 lie on their side."""
    if _int_field(header, "orientation", 1) >= 5:
        return Size(header.height, header.width)
    return Size(header.width, header.height)


def _int_field(image: pyvips.Image, name: str, default: int) -> int:
    value = image.get(name) if image.get_typeof(name) else default
    return value if isinstance(value, int) else default


def _delays(image: pyvips.Image, frames: int) -> tuple[int, ...]:
    value = image.get("delay") if image.get_typeof("delay") else []
    known = [int(delay) for delay in value if isinstance(delay, int)] if isinstance(value, list) else []
    return tuple((known + [_DEFAULT_DELAY] * frames)[:frames])


def _copyright(image: pyvips.Image) -> str | None:
    """The EXIF copyright tag, which Cloudflare keeps in JPEG output by default."""
    value = image.get(COPYRIGHT_FIELD) if image.get_typeof(COPYRIGHT_FIELD) else None
    match = _EXIF_TEXT.fullmatch(value) if isinstance(value, str) else None
    return match["text"].strip() if match else None
