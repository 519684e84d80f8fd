"""What a codec raises."""

from __future__ import annotations


class CodecError(ValueError):
    """The data of a message is not one whole tree of the codec."""
