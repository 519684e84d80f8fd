"""A real Redis server for tests: a process on a free port of this machine, with its files in a temporary directory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["RedisServer", "redis_server", "require_redis"]

# How long, in seconds, the server may take to answer.
_PATIENCE = 20


def require_redis() -> str:
    """The redis-server program. Without one the test is skipped, or fails where every peer must be there (CI=true)."""
    program = shutil.which("redis-server")
    if program is not None:
        return program
    problem = "these tests need redis-server, and there is none on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)


class RedisServer:
    """A server that keeps everything in its append-only file.

    Attributes:
        url: where it is, running or not.
    """

    def __init__(self, program: str, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        where = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._command = [program, *where, "--save", "", "--appendonly", "yes"]
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        _wait_until_it_answers(self._port)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait(_PATIENCE)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(_PATIENCE)


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """A server for the length of a block, with its files in a directory."""
    server = RedisServer(require_redis(), directory)
    try:
        yield server
    finally:
        server.stop()


def _wait_until_it_answers(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(64).startswith(b"+PONG"):
                    return
        except OSError:
            if time.monotonic() > deadline:
                raise
