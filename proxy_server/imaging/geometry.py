"""Sizes and boxes: where pixels go when an image is fitted, cropped, trimmed or drawn. Arithmetic alone.

The rules are those of Cloudflare's documentation for `fit`, `gravity`, `trim` and the offsets of `draw`.
Nothing here knows of libvips, and the size of an image is that after its EXIF orientation was applied.
"""

from __future__ import annotations

import attrs

from .options import Draw, Fit, Focus, Trim


@attrs.frozen
class Size:
    """Pixels."""

    width: int
    height: int


@attrs.frozen
class Box:
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """The first column outside."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """The first row outside."""
        return self.top + self.height

    def within(self, size: Size) -> Box:
        """The part that lies in an image of that size; its width or height is 0 where there is none."""
        left, top = max(0, self.left), max(0, self.top)
        width, height = min(self.right, size.width) - left, min(self.bottom, size.height) - top
        return Box(left, top, max(0, width), max(0, height))


@attrs.frozen
class Plan:
    """How to fit an image: scale it to `scaled`, crop that to `kept`, pad that to `padded`."""

    scaled: Size
    kept: Size
    padded: Size


def plan_fit(source: Size, width: int | None, height: int | None, fit: Fit) -> Plan:
    """How an image of size `source` comes to fit `width` and `height` (in pixels; None: not asked for)."""
    if width is None or height is None:
        return _whole(_one_side(source, width, height, fit))
    target = Size(width, height)
    inside = min(width / source.width, height / source.height)
    outside = max(width / source.width, height / source.height)
    match fit:
        case Fit.SCALE_DOWN:
            return _whole(_scale(source, min(1.0, inside)))
        case Fit.CONTAIN:
            return _whole(_scale(source, inside))
        case Fit.PAD:
            scaled = _scale(source, inside)
            return Plan(scaled, scaled, target)
        case Fit.SQUEEZE:
            return _whole(target)
        case Fit.COVER:
            return _cropped(_scale(source, outside), target)
        case Fit.CROP:
            return _cropped(_scale(source, min(1.0, outside)), target)
        case Fit.ASPECT_CROP:
            scaled = _scale(source, min(1.0, outside))
            return _cropped(scaled, _scale(target, min(1.0, scaled.width / width, scaled.height / height)))


def _one_side(source: Size, width: int | None, height: int | None, fit: Fit) -> Size:
    if fit is Fit.SQUEEZE:
        return Size(width or source.width, height or source.height)
    scale = 1.0
    if width is not None:
        scale = width / source.width
    if height is not None:
        scale = height / source.height
    if fit in (Fit.SCALE_DOWN, Fit.CROP, Fit.ASPECT_CROP):
        scale = min(1.0, scale)
    return _scale(source, scale)


def _scale(size: Size, factor: float) -> Size:
    return Size(max(1, round(size.width * factor)), max(1, round(size.height * factor)))


def _whole(size: Size) -> Plan:
    return Plan(size, size, size)


def _cropped(scaled: Size, target: Size) -> Plan:
    kept = Size(min(target.width, scaled.width), min(target.height, scaled.height))
    return Plan(scaled, kept, kept)


def crop_window(image: Size, kept: Size, focus: Focus) -> Box:
    """The part of size `kept` to keep of an image."""
    left = _slide(image.width, kept.width, focus.x, focus.centered)
    top = _slide(image.height, kept.height, focus.y, focus.centered)
    return Box(left, top, kept.width, kept.height)


def _slide(length: int, kept: int, fraction: float, centered: bool) -> int:
    start = length * fraction - kept / 2 if centered else (length - kept) * fraction
    return min(length - kept, max(0, round(start)))


def trim_box(image: Size, trim: Trim) -> Box:
    """The part that is left once `trim`'s sides are cut off; its width or height is 0 where nothing is."""
    left, width = _trim_axis(image.width, trim.left, trim.right, trim.width)
    top, height = _trim_axis(image.height, trim.top, trim.bottom, trim.height)
    return Box(left, top, width, height)


def _trim_axis(length: int, before: int | None, after: int | None, wanted: int | None) -> tuple[int, int]:
    """Where the kept part starts, and its length. A wanted length counts from the side that was given."""
    start, end = before or 0, length - (after or 0)
    kept = max(0, end - start)
    if wanted is not None and wanted < kept:
        if before is None and after is not None:
            start = end - wanted
        kept = wanted
    return start, kept


def grow(box: Box, margin: int, image: Size) -> Box:
    """The box with `margin` pixels more on each side, as far as the image has them."""
    return Box(box.left - margin, box.top - margin, box.width + 2 * margin, box.height + 2 * margin).within(image)


def place(canvas: Size, overlay: Size, draw: Draw) -> Box:
    """Where a drawn image goes; in a direction for which no offset is given, in the middle."""
    left = _offset(canvas.width, overlay.width, draw.left, draw.right)
    top = _offset(canvas.height, overlay.height, draw.top, draw.bottom)
    return Box(left, top, overlay.width, overlay.height)


def _offset(length: int, own: int, before: int | None, after: int | None) -> int:
    if before is not None:
        return before
    if after is not None:
        return length - own - after
    return (length - own) // 2
