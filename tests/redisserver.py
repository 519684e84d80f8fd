"""A Redis server as a process, for the tests of what is kept in one."""

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

__all__ = ["redis_server", "require_redis"]

# In seconds: how long it may take to stop.
_DEADLINE: Final = 20


def require_redis() -> str:
    """The program. Without one the test is skipped, or fails where every peer must be there (CI=true)."""
    for name in ("redis-server", "valkey-server"):
        program = shutil.which(name)
        if program is not None:
            return program
    problem = "these tests need redis-server or valkey-server, and there is none on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)


@contextmanager
def redis_server(program: str, folder: Path, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a server on 127.0.0.1 that writes each change to its log in a folder. Yields its URL and its process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = port or listener.getsockname()[1]
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": folder,
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
    }
    command = [program, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ready to accept connections" in line:
                break
        yield f"redis://127.0.0.1:{port}/0", process
    finally:
        process.kill()
        process.communicate(timeout=_DEADLINE)
