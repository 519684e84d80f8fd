"""`platform_env`: the bindings of a program by its own configuration, remote ones through a proxy and all others in the
program's own process. The same facades either way: a binding moves by one word of the configuration.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
from anyio.abc import TaskGroup

from capnweb_py.backoff import DEFAULT_BACKOFF, Backoff
from capnweb_py.bindings import FACADES
from capnweb_py.bindings.channels import Channel, ProxyAddress, check_channel
from capnweb_py.bindings.connect import Connect
from capnweb_py.loops import task_group
from capnweb_py.options import SessionOptions
from capnweb_py.remote import Env, connect_env
from proxy_server.bindings import Opener, module_of, open_binding, over_remote, parse_binding
from proxy_server.bindings.service import opener_of
from proxy_server.channels import LOG
from proxy_server.config import Document, read_document
from proxy_server.dev_vars import in_development
from proxy_server.inprocess import InProcessChannels
from proxy_server.overlays import OVER_REMOTE
from proxy_server.tables import ConfigError, PackageMissing, Table, suggestion

__all__ = ["CONNECTION_VARIABLE", "platform_env", "remote_bindings"]

# The environment variable with the connection string.
CONNECTION_VARIABLE: Final = "CAPNWEB_PROXY"


@asynccontextmanager
async def platform_env(
    config: str | Path | Mapping[str, Any],
    *,
    environment: str | None = None,
    connection_string: str | None = None,
    state_dir: str | Path | None = None,
    services: Mapping[str, object] | None = None,
    remote: bool = True,
    channel: Channel = "http",
    options: SessionOptions | None = None,
    backoff: Backoff = DEFAULT_BACKOFF,
) -> AsyncIterator[Env]:
    """Open the bindings of a program, and yield its `env`.

        async with platform_env("wrangler.jsonc") as env:
            await env.CACHE.put("k", "v")

    A binding with `remote = true` is that of the proxy server behind the connection string, reached when it is first
    used. Every other one is opened here, in this process, with its data in the state directory. One that can be had
    neither here nor there is a RuntimeError that says why, when it is used.

    Args:
        config: the path of a wrangler.toml, a wrangler.jsonc or a TOML file of this project's, or what such a TOML file
            would hold.
        environment: of a Wrangler file, as of `wrangler --env`. By default that in the environment variable
            CLOUDFLARE_ENV, if any.
        connection_string: of the proxy server. By default that in the environment variable CAPNWEB_PROXY, or else under
            `[remote]` in the configuration.
        state_dir: where the data of local bindings lives, instead of the configuration's.
        services: by the names of service bindings, what they are here, whatever the configuration says: an RpcTarget
            class, a function that makes a target, a target, an ASGI application, or "module:name" of one.
        remote: whether bindings may be remote. False makes each a local one, or none where its type has no local
            meaning.
        channel: "http" or "rpc", what facades use that can use either.
        options: of the RPC sessions.
        backoff: how a proxy that was reached before, and is not there, is reached again.

    Raises:
        ConfigError: if the configuration is not valid.
        BindingError: if a local binding cannot be opened.
        ValueError: if the channel is none, or the connection string.
    """
    check_channel(channel)
    document = _read(config, environment, state_dir)
    url, said_by = _where_the_proxy_is(connection_string, document)
    plan = _plan(document, services or {}, remote, url)
    for problem in document.warnings:
        LOG.warning("%s: %s", document.source, problem)
    if plan.missing:
        LOG.warning("%s: not to be used here: %s: using one says why", document.source, ", ".join(sorted(plan.missing)))
    values = _variables(document)
    # The innermost ends first: local bindings may lie over remote ones.
    async with AsyncExitStack() as stack:
        bindings: dict[str, Any] = {}
        if plan.remote:
            assert url is not None, "nothing is remote without it"
            _check_address(url, said_by)
            types = {name: table.text("type") for name, table in plan.remote.items()}
            proxy = await stack.enter_async_context(
                connect_env(url, bindings=types, options=options, channel=channel, backoff=backoff)
            )
            bindings.update({name: proxy[name] for name in types})
        tasks = await stack.enter_async_context(task_group())
        openers = dict(plan.local)
        overlays = document.server.state_dir / OVER_REMOTE
        for name, access in plan.access.items():
            openers[name] = over_remote(plan.remote[name], bindings[name], access, name, overlays)
        for name, opener in openers.items():
            facade = FACADES[document.tables[name].text("type")]
            over = name in plan.access
            # A raw connection needs no tunnel here: as a pair of streams it has two ends. What a remote binding raises
            # passes as it is through what lies over it where it is not sent, as errors are by RPC.
            by = "rpc" if facade is Connect else "http" if over else channel
            opening = _opened(name, opener, tasks, by, options, over_remote=over)
            bindings[name] = facade(await stack.enter_async_context(opening))
        yield Env({**values, **bindings}, plan.missing)


def remote_bindings(
    config: str | Path | Mapping[str, Any], environment: str | None = None
) -> dict[str, Mapping[str, Any]]:
    """The tables of a configuration's bindings that are remote, by name: for `start_remote_proxy_session`, and for
    `maybe_start_or_update_remote_proxy_session` whenever the file has changed.

    Args:
        config, environment: as of `platform_env`.

    Raises:
        ConfigError: if the configuration is not valid.
    """
    tables = read_document(config, environment).tables
    return {name: table.written for name, table in tables.items() if table.flag("remote")}


def _read(config: str | Path | Mapping[str, Any], environment: str | None, state_dir: str | Path | None) -> Document:
    document = read_document(config, environment)
    if state_dir is None:
        return document
    return attrs.evolve(document, server=attrs.evolve(document.server, state_dir=Path(state_dir).resolve()))


def _where_the_proxy_is(argument: str | None, document: Document) -> tuple[str | None, str]:
    """The connection string, if there is one, and what has said it."""
    if argument:
        return argument, "the argument connection_string"
    variable = os.environ.get(CONNECTION_VARIABLE)
    if variable:
        return variable, f"the environment variable {CONNECTION_VARIABLE}"
    return document.connection_string, f"{document.source}: remote.connection_string"


def _check_address(url: str, said_by: str) -> None:
    try:
        ProxyAddress(url)
    except ValueError as error:
        raise ValueError(f"{said_by}: {error}") from None


@attrs.frozen
class _Plan:
    """What becomes of each binding.

    Attributes:
        local: what opens those that are here.
        remote: the tables of those that are not.
        access: which of the remote ones are to be used through something that is here, and in which mode.
        missing: why others cannot be had.
    """

    local: dict[str, Opener] = attrs.field(factory=dict)
    remote: dict[str, Table] = attrs.field(factory=dict)
    access: dict[str, str] = attrs.field(factory=dict)
    missing: dict[str, str] = attrs.field(factory=dict)


def _plan(document: Document, services: Mapping[str, object], remote: bool, url: str | None) -> _Plan:
    plan = _Plan()
    for name in services:
        _check_service(name, document)
    for name, table in document.tables.items():
        try:
            _plan_one(plan, name, table, document, services, remote, url)
        except PackageMissing as error:
            plan.missing[name] = str(error)
    for name, reason in document.elsewhere.items():
        if name not in document.tables:
            plan.missing[name] = str(reason)
    return plan


def _plan_one(
    plan: _Plan,
    name: str,
    table: Table,
    document: Document,
    services: Mapping[str, object],
    remote: bool,
    url: str | None,
) -> None:
    kind = table.text("type")
    is_remote = table.flag("remote")
    if name in services:
        plan.local[name] = opener_of(table, services[name])
    elif is_remote and remote:
        _check_facade(table, kind)
        if not url:
            plan.missing[name] = _why_unreached(name, document)
            return
        access = table.text("access", "full")
        if access != "full":
            module_of(table)
            plan.access[name] = access
        plan.remote[name] = table
    elif name in document.elsewhere:
        plan.missing[name] = _why_not_here(name, document, is_remote)
    else:
        declaration = parse_binding(table, document.server.state_dir)
        _check_facade(table, kind)
        plan.local[name] = declaration.open


def _why_unreached(name: str, document: Document) -> str:
    """Why a remote binding cannot be used where no connection string is known."""
    where = (
        f"set the environment variable {CONNECTION_VARIABLE}, or platform_env(connection_string=...), to what"
        ' "python -m proxy_server serve" prints'
    )
    reason = document.elsewhere.get(name)
    if reason is None:
        return f"{document.source}: it is remote, and nothing says where its proxy is: {where}"
    return f"{reason.why}, and nothing says where its proxy is: {where}, or {_here(name, document)}"


def _why_not_here(name: str, document: Document, is_remote: bool) -> str:
    """Why a binding that has no counterpart here is not had from elsewhere either."""
    why = document.elsewhere[name].why
    if is_remote:
        remedy = "pass platform_env(remote=True), in pytest set capnweb_remote = true in its configuration"
        return f"{why}, and this program reaches nothing remote: {remedy}, or {_here(name, document)}"
    return f"{why}: say that it is remote, or {_here(name, document)}"


def _here(name: str, document: Document) -> str:
    """What to do for a binding to be one of this process."""
    advice = document.elsewhere[name].here
    if document.tables[name].text("type") != "service":
        return advice
    return f'{advice}, or pass platform_env(services={{"{name}": ...}}), in pytest the fixture capnweb_services'


def _variables(document: Document) -> Mapping[str, Any]:
    """What a Wrangler file says under `vars`, with what is said beside it."""
    if document.variables is None:
        return {}
    folder = document.source.resolve().parent
    return in_development(document.variables, document.secrets, folder, document.environment)


def _check_service(name: str, document: Document) -> None:
    table = document.tables.get(name)
    if table is None:
        known = [known for known, table in document.tables.items() if table.text("type") == "service"]
        problem = f'services: the configuration declares no service "{name}": {suggestion(name, known)}'
        raise ConfigError(document.source, "", problem)
    kind = table.text("type")
    if kind != "service":
        raise table.error(f'a target is given for it, and it is no service but a "{kind}"')


def _check_facade(table: Table, kind: str) -> None:
    if kind not in FACADES:
        raise table.error(
            f'Python programs cannot use a binding of the type "{kind}": {suggestion(kind, FACADES)}', "type"
        )


@asynccontextmanager
async def _opened(
    name: str, opener: Opener, tasks: TaskGroup, channel: Channel, options: SessionOptions | None, *, over_remote: bool
) -> AsyncIterator[InProcessChannels]:
    """A binding that is open for the length of the block."""
    binding = await open_binding(name, opener, tasks)
    try:
        channels = InProcessChannels(name, binding, tasks, channel, options, over_remote=over_remote)
        try:
            yield channels
        finally:
            with anyio.CancelScope(shield=True):
                await channels.aclose()
    finally:
        with anyio.CancelScope(shield=True):
            await binding.aclose()
