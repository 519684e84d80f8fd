"""Pictures for tests, and what is in them once they come back: made and decoded with libvips, not with our engine."""

from __future__ import annotations

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
