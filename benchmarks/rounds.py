"""Running: one round after another, in each the same work by every pair of a client and a server, in turn.

A pair is two processes that are fresh in each round. Nothing else of this program runs while they do.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs

from .children import Child, child
from .sides import Side
from .workloads import IDLE, IDLE_SESSIONS

__all__ = ["Figures", "Pair", "median", "run_rounds"]

# The figures of each round, by what was measured, by the name of the pair.
Figures = dict[str, dict[str, list[float]]]

# Sessions that are open before the idle ones are counted: what a server allocates once is no session's.
_WARM_UP_SESSIONS = 50


@attrs.frozen
class Pair:
    """A client against a server.

    Attributes:
        name: what the results call it.
        client: whose client.
        server: whose server.
        plan: how many times each of its workloads runs in a round.
        idle: whether the memory of the server's idle sessions is measured, too.
    """

    name: str
    client: Side
    server: Side
    plan: Mapping[str, int]
    idle: bool = False


def run_rounds(pairs: Sequence[Pair], rounds: int, progress: Callable[[str], object]) -> Figures:
    """Run all rounds. Every other one goes through the pairs backwards, so that none is always the first.

    Args:
        pairs: who runs.
        rounds: how often.
        progress: is told what is about to run.

    Raises:
        ChildFailed: if one of the processes fails.
    """
    figures: Figures = {pair.name: {} for pair in pairs}
    for number in range(rounds):
        for pair in pairs if number % 2 == 0 else reversed(pairs):
            progress(f"round {number + 1} of {rounds}: {pair.name}")
            for name, figure in _run(pair).items():
                figures[pair.name].setdefault(name, []).append(figure)
    return figures


def median(figures: Figures, pair: str, name: str) -> float | None:
    """The median over the rounds, or None where nothing was measured."""
    measured = figures.get(pair, {}).get(name)
    return statistics.median(measured) if measured else None


def _run(pair: Pair) -> dict[str, float]:
    measured = _rates(pair)
    if pair.idle:
        memory = _idle_kib(pair)
        if memory is not None:
            measured[IDLE.name] = memory
    return measured


def _rates(pair: Pair) -> dict[str, float]:
    """How often a second each workload of the plan ran."""
    rates: dict[str, float] = {}
    with _server(pair) as (_, url), _client(pair, url, "measure", json.dumps(pair.plan)) as client:
        for _name in pair.plan:
            done = client.read()
            rates[done["workload"]] = done["count"] / done["seconds"]
    return rates


def _idle_kib(pair: Pair) -> float | None:
    """What an idle session takes of the server's memory, in KiB; None where the server cannot tell."""
    with _server(pair) as (server, url), _idle_sessions(pair, url, _WARM_UP_SESSIONS):
        before: int | None = server.ask()["rss"]
        if before is None:
            return None
        with _idle_sessions(pair, url, IDLE_SESSIONS):
            after: int = server.ask()["rss"]
    return (after - before) / IDLE_SESSIONS / 1024


@contextmanager
def _server(pair: Pair) -> Iterator[tuple[Child, str]]:
    """Run the server of a pair. Yields it, and its URL."""
    with child(pair.server.server, f"the server of {pair.name}") as server:
        yield server, f"ws://127.0.0.1:{server.read()['port']}/"


@contextmanager
def _client(pair: Pair, url: str, mode: str, what: str) -> Iterator[Child]:
    """Run the client of a pair."""
    with child((*pair.client.client, url, mode, what), f"the client of {pair.name}") as client:
        yield client


@contextmanager
def _idle_sessions(pair: Pair, url: str, count: int) -> Iterator[None]:
    """Have a client of its own hold sessions that do nothing."""
    with _client(pair, url, "idle", str(count)) as client:
        client.read()
        yield
