"""What is measured: the workloads, how often each runs, and what the ratio to npm capnweb on Node is to be.

Only what both sides and the table must agree on; what a workload does is in ours/client.py and node/client.mjs.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["IDLE", "IDLE_SESSIONS", "WORKLOADS", "Measure", "plan"]


@attrs.frozen(kw_only=True)
class Measure:
    """One row of the table.

    Attributes:
        name: what it is called, by the programs too.
        unit: of its figures.
        goal: what the ratio is to be at least.
        less_is_better: whether the ratio is Node's figure by ours, not ours by Node's: it says how much better ours is.
        count: how many times it runs in a round; a MiB is once, too.
        quick: the same with `--quick`.
    """

    name: str
    unit: str
    goal: float
    less_is_better: bool = False
    count: int = 0
    quick: int = 0


WORKLOADS: Final = (
    Measure(name="sequential", unit="calls/s", goal=1.2, count=5_000, quick=2_000),
    Measure(name="concurrent100", unit="calls/s", goal=1.2, count=20_000, quick=10_000),
    Measure(name="concurrent1000", unit="calls/s", goal=1.2, count=40_000, quick=10_000),
    Measure(name="pipeline3", unit="chains/s", goal=1.2, count=6_000, quick=2_000),
    Measure(name="record50", unit="calls/s", goal=1.0, count=5_000, quick=2_000),
    Measure(name="callback", unit="calls/s", goal=1.0, count=3_000, quick=1_500),
    Measure(name="echo1MiB", unit="MiB/s", goal=4, count=60, quick=20),
    Measure(name="streamMiB", unit="MiB/s", goal=5, count=200, quick=50),
)

IDLE: Final = Measure(name="idle session", unit="KiB", goal=1.0, less_is_better=True)

# Enough for the server's own growth not to matter, and below the 1,024 files that a process may often have open.
IDLE_SESSIONS: Final = 400


def plan(quick: bool) -> dict[str, int]:
    """How many times each workload runs in a round, by its name."""
    return {workload.name: workload.quick if quick else workload.count for workload in WORKLOADS}
