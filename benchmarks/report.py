"""What came out, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs

from .rounds import Figures, Pair, median
from .workloads import IDLE, WORKLOADS, Measure

__all__ = ["machine", "print_table", "ratio", "round_ratios", "write_json"]

_ROWS: Final = (*WORKLOADS, IDLE)

# No figure is ever cut to fit a terminal, or to the 80 columns of no terminal at all. The table takes what it needs.
_WIDTH: Final = 200


def machine() -> dict[str, Any]:
    """Where this runs, and how busy it is before the first round: processes that want a core, over the last minute."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def ratio(figures: Figures, row: Measure) -> float | None:
    """How many times better ours is than Node's, by the medians; None where one of them is not there."""
    ours, node = median(figures, "ours", row.name), median(figures, "Node", row.name)
    return None if ours is None or node is None else _better(row, ours, node)


def round_ratios(figures: Figures, row: Measure) -> list[float]:
    """The same for each round by itself: how far they lie apart is how far a ratio can be trusted."""
    ours, node = figures["ours"].get(row.name, []), figures["Node"].get(row.name, [])
    return [_better(row, *pair) for pair in zip(ours, node, strict=True)] if ours and node else []


def _better(row: Measure, ours: float, node: float) -> float:
    return node / ours if row.less_is_better else ours / node


def print_table(figures: Figures, pairs: Sequence[Pair]) -> None:
    """Print a row for everything measured and a column for every pair."""
    header = ("workload", "unit", *(pair.name for pair in pairs), "ratio", "by round", "goal", "")
    rows = [_cells(figures, pairs, row) for row in _ROWS]
    _print_rows(header, rows)


def _print_rows(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table with rich, or as plain text where rich is not installed."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _print_plain([header, *rows])
        return
    table = Table(*header)
    for number, column in enumerate(table.columns):
        column.no_wrap = True
        column.justify = "right" if 2 <= number < len(header) - 1 else "left"
    for cells in rows:
        table.add_row(*cells)
    Console(width=_WIDTH).print(table)


def write_json(path: Path, figures: Figures, pairs: Sequence[Pair], rounds: int, where: dict[str, Any]) -> None:
    """Save every figure of every round, and the medians and ratios."""
    results = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": where,
        "rounds": rounds,
        "plans": {pair.name: dict(pair.plan) for pair in pairs},
        "rows": [_result(figures, pairs, row) for row in _ROWS],
    }
    path.write_text(json.dumps(results, indent=2) + "\n")


def _result(figures: Figures, pairs: Sequence[Pair], row: Measure) -> dict[str, Any]:
    return {
        **attrs.asdict(row, filter=attrs.filters.include("name", "unit", "goal", "less_is_better")),
        "ratio": ratio(figures, row),
        "round_ratios": round_ratios(figures, row),
        "median": {pair.name: median(figures, pair.name, row.name) for pair in pairs},
        "all": {pair.name: figures[pair.name].get(row.name, []) for pair in pairs},
    }


def _cells(figures: Figures, pairs: Sequence[Pair], row: Measure) -> tuple[str, ...]:
    times = ratio(figures, row)
    measured = [_number(median(figures, pair.name, row.name)) for pair in pairs]
    apart = _range(round_ratios(figures, row))
    return (row.name, row.unit, *measured, _times(times), apart, _times(row.goal), _verdict(row, times))


def _verdict(row: Measure, times: float | None) -> str:
    if times is None:
        return "not measured"
    return "reached" if times >= row.goal else "below"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _range(ratios: Sequence[float]) -> str:
    return f"{min(ratios):.2f} - {max(ratios):.2f}" if ratios else "-"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _print_plain(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
