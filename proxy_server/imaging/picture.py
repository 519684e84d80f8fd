"""A decoded image: its frames as sRGB pixels of 8 bits, and the caps on how many pixels there can be.

Every frame has three bands, or four where some of it may be transparent. A still image has one frame. A
picture carries no metadata but what is listed here, so that nothing else (GPS positions, thumbnails,
profiles) can get into an output.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pyvips

from .colors import Color
from .errors import TOO_MANY_PIXELS, ImagingError
from .geometry import Box, Size
from .options import MAX_SIDE
from .stopping import Stop

# Cloudflare's limit for the area of an image, all frames of an animation counted. At 4 bytes a pixel this is
# 400 MB. Here it holds for all images of one request together, since they are in memory together.
MAX_PIXELS = 100_000_000

# Each frame costs a chain of operations however small it is; a second-long loop has 10 to 50 of them.
MAX_FRAMES = 1_000

RGB = 3
RGBA = 4


@attrs.frozen
class Picture:
    """Frames of one size.

    `delays` holds the milliseconds for which each frame shows, `loop` how often they all do (0: for ever). `full`
    is the size that the frames stand for where they were decoded smaller, and are about to be made smaller still.
    """

    frames: tuple[pyvips.Image, ...]
    delays: tuple[int, ...] = ()
    loop: int = 0
    copyright: str | None = None
    full: Size | None = None

    @property
    def size(self) -> Size:
        """Of each frame, or what it stands for."""
        return self.full or Size(self.frames[0].width, self.frames[0].height)

    @property
    def pixels(self) -> int:
        """In all frames together."""
        return self.size.width * self.size.height * len(self.frames)

    @property
    def animated(self) -> bool:
        """Whether there is more than one frame."""
        return len(self.frames) > 1

    def map(self, change: Callable[[pyvips.Image], pyvips.Image]) -> Picture:
        """The picture with each frame changed. libvips is lazy: pixels are worked out when asked for."""
        return attrs.evolve(self, frames=tuple(change(frame) for frame in self.frames))

    def rendered(self, stop: Stop) -> Picture:
        """The same with all pixels worked out and in memory, so that nothing works them out again."""
        return self.map(lambda frame: stop.watched(frame).copy_memory())


def check_size(size: Size, frames: int = 1) -> None:
    """Refuse a size that no image may have, before any pixel of it exists."""
    if size.width < 1 or size.height < 1:
        raise ImagingError(TOO_MANY_PIXELS, "The image has width or height of size 0")
    if max(size.width, size.height) > MAX_SIDE:
        raise ImagingError(
            TOO_MANY_PIXELS,
            f"The image is too large: {size.width}x{size.height}, but the maximum dimension is {MAX_SIDE}",
        )
    if frames > MAX_FRAMES:
        raise ImagingError(TOO_MANY_PIXELS, f"The animation has {frames} frames, but at most {MAX_FRAMES} are allowed")
    check_pixels(size.width * size.height * frames)


def check_pixels(pixels: int) -> None:
    """Refuse more pixels than one request may hold, in all frames of all its images."""
    if pixels > MAX_PIXELS:
        raise ImagingError(
            TOO_MANY_PIXELS,
            f"The images of this request have {pixels} pixels in all frames together, "
            f"but the maximum allowed is {MAX_PIXELS}",
        )


def as_pixels(image: pyvips.Image) -> pyvips.Image:
    """Computed numbers as 8-bit sRGB again: rounded, and cut to 0 to 255."""
    return image.rint().cast("uchar").copy(interpretation="srgb")


def with_alpha(image: pyvips.Image) -> pyvips.Image:
    """The image with four bands."""
    return image if image.bands == RGBA else image.bandjoin(255)


def solid(size: Size, color: Color) -> pyvips.Image:
    """An image of one colour, with four bands."""
    blank = pyvips.Image.black(size.width, size.height, bands=RGBA)
    return as_pixels(blank + color.rgba)


def underlay(image: pyvips.Image, color: Color) -> pyvips.Image:
    """The image on a ground of one colour, which itself may be transparent."""
    if image.bands == RGB:
        return image
    if color.opaque:
        return image.flatten(background=color.rgb)
    return solid(Size(image.width, image.height), color).composite2(image, "over")


def surround(image: pyvips.Image, box: Box, size: Size, color: Color) -> pyvips.Image:
    """A larger image of `size` in `color`, with the image at `box`'s corner."""
    if not color.opaque:
        image = with_alpha(image)
    background = color.rgba if image.bands == RGBA else color.rgb
    return image.embed(box.left, box.top, size.width, size.height, extend="background", background=background)


def crop(image: pyvips.Image, box: Box) -> pyvips.Image:
    """The part of the image in that box."""
    return image.crop(box.left, box.top, box.width, box.height)
