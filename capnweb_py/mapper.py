"""A mapper: a function that was recorded. What `.map()` sends, and what a "remap" expression brings.

It is data: the hooks that it captured, and its instructions, each an expression (protocol, section "remap"). Recording
one is recorder.py's, applying one to a value is replay.py's.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from .metering import parts_of_tree

if TYPE_CHECKING:
    from .delivery import Deliveries
    from .deserialize import Deserializer
    from .hooks import Hook
    from .options import Limits

__all__ = ["Mapper", "Provenance", "copies_of"]


@attrs.frozen
class Provenance:
    """Where a mapper came from.

    Attributes:
        limits: of what its instructions may hold.
        deliveries: what begins the calls that it makes; None if it was recorded on this side.
        depth: how deep it nests in the message that brought it.
        reader: the class that reads its instructions; None for that of trees as JSON has them.
    """

    limits: Limits
    deliveries: Deliveries | None = None
    depth: int = 0
    reader: type[Deserializer] | None = None


class Mapper:
    """A recorded function. Whoever is given one disposes it, or hands it on.

    Args:
        captures: the hooks that the instructions name -1, -2, -3 ..., owned by the mapper.
        instructions: the expressions to evaluate, the last of which is the result. They are never changed.
        provenance: where they came from.
    """

    __slots__ = ("_copies", "captures", "instructions", "provenance", "size")

    def __init__(self, captures: list[Hook], instructions: list[Any], provenance: Provenance) -> None:
        self.captures = captures
        self.instructions = instructions
        self.provenance = provenance
        # How many parts the instructions have: what it costs to evaluate them once.
        self.size = parts_of_tree(instructions)
        self._copies: Callable[[], Any] | None = None

    def copies(self) -> list[Any]:
        """A copy of the instructions, to be consumed."""
        if self._copies is None:
            self._copies = copies_of(self.instructions)
        instructions: list[Any] = self._copies()
        return instructions

    def dispose(self) -> None:
        """Let go of the captures. Safe to do twice."""
        captures, self.captures = self.captures, []
        for hook in captures:
            hook.dispose()


def copies_of(tree: Any) -> Callable[[], Any]:
    """What makes copies of a plain tree, which share no list and no dict."""
    try:
        # The fastest way. Version 2 of the form is the last that copies what occurs twice instead of sharing it.
        return partial(marshal.loads, marshal.dumps(tree, 2))
    except ValueError:
        # A codec whose trees hold more than JSON does.
        return partial(_copy, tree)


def _copy(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_copy(item) for item in tree]
    if isinstance(tree, dict):
        return {key: _copy(item) for key, item in tree.items()}
    return tree
