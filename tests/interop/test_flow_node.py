"""Our flow control against npm capnweb's own: the same window after every step of the same history."""

from __future__ import annotations

import json
import random
import subprocess
from collections import deque
from itertools import pairwise
from typing import Any

import pytest

from capnweb_py.flow import FlowControl, Sent

from .node import HERE


def history(seed: int) -> tuple[list[list[Any]], list[float]]:
    """A history of sends and acknowledgements on a link that changes, and the window after each step."""
    chance = random.Random(seed)
    time, busy_until = 1.0, 0.0
    flow = FlowControl(lambda: time)
    under_way: deque[tuple[float, int, Sent]] = deque()
    steps: list[list[Any]] = []
    windows: list[float] = []
    round_trip, bandwidth, sent = 0.1, 10e6, 0
    while len(steps) < 3000:
        if chance.random() < 0.005:
            round_trip, bandwidth = chance.uniform(0.001, 0.3), chance.uniform(1e4, 1e8)
        idle = chance.random() < 0.02
        if under_way and (flow.blocked or idle):
            arrival, number, token = under_way.popleft()
            time = max(time, arrival)
            flow.acknowledge(token)
            steps.append(["acknowledge", time, number])
        else:
            size = chance.choice([8, 500, 4_000, 16_000, 65_536])
            busy_until = max(busy_until, time) + size / bandwidth
            under_way.append((busy_until + round_trip, sent, flow.send(size)))
            steps.append(["send", time, size])
            sent += 1
        windows.append(flow.window)
    return steps, windows


@pytest.mark.parametrize("seed", range(4))
def test_the_window_is_the_same_after_every_step(node: str, seed: int) -> None:
    steps, ours = history(seed)
    done = subprocess.run(
        [node, "flow.mjs"], cwd=HERE, input=json.dumps({"steps": steps}), capture_output=True, text=True, check=True
    )
    theirs = json.loads(done.stdout)
    assert theirs == pytest.approx(ours, rel=1e-12)
    assert sum(one != other for one, other in pairwise(ours)) > 100
