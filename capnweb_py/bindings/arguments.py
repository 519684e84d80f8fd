"""What facades say of an argument of a wrong type, before anything is sent: the same on both channels."""

from __future__ import annotations

from types import UnionType

__all__ = ["check"]


def check(name: str, value: object, kinds: type | UnionType, needed: str) -> None:
    """Raise a TypeError that names an argument, what it has to be, and what it is.

    Args:
        name: of the argument.
        value: what was given.
        kinds: what it may be. A bool is no number.
        needed: the same in words: "a str".
    """
    if not isinstance(value, kinds) or isinstance(value, bool):
        given = "None" if value is None else type(value).__name__
        raise TypeError(f"{name} has to be {needed}, not {given}")
