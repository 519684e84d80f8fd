"""CSS colours: text to red, green, blue and opacity.

Takes what CSS Color Module Level 4 calls named colours, hexadecimal notation, rgb()/rgba() and hsl()/hsla(),
in both the comma and the space syntax. As Cloudflare's documentation writes a fourth number with no slash
before it ("rgba(255 255 0 100)"), commas, spaces and the slash all separate alike, and an opacity above 1
counts as 1.
"""

from __future__ import annotations

import colorsys
import math
import re

import attrs

from .css_names import CSS_NAMES

# No colour needs more, and the patterns below then have little to run over.
_LONGEST = 100

_HEX = re.compile(r"#([0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})")
_FUNCTION = re.compile(r"(rgb|hsl)a?\(\s*([^()]*?)\s*\)")
_PART = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(%|deg|grad|rad|turn)?")
_SEPARATOR = re.compile(r"\s*[,/]\s*|\s+")

# A number, and the unit written after it.
_Part = tuple[float, str | None]

_DEGREES = {None: 1.0, "deg": 1.0, "grad": 0.9, "rad": 180 / math.pi, "turn": 360.0}


@attrs.frozen
class Color:
    """A colour in sRGB: four whole numbers from 0 to 255; `alpha` is 255 where it is opaque."""

    red: int
    green: int
    blue: int
    alpha: int = 255

    @property
    def opaque(self) -> bool:
        """Whether nothing shows through."""
        return self.alpha == 255

    @property
    def rgb(self) -> list[float]:
        """The three colours, as libvips takes them."""
        return [self.red, self.green, self.blue]

    @property
    def rgba(self) -> list[float]:
        """The three colours and the opacity, as libvips takes them."""
        return [self.red, self.green, self.blue, self.alpha]


BLACK = Color(0, 0, 0)
WHITE = Color(255, 255, 255)


def parse_color(text: str) -> Color:
    """The colour that CSS means by `text`. ValueError where CSS means none."""
    normal = text.strip().lower()
    if len(normal) > _LONGEST:
        raise ValueError("the text is too long for a CSS colour")
    if normal in CSS_NAMES:
        return _from_hex(CSS_NAMES[normal])
    if hexadecimal := _HEX.fullmatch(normal):
        return _from_hex(hexadecimal[1])
    if function := _FUNCTION.fullmatch(normal):
        return _from_function(function[1], function[2])
    raise ValueError("not a CSS colour")


def _from_hex(digits: str) -> Color:
    if len(digits) < 6:
        digits = "".join(digit * 2 for digit in digits)
    red, green, blue, *rest = bytes.fromhex(digits)
    return Color(red, green, blue, *rest)


def _from_function(name: str, arguments: str) -> Color:
    parts = [_part(text) for text in _SEPARATOR.split(arguments)]
    if len(parts) not in (3, 4):
        raise ValueError(f"{name}() takes three numbers and an opacity")
    alpha = _channel(_fraction(parts[3], 1.0)) if len(parts) == 4 else 255
    if name == "rgb":
        red, green, blue = (_channel(_fraction(part, 255.0)) for part in parts[:3])
    else:
        red, green, blue = _hsl(*parts[:3])
    return Color(red, green, blue, alpha)


def _hsl(hue: _Part, saturation: _Part, lightness: _Part) -> tuple[int, int, int]:
    number, unit = hue
    if unit == "%":
        raise ValueError("a hue is an angle")
    turns = number * _DEGREES[unit] / 360
    red, green, blue = colorsys.hls_to_rgb(turns % 1.0, _fraction(lightness, 100.0), _fraction(saturation, 100.0))
    return _channel(red), _channel(green), _channel(blue)


def _part(text: str) -> _Part:
    match = _PART.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number")
    number = float(match[1])
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is too large")
    return number, match[2]


def _fraction(part: _Part, whole: float) -> float:
    """A number out of `whole`, or a percentage, as 0.0 to 1.0; what lies outside is cut, as CSS does."""
    number, unit = part
    if unit not in (None, "%"):
        raise ValueError(f"{unit} has no place here")
    return min(1.0, max(0.0, number / (100.0 if unit == "%" else whole)))


def _channel(fraction: float) -> int:
    # Half a step rounds up, as in browsers, also where the arithmetic of HSL ended a hair below it.
    return math.floor(fraction * 255 + 0.5 + 1e-9)
