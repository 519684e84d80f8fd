"""Where our time goes: one workload with both ends under cProfile, and the costliest functions of each."""

from __future__ import annotations

import pstats
import sys
import tempfile
from pathlib import Path
from typing import Final

from .rounds import Pair, run_rounds
from .sides import our_side
from .workloads import plan

__all__ = ["profile"]

_LINES: Final = 25


def profile(workload: str, backend: str, quick: bool) -> None:
    """Run a workload once and print both profiles, by the time spent in each function itself.

    cProfile slows calls down several times over and native code not at all: what it shows is an order, not shares.

    Raises:
        ChildFailed: if one of the processes fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        side = our_side(backend, profiles=Path(folder))
        run_rounds([Pair("ours", side, side, plan(quick, [workload]))], 1, True, lambda _doing: None)
        for end in ("client", "server"):
            print(f"--- {workload}, {end}")
            statistics = pstats.Stats(str(Path(folder) / end), stream=sys.stdout)
            statistics.strip_dirs().sort_stats("tottime").print_stats(_LINES)
