"""A small binding of the tests' own, of the type "notes": texts by name, kept in files of the state directory.

The serving side, the access mode "read" over a remote one, and the facade: what a real type has in three places.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from capnweb_py import RpcTarget
from capnweb_py.bindings import FACADES
from capnweb_py.bindings.channels import Channels
from capnweb_py.web import Request, Response
from proxy_server.bindings import _MODULES, Binding, BindingError, Opener
from proxy_server.tables import Table

KIND = "notes"


class Notes:
    """The facade, over either channel."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def put(self, name: str, text: str) -> None:
        if self._channels.preferred == "rpc":
            await self._channels.rpc.put(name, text)
        else:
            await self._exchange(Request(f"https://notes/{name}", method="PUT", body=text))

    async def get(self, name: str) -> str:
        if self._channels.preferred == "rpc":
            text: str = await self._channels.rpc.get(name)
            return text
        return await self._exchange(Request(f"https://notes/{name}"))

    async def _exchange(self, request: Request) -> str:
        response = await self._channels.fetch(request)
        text = await response.text()
        if response.status != 200:
            raise RuntimeError(text)
        return text


class FileNotes:
    """The binding."""

    def __init__(self, directory: anyio.Path) -> None:
        self._directory = directory

    def rpc_main(self) -> object:
        return _Main(self)

    async def put(self, name: str, text: str) -> None:
        await (self._directory / name).write_text(text)

    async def get(self, name: str) -> str:
        return await (self._directory / name).read_text()

    async def fetch(self, request: Request) -> Response:
        name = request.url.rpartition("/")[2]
        if request.method == "PUT":
            await self.put(name, await request.text())
            return Response(None)
        return Response(await self.get(name))

    async def aclose(self) -> None:
        """Files are open while they are used, and no longer."""


class _Main(RpcTarget):
    def __init__(self, notes: FileNotes) -> None:
        self._notes = notes

    async def put(self, name: str, text: str) -> None:
        await self._notes.put(name, text)

    async def get(self, name: str) -> str:
        return await self._notes.get(name)


class ReadOnlyNotes(FileNotes):
    """Notes that are somebody else's."""

    def __init__(self, notes: Notes) -> None:
        self._notes: Any = notes

    async def put(self, name: str, text: str) -> None:
        raise BindingError("these notes are to be read only")

    async def get(self, name: str) -> str:
        text: str = await self._notes.get(name)
        return text


def parse(table: Table, state_dir: Path) -> Opener:
    directory = state_dir / table.text("id", "notes")
    table.finish()

    async def open_notes(_tasks: TaskGroup) -> Binding:
        path = anyio.Path(directory)
        await path.mkdir(parents=True, exist_ok=True)
        return FileNotes(path)

    return open_notes


def over(facade: Notes, _access: str, _name: str, _state_dir: Path) -> Opener:
    async def open_notes(_tasks: TaskGroup) -> Binding:
        return ReadOnlyNotes(facade)

    return open_notes


@contextmanager
def known_type() -> Iterator[None]:
    """The type is known to proxies and to programs for the length of a block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_MODULES, KIND, "tests.notes")
        facades = MappingProxyType({**FACADES, KIND: Notes})
        patch.setattr("capnweb_py.remote.FACADES", facades)
        patch.setattr("proxy_server.platform.FACADES", facades)
        yield
