"""SQL's functions that would take time by the product of two lengths, in time by their sum.

SQLite is interrupted between two instructions of its machine, and a function is one instruction: with two values of two
megabytes, its own trim() runs for hours. So these are Python's where both values are text. Whatever else they are
given, numbers or a blob beside a text, goes to SQLite's own functions, on a connection aside, as long as that is quick.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import apsw

from .d1 import MAX_VALUE_BYTES, SqlValue

__all__ = ["install"]

# The product of the lengths of values up to which SQLite's own functions are quick: they take a second, at most.
_QUICK: Final = 100_000_000

_HEX_DIGITS: Final = frozenset("0123456789abcdefABCDEF\0")


def install(connection: apsw.Connection) -> None:
    """Have a connection use the functions of this file."""
    own = _Own()
    functions: dict[tuple[str, int], Callable[..., SqlValue]] = {
        ("instr", 2): own.instr,
        ("replace", 3): own.replace,
        ("trim", 2): own.trim,
        ("ltrim", 2): own.ltrim,
        ("rtrim", 2): own.rtrim,
        ("unhex", 2): own.unhex,
    }
    for (name, count), function in functions.items():
        # Innocuous, as SQLite's own are: indexes, views and generated columns may use them.
        connection.create_scalar_function(name, function, count, deterministic=True, flags=apsw.SQLITE_INNOCUOUS)


class _Own:
    def __init__(self) -> None:
        self._aside = apsw.Connection(":memory:")

    def instr(self, text: SqlValue, wanted: SqlValue) -> SqlValue:
        if isinstance(text, str) and isinstance(wanted, str):
            return text.find(wanted) + 1
        if isinstance(text, bytes) and isinstance(wanted, bytes):
            return text.find(wanted) + 1
        return self._by_sqlite("instr", text, wanted)

    def replace(self, text: SqlValue, old: SqlValue, new: SqlValue) -> SqlValue:
        if not (isinstance(text, str) and isinstance(old, str) and isinstance(new, str)):
            return self._by_sqlite("replace", text, old, new)
        if not old or old[0] == "\0":
            return text
        if len(text) + text.count(old) * (len(new) - len(old)) > MAX_VALUE_BYTES:
            raise apsw.TooBigError("string or blob too big")
        return text.replace(old, new)

    def trim(self, text: SqlValue, unwanted: SqlValue) -> SqlValue:
        return self._trim("trim", text, unwanted)

    def ltrim(self, text: SqlValue, unwanted: SqlValue) -> SqlValue:
        return self._trim("ltrim", text, unwanted)

    def rtrim(self, text: SqlValue, unwanted: SqlValue) -> SqlValue:
        return self._trim("rtrim", text, unwanted)

    def _trim(self, name: str, text: SqlValue, unwanted: SqlValue) -> SqlValue:
        if not (isinstance(text, str) and isinstance(unwanted, str)):
            return self._by_sqlite(name, text, unwanted)
        # To SQLite, the characters end at a NUL. A set, since str.strip() looks through all of them each time.
        characters = frozenset(unwanted.partition("\0")[0])
        start, end = 0, len(text)
        while name != "rtrim" and start < end and text[start] in characters:
            start += 1
        while name != "ltrim" and start < end and text[end - 1] in characters:
            end -= 1
        return text[start:end]

    def unhex(self, text: SqlValue, ignored: SqlValue) -> SqlValue:
        if not (isinstance(text, str) and isinstance(ignored, str)):
            return self._by_sqlite("unhex", text, ignored)
        # The same with one character for all that are ignored, and one for all that are not.
        characters = frozenset(ignored)
        plain = "".join(one if one in _HEX_DIGITS else " " if one in characters else "!" for one in text)
        return self._by_sqlite("unhex", plain, " ")

    def _by_sqlite(self, name: str, *values: SqlValue) -> SqlValue:
        if math.prod(len(value) for value in values[:2] if isinstance(value, (str, bytes))) > _QUICK:
            raise apsw.TooBigError(f"values too big for {name}()")
        result: SqlValue = self._aside.execute(f"SELECT {name}({', '.join('?' * len(values))})", values).get
        return result
