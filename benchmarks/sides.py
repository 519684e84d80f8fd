"""The sides that are compared, as commands that start a server and a client, and the installing of Node's."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

__all__ = ["ECHO", "Missing", "Side", "installed_node", "node_side", "our_side", "python_side", "require"]

_ROOT: Final = Path(__file__).parent.parent
_NODE: Final = Path(__file__).parent / "node"


class Missing(Exception):
    """Something that was asked for is not there, and cannot be made: a program, a package, a file."""


@attrs.frozen
class Side:
    """An implementation, as two programs. What they print and read is in lines.py.

    Attributes:
        server: the command of its server.
        client: the command of its client, which takes the server's URL.
        environment: variables that both get besides those of this process.
    """

    server: tuple[str, ...]
    client: tuple[str, ...]
    environment: Mapping[str, str] = attrs.field(factory=dict)


def python_side(programs: str, *arguments: str, first: Path | None = None, profiles: Path | None = None) -> Side:
    """Two programs in Python.

    Args:
        programs: the name in this package that "_server" or ".server", and the same with client, is put after.
        arguments: what both get.
        first: a folder where they look for packages before they look into this repository.
        profiles: a folder into which both write profiles.
    """

    def command(end: str) -> tuple[str, ...]:
        profiling = () if profiles is None else ("-m", "cProfile", "-o", str(profiles / end))
        # -P: the folder in which they run would come before all others.
        return (sys.executable, "-P", *profiling, "-m", f"benchmarks.{programs}{end}", *arguments)

    paths = [first, _ROOT, os.environ.get("PYTHONPATH")]
    return Side(
        command("server"), command("client"), {"PYTHONPATH": os.pathsep.join(str(path) for path in paths if path)}
    )


def our_side(loop: str, compiled: Path | None = None, profiles: Path | None = None) -> Side:
    """capnweb_py on an event loop, "asyncio", "uvloop" or "trio": as pure Python from this checkout, or compiled, from
    the folder that it was built into."""
    build = "pure" if compiled is None else "compiled"
    return python_side("ours.", loop, build, first=compiled, profiles=profiles)


# Bare websockets.
ECHO: Final = python_side("echo.")


def node_side() -> Side:
    """npm capnweb on Node, its packages installed where they are not.

    Raises:
        Missing: if there is no Node, or its packages cannot be installed.
    """
    node = installed_node(_NODE)
    return Side((node, "--expose-gc", str(_NODE / "server.mjs")), (node, str(_NODE / "client.mjs")))


def require(package: str, purpose: str) -> None:
    """Raises Missing if a package, by the name that it is imported by, is not installed."""
    if importlib.util.find_spec(package) is None:
        raise Missing(f"{purpose} needs the package {package}: pip install '.[bench]'")


def installed_node(folder: Path) -> str:
    """The node program, with the packages of a folder installed as its package-lock.json says.

    Raises:
        Missing: if there is no Node, or the packages cannot be installed.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("Node.js 20 or newer with npm is needed to compare with, and there is none on the PATH")
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    # What `npm ci` was run on; npm itself keeps no such mark.
    stamp = folder / "node_modules" / ".installed-from"
    if stamp.is_file() and stamp.read_text() == wanted:
        return node
    print("installing packages of npm ...", file=sys.stderr)
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise Missing(f"npm ci failed in {folder}:\n{done.stderr}")
    stamp.write_text(wanted)
    return node
