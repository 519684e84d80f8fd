"""The standard input and output of this process as a byte stream of anyio, kept from everything else.

It works on file descriptors, below `sys.stdin` and `sys.stdout`: what a C library or a child process writes must not
get between two messages, either.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Final, final

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

__all__ = ["StandardStreams"]

_INPUT: Final = 0
_OUTPUT: Final = 1
_ERRORS: Final = 2


@final
class StandardStreams(ByteStream):
    """Standard input and output, taken over for good: their descriptors then read nothing, and write to standard error.

    Raises:
        NotImplementedError: on Windows, whose pipes cannot be waited for.
        OSError: if this process has none.
    """

    def __init__(self) -> None:
        if sys.platform == "win32":
            raise NotImplementedError("a session over standard input and output needs pipes that can be waited for")
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Flushes what goes to the output still. What is printed from now on is to be seen when it is printed.
            sys.stdout.reconfigure(line_buffering=True)
        # None once it is closed.
        self._incoming: _Descriptor | None = _Descriptor(_INPUT)
        self._outgoing: _Descriptor | None = _Descriptor(_OUTPUT)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, _INPUT)
        os.close(nothing)
        os.dup2(_ERRORS, _OUTPUT)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        while True:
            if self._incoming is None:
                raise anyio.ClosedResourceError
            try:
                data = os.read(self._incoming.number, max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._incoming.number)
                continue
            except OSError as error:
                raise anyio.BrokenResourceError from error
            if not data:
                raise anyio.EndOfStream
            return data

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        rest = memoryview(item)
        while rest:
            if self._outgoing is None:
                raise anyio.ClosedResourceError
            try:
                rest = rest[os.write(self._outgoing.number, rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._outgoing.number)
            except OSError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            outgoing.close()

    async def aclose(self) -> None:
        await self.send_eof()
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.close()
        await anyio.lowlevel.checkpoint()


class _Descriptor:
    """A duplicate of a descriptor that does not block. Whether one blocks is shared by all its duplicates, a shell's
    terminal among them: so it blocks again in the end."""

    def __init__(self, original: int) -> None:
        self.number = os.dup(original)
        self._blocking = os.get_blocking(self.number)
        os.set_blocking(self.number, False)

    def close(self) -> None:
        anyio.notify_closing(self.number)
        os.set_blocking(self.number, self._blocking)
        os.close(self.number)
