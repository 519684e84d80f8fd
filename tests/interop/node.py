"""The Node side of these tests as processes: installing its packages, starting its server, running its client.

Everything here is started by a test and ends with it; nothing listens beyond 127.0.0.1.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

HERE: Final = Path(__file__).parent
_MODULES: Final = HERE / "node_modules"
# What `npm ci` was run on; npm itself keeps no such mark.
_STAMP: Final = _MODULES / ".installed-from"

# Seconds that all scenarios together may take; each has a deadline of its own.
CLIENT_DEADLINE: Final = 300


def require_node() -> str:
    """The node program. Without one the test is skipped, or fails where every peer must be there (CI=true)."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None:
        return node
    problem = "these tests need Node.js 20 or newer with npm, and there is none on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)


def install() -> None:
    """Bring node_modules to what package-lock.json says. One process at a time does it."""
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    with (HERE / ".gitignore").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _STAMP.is_file() and _STAMP.read_text() == wanted:
            return
        # No package needs its install script: workerd's binary comes as a package of its own.
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            pytest.fail(f"npm ci failed in {HERE.name}:\n{done.stdout}\n{done.stderr}")
        _STAMP.write_text(wanted)


@contextmanager
def node_server(node: str, *flags: str) -> Iterator[str]:
    """Run server.mjs; yields the URL of its sessions. It ends when its standard input is closed."""
    with node_process(node, "server.mjs", *flags) as port:
        yield f"ws://127.0.0.1:{port}/"


@contextmanager
def node_process(node: str, *arguments: str) -> Iterator[int]:
    """Run a server, yield the port that it prints, and end it by closing its standard input."""
    command = [node, *arguments]
    with subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port: int = json.loads(process.stdout.readline())["port"]
            yield port
        finally:
            process.stdin.close()


async def run_client(node: str, url: str, names: Sequence[str], *flags: str) -> dict[str, dict[str, Any]]:
    """Run scenarios of client.mjs against a server; returns what it reports, by scenario."""
    with anyio.fail_after(CLIENT_DEADLINE):
        done = await anyio.run_process([node, "client.mjs", url, *flags, *names], cwd=HERE, stderr=None)
    reports = [json.loads(line) for line in done.stdout.decode().splitlines()]
    return {report["scenario"]: report for report in reports}


def rpc_url(connection_string: str, binding: str) -> str:
    """Where a binding behind a proxy speaks RPC."""
    return connection_string.replace("http", "ws", 1) + f"?MF-Binding={binding}"


def report_of(node: str, script: str, *urls: str, codec: str, given: Any = None) -> dict[str, Any]:
    """Run a script that uses a binding by npm capnweb; returns the JSON that it prints.

    Args:
        node: the node program.
        script: of this folder.
        urls: where bindings speak RPC.
        codec: "json" or "cbor".
        given: what the script reads from its standard input, as JSON.
    """
    flags = ["--cbor"] if codec == "cbor" else []
    done = subprocess.run(
        [node, script, *urls, *flags],
        cwd=HERE,
        input=None if given is None else json.dumps(given),
        stdout=subprocess.PIPE,
        text=True,
        timeout=CLIENT_DEADLINE,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


async def read_json_lines(process: Process) -> list[Any]:
    """The rest of a process's standard output, as JSON values."""
    assert process.stdout is not None
    text = "".join([chunk async for chunk in TextReceiveStream(process.stdout)])
    return [json.loads(line) for line in text.splitlines()]
