"""The two ends of a pair while they run: what this program asks of a server and of a client. See lines.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .children import Child, child
from .sides import Side

__all__ = ["Client", "Server", "running_client", "running_server"]


class Server:
    """A server that accepts connections at `url`."""

    def __init__(self, process: Child) -> None:
        self._process = process
        self.url = f"ws://127.0.0.1:{process.read()['port']}/"

    def cpu(self) -> float:
        """The seconds of CPU time that it has taken."""
        seconds: float = self._process.ask("cpu")["cpu"]
        return seconds

    def rss(self) -> int | None:
        """Its resident memory in bytes, after collecting garbage; None where it cannot tell."""
        resident: int | None = self._process.ask("rss")["rss"]
        return resident


class Client:
    """A client that is connected to a server."""

    def __init__(self, process: Child) -> None:
        self._process = process

    def run(self, workload: str, count: int) -> dict[str, Any]:
        """Have it run a workload so many times. Returns "seconds", "cpu" and what the workload found."""
        self.begin(workload, count)
        return self.finished()

    def begin(self, workload: str, count: int) -> None:
        """Have it begin."""
        self._process.tell(json.dumps({"run": workload, "count": count}))

    def finished(self) -> dict[str, Any]:
        """Wait for what it began."""
        return self._process.read()


@contextmanager
def running_server(side: Side, pair: str) -> Iterator[Server]:
    """Run a server for as long as the context lasts. Raises ChildFailed if it fails."""
    with child(side.server, f"the server of {pair}", side.environment) as process:
        yield Server(process)


@contextmanager
def running_client(side: Side, pair: str, server: Server) -> Iterator[Client]:
    """Run a client of a server for as long as the context lasts. Raises ChildFailed if it fails."""
    with child((*side.client, server.url), f"the client of {pair}", side.environment) as process:
        yield Client(process)
