"""The examples of a page of documentation, run as they stand."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any, Final

__all__ = ["DOCUMENTS", "run_examples"]

DOCUMENTS: Final = Path(__file__).parent.parent / "docs"

_BLOCK: Final = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


async def run_examples(page: Path, **names: Any) -> int:
    """Run the Python blocks of a page one after the other, with these names. Returns how many there are."""
    blocks = _blocks(page)
    for block in blocks:
        code = compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = eval(code, names)
        if inspect.iscoroutine(done):
            await done
    return len(blocks)


def _blocks(page: Path) -> list[str]:
    return _BLOCK.findall(page.read_text())
