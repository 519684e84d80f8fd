"""What errors say of a server that refuses: as much of its URL as may be shown, and a line of its explanation."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

__all__ = ["explanation", "shown"]

# How much of a refusal's body an error quotes.
_QUOTED_CHARACTERS: Final = 200


def explanation(body: bytes | bytearray | None) -> str:
    """What a server says of its refusal, in a line of text."""
    lines = (body or b"").decode("utf-8", "replace").strip().splitlines()
    return f": {lines[0][:_QUOTED_CHARACTERS]}" if len(lines) == 1 else ""


def shown(url: str) -> str:
    """As much of a URL as errors and logs may show: the path and the query of one can hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
