"""How deep a value from a client nests. What one client may store, another must be able to read."""

from __future__ import annotations

from typing import Any

__all__ = ["nests_deeper"]


def nests_deeper(value: Any, levels: int) -> bool:
    """Whether lists and dicts lie more than so many levels inside one another. A loop: the value may be any depth."""
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, (list, dict))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return False
    return any(isinstance(inner, (list, dict)) for inner in layer)
