"""What operations cost, so that too many of them are refused before one is carried out.

Costs are arithmetic on sizes alone: nothing here touches a pixel. A size that only the pixels tell (a text's, or
what a border leaves when it is trimmed) counts as unknown, and what is done to such an image is charged when it
is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from .errors import TOO_MANY_PIXELS, ImagingError
from .geometry import Size, plan_fit, trim_box
from .options import Draw, Operation, Transform
from .picture import check_size

# In nanoseconds of one core: what the operations of one request may take. A request that does more holds one of few
# workers for longer than its client waits. Decoding and encoding come once a request, and have caps of their own.
MAX_WORK = 10_000_000_000

# In nanoseconds of one core for each pixel, measured on 25 million opaque and half-transparent ones, the dearer of the
# two rounded up: to move pixels or lay something under them, to make them larger, to read those that are made
# smaller, to change their colours, to sharpen, to blend two images.
_MOVE, _ENLARGE, _SHRINK, _COLOR, _SHARPEN, _BLEND = 20.0, 50.0, 10.0, 25.0, 40.0, 40.0

# A blur costs this much at least, more with each pixel of the radius until it works on a shrunk copy, and from
# there on little more, for a copy that is enlarged further: 50 with a radius of 1, 110 with 8, 280 with 250.
_BLUR, _BLUR_NARROW, _BLUR_WIDE, _WIDEST_NARROW = 40.0, 8.0, 0.7, 8.0

# In nanoseconds: what each change of a frame costs however small the frame is (0.1 to 1.3 ms were measured).
_CHANGE = 1_000_000.0


@attrs.frozen
class Extent:
    """The size of each frame of an image, and how many frames there are."""

    size: Size
    frames: int


@attrs.frozen
class _Stage:
    """One change within an operation: the size that it works on, and nanoseconds for each pixel of it."""

    size: Size
    weight: float


class Budget:
    """The work that one request has left."""

    def __init__(self) -> None:
        self._left = float(MAX_WORK)

    def charge(self, number: int, step: Operation, extent: Extent) -> Extent | None:
        """Take off what the operation `number` costs on an image. Returns the image's extent after it, if it is known.

        ImagingError 9413: more work than is left, or the image gets larger than an image may be.
        """
        after, stages = _draw(extent.size) if isinstance(step, Draw) else _transform(extent.size, step)
        each = sum(stage.size.width * stage.size.height * stage.weight + _CHANGE for stage in stages)
        self._left -= each * extent.frames
        if self._left < 0:
            raise ImagingError(
                TOO_MANY_PIXELS,
                f"The operations of this request are too much work: they would take more than {MAX_WORK / 1e9:g} s, "
                f"which transforms[{number}] exceeds; make the image smaller first, or ask for fewer operations",
            )
        if after is None:
            return None
        check_size(after, extent.frames)
        return attrs.evolve(extent, size=after)


def check_work(extents: Mapping[int, Extent | None], steps: Sequence[tuple[int, Operation]]) -> None:
    """Refuse numbered operations whose work on images of known size is too much. ImagingError as `Budget.charge`."""
    budget = Budget()
    known = dict(extents)
    for number, step in steps:
        extent = known[step.target]
        if extent is not None:
            known[step.target] = budget.charge(number, step, extent)


def _draw(size: Size) -> tuple[Size, list[_Stage]]:
    return size, [_Stage(size, _BLEND)]


def _transform(size: Size, options: Transform) -> tuple[Size | None, list[_Stage]]:
    """The size after a transform (None: unknown, or nothing is left), and its changes."""
    # The result of every operation is copied into memory.
    stages = [_Stage(size, _MOVE)]
    if options.trim is not None:
        kept = trim_box(size, options.trim)
        if options.trim.border is not None or not (kept.width and kept.height):
            return None, stages
        size = Size(kept.width, kept.height)
    if options.flip is not None or options.rotate:
        stages.append(_Stage(size, _MOVE))
    if options.rotate in (90, 270):
        size = Size(size.height, size.width)
    size, fitting = _fit(size, options)
    stages += fitting
    stages += [_Stage(size, weight) for weight in _effects(options)]
    if (border := options.border) is not None:
        size = Size(size.width + border.left + border.right, size.height + border.top + border.bottom)
        stages.append(_Stage(size, _MOVE))
    return size, stages


def _fit(size: Size, options: Transform) -> tuple[Size, list[_Stage]]:
    plan = plan_fit(size, options.width, options.height, options.fit)
    check_size(plan.scaled)
    stages = []
    if plan.scaled != size:
        stages += [_Stage(size, _SHRINK), _Stage(plan.scaled, _ENLARGE)]
    if plan.kept != plan.scaled:
        stages.append(_Stage(plan.scaled, _MOVE))
    if plan.padded != plan.kept:
        stages.append(_Stage(plan.padded, _MOVE))
    return plan.padded, stages


def _effects(options: Transform) -> list[float]:
    """The weights of the changes that keep the size."""
    weights = []
    if options.background is not None:
        weights.append(_MOVE)
    if (options.brightness, options.contrast, options.gamma) != (1.0, 1.0, 1.0):
        weights.append(_COLOR)
    if options.saturation != 1.0:
        weights.append(_COLOR)
    if (radius := options.blur) is not None:
        weights.append(_BLUR + _BLUR_NARROW * min(radius, _WIDEST_NARROW) + _BLUR_WIDE * radius)
    if options.sharpen:
        weights.append(_SHARPEN)
    return weights
