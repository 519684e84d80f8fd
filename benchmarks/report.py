"""The tables of a run: all figures, the ends mixed, and the ratios alone."""

from __future__ import annotations

from .pairs import COMPILED, PURE
from .results import Results, Row
from .tables import Table, figure, span, times

__all__ = ["figures_table", "mixed_table", "ratios_table"]


def figures_table(results: Results) -> Table:
    """A row for everything measured and a column for every pair whose ends are of one side, then how ours compares."""
    pairs = [pair for pair in results.pairs if pair not in results.mixed]
    both = results.ours == COMPILED
    header = ("workload", "unit", *pairs, "ratio", "by round", *(["pure ratio"] if both else []), "goal", "")

    def cells(row: Row) -> tuple[str, ...]:
        ratio = row.ratio(results.ours)
        return (
            row.measure.name,
            row.measure.unit,
            *(figure(row.median(pair)) for pair in pairs),
            times(ratio),
            span(row.round_ratios(results.ours)),
            *([times(row.ratio(PURE))] if both else []),
            times(row.measure.goal),
            _verdict(ratio, row.measure.goal),
        )

    return Table(f"ratio: {results.ours}, to Node", header, [cells(row) for row in results.rows])


def mixed_table(results: Results) -> Table:
    """Our client with Node's server and the reverse, against Node with Node: neither is to be slower."""
    header = ["workload", "unit"]
    for pair in results.mixed:
        header += [pair, "ratio", "by round", ""]

    def cells(row: Row) -> tuple[str, ...]:
        texts = [row.measure.name, row.measure.unit]
        for pair in results.mixed:
            ratio = row.ratio(pair)
            goal = None if row.measure.goal is None else 1.0
            texts += [figure(row.median(pair)), times(ratio), span(row.round_ratios(pair)), _verdict(ratio, goal)]
        return tuple(texts)

    measured = [row for row in results.rows if any(pair in row.figures for pair in results.mixed)]
    return Table(f"ratio: {results.ours} at one end, to Node at both", tuple(header), [cells(row) for row in measured])


def ratios_table(results: Results) -> Table:
    """How many times better ours is than each peer."""
    builds = {"compiled": COMPILED, "pure Python": PURE} if results.ours == COMPILED else {"pure Python": PURE}
    others = [peer for peer in results.peers if peer != "Node"]
    header = ("workload", *(f"{build} to Node" for build in builds), *(f"ours to {peer}" for peer in others))

    def cells(row: Row) -> tuple[str, ...]:
        builds_to_node = [times(row.ratio(pair)) for pair in builds.values()]
        return (row.measure.name, *builds_to_node, *(times(row.ratio(results.ours, peer)) for peer in others))

    return Table("ours to each peer", header, [cells(row) for row in results.rows], left=1)


def _verdict(ratio: float | None, goal: float | None) -> str:
    if ratio is None:
        return "not measured"
    if goal is None:
        return ""
    return "reached" if ratio >= goal else "below"
