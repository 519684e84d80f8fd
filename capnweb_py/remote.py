"""Remote bindings: `connect_env` gives a program the bindings behind a proxy server as if they were here, and
`start_remote_proxy_session` runs such a server for tools that embed one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.abc
import attrs
from anyio.streams.buffered import BufferedByteReceiveStream

from .backoff import DEFAULT_BACKOFF, Backoff
from .bindings import FACADES
from .bindings.answers import Answers
from .bindings.channels import Block, Channel, Channels, ProxyAddress, check_channel, rpc_url
from .client import open_session
from .http11 import Http11Client
from .lazy import LazySession
from .lazy_sessions import Opening, Sessions
from .loops import task_set
from .options import SessionOptions
from .stub import RpcStub

__all__ = [
    "Env",
    "MissingBinding",
    "RemoteProxySession",
    "RemoteProxySessionData",
    "connect_env",
    "maybe_start_or_update_remote_proxy_session",
    "start_remote_proxy_session",
]


class MissingBinding(KeyError):
    """`env["NAME"]` of a name that no binding has. The message says which there are."""

    def __str__(self) -> str:
        # That of KeyError has the quotes of a key.
        return str(self.args[0])


class Env:
    """The bindings of a program, as attributes: `env.CACHE`, or `env["CACHE"]`. `"CACHE" in env` tells whether there is
    one, and `list(env)` which there are.

    Args:
        bindings: by name.
        missing: names of bindings that are declared and cannot be had here, with the reason of each: using one is a
            RuntimeError that says it.
    """

    def __init__(self, bindings: Mapping[str, Any], missing: Mapping[str, str] | None = None) -> None:
        self._bindings = dict(bindings)
        self._missing = dict(missing or {})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except MissingBinding as error:
            raise AttributeError(str(error), name=name, obj=self) from None

    def __getitem__(self, name: str) -> Any:
        if name in self._missing:
            raise RuntimeError(f"the binding {name!r} cannot be used here: {self._missing[name]}")
        if name not in self._bindings:
            raise MissingBinding(f"there is no binding {name!r}{self._choice()}")
        return self._bindings[name]

    def __contains__(self, name: object) -> bool:
        return name in self._bindings

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._bindings))

    def __dir__(self) -> list[str]:
        return sorted(self._bindings)

    def _choice(self) -> str:
        return f"; there are {', '.join(sorted(self._bindings))}" if self._bindings else ": this env has none"

    def __repr__(self) -> str:
        return f"<env of {', '.join(sorted(self._bindings)) or 'no bindings'}>"


@asynccontextmanager
async def connect_env(
    connection_string: str,
    *,
    bindings: Mapping[str, str] | None = None,
    options: SessionOptions | None = None,
    channel: Channel = "http",
    backoff: Backoff = DEFAULT_BACKOFF,
) -> AsyncIterator[Env]:
    """Connect to a proxy server, and yield an object with its bindings.

        async with connect_env(connection_string) as env:
            await env.GREETER.hello("World")

    A session is opened when its binding is first used, and closed with the context. When it is lost, the calls on it
    fail, and their error has an attribute `may_have_run`; the next call opens another one, and waits for a proxy that
    restarts.

    Args:
        connection_string: as the proxy server prints it. It holds the secret.
        bindings: the types of the bindings by their names, for a proxy that does not tell, as Cloudflare's own does
            not: {"IMAGES": "images", "GREETER": "service"}.
        options: of the RPC sessions.
        channel: "http" or "rpc", what bindings go by that can go by either. Services are called over RPC in any case.
        backoff: how a proxy that was reached before, and is not there, is reached again.

    Raises:
        Unreachable: if no proxy answers. ProxyDenied: if it refuses the connection string. ProxyError: if what answers
            is no proxy. All of these are ConnectionErrors, and a ProxyDenied is a PermissionError, too.
        ValueError: if the connection string, a binding's type or the channel is none.
    """
    check_channel(channel)
    address = ProxyAddress(connection_string)
    async with task_set() as spawn, Http11Client(spawn, backoff=backoff) as http:
        answers = Answers(address, http)
        types = await _types(address, answers) if bindings is None else bindings
        facades = {name: _facade(name, kind) for name, kind in types.items()}
        block = Block()
        # Of what a binding gives that has sessions of its own.
        others = Sessions("the service of a dispatch namespace", spawn, options, backoff)

        def opening(name: str, url: str) -> Opening:
            return lambda: answers.opened(open_session(url, options=options), name, types[name])

        sessions = {
            name: LazySession(
                opening(name, rpc_url(address, name, kind)),
                f"the binding {name!r} of {address.title}",
                spawn,
                options,
                backoff,
            )
            for name, kind in types.items()
        }

        def channels(name: str, kind: str) -> Channels:
            def open_other(url: str) -> RpcStub:
                return others.main(url, opening(name, url))

            return Channels(
                name,
                address,
                http,
                sessions[name].main,
                channel,
                open_other,
                kind=kind,
                answers=answers,
                block=block,
            )

        try:
            yield Env({name: facades[name](channels(name, kind)) for name, kind in types.items()})
        finally:
            block.left = True
            for session in sessions.values():
                await session.aclose()
            await others.aclose()


async def _types(address: ProxyAddress, answers: Answers) -> dict[str, str]:
    described = await answers.bindings()
    if described is None:
        raise ValueError(
            f"{address!r} does not tell which bindings it has: name them and their types, as in"
            ' connect_env(..., bindings={"IMAGES": "images"})'
        )
    return {name: binding["type"] for name, binding in described.items()}


def _facade(name: str, kind: str) -> Callable[[Channels], Any]:
    if not name:
        raise ValueError(f"a binding has a name, and that of the type {kind!r} has none")
    try:
        return FACADES[kind]
    except KeyError:
        raise ValueError(
            f"the binding {name!r}: a binding of the type {kind!r} has no facade; one of {', '.join(FACADES)}"
        ) from None


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
