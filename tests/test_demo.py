"""The demo as its user starts it: what it prints, the pictures that it writes, and that nothing of it goes on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import attrs
import pytest
from pictures import picture_format, size
from proxying import ROOT, command

WIDTH = 80


@attrs.frozen
class Run:
    """One run of the demo that has ended."""

    exit_code: int
    stdout: str
    stderr: str
    output: Path
    # Whether a process of its group, the proxy server above all, was there when the demo had ended.
    left_running: bool

    @property
    def table(self) -> dict[str, tuple[int, str]]:
        """Of each step, how many round trips it took, and what came of it."""
        rows: list[list[str]] = []
        for line in self.stdout.splitlines():
            if line.startswith("│"):
                cells = [cell.strip() for cell in line.split("│")[1:-1]]
                if cells[1]:
                    rows.append(cells)
                else:  # the row before goes on
                    rows[-1] = [f"{before} {cell}".strip() for before, cell in zip(rows[-1], cells, strict=True)]
        return {title: (int(round_trips), outcome) for title, round_trips, _time, outcome in rows}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run without a terminal, in a process group of its own."""
    output = tmp_path_factory.mktemp("demo") / "pictures"
    process = subprocess.Popen(
        command("demo", "--output", output),
        cwd=ROOT,
        env={**os.environ, "COLUMNS": str(WIDTH)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    stdout, stderr = process.communicate(timeout=60)
    return Run(process.returncode, stdout, stderr, output, _group_lives(process.pid))


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_succeeds_and_leaves_nothing_running(run: Run) -> None:
    assert (run.exit_code, run.stderr, run.left_running) == (0, "", False)


def test_the_pictures_are_what_they_are_called(run: Run) -> None:
    assert {path.name for path in run.output.iterdir()} == {"grace_hopper.webp", "grace_hopper.avif"}
    for name, kind in {"grace_hopper.webp": "webp", "grace_hopper.avif": "heif"}.items():
        picture = (run.output / name).read_bytes()
        assert (picture_format(picture), size(picture)) == (kind, (256, 256))
        assert f"{name} ({len(picture) / 1000:.1f} kB)" in run.stdout


def test_pipelining_saves_round_trips(run: Run) -> None:
    trips = {title: round_trips for title, (round_trips, _) in run.table.items()}
    assert trips["a counter, pipelined"] == 1
    assert trips["a counter, pipelined"] < trips["a counter, each call awaited"]
    for kind in ("WebP", "AVIF"):
        assert trips[f"a thumbnail in {kind}, pipelined"] < trips["a thumbnail, each step awaited"]


def test_every_step_tells_what_came_of_it(run: Run) -> None:
    outcomes = {title: outcome for title, (_, outcome) in run.table.items()}
    assert outcomes["the service again"] == "Hello, World!"
    assert outcomes["a counter, pipelined"] == outcomes["a counter, each call awaited"] == "the counter stands at 10"
    assert outcomes["a callback from the server"] == "called back with 3, 2, 1: lift-off"
    assert outcomes["looking at a photograph"].startswith("image/jpeg, 512 x 600")


def test_it_fits_a_narrow_window_and_has_no_escapes(run: Run) -> None:
    assert "\x1b" not in run.stdout
    assert all(len(line) <= WIDTH for line in run.stdout.splitlines() if str(run.output) not in line)
