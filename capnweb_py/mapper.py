"""A mapper: a function that was recorded. What `.map()` sends, and what a "remap" expression brings.

It is data: the hooks that it captured, and its instructions, each an expression (protocol, section "remap"). Recording
one is recorder.py's, applying one to a value is replay.py's.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any

import attrs

from .errors import ProtocolError
from .metering import parts_of_tree

if TYPE_CHECKING:
    from .delivery import Deliveries
    from .hooks import Hook
    from .options import Limits

__all__ = ["Mapper", "Origin", "frozen", "thawed"]


@attrs.frozen
class Origin:
    """Where a mapper came from.

    Attributes:
        limits: of what its instructions may hold.
        deliveries: what begins the calls that it makes; None if it was recorded on this side.
        depth: how deep it nests in the message that brought it.
    """

    limits: Limits
    deliveries: Deliveries | None = None
    depth: int = 0


class Mapper:
    """A recorded function. Whoever is given one disposes it, or hands it on.

    Args:
        captures: the hooks that the instructions name -1, -2, -3 ..., owned by the mapper.
        instructions: the expressions to evaluate, the last of which is the result. They are never changed.
        origin: where they came from.
    """

    __slots__ = ("_codes", "captures", "instructions", "origin", "size")

    def __init__(self, captures: list[Hook], instructions: list[Any], origin: Origin) -> None:
        self.captures = captures
        self.instructions = instructions
        self.origin = origin
        # How many parts the instructions have: what it costs to evaluate them once.
        self.size = parts_of_tree(instructions)
        self._codes: list[bytes] | None = None

    def codes(self) -> list[bytes]:
        """The instructions in a form of which `thawed` makes as many copies as are needed.

        Raises:
            ProtocolError: if they hold what is no expression, or nest far too deep for one.
        """
        if self._codes is None:
            self._codes = [frozen(instruction) for instruction in self.instructions]
        return self._codes

    def dispose(self) -> None:
        """Let go of the captures. Safe to do twice."""
        captures, self.captures = self.captures, []
        for hook in captures:
            hook.dispose()


def frozen(tree: Any) -> bytes:
    """A plain tree, of which `thawed` makes copies. (`marshal` copies trees fastest, and reads only what we wrote.)"""
    try:
        # Version 2 of the form is the last that copies what occurs twice instead of sharing it.
        return marshal.dumps(tree, 2)
    except ValueError as error:
        raise ProtocolError(f"an instruction of a mapper cannot be read: {error}") from None


def thawed(code: bytes) -> Any:
    """One more copy of a tree."""
    return marshal.loads(code)
