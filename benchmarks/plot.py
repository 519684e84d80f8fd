"""A picture of a saved run: how many times better ours is than each peer, for everything measured, as an SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from .results import Results, Row
from .sides import require

__all__ = ["draw"]

# What the peers are called in the picture where their column's name is short, and their colours.
_NAMES: Final = {"Node": "npm capnweb on Node"}
_COLOURS: Final = ("#2c6fbb", "#d9822b", "#4f9d69", "#8e5ea2")

# Sizes in inches.
_WIDTH: Final = 8.0
_BAR: Final = 0.16
_BETWEEN: Final = 0.14
_MARGINS: Final = 1.4

# The ticks of the ratio's axis: it is logarithmic, and these are read more easily than powers of ten.
_TICKS: Final = (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100)


def draw(results: Results, path: Path) -> None:
    """Draw a bar for each ratio of the medians; to npm capnweb with a line from the lowest to the highest round's.

    The same results give the same file.

    Raises:
        Missing: if matplotlib is not installed.
    """
    require("matplotlib", "--plot")
    import matplotlib as mpl

    # Text as text, and no names made up at random: a picture that did not change has no difference in git.
    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "capnweb-py", "font.family": "sans-serif"})
    from matplotlib import pyplot

    peers = [peer for peer in results.peers if any(_ratio(results, row, peer) for row in results.rows)]
    rows = [row for row in results.rows if any(_ratio(results, row, peer) for peer in peers)]
    bars = sum(len(_bars(results, row, peers)) for row in rows)
    height = bars * _BAR + len(rows) * _BETWEEN + _MARGINS
    figure, axes = pyplot.subplots(figsize=(_WIDTH, height), layout="constrained")
    _draw_bars(axes, results, rows, peers)
    _finish(axes, results)
    figure.legend(loc="outside lower center", ncols=len(peers), fontsize=8, frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None}, facecolor="white")
    pyplot.close(figure)


def _ratio(results: Results, row: Row, peer: str) -> float | None:
    return row.ratio(results.ours, peer)


def _bars(results: Results, row: Row, peers: list[str]) -> list[tuple[str, float]]:
    """The bars of a row: only those that there are, so that a row which one peer alone does is no taller than that."""
    ratios = [(peer, _ratio(results, row, peer)) for peer in peers]
    return [(peer, ratio) for peer, ratio in ratios if ratio is not None]


def _draw_bars(axes: Any, results: Results, rows: list[Row], peers: list[str]) -> None:
    """From the top down: a group for each row, in it a bar for each peer, with its figure at the end."""
    top, labelled, places = 0.0, set[str](), []
    for row in rows:
        bars = _bars(results, row, peers)
        places.append(top + len(bars) * _BAR / 2)
        for number, (peer, ratio) in enumerate(bars):
            place = top + (number + 0.5) * _BAR
            label = None if peer in labelled else _NAMES.get(peer, peer)
            labelled.add(peer)
            # A bar begins at 1: to the right where ours is ahead, to the left where it is behind.
            colour = _COLOURS[peers.index(peer) % len(_COLOURS)]
            axes.barh(place, ratio - 1, left=1, height=_BAR * 0.9, color=colour, label=label)
            _draw_figure(axes, ratio, _rounds(results, row, peer), place)
        top += len(bars) * _BAR + _BETWEEN
    axes.set_yticks(places, [row.measure.name for row in rows])
    axes.set_ylim(top, -_BETWEEN)


def _rounds(results: Results, row: Row, peer: str) -> list[float]:
    return row.round_ratios(results.ours, peer) if peer == "Node" else []


def _draw_figure(axes: Any, ratio: float, rounds: list[float], place: float) -> None:
    ends = [*rounds, ratio]
    if rounds:
        axes.plot([min(rounds), max(rounds)], [place, place], color="black", linewidth=0.8)
    ahead = ratio >= 1
    axes.annotate(
        f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}",
        (max(ends) if ahead else min(ends), place),
        xytext=(3 if ahead else -3, 0),
        textcoords="offset points",
        ha="left" if ahead else "right",
        va="center",
        fontsize=7,
    )


def _finish(axes: Any, results: Results) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low * 0.8, high * 1.3)
    ticks = [tick for tick in _TICKS if low * 0.8 <= tick <= high * 1.3]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.axvline(1, color="black", linewidth=1)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("how many times better capnweb-py is: right of 1 it is ahead")
    build = results.ours.removeprefix("ours, ")
    rounds = "one round" if results.rounds == 1 else f"medians of {results.rounds} rounds"
    axes.set_title(f"capnweb-py ({build}) against each peer, {rounds}", fontsize=10, loc="left")
