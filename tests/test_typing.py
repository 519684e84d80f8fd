"""What mypy says of a small typed program: see typing/callers.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

PROGRAM = Path(__file__).parent / "typing" / "callers.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The errors that mypy finds, by line: the codes of each."""
    output, problems, _ = api.run(
        [
            "--strict",
            "--config-file=",
            "--no-error-summary",
            f"--cache-dir={tmp_path_factory.mktemp('mypy')}",
            str(PROGRAM),
        ]
    )
    assert problems == ""
    lines: dict[int, str] = {}
    for line in output.splitlines():
        if ": note: " in line:
            continue
        error = re.fullmatch(rf".*{PROGRAM.name}:(\d+): error: .*\[([a-z-]+)\]", line)
        assert error is not None, line
        lines[int(error[1])] = error[2]
    return lines


def test_what_is_right_passes_and_what_is_wrong_does_not(found: dict[int, str]) -> None:
    expected = {
        number: said[1]
        for number, line in enumerate(PROGRAM.read_text().splitlines(), 1)
        if (said := re.search(r"# error: ([a-z-]+)$", line))
    }
    assert len(expected) > 10
    assert found == expected
