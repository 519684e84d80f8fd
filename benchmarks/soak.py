"""A soak: a real workerd and a Python program use the same bindings of one proxy server for some minutes, and the
server is looked at all the while. Its memory has to stay flat, and no session may be left when both have gone.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

import anyio

from capnweb_py.bindings.channels import Channel
from capnweb_py.remote import Env, connect_env

from .children import ChildFailed
from .remote import INTEROP, our_proxy, picture, remote_bindings, run, workerd
from .sides import installed_node, require
from .tables import Table, print_table

__all__ = ["soak"]

# The workloads of the Worker, and how often each runs before the next.
_WORKER: Final = {
    "KV get": 50,
    "KV put": 50,
    "R2 get 1 MiB": 5,
    "R2 put 1 MiB": 5,
    "D1 query": 50,
    "image thumbnail": 2,
}

# How much more memory the server may take in the last third than in the second, when it is warm.
_GROWTH: Final = 1.05

# How long, in seconds, the server may take to see that its clients have gone.
_PATIENCE: Final = 10

_SESSIONS: Final = re.compile(rb"^capnweb_sessions\{[^}]*\} ([0-9.]+)$", re.MULTILINE)


def soak(minutes: float, tell: Callable[[str], None]) -> bool:
    """Run it, and print what was found. Returns whether the memory stayed flat and nothing was left.

    Raises:
        Missing: if Node or the package pyvips is not there.
        ChildFailed: if one of the processes fails.
    """
    require("pyvips", "the picture of the soak")
    node, jpeg = installed_node(INTEROP), picture()
    with ExitStack() as stack:
        server = stack.enter_context(our_proxy())
        with workerd(node, "the Worker", remote_bindings(server.url)) as worker:
            run(worker, "prepare", 1, b"")
            memory, rounds = anyio.run(_use, worker, server.url, jpeg, server.pid, minutes * 60, tell)
        third = max(1, len(memory) // 3)
        warm, last = median(memory[third : 2 * third] or memory), median(memory[-third:])
        left = _sessions_left(server.url)
    rows: list[tuple[str, ...]] = [
        ("rounds of the Worker", str(rounds[0]), ""),
        ("rounds of the Python program", str(rounds[1]), ""),
        ("the server's memory, second third, MiB", f"{warm:.1f}", ""),
        ("the server's memory, last third, MiB", f"{last:.1f}", "flat" if last <= warm * _GROWTH else "grows"),
        ("sessions that are left", str(left), "none" if not left else "leak"),
    ]
    print_table(Table(f"{minutes:g} minutes", ("", "", ""), rows, left=1))
    return last <= warm * _GROWTH and not left


async def _use(
    worker: str, url: str, jpeg: bytes, pid: int, seconds: float, tell: Callable[[str], None]
) -> tuple[list[float], tuple[int, int]]:
    memory: list[float] = []
    rounds = [0, 0]
    end = anyio.current_time() + seconds

    async def worker_rounds() -> None:
        while anyio.current_time() < end:
            for workload, count in _WORKER.items():
                await anyio.to_thread.run_sync(run, worker, workload, count, jpeg)
            rounds[0] += 1

    async def python_rounds() -> None:
        channels: tuple[Channel, ...] = ("http", "rpc")
        while anyio.current_time() < end:
            for channel in channels:
                async with connect_env(url, channel=channel) as env:
                    await _one_round(env, jpeg)
            rounds[1] += 1

    async def look() -> None:
        while anyio.current_time() < end:
            await anyio.sleep(min(5.0, seconds / 30))
            memory.append(_resident(pid))
            sessions = await anyio.to_thread.run_sync(_sessions, url)
            left = max(0, end - anyio.current_time())
            tell(f"{left:.0f} s left, {memory[-1]:.1f} MiB, {sessions} sessions, rounds {rounds}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker_rounds)
        tasks.start_soon(python_rounds)
        tasks.start_soon(look)
    return memory, (rounds[0], rounds[1])


async def _one_round(env: Env, jpeg: bytes) -> None:
    for number in range(20):
        await env.KV.put(f"python {number}", "x" * 1000, metadata={"number": number})
        if await env.KV.get(f"python {number}") is None:
            raise ChildFailed("a value that was put is not there")
    await env.KV.list(prefix="python ", limit=10)
    await env.R2.put("python", bytes(1 << 20), custom_metadata={"by": "python"})
    found = await env.R2.get("python")
    if found is None or len(await found.bytes()) != 1 << 20:
        raise ChildFailed("an object that was put is not there")
    statement = env.DB.prepare("SELECT name FROM people WHERE id = ?")
    for number in range(20):
        await statement.bind(number).first("name")
    transformed = await env.IMAGES.input(jpeg).transform(width=128).output(format="image/jpeg")
    await transformed.bytes()


def _resident(pid: int) -> float:
    """The resident memory of a process and of those that it started, in MiB."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in pids]
    return sum(pages) * 4096 / (1 << 20)


def _sessions_left(url: str) -> int:
    """How many sessions there still are, once the server has had some time to see that its clients are gone."""
    patience = time.monotonic() + _PATIENCE
    while (left := _sessions(url)) and time.monotonic() < patience:
        time.sleep(0.1)
    return left


def _sessions(url: str) -> int:
    with urllib.request.urlopen(f"{url}metrics", timeout=10) as response:
        return round(sum(float(count) for count in _SESSIONS.findall(response.read())))
