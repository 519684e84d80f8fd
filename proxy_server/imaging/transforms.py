"""`.transform()`: one Transform applied to a picture.

Within one transform the order is the documented one whatever order the keys came in: trim, flip, rotate, fit,
background, colours, blur, sharpen, border. The caller who wants another order makes several transforms.
Colours under transparent pixels never bleed into visible ones: resizing and blurring work on premultiplied
pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import pyvips

from .colors import WHITE, Color
from .errors import TOO_MANY_PIXELS, ImagingError
from .geometry import Box, Size, crop_window, grow, plan_fit, trim_box
from .options import Border, BorderTrim, Flip, Focus, Gravity, Transform, Trim
from .picture import RGB, RGBA, Picture, as_pixels, check_size, crop, surround, underlay

# The luminance weights of sRGB (ITU-R BT.709), as in the CSS filter saturate().
_LUMINANCE = (0.2126, 0.7152, 0.0722)

# Standard deviation, in pixels, of what counts as detail when sharpening: the finest that a downscaled image
# has.
_SHARPEN_SIGMA = 0.8

# A blur wider than this works on a shrunk copy, which looks the same and keeps the cost of any radius that of
# a small one.
_WIDEST_SIGMA = 4.0

# Where a Gaussian is cut off, as a share of its peak. At libvips' own 0.2 a radius of 1 would do nothing.
_FAINTEST = 0.05

_FOCUS = {
    Gravity.LEFT: Focus(0.0, 0.5),
    Gravity.RIGHT: Focus(1.0, 0.5),
    Gravity.TOP: Focus(0.5, 0.0),
    Gravity.BOTTOM: Focus(0.5, 1.0),
    Gravity.CENTER: Focus(0.5, 0.5),
}

# libvips' "attention" looks for edges, saturated colours and skin. For a face that is the nearest without a
# detector.
_INTEREST = {Gravity.AUTO: "attention", Gravity.FACE: "attention", Gravity.ENTROPY: "entropy"}

_Change = Callable[[pyvips.Image], pyvips.Image]


def transformed(picture: Picture, options: Transform) -> Picture:
    """The picture with `options` applied. ImagingError 9413: it gets too large, or nothing of it is left."""
    if options.trim is not None:
        picture = _trim(picture, options.trim)
    picture = picture.map(lambda frame: _turn(frame, options.flip, options.rotate))
    picture = _fit(picture, options)
    if (ground := options.background) is not None:
        picture = picture.map(lambda frame: underlay(frame, ground))
    for effect in _effects(options):
        picture = picture.map(effect)
    if options.border is not None:
        picture = _border(picture, options.border)
    return picture


def shrinking(size: Size, options: Transform) -> float:
    """How many times smaller `options` make an image of that size before anything else; 1 where something comes first
    that needs all pixels."""
    if options.trim is not None or options.rotate:
        return 1.0
    scaled = plan_fit(size, options.width, options.height, options.fit).scaled
    return min(size.width / scaled.width, size.height / scaled.height)


def _trim(picture: Picture, trim: Trim) -> Picture:
    if trim.border is not None:
        box = _inside_border(picture.frames[0], trim.border)
        picture = picture.map(lambda frame: crop(frame, box))
    kept = trim_box(picture.size, trim)
    if kept.width < 1 or kept.height < 1:
        raise ImagingError(TOO_MANY_PIXELS, "The image has width or height of size 0: trim leaves nothing of it")
    return picture.map(lambda frame: crop(frame, kept))


def _inside_border(image: pyvips.Image, border: BorderTrim) -> Box:
    """The part within a border of one colour; the whole image where there is nothing else."""
    size = Size(image.width, image.height)
    color = Color(*(int(value) for value in image(0, 0))) if border.color is None else border.color
    if image.bands == RGBA and color.alpha == 0:
        # A transparent border has no colour that counts: what is found is what can be seen.
        image, background = image.extract_band(RGB), [0.0]
    else:
        background = color.rgb
    left, top, width, height = image.find_trim(threshold=border.tolerance, background=background, line_art=True)
    if not width or not height:
        return Box(0, 0, size.width, size.height)
    return grow(Box(left, top, width, height), border.keep, size)


def _turn(image: pyvips.Image, flip: Flip | None, degrees: int) -> pyvips.Image:
    if flip in (Flip.HORIZONTAL, Flip.BOTH):
        image = image.fliphor()
    if flip in (Flip.VERTICAL, Flip.BOTH):
        image = image.flipver()
    match degrees:
        case 90:
            return image.rot90()
        case 180:
            return image.rot180()
        case 270:
            return image.rot270()
    return image


def _fit(picture: Picture, options: Transform) -> Picture:
    plan = plan_fit(picture.size, options.width, options.height, options.fit)
    check_size(plan.scaled)
    if plan.scaled != picture.size:
        # thumbnail_image premultiplies by itself.
        picture = attrs.evolve(picture, full=None).map(
            lambda frame: frame.thumbnail_image(plan.scaled.width, height=plan.scaled.height, size="force")
        )
    if plan.kept != plan.scaled:
        window = _window(picture, plan.kept, options.gravity)
        picture = picture.map(lambda frame: crop(frame, window))
    if plan.padded != plan.kept:
        picture = picture.map(lambda frame: _pad(frame, plan.padded, options.background or WHITE))
    return picture


def _window(picture: Picture, kept: Size, gravity: Gravity | Focus) -> Box:
    """The part of a picture to keep: the same for all frames of an animation, or it would shake."""
    if isinstance(gravity, Focus):
        return crop_window(picture.size, kept, gravity)
    if gravity in _FOCUS:
        return crop_window(picture.size, kept, _FOCUS[gravity])
    found = picture.frames[0].smartcrop(kept.width, kept.height, interesting=_INTEREST[gravity])
    return Box(-found.xoffset, -found.yoffset, kept.width, kept.height)


def _pad(image: pyvips.Image, size: Size, color: Color) -> pyvips.Image:
    left, top = (size.width - image.width) // 2, (size.height - image.height) // 2
    return surround(image, Box(left, top, image.width, image.height), size, color)


def _effects(options: Transform) -> list[_Change]:
    """The changes to pixels that keep the size."""
    effects: list[_Change] = []
    if (options.brightness, options.contrast, options.gamma) != (1.0, 1.0, 1.0):
        effects.append(lambda frame: _on_colors(frame, lambda colors: colors.maplut(_tones(options))))
    if options.saturation != 1.0:
        effects.append(lambda frame: _on_colors(frame, lambda colors: _saturate(colors, options.saturation)))
    if (radius := options.blur) is not None:
        effects.append(lambda frame: _blur(frame, radius))
    if options.sharpen:
        effects.append(lambda frame: _on_colors(frame, lambda colors: _sharpen(colors, options.sharpen)))
    return effects


def _on_colors(image: pyvips.Image, change: _Change) -> pyvips.Image:
    """Change the three colours, and leave the opacity as it is."""
    if image.bands == RGB:
        return change(image)
    return change(image.extract_band(0, n=RGB)).bandjoin(image.extract_band(RGB))


def _tones(options: Transform) -> pyvips.Image:
    """Brightness, then contrast, then gamma, as a table from each of the 256 values to another."""

    def tone(value: int) -> int:
        level = value / 255 * options.brightness
        level = (level - 0.5) * options.contrast + 0.5
        return round(255 * math.pow(min(1.0, max(0.0, level)), 1 / options.gamma))

    return pyvips.Image.new_from_memory(bytes(map(tone, range(256))), 256, 1, 1, "uchar")


def _saturate(image: pyvips.Image, factor: float) -> pyvips.Image:
    """Move each colour away from its grey, or towards it."""
    matrix = [
        [weight * (1 - factor) + (factor if row == column else 0.0) for column, weight in enumerate(_LUMINANCE)]
        for row in range(RGB)
    ]
    return as_pixels(image.recomb(pyvips.Image.new_from_array(matrix)))


def _blur(image: pyvips.Image, radius: float) -> pyvips.Image:
    """A Gaussian blur. As with a canvas' shadowBlur, the radius is twice the standard deviation."""
    sigma = radius / 2
    shrink = min(max(1.0, sigma / _WIDEST_SIGMA), image.width, image.height)
    pixels = image.premultiply() if image.bands == RGBA else image
    if shrink > 1:
        pixels = pixels.resize(1 / shrink)
    pixels = pixels.gaussblur(sigma / shrink, min_ampl=_FAINTEST, precision="float")
    if shrink > 1:
        pixels = pixels.resize(image.width / pixels.width, vscale=image.height / pixels.height, kernel="linear")
    return as_pixels(pixels.unpremultiply() if image.bands == RGBA else pixels)


def _sharpen(image: pyvips.Image, strength: float) -> pyvips.Image:
    """An unsharp mask: add `strength` times what a slight blur takes away."""
    return as_pixels(
        image * (1 + strength) - image.gaussblur(_SHARPEN_SIGMA, min_ampl=_FAINTEST, precision="float") * strength
    )


def _border(picture: Picture, border: Border) -> Picture:
    size = Size(
        picture.size.width + border.left + border.right,
        picture.size.height + border.top + border.bottom,
    )
    check_size(size)
    inner = Box(border.left, border.top, picture.size.width, picture.size.height)
    return picture.map(lambda frame: surround(frame, inner, size, border.color))
