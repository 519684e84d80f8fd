"""Driving the proxy in tests: its ASGI application without a socket, and the real server as a process of its own.

Nothing here asserts: a test sends events or requests, and reads what comes back.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

import anyio
import attrs
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from proxy_server.app import ProxyApp
from proxy_server.auth import Gate
from proxy_server.bindings import Binding, Declaration, Opener

SECRET = "a-secret-that-is-only-for-tests"
ROOT = Path(__file__).parent.parent


def opener(binding: Binding) -> Opener:
    """What opens a binding that is there already."""

    async def open_binding(_tasks: TaskGroup) -> Binding:
        return binding

    return open_binding


def declared(binding: Binding | Opener | Declaration) -> Declaration:
    """The declaration of a binding, of what opens one, or of one that is there already."""
    if isinstance(binding, Declaration):
        return binding
    return Declaration("service", binding if callable(binding) else opener(binding))


@asynccontextmanager
async def proxy(**bindings: Binding | Opener | Declaration) -> AsyncIterator[ProxyApp]:
    """A running application with the secret SECRET."""
    app = ProxyApp({name: declared(value) for name, value in bindings.items()}, Gate(SECRET))
    async with app.running():
        yield app


def http_scope(
    binding: str | None,
    *,
    method: str = "GET",
    path: str = f"/{SECRET}/",
    headers: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The scope of a request for a binding, as a server makes it."""
    named = [] if binding is None else [("mf-binding", binding)]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in [*named, *headers]],
    }


def websocket_scope(
    query: str = "",
    *,
    path: str = f"/{SECRET}/",
    headers: Sequence[tuple[str, str]] = (),
    can_respond: bool = True,
) -> dict[str, Any]:
    """The scope of a WebSocket handshake, on a server that can answer it with a response, or cannot."""
    return {
        "type": "websocket",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}} if can_respond else {},
    }


@attrs.define
class Wire:
    """The server's end of one scope: events to the application and from it."""

    to_app: MemoryObjectSendStream[Mapping[str, Any]]
    from_app: MemoryObjectReceiveStream[Mapping[str, Any]]
    received: int = 0
    failure: Exception | None = None
    ended: anyio.Event = attrs.field(factory=anyio.Event)

    async def push(self, chunk: bytes, *, more: bool = True) -> None:
        await self.to_app.send({"type": "http.request", "body": chunk, "more_body": more})

    async def leave(self) -> None:
        await self.to_app.send({"type": "http.disconnect"})

    async def next(self) -> Mapping[str, Any]:
        return await self.from_app.receive()

    async def next_chunk(self) -> bytes:
        event = await self.next()
        assert event["type"] == "http.response.body", event
        chunk: bytes = event["body"]
        return chunk


@asynccontextmanager
async def wired(app: Any, scope: Mapping[str, Any]) -> AsyncIterator[Wire]:
    """Run an application on one scope; at the end of the block it is cancelled if it has not ended."""
    to_app, app_receives = anyio.create_memory_object_stream[Mapping[str, Any]](math.inf)
    app_sends, from_app = anyio.create_memory_object_stream[Mapping[str, Any]](0)
    wire = Wire(to_app, from_app)

    async def receive() -> Mapping[str, Any]:
        event = await app_receives.receive()
        wire.received += 1
        return event

    async def run() -> None:
        with app_sends, app_receives:
            try:
                await app(scope, receive, app_sends.send)
            except Exception as error:
                wire.failure = error
            finally:
                wire.ended.set()

    with to_app, from_app:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            with anyio.fail_after(60):
                yield wire
            tasks.cancel_scope.cancel()


@attrs.frozen
class Reply:
    """One whole response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


async def fetch(app: Any, scope: Mapping[str, Any], *chunks: bytes) -> Reply:
    """Send one request with its body, and collect the response."""
    async with wired(app, scope) as wire:
        for chunk in chunks:
            await wire.push(chunk)
        await wire.push(b"", more=False)
        start = await wire.next()
        assert start["type"] in {"http.response.start", "websocket.http.response.start"}, start
        body = b""
        while (event := await wire.next()).get("more_body", False):
            body += event["body"]
        headers = [(name.decode(), value.decode()) for name, value in start["headers"]]
        return Reply(start["status"], headers, body + event["body"])


@attrs.frozen
class Server:
    """A proxy server in a process of its own. Its standard error is a file, which takes as much as there is."""

    process: subprocess.Popen[str]
    url: str
    errors: IO[bytes]

    def said(self) -> str:
        """What it has written to standard error by now."""
        descriptor = self.errors.fileno()
        # The process writes where this file stands: reading must not move that.
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()

    def ended(self) -> tuple[str, str]:
        """Wait for its end. What it has written to standard output, after the first line, and to standard error."""
        output = self.process.communicate(timeout=60)[0]
        return output, self.said()


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "proxy_server", *map(str, arguments)]


def start(config: Path, *arguments: str) -> Server:
    """Start `serve` on a free port, and wait until it has printed where it is."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process, when nobody refers to that any more
    process = subprocess.Popen(
        command("serve", config, "--port", "0", "--json", *arguments),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=errors,
    )
    weakref.finalize(process, errors.close)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"the server did not start: {Server(process, '', errors).ended()[1]}")
    return Server(process, json.loads(line)["url"], errors)


@contextmanager
def serving(config: Path, *arguments: str) -> Iterator[Server]:
    """A server for the length of a block."""
    server = start(config, *arguments)
    try:
        yield server
    finally:
        server.process.terminate()
        server.ended()
