"""`.draw()`: one picture put on another.

The size stays that of the picture drawn on. Only the pixels under the drawn image change, in every composite
mode: that is Cloudflare's rule, and HTML's canvas differs from it.
"""

from __future__ import annotations

import attrs
import pyvips

from .geometry import Box, Size, place
from .options import Composite, Draw, Repeat
from .picture import RGB, Picture, as_pixels, crop, with_alpha

_BLEND = {
    Composite.OVER: "over",
    Composite.IN: "in",
    Composite.ATOP: "atop",
    Composite.OUT: "out",
    Composite.XOR: "xor",
    Composite.LIGHTER: "add",
}

# On an opaque picture these leave it opaque.
_KEEP_OPAQUE = frozenset({Composite.OVER, Composite.ATOP, Composite.LIGHTER})


def drawn(picture: Picture, overlay: Picture, options: Draw) -> Picture:
    """The picture with the first frame of `overlay` on every frame of it. What lies outside is cut off."""
    area, stamp = _stamp(picture.size, overlay.frames[0], options)
    if area.width < 1 or area.height < 1:
        return picture
    if options.opacity < 1.0:
        stamp = _fade(stamp, options.opacity)
    return picture.map(lambda frame: _blend(frame, area, stamp, options.composite))


def _stamp(canvas: Size, overlay: pyvips.Image, options: Draw) -> tuple[Box, pyvips.Image]:
    """Which part of the canvas changes, and the pixels to draw there, tiles laid and all."""
    tile = place(canvas, Size(overlay.width, overlay.height), options)
    reach = tile
    if options.repeat in (Repeat.BOTH, Repeat.HORIZONTAL):
        reach = attrs.evolve(reach, left=0, width=canvas.width)
    if options.repeat in (Repeat.BOTH, Repeat.VERTICAL):
        reach = attrs.evolve(reach, top=0, height=canvas.height)
    area = reach.within(canvas)
    if area.width < 1 or area.height < 1 or area == tile:
        return area, overlay
    # "repeat" lays tiles from that corner on, in all directions, and the area cuts out what is asked for.
    laid = overlay.embed(tile.left - area.left, tile.top - area.top, area.width, area.height, extend="repeat")
    return area, laid


def _fade(image: pyvips.Image, opacity: float) -> pyvips.Image:
    pixels = with_alpha(image)
    return pixels.extract_band(0, n=RGB).bandjoin(as_pixels(pixels.extract_band(RGB) * opacity))


def _blend(image: pyvips.Image, area: Box, stamp: pyvips.Image, composite: Composite) -> pyvips.Image:
    blended = crop(with_alpha(image), area).composite2(with_alpha(stamp), _BLEND[composite])
    if image.bands == RGB and composite in _KEEP_OPAQUE:
        return image.insert(as_pixels(blended).extract_band(0, n=RGB), area.left, area.top)
    return with_alpha(image).insert(as_pixels(blended), area.left, area.top)
