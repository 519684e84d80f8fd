"""The two sides that are compared, as commands that start a server and a client, and the installing of Node's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import attrs

__all__ = ["ECHO", "PeerMissing", "Side", "node_side", "our_side"]

_NODE: Final = Path(__file__).parent / "node"
# What `npm ci` was run on; npm itself keeps no such mark.
_STAMP: Final = _NODE / "node_modules" / ".installed-from"


class PeerMissing(Exception):
    """There is nothing to compare with: Node or its packages are not there."""


@attrs.frozen
class Side:
    """An implementation, as two programs.

    Attributes:
        name: what the table calls it.
        server: the command of its server, which prints {"port": ...}.
        client: the command of its client, which takes a URL, a mode and what the mode needs.
    """

    name: str
    server: tuple[str, ...]
    client: tuple[str, ...]


def our_side(backend: str, profiles: Path | None = None) -> Side:
    """capnweb_py on an event loop, "asyncio" or "trio". With a folder for them, both ends write profiles there."""

    def python(end: str) -> tuple[str, ...]:
        profiling = () if profiles is None else ("-m", "cProfile", "-o", str(profiles / end))
        return (sys.executable, *profiling, "-m", f"benchmarks.ours.{end}", backend)

    return Side("ours", python("server"), python("client"))


# Bare websockets.
ECHO: Final = Side(
    "echo", (sys.executable, "-m", "benchmarks.echo.server"), (sys.executable, "-m", "benchmarks.echo.client")
)


def node_side() -> Side:
    """npm capnweb on Node, its packages installed where they are not.

    Raises:
        PeerMissing: if there is no Node, or its packages cannot be installed.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise PeerMissing("Node.js 20 or newer with npm is needed to compare with, and there is none on the PATH")
    _install(npm)
    return Side("Node", (node, "--expose-gc", str(_NODE / "server.mjs")), (node, str(_NODE / "client.mjs")))


def _install(npm: str) -> None:
    wanted = hashlib.sha256((_NODE / "package-lock.json").read_bytes()).hexdigest()
    if _STAMP.is_file() and _STAMP.read_text() == wanted:
        return
    print("installing npm capnweb ...", file=sys.stderr)
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=_NODE, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise PeerMissing(f"npm ci failed in {_NODE}:\n{done.stderr}")
    _STAMP.write_text(wanted)
