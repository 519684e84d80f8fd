"""What both channels of the images binding stand on: the engine in worker threads, and how its answers and a
text are put.

Nothing here knows which channel a picture came in by or goes out by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel
from anyio import to_thread

from proxy_server.imaging import ImagingError, Output, Probed, Rendered, Source, Stop, Text, check, probe, render
from proxy_server.imaging.errors import BAD_OPTION, TOO_MANY_BYTES
from proxy_server.imaging.fields import Fields

__all__ = ["MAX_RENDERS", "Renderer", "text_source", "too_large"]

# How many pictures are worked on at a time. libvips puts every core to one picture by itself, and each may hold
# 400 MB of pixels (MAX_PIXELS of the engine): more at a time would take memory and save no time.
MAX_RENDERS: Final = 4


class Renderer:
    """The images engine, off the event loop: libvips blocks, so it runs in threads, MAX_RENDERS at most.

    A render that is cancelled is told to stop, and ends when its thread does, soon after: the memory of a picture
    is free only then, and so is its place among MAX_RENDERS.

    Args:
        max_input_bytes: how large one image file may be.
    """

    def __init__(self, max_input_bytes: int) -> None:
        self.max_input_bytes = max_input_bytes
        self._threads = anyio.CapacityLimiter(MAX_RENDERS)

    async def probe(self, data: bytes) -> Probed:
        """See `imaging.probe`."""
        return await to_thread.run_sync(probe, data, limiter=self._threads)

    async def check(self, data: bytes) -> None:
        """See `imaging.check`."""
        await to_thread.run_sync(check, data, limiter=self._threads)

    async def render(self, sources: Sequence[Source], operations: Sequence[object], output: Output) -> Rendered:
        """See `imaging.render`."""
        stop = Stop()
        outcome: Rendered | Exception
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_when_cancelled, stop)
            try:
                work = partial(render, sources, operations, output, stop)
                outcome = await to_thread.run_sync(work, limiter=self._threads)
            except Exception as error:
                # Kept, not raised: the task group would wrap it.
                outcome = error
            tasks.cancel_scope.cancel()
        # Of a render that was stopped nobody hears.
        await anyio.lowlevel.checkpoint_if_cancelled()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def too_large(limit: int) -> ImagingError:
    """The error about an image of more bytes than are taken, to raise."""
    return ImagingError(TOO_MANY_BYTES, f"The image is too large: at most {limit} bytes are allowed")


async def _stop_when_cancelled(stop: Stop) -> None:
    # The caller cannot do this itself: it is in the thread, and hears of nothing until that ends.
    try:
        await anyio.sleep_forever()
    finally:
        stop.request()


def text_source(content: Any, options: Mapping[str, Any]) -> Text:
    """A text to be rasterized, from the options of `.text()`: font, size, color. Their values are checked when
    it is.

    Raises:
        ImagingError: 9401, an option is unknown, or the font is one to be downloaded.
    """
    Fields("text", options).allow("font", "size", "color")
    font: Any = options.get("font")
    if isinstance(font, Mapping) and "url" in font:
        # The address is the caller's, and this server may reach what the caller cannot.
        raise ImagingError(
            BAD_OPTION,
            "text.font.url is not supported: this server downloads no fonts. "
            "Leave the font out, or give the name of a font family that is installed on the server",
        )
    return Text(content, font=font, size=options.get("size"), color=options.get("color"))
