"""Ending a render that nobody waits for any more, from another thread.

libvips ends the evaluation of an image that is marked as killed. Whoever works out pixels hands the image over
here first. What cannot be ended is what happens between two such moments, seconds at most.
"""

from __future__ import annotations

from threading import Lock

import pyvips


class StoppedError(Exception):
    """The render was asked to stop."""


class Stop:
    """How one render is asked to stop. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requested = False
        # What is being worked out.
        self._image: pyvips.Image | None = None

    def request(self) -> None:
        """Have the render raise soon: StoppedError, or the error that libvips ends the evaluation with."""
        with self._lock:
            self._requested = True
            if self._image is not None:
                self._image.set_kill(True)

    def watched(self, image: pyvips.Image) -> pyvips.Image:
        """The image, whose pixels are worked out next. StoppedError: they need not be."""
        with self._lock:
            if self._requested:
                raise StoppedError
            # A copy costs no pixels, and what is killed is nobody else's.
            self._image = image.copy()
            return self._image
