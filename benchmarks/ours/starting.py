"""Starting a program of ours: on which event loop, and with which build of capnweb_py."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import anyio

import capnweb_py

__all__ = ["start"]


def start(run: Callable[..., Awaitable[None]], loop: str, build: str, *arguments: str) -> None:
    """Run a program.

    Args:
        run: it.
        loop: "asyncio", "uvloop" or "trio".
        build: "compiled" or "pure"; the program ends at once, with a message, if the other one is what was imported.
        arguments: its own.
    """
    if (build == "compiled") != capnweb_py.COMPILED:
        sys.exit(f"{capnweb_py.__file__} is not the {build} build, which was to be measured")
    if loop == "trio":
        anyio.run(run, *arguments, backend="trio")
    else:
        anyio.run(run, *arguments, backend="asyncio", backend_options={"use_uvloop": loop == "uvloop"})
