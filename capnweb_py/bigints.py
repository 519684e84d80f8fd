"""Integers of any size to and from decimal digits.

Python refuses to convert more than 4,300 digits at once, since the time grows with their square, and the setting is the
whole process's. A session has its own limit, `max_bigint_digits`, and may allow more: so here it goes in pieces.
"""

from __future__ import annotations

import math
import re
from typing import Final

from .values import BigInt

__all__ = ["decimal_digits", "fits_digits", "parse_decimal"]

_PIECE_DIGITS: Final = 4000
_PIECE: Final = 10**_PIECE_DIGITS
_BITS_PER_DIGIT: Final = math.log2(10)


def fits_digits(value: int, count: int) -> bool:
    """Whether an integer has at most so many decimal digits (give or take one), without converting it."""
    return value.bit_length() <= math.ceil(count * _BITS_PER_DIGIT)


def decimal_digits(value: int) -> str:
    """The decimal digits of an integer, with its sign."""
    sign, rest = ("-", -int(value)) if value < 0 else ("", int(value))
    pieces: list[str] = []
    while rest >= _PIECE:
        rest, piece = divmod(rest, _PIECE)
        pieces.append(str(piece).zfill(_PIECE_DIGITS))
    return sign + str(rest) + "".join(reversed(pieces))


def parse_decimal(digits: str) -> BigInt:
    """The integer that decimal digits spell. Raises ValueError if they are anything else."""
    if not re.fullmatch(r"-?[0-9]+", digits):
        raise ValueError("not a decimal integer")
    magnitude = digits.removeprefix("-")
    value = 0
    for start in range(0, len(magnitude), _PIECE_DIGITS):
        piece = magnitude[start : start + _PIECE_DIGITS]
        value = value * 10 ** len(piece) + int(piece)
    return BigInt(-value if digits.startswith("-") else value)
