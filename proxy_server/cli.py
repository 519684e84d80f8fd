"""The command line: `serve CONFIG`, `overlay` and `demo`. It binds the port, runs the server on it, and says where
it is.

Standard output is for the one line that programs read, the connection string; everything else goes to
standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

import uvicorn
from uvicorn.lifespan.on import LifespanOn

from capnweb_py.options import SessionOptions
from proxy_server.app import ProxyApp
from proxy_server.auth import Gate, connection_string, is_loopback, new_secret
from proxy_server.bindings import BindingError
from proxy_server.closing_sockets import ClosingWebSocket
from proxy_server.config import Config, ConfigError, ConnectionLimits, load, read
from proxy_server.connection_limits import Connections, LimitedH11
from proxy_server.control import SOURCE, obey
from proxy_server.logs import LEVELS, log_to_stderr
from proxy_server.overlays import OverlayError, clear, found

__all__ = ["main", "serve"]

# The exit code for what its user can put right: the command line (argparse's own), the configuration, the
# address.
_USAGE_ERROR: Final = 2

# In seconds. Idle WebSockets stay open through routers that forget connections after a minute, and one whose
# peer is gone is noticed. A peer may be slow to answer: while it takes in a large message, its pong waits
# behind it.
_PING_INTERVAL: Final = 20.0
_PING_TIMEOUT: Final = 60.0

# In seconds. Longer than clients keep idle connections for, or they would reuse one in the moment in which it
# is closed.
_KEEP_ALIVE: Final = 75
# In seconds: how long connections may take to close after that, before their tasks are cancelled.
_GRACEFUL_SHUTDOWN: Final = 2

# In bytes: one line of a controlling program's, with the tables of all bindings.
_MAX_LINE: Final = 1024 * 1024

# In bytes. A request's head holds all original headers, each with a longer name; servers commonly take 8 to
# 64 KiB.
_MAX_HEAD: Final = 64 * 1024


# Open files, which connections are too. Miniflare's client opens a WebSocket for every use of a service binding and
# closes none before workerd ends; the usual limit of 1024 is reached in one afternoon of development.
_MAX_OPEN_FILES: Final = 65_536


class _AddressError(Exception):
    """The server cannot listen on an address. The message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command line, without the program's name; that of the process by default.

    Returns:
        the exit code: 0 after a graceful stop, 2 for a configuration or an address that cannot be used.
    """
    parsed = _parser().parse_args(arguments)
    if parsed.command == "demo":
        # Imported here: it needs the images' packages, which serving may do without.
        return _demo(parsed.output)
    if parsed.command == "overlay":
        return _overlay(parsed.action, parsed.state_dir, parsed.name)
    try:
        controlled = parsed.config == "-"
        config = read({}, SOURCE) if controlled else load(parsed.config, parsed.env)
        return serve(
            config,
            host=parsed.host,
            port=parsed.port,
            as_json=parsed.json,
            controlled=controlled,
            log_level=parsed.log_level,
            log_json=parsed.log_json,
        )
    except (ConfigError, _AddressError, BindingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE_ERROR


def _overlay(action: str, state_dir: Path, name: str | None) -> int:
    try:
        overlays = found(state_dir) if action == "list" else clear(state_dir, name)
    except OverlayError as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE_ERROR
    for overlay in overlays:
        print(f"{overlay.kind}\t{overlay.name}\t{overlay.size} bytes\t{overlay.path}")
    if not overlays:
        print(f"no overlays in {state_dir}", file=sys.stderr)
    return 0


def _demo(output: Path | None) -> int:
    try:
        demo = importlib.import_module("proxy_server.demo")
    except ModuleNotFoundError as error:
        print(f"error: the demo needs the Python package {error.name!r}: install capnweb-py[demo]", file=sys.stderr)
        return _USAGE_ERROR
    exit_code: int = demo.main(output)
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m proxy_server", description="Serve Python, and what it reaches, as remote bindings."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="serve the bindings of a configuration until SIGINT or SIGTERM")
    serving.add_argument(
        "config",
        metavar="CONFIG",
        help='a TOML file, wrangler.toml or wrangler.jsonc; "-" for a program that declares bindings on standard input',
    )
    serving.add_argument("--env", metavar="NAME", help="the environment of a Wrangler file whose bindings are meant")
    serving.add_argument("--host", help="the address to listen on, instead of the configuration's (127.0.0.1)")
    serving.add_argument("--port", type=_port, help="instead of the configuration's (8787); 0 is any free one")
    serving.add_argument("--log-json", action="store_true", help="log JSON objects, one in a line")
    serving.add_argument(
        "--log-level", choices=LEVELS, default="warning", help="what is logged (warning); debug may tell values"
    )
    serving.add_argument("--json", action="store_true", help="print the connection string as a JSON object")
    overlay = commands.add_parser("overlay", help='what bindings with access = "overlay" keep to themselves')
    actions = overlay.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="list the overlays: type, binding, size, place")
    clearing = actions.add_parser("clear", help="throw overlays away, and list them")
    place = "where embedded stores live"
    listing.add_argument(
        "state_dir", type=Path, nargs="?", default=Path(".capnweb"), metavar="STATE_DIR", help=f"{place} (.capnweb)"
    )
    clearing.add_argument(
        "state_dir", type=Path, nargs="?", default=Path(".capnweb"), metavar="STATE_DIR", help=f"{place} (.capnweb)"
    )
    listing.set_defaults(name=None)
    clearing.add_argument("name", nargs="?", metavar="NAME", help="the binding that is meant; all without it")
    demo = commands.add_parser("demo", help="show a service, a callback and image transforms, on a server of its own")
    demo.add_argument("--output", type=Path, metavar="DIR", help="where to write the pictures (a temporary directory)")
    return parser


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 <= (port := int(text)) <= 65535:
            return port
    raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535 are")


def serve(
    config: Config,
    *,
    host: str | None = None,
    port: int | None = None,
    as_json: bool = False,
    controlled: bool = False,
    log_level: str = "warning",
    log_json: bool = False,
) -> int:
    """Serve a configuration until the process is told to stop by SIGINT or SIGTERM.

    Args:
        config: what to serve.
        host, port: instead of the configuration's.
        as_json: print `{"url": ...}` instead of the bare connection string.
        controlled: print neither, but obey standard input: see control.py.
        log_level, log_json: of what is logged: see logs.py.

    Raises:
        _AddressError: if it cannot listen there.
        BindingError: if a binding cannot be opened.
    """
    _raise_file_limit()
    host = config.server.host if host is None else host
    listener = _listen(host, config.server.port if port is None else port)
    if not is_loopback(host):
        print(
            f"warning: {host} can be reached from other machines. Whoever has the connection string can use "
            "every binding, and it crosses the network unencrypted.",
            file=sys.stderr,
        )
    if not config.bindings and not controlled:
        print(f"warning: {config.source} declares no bindings: there is nothing to use here", file=sys.stderr)
    for problem in (*config.warnings, *(f"not served: {reason}" for reason in config.unserved)):
        print(f"warning: {problem}", file=sys.stderr)
    secret = config.server.secret or new_secret()
    log_to_stderr(secret, level=log_level, as_json=log_json)
    url = connection_string(host, listener.getsockname()[1], secret)
    options = SessionOptions()
    app = ProxyApp(config.bindings, Gate(secret, config.server.allowed_origins), options, config.server.max_sessions)
    uvicorn_config = _uvicorn_config(app, options, config.server.connections)
    uvicorn_config.load()
    uvicorn_config.lifespan_class = _Lifespan
    server: uvicorn.Server
    if controlled:
        server = _ControlledServer(uvicorn_config, app, url, _taken_stdout())
    else:
        announcement = json.dumps({"url": url}) if as_json else url
        server = _AnnouncingServer(uvicorn_config, app, config.server.drain_timeout, announcement)
    for stop in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal again when it has stopped; with its own handler in place that ends in
        # nothing, and the exit code is that of a program that has done what it was told.
        signal.signal(stop, server.handle_exit)
    with listener:
        try:
            server.run(sockets=[listener])
        except SystemExit:
            # uvicorn's way out when the application does not start.
            if isinstance(server.lifespan, _Lifespan) and server.lifespan.failure is not None:
                raise BindingError(server.lifespan.failure) from None
            raise
    return 0


class _Lifespan(LifespanOn):
    """Keeps why the application did not start, which is for the command line to say.

    Attributes:
        failure: the reason; None where there is none.
    """

    failure: str | None = None

    async def send(self, message: Any) -> None:
        if message["type"] == "lifespan.startup.failed":
            self.failure = message["message"]
            message = {"type": "lifespan.startup.failed", "message": ""}
        await super().send(message)


class _AnnouncingServer(uvicorn.Server):
    """A server that prints a line once it accepts connections, and lets what runs finish before it stops."""

    def __init__(self, config: uvicorn.Config, app: ProxyApp, drain_timeout: float, announcement: str) -> None:
        super().__init__(config)
        self._app = app
        self._drain_timeout = drain_timeout
        self._announcement = announcement

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._announcement, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()  # whoever comes now is refused, and comes again
        await self._app.drain(self._drain_timeout)
        await super().shutdown(sockets)


class _ControlledServer(uvicorn.Server):
    """A server that obeys standard input once it accepts connections, and stops at its end."""

    def __init__(self, config: uvicorn.Config, app: ProxyApp, url: str, answers: TextIO) -> None:
        super().__init__(config)
        self._app = app
        self._url = url
        self._answers = answers
        # asyncio keeps only weak references to its tasks.
        self._control: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._control = asyncio.create_task(self._obey())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._control is not None:
            self._control.cancel()
        await super().shutdown(sockets)

    async def _obey(self) -> None:
        # uvicorn runs asyncio, whose pipes are read without a thread that nobody could interrupt.
        reader = asyncio.StreamReader(limit=_MAX_LINE)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        try:
            await obey(_lines(reader), self._app, self._url, self._answer)
        except Exception:
            logging.getLogger("proxy_server").exception("the control of the server failed, and the server stops")
        finally:
            self.should_exit = True

    def _answer(self, line: str) -> None:
        print(line, file=self._answers, flush=True)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes | None]:
    """The lines of the input, None for one that is too long."""
    while True:
        try:
            line = await reader.readline()
        except ValueError:
            yield None
            continue
        if not line:
            return
        yield line


def _taken_stdout() -> TextIO:
    """Standard output for the answers alone: what targets print goes to standard error from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _uvicorn_config(app: ProxyApp, options: SessionOptions, limits: ConnectionLimits) -> uvicorn.Config:
    http: Any = partial(LimitedH11, connections=Connections(limits))
    return uvicorn.Config(
        app,
        http=http,
        h11_max_incomplete_event_size=_MAX_HEAD,
        ws=ClosingWebSocket,
        ws_max_size=options.limits.max_message_size,
        ws_ping_interval=_PING_INTERVAL,
        ws_ping_timeout=_PING_TIMEOUT,
        # The peer is near, or its messages are short: compressing costs more than it saves.
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        # The path of every request is the secret.
        access_log=False,
        # Responses are the bindings': nothing is added to them.
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN,
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        # `create_server` adds the address to the text of an error, and the message has it already.
        reason = error.strerror if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
        advice = "choose another one with --port, or 0 for any free one" if port else "choose another one with --host"
        raise _AddressError(f"cannot listen on {host} port {port}: {reason}: {advice}") from error


def _raise_file_limit() -> None:
    """Let the process have as many connections as its user may have, up to _MAX_OPEN_FILES."""
    if sys.platform == "win32":
        return  # it has no such limit
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS says "infinity" and has a maximum of its own, past which it refuses: then the limit stays.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
