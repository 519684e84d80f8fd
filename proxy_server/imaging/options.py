"""What can be asked of an image: the JSON operations of the Workers runtime, checked and typed.

The shapes are those of workerd's `ImageTransform` and `ImageDrawOptions` (types/defines/images.d.ts), the
meanings and ranges those of Cloudflare's documentation page "Features". This is the only place that reads the
JSON; nothing here touches a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import attrs

from .colors import BLACK, Color
from .errors import BAD_OPTION, BAD_REQUEST, ImagingError
from .fields import Fields, shown

# Cloudflare's limit for a side of an image. It also keeps every size below what WebP (16,383) and libvips can
# hold.
MAX_SIDE = 12_000

# A real chain has fewer than ten. Each operation may work on the largest image allowed, which takes seconds.
MAX_OPERATIONS = 64

MAX_BLUR = 250  # Cloudflare's limits, from here on
MAX_SHARPEN = 10

# Cloudflare names no limit for a factor. Past this one every picture has become black or white.
MAX_FACTOR = 100


class Fit(StrEnum):
    """How an image is made to fit `width` and `height`."""

    SCALE_DOWN = "scale-down"
    CONTAIN = "contain"
    COVER = "cover"
    CROP = "crop"
    ASPECT_CROP = "aspect-crop"
    PAD = "pad"
    SQUEEZE = "squeeze"


class Gravity(StrEnum):
    """What to keep when an image is cropped."""

    FACE = "face"
    LEFT = "left"
    RIGHT = "right"
    TOP = "top"
    BOTTOM = "bottom"
    CENTER = "center"
    AUTO = "auto"
    ENTROPY = "entropy"


class Flip(StrEnum):
    """The axis on which an image is mirrored."""

    HORIZONTAL = "h"
    VERTICAL = "v"
    BOTH = "hv"


class Repeat(StrEnum):
    """The directions in which a drawn image is tiled."""

    BOTH = "both"
    HORIZONTAL = "x"
    VERTICAL = "y"


class Composite(StrEnum):
    """How a drawn image is blended: the Porter-Duff operators."""

    OVER = "over"
    IN = "in"
    ATOP = "atop"
    OUT = "out"
    XOR = "xor"
    LIGHTER = "lighter"


class _Segment(StrEnum):
    FOREGROUND = "foreground"


class _FocusMode(StrEnum):
    REMAINDER = "remainder"
    BOX_CENTER = "box-center"


@attrs.frozen
class Focus:
    """The point to keep when cropping, as fractions of width and height.

    By default the point shares out what is cut off, as in CSS background-position: 0 cuts nothing from the
    left, 1 nothing from the right. Where `centered`, it is the point that comes to lie in the middle of the
    cropped image.
    """

    x: float = 0.5
    y: float = 0.5
    centered: bool = False


@attrs.frozen
class BorderTrim:
    """Cut off a border of one colour (None: the corner's), up to `tolerance` (0 to 255) away from it."""

    color: Color | None = None
    tolerance: float = 10.0
    keep: int = 0


@attrs.frozen
class Trim:
    """Pixels to cut off each side, then the size to cut down to. `border` goes first."""

    border: BorderTrim | None = None
    top: int | None = None
    right: int | None = None
    bottom: int | None = None
    left: int | None = None
    width: int | None = None
    height: int | None = None


@attrs.frozen
class Border:
    """Pixels of one colour to add on each side."""

    color: Color
    top: int
    right: int
    bottom: int
    left: int


@attrs.frozen
class Transform:
    """One `.transform()`: what to do to the image number `target`. None means: leave as it is."""

    target: int
    trim: Trim | None = None
    flip: Flip | None = None
    rotate: int = 0
    width: int | None = None
    height: int | None = None
    fit: Fit = Fit.SCALE_DOWN
    gravity: Gravity | Focus = Gravity.CENTER
    background: Color | None = None
    brightness: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    saturation: float = 1.0
    blur: float | None = None
    sharpen: float = 0.0
    border: Border | None = None


@attrs.frozen
class Draw:
    """One `.draw()`: put the image number `overlay` on the image number `target`.

    Offsets are pixels from that edge.
    """

    target: int
    overlay: int
    opacity: float = 1.0
    repeat: Repeat | None = None
    composite: Composite = Composite.OVER
    top: int | None = None
    right: int | None = None
    bottom: int | None = None
    left: int | None = None


Operation = Transform | Draw


def parse_operations(operations: Sequence[object], images: int) -> list[Operation]:
    """The operations on `images` images, in order. ImagingError names the first that is not valid."""
    if len(operations) > MAX_OPERATIONS:
        raise ImagingError(BAD_OPTION, f"There are {len(operations)} operations; at most {MAX_OPERATIONS} are allowed")
    return [_parse_operation(f"transforms[{i}]", raw, images) for i, raw in enumerate(operations)]


def _parse_operation(where: str, raw: object, images: int) -> Operation:
    if not isinstance(raw, Mapping):
        raise ImagingError(BAD_REQUEST, f"{where} must be an object, not {shown(raw)}")
    fields = Fields(where, raw)
    return _draw(fields, images) if "drawImageIndex" in raw else _transform(fields, images)


def _image(fields: Fields, key: str, images: int) -> int:
    index = fields.integer(key, 0, images - 1)
    if index is None:
        raise ImagingError(BAD_REQUEST, f"{fields.where} lacks {key}, the number of the image to work on")
    return index


def _transform(fields: Fields, images: int) -> Transform:
    # Without face detection no face is ever found, and by Cloudflare's rule `zoom` then has no effect.
    fields.number("zoom", 0, 1)
    fields.allow(
        *(
            "imageIndex",
            "width",
            "height",
            "fit",
            "gravity",
            "zoom",
            "rotate",
            "flip",
            "trim",
            "background",
            "border",
        ),
        *("blur", "sharpen", "brightness", "contrast", "gamma", "saturation", "segment"),
    )
    if fields.choice("segment", _Segment) is not None:
        raise ImagingError(
            BAD_OPTION,
            f"{fields.where}.segment is not supported by this server: it needs Cloudflare's AI model",
        )
    return Transform(
        target=_image(fields, "imageIndex", images),
        trim=_trim(fields),
        flip=fields.choice("flip", Flip),
        rotate=_rotation(fields),
        width=fields.integer("width", 1, MAX_SIDE),
        height=fields.integer("height", 1, MAX_SIDE),
        fit=fields.choice("fit", Fit) or Fit.SCALE_DOWN,
        gravity=_gravity(fields),
        background=fields.color("background"),
        # The documentation: "0 is ignored" for these three, as if it were 1; for saturation it means grey.
        brightness=fields.number("brightness", 0, MAX_FACTOR) or 1.0,
        contrast=fields.number("contrast", 0, MAX_FACTOR) or 1.0,
        gamma=fields.number("gamma", 0, MAX_FACTOR) or 1.0,
        saturation=_given(fields.number("saturation", 0, MAX_FACTOR), 1.0),
        blur=fields.number("blur", 0, MAX_BLUR) or None,
        sharpen=fields.number("sharpen", 0, MAX_SHARPEN) or 0.0,
        border=_border(fields),
    )


def _given(number: float | None, default: float) -> float:
    return default if number is None else number


def _rotation(fields: Fields) -> int:
    degrees = fields.integer("rotate", 0, 360) or 0
    if degrees % 90:
        raise fields.wrong("rotate", "0, 90, 180 or 270")
    return degrees


def _gravity(fields: Fields) -> Gravity | Focus:
    point = fields.nested("gravity")
    if point is None:
        return fields.choice("gravity", Gravity) or Gravity.CENTER
    point.allow("x", "y", "mode")
    return Focus(
        x=_given(point.number("x", 0, 1), 0.5),
        y=_given(point.number("y", 0, 1), 0.5),
        centered=point.choice("mode", _FocusMode) is _FocusMode.BOX_CENTER,
    )


def _trim(fields: Fields) -> Trim | None:
    if fields.values.get("trim") is None:
        return None
    if fields.values["trim"] == "border":
        return Trim(border=BorderTrim())
    trim = fields.nested("trim")
    if trim is None:
        raise fields.wrong("trim", 'an object or "border"')
    trim.allow("top", "right", "bottom", "left", "width", "height", "border")
    return Trim(
        border=_border_trim(trim),
        top=trim.integer("top", 0, MAX_SIDE),
        right=trim.integer("right", 0, MAX_SIDE),
        bottom=trim.integer("bottom", 0, MAX_SIDE),
        left=trim.integer("left", 0, MAX_SIDE),
        width=trim.integer("width", 1, MAX_SIDE),
        height=trim.integer("height", 1, MAX_SIDE),
    )


def _border_trim(trim: Fields) -> BorderTrim | None:
    border = trim.nested("border")
    if border is None:
        return BorderTrim() if trim.flag("border") else None
    border.allow("color", "tolerance", "keep")
    return BorderTrim(
        color=border.color("color"),
        tolerance=_given(border.number("tolerance", 0, 255), 10.0),
        keep=border.integer("keep", 0, MAX_SIDE) or 0,
    )


def _border(fields: Fields) -> Border | None:
    if fields.values.get("border") is None:
        return None
    border = fields.nested("border")
    if border is None:
        raise fields.wrong("border", "an object")
    border.allow("color", "width", "top", "right", "bottom", "left")
    every = border.integer("width", 0, MAX_SIDE) or 0

    def side(key: str) -> int:
        own = border.integer(key, 0, MAX_SIDE)
        return every if own is None else own

    return Border(border.color("color") or BLACK, side("top"), side("right"), side("bottom"), side("left"))


def _draw(fields: Fields, images: int) -> Draw:
    fields.allow(
        *(
            "drawImageIndex",
            "targetImageIndex",
            "opacity",
            "repeat",
            "composite",
            "top",
            "right",
            "bottom",
            "left",
        )
    )
    for one, other in (("left", "right"), ("top", "bottom")):
        if fields.values.get(one) is not None and fields.values.get(other) is not None:
            raise ImagingError(BAD_OPTION, f"{fields.where} sets both {one} and {other}; only one of them can be given")
    return Draw(
        target=_image(fields, "targetImageIndex", images),
        overlay=_image(fields, "drawImageIndex", images),
        opacity=_given(fields.number("opacity", 0, 1), 1.0),
        repeat=_repeat(fields),
        composite=fields.choice("composite", Composite) or Composite.OVER,
        top=fields.integer("top", -MAX_SIDE, MAX_SIDE),
        right=fields.integer("right", -MAX_SIDE, MAX_SIDE),
        bottom=fields.integer("bottom", -MAX_SIDE, MAX_SIDE),
        left=fields.integer("left", -MAX_SIDE, MAX_SIDE),
    )


def _repeat(fields: Fields) -> Repeat | None:
    value = fields.values.get("repeat")
    if value is None or value is False:
        return None
    if value is True:
        return Repeat.BOTH
    if value in ("x", "y"):
        return Repeat(value)
    raise fields.wrong("repeat", 'true, false, "x" or "y"')
