"""Uploads under way, counted: each is in memory until it is kept, and whoever has one URL may use it at any number of
connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["MAX_UPLOADS", "MAX_UPLOADS_OF_ONE_URL", "TooManyUploadsError", "Uploads"]

# With MAX_HOSTED_BYTES each: 160 MB.
MAX_UPLOADS: Final = 16

# The second is of whoever tries again while the connection of the first is lost, and is not yet known to be.
MAX_UPLOADS_OF_ONE_URL: Final = 2


class TooManyUploadsError(Exception):
    """There is no place for another upload. The message says of what there are too many."""


class Uploads:
    """The uploads of one binding that are under way."""

    def __init__(self) -> None:
        self._by_ticket: Counter[str] = Counter()

    @contextmanager
    def place(self, ticket: str) -> Iterator[None]:
        """A place for an upload, for as long as the block runs.

        Raises:
            TooManyUploadsError: there is none.
        """
        if self._by_ticket[ticket] >= MAX_UPLOADS_OF_ONE_URL:
            raise TooManyUploadsError(f"this URL is being used {MAX_UPLOADS_OF_ONE_URL} times already: try again later")
        if self._by_ticket.total() >= MAX_UPLOADS:
            raise TooManyUploadsError(f"{MAX_UPLOADS} uploads are under way already: try again later")
        self._by_ticket[ticket] += 1
        try:
            yield
        finally:
            self._by_ticket[ticket] -= 1
            if not self._by_ticket[ticket]:
                del self._by_ticket[ticket]
