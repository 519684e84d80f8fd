"""Running: one round after another, in each the same work by every pair of a client and a server, in turn.

A pair is two processes that are fresh in each round. Nothing else of this program runs while they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from .ends import Client, Server, running_client, running_server
from .sides import Side
from .workloads import CPU, CPU_OF, IDLE, IDLE_SESSIONS, LATENCY, warm_up

__all__ = ["Figures", "Pair", "run_rounds"]

# The figures of each round, by the name of the pair, by what was measured.
Figures = dict[str, dict[str, list[float]]]

# Sessions that are open before the idle ones are counted: what a server allocates once is no session's.
_WARM_UP_SESSIONS = 50

_MICROSECONDS = 1e6


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


def _run(pair: Pair) -> dict[str, float]:
    measured: dict[str, float] = {}
    with running_server(pair.server, pair.name) as server, running_client(pair.client, pair.name, server) as client:
        for name, count in pair.plan.items():
            measured |= _measure(server, client, name, count)
    if pair.idle:
        measured |= _idle(pair)
    return measured


def _measure(server: Server, client: Client, name: str, count: int) -> dict[str, float]:
    """Run one workload, after it has warmed up."""
    client.run(name, warm_up(count))
    before = server.cpu()
    done = client.run(name, count)
    cpu: float = done["cpu"] + server.cpu() - before
    if name == LATENCY.name:
        return {name: done["p99"] * _MICROSECONDS}
    measured = {name: count / done["seconds"]}
    if name == CPU_OF:
        measured[CPU.name] = cpu / count * _MICROSECONDS
    return measured


def _idle(pair: Pair) -> dict[str, float]:
    """What an idle session takes of the server's memory, in KiB; nothing where the server cannot tell."""
    with running_server(pair.server, pair.name) as server, running_client(pair.client, pair.name, server) as client:
        client.run("open sessions", _WARM_UP_SESSIONS)
        before = server.rss()
        client.run("open sessions", IDLE_SESSIONS)
        after = server.rss()
    if before is None or after is None:
        return {}
    return {IDLE.name: (after - before) / IDLE_SESSIONS / 1024}
