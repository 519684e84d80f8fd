"""The names of members in two languages: `get_user` here, `getUser` there. Names only; which are public is target.py's.

One way alone is a function: from `get_user` to `getUser`. Back it goes by looking up what a class or function has.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

__all__ = ["Naming", "camel", "camel_keywords", "check_naming", "in_camel"]

# How members are named on the wire: "exact" as they are here, or "camel".
Naming = Literal["camel", "exact"]


def check_naming(names: object) -> None:
    """Raises ValueError if it is no way of naming members."""
    if names not in ("camel", "exact"):
        raise ValueError(f'names is "camel" or "exact", not {names!r}')


@functools.lru_cache(maxsize=4096)
def camel(name: str) -> str:
    """The camelCase name of a snake_case one: `get_user` is `getUser`, `to_html_5` is `toHtml5`.

    A word keeps the case of all its letters but the first: `as_JSON` is `asJSON`. Underscores at the end, as Python's
    keywords need them, go: `from_` is `from`. What begins with an underscore is private, and stays as it is.
    """
    if "_" not in name or name.startswith("_"):
        return name
    first, *rest = filter(None, name.split("_"))
    return first + "".join(word[0].upper() + word[1:] for word in rest)


def in_camel(names: Iterable[str], of: str) -> dict[str, str]:
    """Names of here by their names on the wire.

    Args:
        names: the names.
        of: what an error says has them.

    Raises:
        TypeError: if two of them are one on the wire.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(camel(name), name)
        if other != name:
            raise TypeError(f"{of}: {other} and {name} are both {camel(name)!r} in camel case: rename one of them")
    return found


def camel_keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a call as the entries of JavaScript's options object.

    Raises:
        TypeError: if two of them are one there.
    """
    return {wire: keywords[name] for wire, name in in_camel(keywords, "keyword arguments").items()}
