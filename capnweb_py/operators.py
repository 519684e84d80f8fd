"""What Python asks of any value by itself, in operators and conversions: refused by what stands for a value elsewhere.

The one table of it. Who refuses what, and what the error advises, is said in stub.py for promises, and at the end of
this file for placeholders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

__all__ = ["ABSTRACT", "NEEDS_VALUE", "Abstract", "refuse"]

# Special methods that mean nothing without the value, by what an error calls their use.
NEEDS_VALUE: Final[Mapping[str, str]] = {
    "compared by size": "lt le gt ge",
    "calculated with": "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow "
    "divmod rdivmod matmul rmatmul and rand or ror xor rxor lshift rlshift rshift rrshift "
    "neg pos abs invert round trunc floor ceil",
    "tested for truth": "bool",
    "turned into a number or bytes": "int float complex index bytes",
    "iterated over": "iter reversed",
    "searched": "contains",
    "measured": "len",
}


def refuse(cls: type, uses: Mapping[str, str], text: Callable[[str], str]) -> None:
    """Have the instances of a class raise TypeError where they are used so.

    Args:
        cls: the class, whose methods of these names are replaced.
        uses: the names of special methods, without their underscores, by what `text` is told of them.
        text: what the error says.
    """
    for use, names in uses.items():
        for name in names.split():
            setattr(cls, f"__{name}__", _refusal(text(use)))


def _refusal(text: str) -> Callable[..., NoReturn]:
    def refused(self: Any, *operands: object) -> NoReturn:
        raise TypeError(text)

    return refused


# Why a placeholder of a callback of map() refuses.
ABSTRACT: Final = (
    "it stands for values that only the other side has, and the callback runs once, before there are any. "
    "Return it, call its members or pass it to a call"
)


class Abstract:
    """What a placeholder refuses to do, since it would not be what was meant: all that needs its value now."""

    __slots__ = ()


refuse(
    Abstract,
    {
        **NEEDS_VALUE,
        "compared": "eq ne",
        "looked up in a dict or set": "hash",
        "turned into text": "str format",
        "awaited": "await",
        "iterated over with next() or `async for`": "next aiter anext",
    },
    lambda use: f"a placeholder of a callback of map() cannot be {use}: {ABSTRACT}",
)
