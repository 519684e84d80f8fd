"""A real Redis server for tests: a process on a free port of this machine, with its files in a temporary directory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

__all__ = ["RedisServer", "redis_server"]

# How long, in seconds, the server may take to stop.
_PATIENCE: Final = 60


def _program() -> str:
    """The program. Without one the test is skipped, or fails where every peer must be there (CI=true)."""
    for name in ("redis-server", "valkey-server"):
        program = shutil.which(name)
        if program is not None:
            return program
    problem = "these tests need redis-server or valkey-server, and there is none on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)


class RedisServer:
    """A server that writes each change to its append-only file before it answers.

    Attributes:
        url: where it is, running or not.
        process: it, since it was started the last time.
    """

    process: subprocess.Popen[str]

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": directory,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        self._command = [_program(), *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        if not any("Ready to accept connections" in line for line in self.process.stdout):
            raise AssertionError(f"{self._command[0]} did not start")

    def kill(self) -> None:
        """End it as a crash would. Safe to do twice."""
        self.process.kill()
        self.process.communicate(timeout=_PATIENCE)


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """A server for the length of a block, with its files in a directory."""
    server = RedisServer(directory)
    try:
        yield server
    finally:
        server.kill()
