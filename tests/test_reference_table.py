"""The table of reference.md: every test that it names exists, and every row says where or why not."""

from __future__ import annotations

import ast
import functools
import re
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
SECTION: Final = re.compile(r"## (\S+)")
ROW: Final = re.compile(r"\| (\d+) \| (.+?) \| (.+) \|")
# A test of ours.
NAMED: Final = re.compile(r"`([\w/]+\.py)::(\w+)`")
NOT_HERE: Final = "cannot apply: "


def read_table() -> dict[str, list[tuple[int, str]]]:
    """What stands in the last column, by the reference's file: with the line of the reference's test."""
    table: dict[str, list[tuple[int, str]]] = {}
    rows: list[tuple[int, str]] = []
    for line in (HERE / "reference.md").read_text().splitlines():
        if section := SECTION.fullmatch(line):
            rows = table.setdefault(section[1], [])
        elif row := ROW.fullmatch(line):
            rows.append((int(row[1]), row[3]))
    return table


TABLE: Final = read_table()
ROWS: Final = [(file, line, here) for file, rows in TABLE.items() for line, here in rows]


@functools.cache
def names_in(file: str) -> set[str]:
    """The names of the test functions of a file."""
    body = ast.parse((HERE / file).read_text()).body
    return {
        statement.name
        for statement in body
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and statement.name.startswith("test_")
    }


@pytest.mark.parametrize(("file", "line", "here"), ROWS, ids=[f"{file}:{line}" for file, line, _ in ROWS])
def test_a_row_names_tests_that_exist_or_says_why_there_is_none(file: str, line: int, here: str) -> None:
    named = NAMED.findall(here)
    assert named or here.startswith(NOT_HERE)
    assert len(named) == here.count(".py"), "a test is named as `file.py::test_name`"
    for path, name in named:
        assert name in names_in(path), f"there is no test {name} in {path}"


def test_every_file_of_the_reference_has_its_rows_in_order() -> None:
    assert {file: len(rows) for file, rows in TABLE.items()} == {
        "index.test.ts": 187,
        "limits.test.ts": 17,
        "flow-control.test.ts": 10,
        "workerd.test.ts": 18,
    }
    for rows in TABLE.values():
        assert all(line < following for (line, _), (following, _) in pairwise(rows))
