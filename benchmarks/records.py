"""What the Python clients send: a record of about 1 KB, and 1 MiB of bytes. node/client.mjs sends the same."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["MEBIBYTE", "RECORD"]

MEBIBYTE: Final = bytes(1024 * 1024)

RECORD: Final[dict[str, Any]] = {
    "id": 1,
    "name": "x" * 100,
    "tags": ["a", "b", "c"],
    "items": [{"i": i, "v": i * 1.5, "s": f"item{i}"} for i in range(20)],
}
