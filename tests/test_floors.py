"""The floors of docs/architecture.md: every file has its row, and imports from rows below alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
TREES: Final = ["capnweb_py", "proxy_server"]


def read_rows(tree: str) -> list[list[str]]:
    """The files and packages in each row of a tree, by their paths in it without the ending."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.split("```|\n\n", text.partition(f"\n{tree}/")[2])[0].splitlines()[1:]
    rows: list[list[str]] = []
    package = ""
    for line in listed:
        indent = len(line) - len(line.lstrip())
        names = re.split(" {3,}", line.strip())[0].split()
        rows.append([(package if indent > 4 else "") + name.removesuffix("/") for name in names])
        if indent == 4:
            package = names[0]
    return rows


FLOOR: Final = {f"{tree}/{name}": floor for tree in TREES for floor, row in enumerate(read_rows(tree)) for name in row}
# The packages whose files have rows of their own.
DIVIDED: Final = {name.rpartition("/")[0] for name in FLOOR if name.count("/") > 1 and not name.endswith("/__init__")}


def place_of(path: Path) -> str:
    """What stands in a row for a file: the file, or the package that it is in, where no file of that has a row."""
    name = path.relative_to(ROOT).with_suffix("").as_posix()
    package = name.rpartition("/")[0]
    if name in FLOOR or package in TREES or (package in DIVIDED and path.name != "__init__.py"):
        return name
    return package


def tree_of(path: Path) -> Path:
    return ROOT / path.relative_to(ROOT).parts[0]


def imports_of(path: Path) -> Iterator[Path]:
    """The files of its tree that one imports as soon as it is imported itself."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.ImportFrom):
            folder = path.parents[statement.level - 1] if statement.level else ROOT
            origin = folder.joinpath(*(statement.module or "").split("."))
            if origin.is_relative_to(tree_of(path)):
                yield origin / "__init__.py" if origin.is_dir() else origin.with_suffix(".py")


FILES: Final = sorted(path for tree in TREES for path in (ROOT / tree).rglob("*.py"))


@pytest.mark.parametrize("tree", TREES)
def test_every_row_is_of_files_that_there_are(tree: str) -> None:
    names = [name for row in read_rows(tree) for name in row]
    assert len(names) == len(set(names))
    folder = ROOT / tree
    assert [name for name in names if not (folder / f"{name}.py").exists() and not (folder / name).is_dir()] == []


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(ROOT).as_posix() for path in FILES])
def test_arrows_go_down_only(path: Path) -> None:
    place = place_of(path)
    assert place in FLOOR, "it has no place in docs/architecture.md"
    for imported in imports_of(path):
        below = place_of(imported)
        assert below == place or FLOOR[below] > FLOOR[place], f"{place} imports {below}, which is not below it"


def test_the_library_never_imports_the_program() -> None:
    for path in sorted((ROOT / "capnweb_py").rglob("*.py")):
        assert "proxy_server" not in {
            (statement.module or "").partition(".")[0]
            for statement in ast.walk(ast.parse(path.read_text()))
            if isinstance(statement, ast.ImportFrom)
        }, path
