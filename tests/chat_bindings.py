"""One service in the four ways that a binding can lead to it: chat.py as a class, as an ASGI application, and behind
URLs of an HTTP server and of a Cap'n Web peer."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from proxying import ROOT

__all__ = ["BINDINGS", "chat_server", "tables"]

# The names of the bindings.
BINDINGS: Final = ("SVC", "APP", "UPSTREAM", "PEER")

_TABLES: Final = """
[bindings.SVC]
type = "service"
target = "tests.chat:Chat"

[bindings.APP]
type = "service"
target = "tests.chat:chat_app"

[bindings.UPSTREAM]
type = "service"
target = "{upstream}"

[bindings.PEER]
type = "service"
target = "{peer}"
"""


def tables(upstream: str) -> str:
    """The bindings in a configuration, of which two lead to a server."""
    return _TABLES.format(upstream=upstream, peer=upstream.replace("http", "ws", 1))


@contextmanager
def chat_server() -> Iterator[str]:
    """The URL of the ASGI application on a server of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = ["tests.chat:chat_app", "--fd", str(listener.fileno()), "--ws", "websockets-sansio"]
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *arguments, "--log-level", "critical"],
            cwd=ROOT,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.terminate()
            server.wait(60)
