"""Reading a table of the configuration key by key, with errors that say where the mistake is and what is valid.

It knows types of values and nothing of what they mean: that is for config.py, and for the bindings that read
their own tables.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

__all__ = ["ConfigError", "PackageMissing", "Table", "suggestion"]

ValueT = TypeVar("ValueT")

# What TOML and JSON call the types that tomllib and json return.
_TYPE_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "a table",
    type(None): "null",
}


# More names than a message lists; less than there are types of bindings.
_MANY: Final = 40


class ConfigError(Exception):
    """The configuration cannot be used. One line: the file, the key's path, and what would be valid."""

    def __init__(self, source: Path, path: str, problem: str) -> None:
        place = f"{source}: {path}" if path else str(source)
        super().__init__(" ".join(f"{place}: {problem}".split()))


class PackageMissing(ConfigError):
    """What the configuration asks for needs a Python package that is not installed."""


def suggestion(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the known one that it resembles, or all of them if they are few."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    if len(known) > _MANY:
        return f"none of the {len(known)} names there resembles it"
    return f"known here: {', '.join(sorted(set(known)))}" if known else "nothing is known here"


class Table:
    """One table. Every key that it may have is read once; `finish` then refuses those that nobody read.

    Args:
        values: the table, as tomllib and json return it.
        source: the file that it is from.
        path: the dotted path of the table's own key; empty for the whole document.
        name: that key, which may have dots itself; by default what is behind the last dot of the path.
        places: the paths of those of its keys that stand elsewhere in the file, by key.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        source: Path,
        path: str = "",
        name: str | None = None,
        places: Mapping[str, str] | None = None,
    ) -> None:
        self.source = source
        self.path = path
        self.name = path.rpartition(".")[2] if name is None else name
        self._values = values
        self._places = places or {}
        self._known: list[str] = []

    @property
    def written(self) -> Mapping[str, Any]:
        """All of the table, read or not."""
        return self._values

    def error(self, problem: str, key: str | None = None) -> ConfigError:
        """The error about this table, or about one key of it, for the caller to raise."""
        return ConfigError(self.source, self._place(key), problem)

    def package_missing(self, what: str, error: ModuleNotFoundError, extra: str, key: str) -> PackageMissing:
        """The error about a package that is not installed, for the caller to raise.

        Args:
            what: needs it.
            error: of importing it.
            extra: has it.
            key: asks for it.
        """
        problem = f'{what} needs the Python package "{error.name}": install capnweb-py[{extra}]'
        return PackageMissing(self.source, self._place(key), problem)

    def text(self, key: str, default: str | None = None) -> str:
        """A string. Without a default, the key is required.

        Raises:
            ConfigError: if the key is missing, or its value is empty or of another type.
        """
        value = self._read(key, str)
        if value is None:
            if default is None:
                raise self.error(f'the key "{key}" is missing, with a string as its value')
            return default
        if not value:
            raise self.error("the string is empty", key)
        return value

    def optional_text(self, key: str) -> str | None:
        """A string, or None where the key is absent.

        Raises:
            ConfigError: if the value is of another type.
        """
        return self._read(key, str)

    def integer(self, key: str, default: int, *, low: int, high: int) -> int:
        """An integer from `low` to `high`.

        Raises:
            ConfigError: if the value is of another type or out of the range.
        """
        value = self._read(key, int)
        if value is None:
            return default
        if not low <= value <= high:
            raise self.error(f"{value} is out of range: {low} to {high} are valid", key)
        return value

    def flag(self, key: str) -> bool:
        """True or false; false where the key is absent.

        Raises:
            ConfigError: if the value is of another type.
        """
        return bool(self._read(key, bool))

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings; empty where the key is absent.

        Raises:
            ConfigError: if the value, or an item of it, is of another type.
        """
        values = self._read(key, list)
        for index, value in enumerate(values or ()):
            self._check(f"{key}[{index}]", value, str)
        return tuple(values or ())

    def table(self, key: str) -> Table:
        """A table inside this one; an empty one where the key is absent.

        Raises:
            ConfigError: if the value is no table.
        """
        return Table(self._read(key, dict) or {}, self.source, self._place(key), key)

    def tables(self) -> dict[str, Table]:
        """All keys of this table, whatever they are named, where each has to be a table itself.

        Raises:
            ConfigError: if one is none.
        """
        return {key: self.table(key) for key in self._values}

    def finish(self) -> None:
        """Say that every key has been read.

        Raises:
            ConfigError: if the table has a key that nobody read.
        """
        for key in self._values:
            if key not in self._known:
                raise self.error(f"unknown key: {suggestion(key, self._known)}", key)

    def _place(self, key: str | None) -> str:
        """The dotted path of a key of this table, or of the table."""
        if key is None:
            return self.path
        name, bracket, index = key.partition("[")
        if name in self._places:
            return f"{self._places[name]}{bracket}{index}"
        return f"{self.path}.{key}" if self.path else key

    def standing(self, path: str, places: Mapping[str, str]) -> Table:
        """The same table, as it stands in its file: itself, and those of its keys that are elsewhere there."""
        return Table(self._values, self.source, path, self.name, places)

    def _read(self, key: str, kind: type[ValueT]) -> ValueT | None:
        self._known.append(key)
        if key not in self._values:
            return None
        return self._check(key, self._values[key], kind)

    def _check(self, key: str, value: Any, kind: type[ValueT]) -> ValueT:
        # By the exact type: a bool is an int to isinstance, and not to the person who wrote the file.
        if type(value) is not kind:
            given = _TYPE_NAMES.get(type(value), type(value).__name__)
            raise self.error(f"{_TYPE_NAMES[kind]} is needed here, and this is {given}", key)
        return value
