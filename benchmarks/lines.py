"""What the Python programs have in common, clients and servers: lines of JSON in and out, and what a process costs.

    server: prints {"port": ...} once it accepts connections. A line "cpu" is answered with {"cpu": seconds}, a line
            "rss" with {"rss": bytes} after collecting garbage.
    client: a line {"run": name, "count": n} is answered with {"seconds": ..., "cpu": ...} and what else the workload
            found.

Both end when their standard input is closed. The programs on Node speak the same.
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import anyio

__all__ = ["Found", "obey", "percentile99", "report_cost", "say"]

_STATM: Final = Path("/proc/self/statm")

# What a workload has to tell besides how long it took.
Found = dict[str, float]


def say(message: dict[str, Any]) -> None:
    """Print one line of JSON."""
    print(json.dumps(message), flush=True)


async def report_cost() -> None:
    """A server's side of the conversation, for as long as it lasts."""
    while question := await _next_line():
        if question.strip() == "cpu":
            say({"cpu": _cpu_seconds()})
        else:
            gc.collect()
            say({"rss": _resident_bytes()})


async def obey(run: Callable[[str, int], Awaitable[Found]]) -> None:
    """A client's side of the conversation, for as long as it lasts: runs a workload, by its name, a number of times."""
    while line := await _next_line():
        order = json.loads(line)
        cpu, start = _cpu_seconds(), time.perf_counter()
        found = await run(order["run"], order["count"])
        seconds = time.perf_counter() - start
        say({"seconds": seconds, "cpu": _cpu_seconds() - cpu, **found})


def percentile99(values: Sequence[float]) -> float:
    """The lowest value that 99 % of them do not exceed."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


async def _next_line() -> str:
    return await anyio.to_thread.run_sync(sys.stdin.readline)


def _cpu_seconds() -> float:
    """User and system time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _resident_bytes() -> int | None:
    """The memory of this process that is resident, in bytes; None where the system has no /proc to tell."""
    if not _STATM.exists():
        return None
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
