"""Whether a session stays as fast as it was, and what 10,000 sessions are to one server: `--endurance`.

A session that has been through something and a fresh one, each on a server of its own, are measured in turn, so that
what else happens on the machine happens to both.
"""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import attrs

from .ends import Client, running_client, running_server
from .sides import Side

__all__ = ["GOAL", "Condition", "Scale", "Sessions", "Wear", "idle_sessions", "scale", "wear"]

# What is left of the calls a second, at least.
GOAL: Final = 0.95

# What is measured, and how many times in a round. Before the first, so many times more: both sessions are to be equally
# warm, whatever else they have been through.
_MEASURED: Final = {"sequential": 3_000, "concurrent100": 10_000}
_WARM_UP: Final = 3

# One order to a client is for no more than this, so that it answers in time on a slow machine, too.
_PORTION: Final = 50_000
_SESSIONS_PORTION: Final = 250

# The idle sessions come from as many processes, and those that are open before memory is looked at.
_CLIENTS: Final = 4
_WARM_UP_SESSIONS: Final = 100

# What a process has open besides its sessions.
_OTHER_FILES: Final = 200


@attrs.frozen
class Scale:
    """How much a session goes through, how many are idle, and how often it is measured."""

    calls: int
    held: int
    sessions: int
    rounds: int


def scale(quick: bool, rounds: int | None) -> Scale:
    """How much of it there is; with no more sessions than files may be open."""
    chosen = Scale(50_000, 1_000, 1_000, 3) if quick else Scale(1_000_000, 10_000, 10_000, 7)
    return attrs.evolve(
        chosen, sessions=min(chosen.sessions, _allow_files(chosen.sessions)), rounds=rounds or chosen.rounds
    )


@attrs.frozen
class Condition:
    """What a session has been through.

    Attributes:
        name: what the table calls it.
        workload: what brings it about.
        count: how many times.
    """

    name: str
    workload: str
    count: int

    @staticmethod
    def all_of(scale: Scale) -> list[Condition]:
        return [
            Condition(f"after {scale.calls:,} calls", "concurrent100", scale.calls),
            Condition(f"the client holds {scale.held:,} targets", "hold targets", scale.held),
            Condition(f"the server holds {scale.held:,} callbacks", "lend callbacks", scale.held),
        ]


@attrs.frozen
class Wear:
    """How a session fares after it, in calls a second, by round.

    Attributes:
        condition: what it has been through.
        workload: what was measured.
        fresh: of the session that has been through nothing.
        worn: of the one that has.
    """

    condition: str
    workload: str
    fresh: list[float]
    worn: list[float]

    @property
    def ratios(self) -> list[float]:
        """What is left, by round: 1 is all."""
        return [worn / fresh for worn, fresh in zip(self.worn, self.fresh, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of these."""
        return statistics.median(self.ratios)

    @property
    def medians(self) -> tuple[float, float]:
        """Of the fresh one, and of the other."""
        return statistics.median(self.fresh), statistics.median(self.worn)


@attrs.frozen
class Sessions:
    """Idle sessions on one server, each called once.

    Attributes:
        count: how many.
        opening: seconds that it took to open them, at both ends.
        sweep: seconds until all had answered, called one after another by each of the clients.
        slowest: seconds that the slowest answer took.
        kib: of the server's memory for each; None where the server cannot tell.
    """

    count: int
    opening: float
    sweep: float
    slowest: float
    kib: float | None


def wear(side: Side, name: str, scale: Scale, progress: Callable[[str], object]) -> list[Wear]:
    """Put sessions of a side through every condition.

    Raises:
        ChildFailed: if one of the processes fails.
    """
    found = []
    for condition in Condition.all_of(scale):
        progress(f"{name}: {condition.name}")
        with _session(side, name) as fresh, _session(side, name) as worn:
            for done in range(0, condition.count, _PORTION):
                worn.run(condition.workload, min(_PORTION, condition.count - done))
            found += _compare(condition, fresh, worn, scale.rounds)
    return found


def _compare(condition: Condition, fresh: Client, worn: Client, rounds: int) -> list[Wear]:
    found = {workload: Wear(condition.name, workload, [], []) for workload in _MEASURED}
    for workload, count in _MEASURED.items():
        for client in (fresh, worn):
            client.run(workload, _WARM_UP * count)
    for number in range(rounds):
        for workload, count in _MEASURED.items():
            turns = [(fresh, found[workload].fresh), (worn, found[workload].worn)]
            for client, rates in turns if number % 2 == 0 else reversed(turns):
                rates.append(count / client.run(workload, count)["seconds"])
    return list(found.values())


def idle_sessions(side: Side, name: str, count: int, progress: Callable[[str], object]) -> Sessions:
    """Open sessions on one server of a side, and call each once.

    Raises:
        ChildFailed: if one of the processes fails.
    """
    progress(f"{name}: {count:,} idle sessions")
    with running_server(side, name) as server, ExitStack() as stack:
        clients = [stack.enter_context(running_client(side, name, server)) for _ in range(_CLIENTS)]
        opening = _open(clients, _WARM_UP_SESSIONS)
        before = server.rss()
        opening += _open(clients, count - _WARM_UP_SESSIONS)
        after = server.rss()
        swept = _each(clients, "call sessions", 0)
    return Sessions(
        count=count,
        opening=opening,
        sweep=max(done["seconds"] for done in swept),
        slowest=max(done["slowest"] for done in swept),
        kib=None if before is None or after is None else (after - before) / (count - _WARM_UP_SESSIONS) / 1024,
    )


def _open(clients: list[Client], count: int) -> float:
    """Have the clients open so many sessions in all. Returns how many seconds it took."""
    seconds, left = 0.0, count // len(clients)
    while left > 0:
        opened = _each(clients, "open sessions", min(left, _SESSIONS_PORTION))
        seconds += max(done["seconds"] for done in opened)
        left -= _SESSIONS_PORTION
    return seconds


def _each(clients: list[Client], workload: str, count: int) -> list[dict[str, float]]:
    """Have all of them run a workload at a time."""
    for client in clients:
        client.begin(workload, count)
    return [client.finished() for client in clients]


@contextmanager
def _session(side: Side, name: str) -> Iterator[Client]:
    """A session on a server of its own."""
    with running_server(side, name) as server, running_client(side, name, server) as client:
        yield client


def _allow_files(sessions: int) -> int:
    """Let the processes have so many connections open. Returns how many they may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sessions + _OTHER_FILES
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    return possible - _OTHER_FILES
