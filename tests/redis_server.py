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

__all__ = ["redis_server", "require_redis"]

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


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Run a server that keeps everything in its append-only file. Yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", "", "--appendonly", "yes"]
    process = subprocess.Popen([require_redis(), *options], stdout=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(_PATIENCE)


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
