"""Pictures for tests, and what is in them once they come back: made and decoded with libvips, not with our engine."""

from __future__ import annotations

import struct
import zlib

import pyvips

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def flat(color: tuple[int, ...], width: int = 20, height: int = 20) -> bytes:
    """A PNG of one colour."""
    pixels = pyvips.Image.black(width, height, bands=len(color)) + list(color)
    data: bytes = pixels.cast("uchar").copy(interpretation="srgb").pngsave_buffer()
    return data


def picture_format(data: bytes) -> str:
    """What a file is: "png", "jpeg", "webp", "gif" or "heif" (AVIF is of that family)."""
    loader: str = pyvips.Image.new_from_buffer(data, "").get("vips-loader")
    return loader.removesuffix("_buffer").removesuffix("load")


def size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    picture = pyvips.Image.new_from_buffer(data, "")
    return picture.width, picture.height


def pixel(data: bytes, x: int, y: int) -> tuple[int, ...]:
    """Red, green and blue of one pixel. A format that loses detail comes within `is_like` of them."""
    picture = pyvips.Image.new_from_buffer(data, "")
    return tuple(int(value) for value in picture(x, y))[:3]


def is_like(color: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether two colours are the same but for what compression does to them."""
    return max(abs(one - other) for one, other in zip(color, expected, strict=True)) < 40


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is that large, with hardly any data behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + flat(RED, 1, 1)[33:]


def packed(kind: bytes, megabytes: int) -> bytes:
    """A small PNG with a chunk that unpacks to so many megabytes: a profile (iCCP), a text (zTXt) or pixels (IDAT)."""
    compressor = zlib.compressobj(9)
    zeros = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(megabytes)) + compressor.flush()
    picture = flat(RED)
    pixels, end = picture.index(b"IDAT") - 4, picture.index(b"IEND") - 4
    if kind == b"IDAT":
        return picture[:pixels] + _chunk(kind, zeros) + picture[end:]
    return picture[:pixels] + _chunk(kind, b"name\0\0" + zeros) + picture[pixels:]


def scanned(times: int) -> bytes:
    """A progressive JPEG whose last scan comes so many times more."""
    picture: bytes = pyvips.Image.black(500, 500).jpegsave_buffer(interlace=True)
    scan, end = picture.rindex(b"\xff\xda"), picture.rindex(b"\xff\xd9")
    return picture[:end] + picture[scan:end] * times + picture[end:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
