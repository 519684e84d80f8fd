"""Running: one round after another, in each the same work by every pair of a client and a server, in turn.

A pair is two processes. Those of all pairs live side by side, and one pair at a time has something to do: so the
figures of one workload are taken within seconds of each other, and what the machine is up to then, it is for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import attrs

from .ends import Client, Server, running_client, running_server
from .sides import Side
from .workloads import CPU, CPU_OF, IDLE, IDLE_SESSIONS, LATENCY

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


def run_rounds(pairs: Sequence[Pair], rounds: int, fresh: bool, progress: Callable[[str], object]) -> Figures:
    """Run all rounds. Every other workload goes through the pairs backwards, so that none is always the first.

    Args:
        pairs: who runs.
        rounds: how often.
        fresh: whether the processes are new in each round, and so warm up in each.
        progress: is told what is about to run.

    Raises:
        ChildFailed: if one of the processes fails.
    """
    figures: Figures = {pair.name: {} for pair in pairs}
    runs = [[number] for number in range(rounds)] if fresh else [list(range(rounds))]
    for numbers in runs:
        with ExitStack() as stack:
            ends = {pair.name: _start(pair, stack) for pair in pairs}
            for number in numbers:
                progress(f"round {number + 1} of {rounds}")
                _round(pairs, ends, number, numbers[0] == number, figures)
        for pair in pairs:
            if pair.idle:
                _note(figures, pair, _idle(pair))
    return figures


def _start(pair: Pair, stack: ExitStack) -> tuple[Server, Client]:
    server = stack.enter_context(running_server(pair.server, pair.name))
    return server, stack.enter_context(running_client(pair.client, pair.name, server))


def _round(
    pairs: Sequence[Pair], ends: Mapping[str, tuple[Server, Client]], number: int, cold: bool, figures: Figures
) -> None:
    """Each workload by all pairs in turn, after as much of it to warm up where they are cold: Node compiles what it has
    run often, while it runs."""
    workloads = dict.fromkeys(name for pair in pairs for name in pair.plan)
    for place, name in enumerate(workloads):
        turns = [pair for pair in pairs if name in pair.plan]
        for pair in turns if (number + place) % 2 == 0 else reversed(turns):
            server, client = ends[pair.name]
            if cold:
                client.run(name, pair.plan[name])
            _note(figures, pair, _measure(server, client, name, pair.plan[name]))


def _note(figures: Figures, pair: Pair, measured: Mapping[str, float]) -> None:
    for name, figure in measured.items():
        figures[pair.name].setdefault(name, []).append(figure)


def _measure(server: Server, client: Client, name: str, count: int) -> dict[str, float]:
    """Run one workload."""
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
