"""Optional arguments on their way to JavaScript, where an option that is not given is not there."""

from __future__ import annotations

from typing import Any

__all__ = ["given"]


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}
