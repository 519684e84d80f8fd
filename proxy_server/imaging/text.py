"""Text to a picture: letters of one colour on nothing.

Fonts are those installed on this machine. A font is never downloaded: the address comes from the caller, and
the server would fetch for it whatever it alone can reach.
"""

from __future__ import annotations

import html
import re

import attrs
import pyvips

from .colors import BLACK
from .errors import BROKEN_IMAGE, ImagingError
from .fields import Fields
from .geometry import Size
from .picture import Picture, as_pixels, check_size
from .stopping import Stop

MAX_LENGTH = 1_000  # characters: an overlay, not a page
MAX_POINTS = 1_000
DEFAULT_POINTS = 12.0
DEFAULT_FONT = "sans"

# CSS: 96 pixels and 72 points are an inch.
_PIXELS_PER_INCH = 96

# The widest letters and the tallest lines of common fonts are less than this many times their size.
_LARGEST_LETTER = 1.5

_FAMILY = re.compile(r"[^\W\d_]+(?:[ -][^\W\d_]+)*")

# What no UTF-8 that ends with a NUL can hold, which is how Pango takes a text.
_UNDRAWABLE = re.compile("[\0\ud800-\udfff]")


@attrs.frozen
class Text:
    """A text to be rasterized.

    `font` is the name of a family installed on this machine (None, and one that it lacks: its sans-serif
    font), `size` is in points, `color` a CSS colour.
    """

    content: str
    font: str | None = None
    size: float | None = None
    color: str | None = None


def rasterize(text: Text, stop: Stop) -> Picture:
    """The text as a picture, as large as it needs.

    ImagingError: an option is not valid, or nothing of the text can be seen.
    """
    fields = Fields("text", attrs.asdict(text))
    points = fields.number("size", 1, MAX_POINTS) or DEFAULT_POINTS
    color = fields.color("color") or BLACK
    font = f"{_family(fields)} {points:g}"
    _check_extent(fields, points)
    try:
        # The content is text: without escaping, Pango takes it as its markup.
        mask = pyvips.Image.text(html.escape(text.content, quote=False), font=font, dpi=_PIXELS_PER_INCH)
    except pyvips.Error as error:
        raise ImagingError(
            BROKEN_IMAGE, "The text can't be drawn: nothing of it is visible, or this machine has no fonts"
        ) from error
    check_size(Size(mask.width, mask.height))
    letters = mask.new_from_image(color.rgb)
    return Picture((as_pixels(letters.bandjoin(mask * (color.alpha / 255))),)).rendered(stop)


def _family(fields: Fields) -> str:
    family = fields.values["font"]
    if family is None:
        return DEFAULT_FONT
    # In a font description a comma or a number would mean another family, or another size.
    if not isinstance(family, str) or not _FAMILY.fullmatch(family):
        raise fields.wrong("font", "the name of a font family that is installed on this machine")
    return family


def _check_extent(fields: Fields, points: float) -> None:
    """Refuse a text whose picture would be too large, before libvips makes it."""
    content = fields.values["content"]
    if not isinstance(content, str) or not content.strip() or len(content) > MAX_LENGTH:
        raise fields.wrong("content", f"a visible text of at most {MAX_LENGTH} characters")
    if _UNDRAWABLE.search(content):
        raise fields.wrong("content", "a text without NUL and without halves of surrogate pairs")
    lines = content.splitlines()
    letter = points * _PIXELS_PER_INCH / 72 * _LARGEST_LETTER
    check_size(Size(round(max(map(len, lines)) * letter), round(len(lines) * letter)))
