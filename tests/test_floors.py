"""The floors of docs/architecture.md: every file of the library has its row, and imports from rows below alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
LIBRARY: Final = ROOT / "capnweb_py"


def read_rows() -> list[list[str]]:
    """The files and packages in each row, by their paths in the library without the ending."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = text.partition("\ncapnweb_py/")[2].partition("```")[0].splitlines()[1:]
    rows: list[list[str]] = []
    package = ""
    for line in listed:
        indent = len(line) - len(line.lstrip())
        names = re.split(" {3,}", line.strip())[0].split()
        rows.append([(package if indent > 4 else "") + name.removesuffix("/") for name in names])
        if indent == 4:
            package = names[0]
    return rows


FLOOR: Final = {name: floor for floor, row in enumerate(read_rows()) for name in row}
# The packages whose files have rows of their own.
DIVIDED: Final = {name.rpartition("/")[0] for name in FLOOR if "/" in name}


def place_of(path: Path) -> str:
    """What stands in a row for a file: the file, or the package that it is in, where no file of that has a row."""
    name = path.relative_to(LIBRARY).with_suffix("").as_posix()
    package = name.rpartition("/")[0]
    if package and (package not in DIVIDED or path.name == "__init__.py"):
        return package
    return name


def imports_of(path: Path) -> Iterator[Path]:
    """The files of the library that one imports as soon as it is imported itself."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.ImportFrom) and statement.level:
            origin = path.parents[statement.level - 1].joinpath(*(statement.module or "").split("."))
            yield origin.with_suffix(".py") if not origin.is_dir() else origin / "__init__.py"


FILES: Final = sorted(LIBRARY.rglob("*.py"))


def test_every_row_is_of_files_that_there_are() -> None:
    names = [name for row in read_rows() for name in row]
    assert len(names) == len(set(names))
    assert [name for name in names if not (LIBRARY / f"{name}.py").exists() and not (LIBRARY / name).is_dir()] == []


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(LIBRARY).as_posix() for path in FILES])
def test_arrows_go_down_only(path: Path) -> None:
    place = place_of(path)
    assert place in FLOOR, "it has no place in docs/architecture.md"
    for imported in imports_of(path):
        below = place_of(imported)
        assert below == place or FLOOR[below] > FLOOR[place], f"{place} imports {below}, which is not below it"
