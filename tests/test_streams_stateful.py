"""Any interleaving of what can be done with streams over two sessions: nothing hangs, is out of order, or is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import attrs
import hypothesis
import pytest
from hypothesis import strategies as st
from links import Link, linked

from capnweb_py import RpcTarget, SessionStats, WritableStream

# What is done to a stream, by its place in the list of those that were opened.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from(["readable", "writable"])),
        st.tuples(
            st.sampled_from(["write", "write large", "read", "read and cancel", "let go", "close", "abort", "fail"]),
            st.integers(0, 3),
        ),
        st.tuples(st.just("run"), st.integers(1, 5)),
    ),
    max_size=40,
)


@attrs.define(eq=False)
class Opened:
    """One stream: what the test has written into it and read from it."""

    written: list[int] = attrs.field(factory=list)
    read: list[int] = attrs.field(factory=list)
    # What the source is to yield next; and what the sink gets.
    commands: Any = None
    writer: Any = None
    reader: Any = None
    source_closed: bool = False
    sink_ended: bool = False
    failing: bool = False

    async def source(self, receive: Any) -> AsyncIterator[Any]:
        try:
            async with receive:
                async for command in receive:
                    if isinstance(command, Exception):
                        raise command
                    yield command
        finally:
            self.source_closed = True

    async def write(self, chunk: Any) -> None:
        if self.failing:
            raise ValueError("the sink fails")
        self.read.append(chunk["number"])

    async def aclose(self) -> None:
        self.sink_ended = True

    async def abort(self, error: BaseException) -> None:
        self.sink_ended = True


class Api(RpcTarget):
    """Takes streams."""

    def __init__(self) -> None:
        self._streams: dict[int, Any] = {}

    def take(self, number: int, stream: Any) -> None:
        self._streams[number] = stream

    def taken(self) -> dict[int, Any]:
        return self._streams


class Play:
    """Does the steps, one after the other. Whatever waits does so in a task of its own."""

    def __init__(self, link: Link, api: Api, tasks: Any) -> None:
        self._link = link
        self._api = api
        self._tasks = tasks
        self._opened: list[Opened] = []

    async def step(self, kind: str, what: Any) -> None:
        if kind == "open":
            self._open(what)
            await self._link.run()
        elif kind == "run":
            for _ in range(what):
                await anyio.wait_all_tasks_blocked()
            await self._link.run()
        elif what < len(self._opened):
            self._act(kind, self._opened[what])
            if what % 2:
                await self._link.run()

    def _open(self, kind: str) -> None:
        opened, number = Opened(), len(self._opened)
        self._opened.append(opened)
        if kind == "readable":
            opened.commands, receive = anyio.create_memory_object_stream[Any](1000)
            self._link.client.remote_main.take(number, opened.source(receive))
        else:
            self._link.client.remote_main.take(number, WritableStream(opened))

    def _act(self, kind: str, opened: Opened) -> None:
        taken = self._api.taken().pop(self._opened.index(opened), None)
        if isinstance(taken, WritableStream):
            opened.writer = taken
        elif taken is not None:
            opened.reader = aiter(taken)
        if kind in ("write", "write large"):
            number = len(opened.written)
            opened.written.append(number)
            self._write(opened, {"number": number, "data": bytes(100_000 if kind == "write large" else 1)})
        elif kind in ("read", "read and cancel"):
            if opened.reader is not None:
                self._start(self._read, opened, opened.reader, kind == "read and cancel")
        elif kind == "let go":
            opened.reader = opened.writer = None
        elif kind == "close":
            if opened.commands is not None:
                opened.commands.close()
            elif opened.writer is not None:
                self._start(opened.writer.aclose)
        elif kind == "abort":
            if opened.commands is not None:
                self._write(opened, ValueError("the source fails"))
            elif opened.writer is not None:
                self._start(opened.writer.abort, ValueError("aborted"))
        else:
            opened.failing = True

    def _write(self, opened: Opened, command: Any) -> None:
        if opened.commands is not None:
            try:
                opened.commands.send_nowait(command)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                pass  # the source has ended
        elif opened.writer is not None and not isinstance(command, Exception):
            self._start(opened.writer.write, command)

    async def _read(self, opened: Opened, reader: Any, cancel: bool) -> None:
        with anyio.CancelScope() as scope:
            if cancel:
                self._tasks.start_soon(self._cancel, scope)
            try:
                chunk = await anext(reader)
            except StopAsyncIteration:
                return
            opened.read.append(chunk["number"])

    async def _cancel(self, scope: anyio.CancelScope) -> None:
        scope.cancel()

    def _start(self, run: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        async def guarded() -> None:
            try:
                await run(*arguments)
            except Exception:
                pass  # that a step fails is one of the things that happen

        self._tasks.start_soon(guarded)

    async def end(self, disconnect: bool) -> None:
        """End everything, and look at what came of it."""
        for _ in range(5):
            await self._link.run()
        for opened in self._opened:
            # Chunks arrive in the order in which they were written, and none twice.
            assert opened.read == sorted(set(opened.read))
            assert set(opened.read) <= set(opened.written)
        if disconnect:
            self._link.client.connection_lost(OSError("cut"))
            self._link.server.connection_lost(OSError("cut"))
        self._api.taken().clear()
        for opened in self._opened:
            opened.reader = opened.writer = None
            if opened.commands is not None:
                self._write(opened, {"number": -1, "data": b""})
        for _ in range(5):
            await self._link.run()
        self._tasks.cancel_scope.cancel()
        for opened in self._opened:
            if opened.commands is not None:
                opened.commands.close()

    def check(self, disconnected: bool) -> None:
        nothing = SessionStats(0, 0) if disconnected else SessionStats(1, 1)
        assert self._link.client.stats() == self._link.server.stats() == nothing
        for opened in self._opened:
            assert opened.source_closed or opened.sink_ended


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_any_interleaving_ends_well(backend: str) -> None:
    @hypothesis.given(steps, st.booleans())
    @hypothesis.settings(max_examples=60)
    def check(plan: list[tuple[str, Any]], disconnect: bool) -> None:
        async def run() -> None:
            api = Api()
            async with linked(api) as link:
                with anyio.fail_after(60):
                    async with anyio.create_task_group() as tasks:
                        play = Play(link, api, tasks)
                        for step in plan:
                            await play.step(*step)
                        await play.end(disconnect)
                for _ in range(3):
                    await link.run()
                play.check(disconnect)

        anyio.run(run, backend=backend)

    check()
