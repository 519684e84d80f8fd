"""Tables: with rich where it is installed, as plain text where not, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

__all__ = ["Table", "figure", "print_markdown", "print_table", "span", "times"]

# No figure is ever cut to fit a terminal, or to the 80 columns of no terminal at all. The table takes what it needs.
_WIDTH: Final = 240


@attrs.frozen
class Table:
    """A table of text.

    Attributes:
        title: what it shows.
        header: the names of its columns.
        rows: its cells.
        left: how many columns at the start are text; those after them are figures.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: int = 2


def figure(value: float | None) -> str:
    """A figure, with as many digits as mean something."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def times(value: float | None) -> str:
    """A ratio."""
    return "-" if value is None else f"{value:.2f}"


def span(ratios: Sequence[float]) -> str:
    """The lowest and the highest of some ratios."""
    return f"{min(ratios):.2f} - {max(ratios):.2f}" if ratios else "-"


def print_table(table: Table) -> None:
    """Print it for people at a terminal."""
    try:
        from rich import table as rich
        from rich.console import Console
    except ImportError:
        _print_plain(table)
        return
    drawn = rich.Table(*table.header, title=table.title, title_justify="left")
    for number, column in enumerate(drawn.columns):
        column.no_wrap = True
        column.justify = "left" if number < table.left else "right"
    for cells in table.rows:
        drawn.add_row(*cells)
    Console(width=_WIDTH).print(drawn)


def print_markdown(table: Table) -> None:
    """Print it as it goes into a page."""
    rules = ["---" if number < table.left else "---:" for number in range(len(table.header))]
    print()
    for cells in (table.header, rules, *table.rows):
        print(f"| {' | '.join(cells)} |")


def _print_plain(table: Table) -> None:
    rows = [table.header, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]
    print(f"\n{table.title}")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
