"""What is measured: the workloads, how often each runs, and what the ratio to npm capnweb on Node is to be.

Only what all sides and the tables must agree on; what a workload does is in ours/client.py and node/client.mjs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

__all__ = [
    "CPU",
    "CPU_OF",
    "IDLE",
    "IDLE_SESSIONS",
    "LATENCY",
    "ROWS",
    "SMALL_CALLS",
    "WORKLOADS",
    "Measure",
    "plan",
]


@attrs.frozen(kw_only=True)
class Measure:
    """One row of the table.

    Attributes:
        name: what it is called, by the programs too.
        unit: of its figures.
        goal: what the ratio is to be at least; None where there is nothing to reach.
        less_is_better: whether the ratio is Node's figure by ours, not ours by Node's: it says how much better ours is.
        count: how many times it runs in a round, after as many to warm up; a MiB is once, too. Node takes thousands of
            calls of a kind until they are as fast as they get: these are enough.
        quick: the same with `--quick`, which is not enough for all of them.
    """

    name: str
    unit: str
    goal: float | None
    less_is_better: bool = False
    count: int = 0
    quick: int = 0


# The 99th percentile of the latency of a call while 100 are in flight all the time.
LATENCY: Final = Measure(name="p99 of 100", unit="us", goal=1.0, less_is_better=True, count=20_000, quick=6_000)

WORKLOADS: Final = (
    Measure(name="sequential", unit="calls/s", goal=1.2, count=6_000, quick=2_000),
    Measure(name="concurrent100", unit="calls/s", goal=1.2, count=20_000, quick=6_000),
    Measure(name="concurrent1000", unit="calls/s", goal=1.2, count=20_000, quick=6_000),
    Measure(name="tasks100", unit="calls/s", goal=None, count=20_000, quick=6_000),
    Measure(name="tasks1000", unit="calls/s", goal=None, count=20_000, quick=6_000),
    Measure(name="pipeline3", unit="chains/s", goal=1.2, count=5_000, quick=2_000),
    Measure(name="record50", unit="calls/s", goal=1.0, count=5_000, quick=2_000),
    Measure(name="callback", unit="calls/s", goal=1.0, count=5_000, quick=2_000),
    Measure(name="echo1MiB", unit="MiB/s", goal=4, count=40, quick=6),
    Measure(name="streamMiB", unit="MiB/s", goal=5, count=100, quick=16),
    LATENCY,
)

# The CPU time of both ends, for each run of one of the workloads.
CPU_OF: Final = "sequential"
CPU: Final = Measure(name="CPU of a call", unit="us", goal=None, less_is_better=True)

IDLE: Final = Measure(name="idle session", unit="KiB", goal=1.0, less_is_better=True)

ROWS: Final = (*WORKLOADS, CPU, IDLE)

# What can be done without RPC, too.
SMALL_CALLS: Final = ("sequential", "concurrent100", "concurrent1000", LATENCY.name)

# Enough for the server's own growth not to matter, and below the 1,024 files that a process may often have open.
IDLE_SESSIONS: Final = 400


def plan(quick: bool, names: Iterable[str] | None = None) -> dict[str, int]:
    """How many times each workload runs in a round, by its name: all of them, or some."""
    wanted = [workload.name for workload in WORKLOADS] if names is None else list(names)
    return {
        workload.name: workload.quick if quick else workload.count for workload in WORKLOADS if workload.name in wanted
    }
