"""What an endurance run found: two tables, and the file that it is saved in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from .endurance import GOAL, Sessions, Wear
from .tables import Table, figure, span, times

__all__ = ["save_endurance", "sessions_table", "wear_table"]


def wear_table(found: Mapping[str, list[Wear]]) -> Table:
    """A row for each condition of each side."""
    header = ("side", "condition", "workload", "fresh, calls/s", "then, calls/s", "ratio", "by round", "goal", "")

    def cells(side: str, wear: Wear) -> tuple[str, ...]:
        fresh, worn = wear.medians
        verdict = "reached" if wear.ratio >= GOAL else "below"
        return (
            side,
            wear.condition,
            wear.workload,
            figure(fresh),
            figure(worn),
            times(wear.ratio),
            span(wear.ratios),
            times(GOAL),
            verdict,
        )

    rows = [cells(side, wear) for side, wears in found.items() for wear in wears]
    return Table("a session that has been through something, to a fresh one", header, rows, left=3)


def sessions_table(found: Mapping[str, Sessions]) -> Table:
    """A row for each side."""
    header = ("side", "idle sessions", "opening them, s", "one call on each, s", "slowest answer, ms", "KiB a session")
    rows: list[tuple[str, ...]] = [
        (side, f"{it.count:,}", f"{it.opening:.1f}", f"{it.sweep:.2f}", figure(it.slowest * 1000), figure(it.kib))
        for side, it in found.items()
    ]
    return Table("idle sessions on one server, from four client processes", header, rows, left=1)


def save_endurance(
    path: Path, worn: Mapping[str, list[Wear]], idle: Mapping[str, Sessions], where: dict[str, Any]
) -> None:
    """Write every figure as JSON."""
    results = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": where,
        "wear": {
            side: [{**attrs.asdict(wear), "ratio": wear.ratio, "goal": GOAL} for wear in wears]
            for side, wears in worn.items()
        },
        "idle sessions": {side: attrs.asdict(sessions) for side, sessions in idle.items()},
    }
    path.write_text(json.dumps(results, indent=2) + "\n")
