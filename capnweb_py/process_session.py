"""Sessions with a worker process over its standard input and output: the parent's side, and the worker's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from typing import Any, Final

import anyio
from anyio.abc import Process
from anyio.streams.stapled import StapledByteStream

from .codec import Codec
from .options import SessionOptions
from .session import Message, RpcSession
from .stream_session import codec_and_framing, open_stream_session
from .transports.byte_stream import ByteStreamMessages
from .transports.driver import StreamDriver, StreamEnded, run_session
from .transports.framing import Framing, FramingName
from .transports.stdio import StandardStreams

__all__ = ["open_process_session", "stdio_session"]

# How long, in seconds, a process whose output has ended may take to exit, for its end to be told with its exit code.
_EXIT_CODE_TIMEOUT: Final = 1


@asynccontextmanager
async def open_process_session(
    command: str | Sequence[str | PathLike[str]],
    *,
    local_main: Any = None,
    options: SessionOptions | None = None,
    codec: str | Codec = "json",
    framing: FramingName = "length",
    cwd: str | PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    exit_timeout: float = 5,
) -> AsyncIterator[RpcSession]:
    """Start a process, and run a session with it over its standard input and output until the context ends.

        async with open_process_session([sys.executable, "-m", "worker"]) as session:
            await session.remote_main.hello("World")

    The process runs `stdio_session`, or anything else that speaks there. What it writes to its standard error goes to
    that of this process. Should it exit earlier, everything pending fails with SessionClosed, which says how it ended.

    At the end of the context its standard input is closed. If it does not exit then, it is terminated, and killed if
    that does not help: it is gone when the context is left, however it is left.

    Args:
        command: the program and its arguments, or one string for the shell.
        local_main: the object that the process gets as its `remote_main`.
        options: limits, and what is told of errors.
        codec: "json", "cbor", or one of your own. The process has to say the same.
        framing: "length" or "newline", as in `open_stream_session`. The process has to say the same.
        cwd: the directory that the process runs in; None for that of this one.
        env: the environment of the process; None for that of this one.
        exit_timeout: seconds that the process may take to end its output, then to exit, and then to obey its
            termination.

    Raises:
        OSError: if the process cannot be started.
        ValueError: if there is no such codec or framing, or the framing does not carry the codec.
    """
    chosen, framed = codec_and_framing(codec, framing, options)
    async with await anyio.open_process(command, stderr=None, cwd=cwd, env=env) as process:
        try:
            driver = StreamDriver(_ProcessMessages(process, framed, exit_timeout), options)
            async with run_session(driver, local_main, options, chosen, f"process {process.pid}") as session:
                yield session
        finally:
            await _end(process, exit_timeout)


@asynccontextmanager
async def stdio_session(
    local_main: Any = None,
    *,
    options: SessionOptions | None = None,
    codec: str | Codec = "json",
    framing: FramingName = "length",
) -> AsyncIterator[RpcSession]:
    """Run a session over the standard input and output of this process until the context ends.

        async def main():
            async with stdio_session(Api()) as session:
                await session.wait_closed()      # until the other side ends it

        anyio.run(main)

    From then on whatever else writes to standard output, `print` and the processes that this one starts included,
    writes to standard error, and whatever else reads standard input finds nothing there.

    Args:
        local_main: the object that the other side gets as its `remote_main`.
        options: limits, and what is told of errors.
        codec: "json", "cbor", or one of your own. The other side has to say the same.
        framing: "length" or "newline", as in `open_stream_session`. The other side has to say the same.

    Raises:
        NotImplementedError: on Windows, whose pipes cannot be waited for.
        OSError: if this process has no standard input or output.
        ValueError: if there is no such codec or framing, or the framing does not carry the codec.
    """
    codec_and_framing(codec, framing, options)  # raises before the streams are taken over for good
    async with open_stream_session(
        StandardStreams(),
        local_main=local_main,
        options=options,
        codec=codec,
        framing=framing,
        name="standard input and output",
    ) as session:
        yield session


class _ProcessMessages(ByteStreamMessages):
    """The messages of a process, which say how it ended."""

    def __init__(self, process: Process, framing: Framing, exit_timeout: float) -> None:
        assert process.stdin is not None, "it is a pipe by default"
        assert process.stdout is not None, "it is a pipe by default"
        super().__init__(StapledByteStream(process.stdin, process.stdout), framing)
        self._process = process
        self._exit_timeout = exit_timeout

    async def receive(self) -> Message:
        try:
            return await super().receive()
        except StreamEnded as ended:
            raise StreamEnded(await self._explanation(ended)) from ended.__cause__

    async def send(self, messages: list[Message]) -> None:
        try:
            await super().send(messages)
        except StreamEnded as ended:
            raise StreamEnded(await self._explanation(ended)) from ended.__cause__

    async def close(self, code: int, reason: str) -> None:
        with anyio.move_on_after(self._exit_timeout):
            await super().close(code, reason)

    async def _explanation(self, ended: StreamEnded) -> str:
        with anyio.move_on_after(_EXIT_CODE_TIMEOUT):
            await self._process.wait()
        code = self._process.returncode
        if code is None:
            return str(ended)
        return f"the process {f'exited with code {code}' if code >= 0 else f'was ended by signal {-code}'}: {ended}"


async def _end(process: Process, exit_timeout: float) -> None:
    """Wait for the end of a process whose standard input is closed, and see to it."""
    with anyio.move_on_after(exit_timeout, shield=True):
        await process.wait()
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(exit_timeout, shield=True):
            await process.wait()
    if process.returncode is None:
        process.kill()
        with anyio.CancelScope(shield=True):
            await process.wait()
