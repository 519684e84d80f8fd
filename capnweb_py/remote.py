"""Remote bindings: `connect_env` gives a program the bindings behind a proxy server as if they were here.

`start_remote_proxy_session`, which runs such a server for tools that embed one, is in remote_process.py, and imported
from here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from .backoff import DEFAULT_BACKOFF, Backoff
from .bindings import FACADES
from .bindings.answers import Answers
from .bindings.channels import Block, Channel, Channels, ProxyAddress, check_channel, rpc_url
from .client import open_session
from .http11 import Http11Client
from .lazy import LazySession, Reach
from .lazy_sessions import Opening, Sessions
from .loops import task_set
from .options import SessionOptions
from .remote_process import (
    RemoteProxySession,
    RemoteProxySessionData,
    maybe_start_or_update_remote_proxy_session,
    start_remote_proxy_session,
)
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
        reach: Reach = partial(http.reach, address.http_url)
        others = Sessions("the service of a dispatch namespace", spawn, options, reach)

        def opening(name: str, url: str) -> Opening:
            return lambda: answers.opened(open_session(url, options=options), name, types[name])

        sessions = {
            name: LazySession(
                opening(name, rpc_url(address, name, kind)),
                f"the binding {name!r} of {address.title}",
                spawn,
                options,
                reach,
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
                backoff=backoff,
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
