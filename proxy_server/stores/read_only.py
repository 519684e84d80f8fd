"""What a binding with access = "read" says to what would write: which binding it is, and where that is said."""

from __future__ import annotations

__all__ = ["read_only"]


def read_only(name: str, *, over_remote: bool) -> str:
    """The refusal.

    Args:
        name: of the binding.
        over_remote: whether a program has it so for a binding that is elsewhere.
    """
    where = "in the configuration of the program that uses it" if over_remote else "in the configuration that serves it"
    return f'The binding "{name}" is read-only: its access is "read" {where}'
