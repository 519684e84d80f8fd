"""A proxy server in a process of its own, for tools that embed one. It reads its bindings from its standard input, one
line of JSON for each change, and answers with one (see proxy_server/control.py).

What a program uses of it is in remote.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

import anyio
import anyio.abc
import attrs
from anyio.streams.buffered import BufferedByteReceiveStream

__all__ = [
    "RemoteProxySession",
    "RemoteProxySessionData",
    "maybe_start_or_update_remote_proxy_session",
    "start_remote_proxy_session",
]

# How long, in seconds, a proxy server may take to answer or to stop.
_PATIENCE: Final = 30


class RemoteProxySession:
    """A proxy server in a process of its own, for as long as its session lasts. It ends with this process, too.

    Made by `start_remote_proxy_session`. `async with session:` disposes it at the end of the block.

    Attributes:
        connection_string: for `connect_env`, or Miniflare's `remoteProxyConnectionString`. It holds the secret.
    """

    connection_string: str

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None, "it was asked for"
        assert process.stdout is not None, "it was asked for"
        self._process = process
        self._stdin = process.stdin
        self._answers = BufferedByteReceiveStream(process.stdout)
        # One request and its answer at a time, and how many answers are yet to come.
        self._turn = anyio.Lock()
        self._unanswered = 0

    async def update_bindings(self, bindings: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the bindings. The connection string stays, and all that runs goes on: on bindings that are changed or
        removed, too, whose next use is of what there is then.

        Args:
            bindings: as of `start_remote_proxy_session`: all of them, not only the new ones.

        Raises:
            ValueError: if a binding is not valid; the old ones stay.
            RuntimeError: if the server has ended.
            TimeoutError: if it does not answer.
        """
        request = _line(bindings)
        async with self._turn:
            self._unanswered += 1
            try:
                with anyio.fail_after(_PATIENCE):
                    await self._stdin.send(request)
                    # Those that were cancelled have left their answers behind.
                    while self._unanswered:
                        line = await self._answers.receive_until(b"\n", max_bytes=1 << 20)
                        self._unanswered -= 1
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.IncompleteRead):
                raise RuntimeError("the proxy server has ended; see what it wrote to standard error") from None
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"].removeprefix("standard input: "))
        self.connection_string = answer["url"]

    async def dispose(self) -> None:
        """Stop the server: running calls fail, and nothing is left behind. Safe to do twice."""
        with anyio.CancelScope(shield=True):
            await self._stdin.aclose()
            with anyio.move_on_after(_PATIENCE):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
            await self._process.aclose()

    async def __aenter__(self) -> RemoteProxySession:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.dispose()


def _line(bindings: Mapping[str, Mapping[str, Any]]) -> bytes:
    try:
        return json.dumps({"bindings": bindings}).encode() + b"\n"
    except TypeError as error:
        raise ValueError(
            f'a binding is a table of texts and numbers, its target named as "module:Name": {error}'
        ) from None


async def start_remote_proxy_session(bindings: Mapping[str, Mapping[str, Any]]) -> RemoteProxySession:
    """Start a proxy server on this machine, in a process of its own, with the given bindings.

        session = await start_remote_proxy_session({"IMAGES": {"type": "images"}})
        ...
        await session.dispose()

    The package's extra `proxy` must be installed. The server ends when the session is disposed, or this process ends.

    Args:
        bindings: by name, each a table as under [bindings.NAME] of the server's configuration. Targets are imported
            from the current directory.

    Raises:
        ValueError: if a binding is not valid; the message names it and says what would be.
        RuntimeError: if the server does not start.
    """
    process = await anyio.open_process(
        [sys.executable, "-m", "proxy_server", "serve", "-", "--port", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
    )
    session = RemoteProxySession(process)
    try:
        await session.update_bindings(bindings)
    except BaseException:
        await session.dispose()
        raise
    return session


@attrs.frozen
class RemoteProxySessionData:
    """A session, and what it was started or updated with.

    Attributes:
        session: it.
        remote_bindings: the bindings of it, by name.
    """

    session: RemoteProxySession
    remote_bindings: Mapping[str, Mapping[str, Any]]


async def maybe_start_or_update_remote_proxy_session(
    bindings: Mapping[str, Mapping[str, Any]], existing: RemoteProxySessionData | None = None
) -> RemoteProxySessionData | None:
    """Have a proxy server with those of a program's bindings that are remote: for tools that reload a configuration.

        data = await maybe_start_or_update_remote_proxy_session(bindings, data)

    One is started when there is something for it to do for the first time, is updated when that changes, and goes on,
    with the same connection string, when nothing is left.

    Args:
        bindings: all of them, as of `start_remote_proxy_session`. Those with `remote = true` count.
        existing: what the call before returned.

    Returns:
        the session with its bindings; None if there is none, and no need of one.

    Raises: as `start_remote_proxy_session` and `update_bindings`.
    """
    remote = {name: binding for name, binding in bindings.items() if binding.get("remote")}
    if existing is None:
        return RemoteProxySessionData(await start_remote_proxy_session(remote), remote) if remote else None
    if remote != existing.remote_bindings:
        await existing.session.update_bindings(remote)
    return RemoteProxySessionData(existing.session, remote)
