"""`.output()`: sources and operations in, a finished image out.

Everything that can be refused is refused first: the options, then every header, then the work that they make
together, and only then is a pixel decoded. After each operation its result is worked out and the caps are checked
again, so that cost and memory grow with the number of operations and no faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pyvips

from .drawing import drawn
from .encoding import Output, Rendered, encode, parse_output
from .errors import BAD_REQUEST, CONSUMED, ImagingError
from .options import Draw, Operation, Transform, parse_operations
from .picture import Picture, check_pixels, check_size
from .sources import Encoded, decode, read_header
from .stopping import Stop
from .text import Text, rasterize
from .transforms import shrinking, transformed
from .work import Budget, Extent, check_work

# A real request draws fewer than ten. Each is decoded, and in memory until it is drawn.
MAX_SOURCES = 32

Source = bytes | Text


def render(
    sources: Sequence[Source], operations: Sequence[object], output: Output, stop: Stop | None = None
) -> Rendered:
    """Apply `operations` in order, and encode the first source.

    `sources[0]` is the canvas, the others are images to draw. An operation is a JSON object as the Workers
    runtime sends it in the form field `transforms`: `{"imageIndex": 0, "width": 256}` changes an image, and
    `{"drawImageIndex": 1, "targetImageIndex": 0, "bottom": 5}` draws one on another, which uses it up.

    Blocks while it computes: on an event loop, call it in a worker thread. Raises ImagingError, and nothing else
    unless another thread asks it to `stop`: then StoppedError, or an ImagingError about what could not be finished.
    """
    encoding = parse_output(output)
    if not 1 <= len(sources) <= MAX_SOURCES:
        raise ImagingError(BAD_REQUEST, f"There are {len(sources)} images; 1 to {MAX_SOURCES} are allowed")
    steps = parse_operations(operations, len(sources))
    _check_order(steps)
    parts = [(number, part) for number, step in enumerate(steps) for part in _parts(step)]
    stop = stop or Stop()
    pictures = _Pictures(_open_all(sources, parts, animated=encoding.animates), parts, stop)
    for number, part in parts:
        try:
            pictures.apply(number, part)
        except pyvips.Error as error:
            raise ImagingError(BAD_REQUEST, f"transforms[{number}] failed in the image library", status=500) from error
    return encode(pictures.canvas, encoding, stop)


def _check_order(steps: Sequence[Operation]) -> None:
    """Refuse an operation on an image that is already drawn, and one that draws an image on itself."""
    used: set[int] = set()
    for number, step in enumerate(steps):
        if _named(step) & used:
            raise ImagingError(
                CONSUMED,
                f"transforms[{number}] uses an image that is already drawn; an image can be drawn once",
            )
        if isinstance(step, Draw):
            if step.overlay in (0, step.target):
                raise ImagingError(BAD_REQUEST, f"transforms[{number}] draws the canvas, or an image on itself")
            used.add(step.overlay)


def _named(step: Operation) -> set[int]:
    """The images that an operation uses."""
    return {step.target, step.overlay} if isinstance(step, Draw) else {step.target}


def _parts(step: Operation) -> Sequence[Operation]:
    """An operation, cut in two where only the pixels tell how large the image is that the rest works on."""
    if isinstance(step, Transform) and step.trim is not None and step.trim.border is not None:
        return Transform(step.target, trim=step.trim), attrs.evolve(step, trim=None)
    return (step,)


def _open_all(
    sources: Sequence[Source], parts: Sequence[tuple[int, Operation]], *, animated: bool
) -> list[Encoded | Text]:
    """The images with their headers read, found few and small enough for what is to be done to them."""
    # An image that is drawn is a still: its first frame.
    opened = [
        _open(f"images[{number}]", source, animated=animated and number == 0) for number, source in enumerate(sources)
    ]
    check_pixels(sum(source.pixels for source in opened if isinstance(source, Encoded)))
    check_work({number: _extent(source) for number, source in enumerate(opened)}, parts)
    return opened


class _Pictures:
    """The images of one request, by their numbers, as they are after the operations so far."""

    def __init__(self, opened: Sequence[Encoded | Text], parts: Sequence[tuple[int, Operation]], stop: Stop) -> None:
        self._stop = stop
        self._budget = Budget()
        self._pictures: dict[int, Picture] = {}
        for number, source in enumerate(opened):
            first = next((part for _, part in parts if number in _named(part)), None)
            self._pictures[number] = _load(source, first, stop)
            # After each: texts tell their size only now.
            self._check()

    @property
    def canvas(self) -> Picture:
        return self._pictures[0]

    def apply(self, number: int, step: Operation) -> None:
        picture = self._pictures[step.target]
        self._budget.charge(number, step, Extent(picture.size, len(picture.frames)))
        if isinstance(step, Draw):
            # Drawn, it is needed no more, and its memory is free.
            changed = drawn(picture, self._pictures.pop(step.overlay), step)
        else:
            changed = transformed(picture, step)
        check_size(changed.size, len(changed.frames))
        self._pictures[step.target] = changed
        self._check()
        self._pictures[step.target] = changed.rendered(self._stop)

    def _check(self) -> None:
        check_pixels(sum(picture.pixels for picture in self._pictures.values()))


def _open(where: str, source: object, *, animated: bool) -> Encoded | Text:
    if isinstance(source, Text):
        return source
    if isinstance(source, bytes):
        return read_header(source, animated=animated)
    raise ImagingError(BAD_REQUEST, f"{where} must be the bytes of an image or a text, not {type(source).__name__}")


def _extent(source: Encoded | Text) -> Extent | None:
    return None if isinstance(source, Text) else Extent(source.shown, source.frames)


def _load(source: Encoded | Text, first: Operation | None, stop: Stop) -> Picture:
    """The pixels of an image that is about to be changed by an operation first, if by any."""
    if isinstance(source, Text):
        return rasterize(source, stop)
    return decode(source, stop, shrinking(source.shown, first) if isinstance(first, Transform) else 1.0)
