"""What came out of a run: the figures of all rounds, what follows from them, and the file that they are saved in."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from .pairs import ECHO_NAME, MIXED, NODE
from .rounds import Figures, Pair
from .sides import Missing
from .workloads import ROWS, Measure

__all__ = ["Results", "Row", "load", "results_of", "save"]


@attrs.frozen
class Row:
    """All that was measured of one thing.

    Attributes:
        measure: what.
        figures: those of each round, by the name of the pair; pairs that do not do it are not there.
    """

    measure: Measure
    figures: dict[str, list[float]]

    def median(self, pair: str) -> float | None:
        """The median over the rounds; None where nothing was measured."""
        measured = self.figures.get(pair)
        return statistics.median(measured) if measured else None

    def ratio(self, pair: str, to: str = NODE) -> float | None:
        """How many times better one pair is than another, by the medians; None where one of them is not there."""
        ours, theirs = self.median(pair), self.median(to)
        return None if ours is None or theirs is None else self._better(ours, theirs)

    def round_ratios(self, pair: str, to: str = NODE) -> list[float]:
        """The same for each round by itself: how far they lie apart is how far a ratio can be trusted."""
        if pair not in self.figures or to not in self.figures:
            return []
        return [self._better(*both) for both in zip(self.figures[pair], self.figures[to], strict=True)]

    def _better(self, ours: float, theirs: float) -> float:
        return theirs / ours if self.measure.less_is_better else ours / theirs


@attrs.frozen(kw_only=True)
class Results:
    """A run.

    Attributes:
        finished: when, in ISO 8601.
        machine: where; see `machine.machine`.
        rounds: how many.
        pairs: who ran, in the order of the columns. The first is the one that counts as ours.
        plans: how many times each pair ran each workload in a round.
        rows: what was measured.
    """

    finished: str
    machine: dict[str, Any]
    rounds: int
    pairs: list[str]
    plans: dict[str, dict[str, int]]
    rows: list[Row]

    @property
    def ours(self) -> str:
        return self.pairs[0]

    @property
    def peers(self) -> list[str]:
        """Whom ours is compared with: npm capnweb, and the other libraries."""
        return [pair for pair in self.pairs if not pair.startswith("ours, ") and pair not in (ECHO_NAME, *MIXED)]

    @property
    def mixed(self) -> list[str]:
        return [pair for pair in self.pairs if pair in MIXED]


def results_of(figures: Figures, pairs: Sequence[Pair], rounds: int, where: dict[str, Any]) -> Results:
    """The results of a run that has just ended."""
    return Results(
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=where,
        rounds=rounds,
        pairs=[pair.name for pair in pairs],
        plans={pair.name: dict(pair.plan) for pair in pairs},
        rows=[Row(measure, _of(measure, figures)) for measure in ROWS],
    )


def _of(measure: Measure, figures: Figures) -> dict[str, list[float]]:
    return {pair: measured[measure.name] for pair, measured in figures.items() if measure.name in measured}


def save(results: Results, path: Path) -> None:
    """Write every figure of every round as JSON, with the medians and ratios for whoever reads the file."""
    saved = attrs.asdict(results)
    saved["rows"] = [_saved(row, results) for row in results.rows]
    path.write_text(json.dumps(saved, indent=2) + "\n")


def _saved(row: Row, results: Results) -> dict[str, Any]:
    return {
        **attrs.asdict(row.measure, filter=attrs.filters.include("name", "unit", "goal", "less_is_better")),
        "to Node": {pair: row.ratio(pair) for pair in row.figures if pair != NODE},
        "ours to": {peer: row.ratio(results.ours, peer) for peer in results.peers if peer in row.figures},
        "medians": {pair: row.median(pair) for pair in row.figures},
        "figures": row.figures,
    }


def load(path: Path) -> Results:
    """The results that are saved in a file.

    Raises:
        Missing: if there is no such file, or it holds no results.
    """
    try:
        saved = json.loads(path.read_text())
        saved["rows"] = [_loaded(row) for row in saved["rows"]]
        return Results(**saved)
    except FileNotFoundError as error:
        raise Missing(f"there are no results at {path}: a run without --quick makes them") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Missing(f"{path} holds no results of this program: {error!r}") from error


def _loaded(saved: dict[str, Any]) -> Row:
    measure = {key: saved[key] for key in ("name", "unit", "goal", "less_is_better")}
    return Row(Measure(**measure), saved["figures"])
