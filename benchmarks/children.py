"""Child processes: starting them, talking to them in lines of JSON, and ending them whatever happens.

Every child ends when its standard input is closed or its peer is gone, so that none outlives this program even if it
is killed. They are in process groups of their own: Ctrl-C reaches this program alone, which then ends them.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["Child", "ChildFailed", "child"]

# Where Python finds the packages of this repository.
_ROOT: Final = Path(__file__).parent.parent

# Seconds that a child may take for one line, and to end when it is told to.
_ANSWER_TIMEOUT: Final = 180.0
_END_TIMEOUT: Final = 10.0


class ChildFailed(Exception):
    """A child did not do what it was asked. What it said of it is on standard error."""


class Child:
    """A process that is running.

    Args:
        process: it, with its standard input and output piped as text.
        name: what errors call it.
    """

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self._name = name

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def read(self) -> dict[str, Any]:
        """The next line that it prints. Raises ChildFailed if there is none, or none in time."""
        assert self._process.stdout is not None, "it was started with a pipe"
        watchdog = threading.Timer(_ANSWER_TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise ChildFailed(f"{self._name} ended with status {self._process.wait()} before it had answered")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def tell(self, line: str) -> None:
        """Give it a line. Raises ChildFailed if it has ended."""
        stdin = self._stdin()
        try:
            stdin.write(line + "\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise ChildFailed(f"{self._name} ended with status {self._process.wait()}") from error

    def ask(self, line: str) -> dict[str, Any]:
        """Give it a line, and return what it prints then."""
        self.tell(line)
        return self.read()

    def end(self) -> None:
        """Close its standard input, and wait until it has ended. Raises ChildFailed if that was not in good order."""
        self._stdin().close()
        try:
            status = self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise ChildFailed(f"{self._name} did not end within {_END_TIMEOUT:.0f} s of being told to") from error
        if status != 0:
            raise ChildFailed(f"{self._name} ended with status {status}")

    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None, "it was started with a pipe"
        return self._process.stdin


@contextmanager
def child(command: Sequence[str], name: str, environment: Mapping[str, str]) -> Iterator[Child]:
    """Run a program for as long as the context lasts. At its end the program is told to end; after an error it is
    killed.

    Args:
        command: the program, and what it is given.
        name: what errors call it.
        environment: variables that it gets besides those of this process.

    Raises:
        ChildFailed: if it does not end in good order.
    """
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    with process:
        try:
            running = Child(process, name)
            yield running
            running.end()
        finally:
            process.kill()  # does nothing to one that has ended
