"""Two sessions connected in memory, for tests and in-process use. Every message is encoded and decoded as on a wire."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import anyio

from ..codec import Codec, chosen_codec
from ..loops import Loop, Spawn, running_loop, task_set
from ..names import Naming
from ..options import SessionOptions, with_names
from ..session import RpcSession

__all__ = ["MemoryPair", "memory_pair"]


def memory_pair(
    main_a: Any = None,
    main_b: Any = None,
    *,
    options: SessionOptions | None = None,
    codec: str | Codec = "json",
    names: Naming | None = None,
) -> MemoryPair:
    """Two connected sessions, without a socket.

        async with memory_pair(None, Api()) as (client, server):
            await client.remote_main.hello("World")

    Without `async with`, `client, server = memory_pair(None, Api())` works too: then the sessions last until one of
    them is closed, and their calls run in tasks that belong to the event loop.

    Args:
        main_a: the main object of the first session, which the second one's `remote_main` stands for.
        main_b: the main object of the second.
        options: of both sessions.
        codec: of both sessions, "json", "cbor", or one of your own.
        names: "camel" or "exact", how both call their peer's members, whatever `options` says; None for what it says.

    Raises:
        ValueError: if there is no such codec.
    """
    return MemoryPair(main_a, main_b, with_names(options, names), chosen_codec(codec))


class _Side:
    """The host of one of the two sessions."""

    def __init__(self, pair: MemoryPair) -> None:
        self._pair = pair

    def wake(self) -> None:
        self._pair.loop().soon(self._pair.carry)

    def hurry(self) -> None:
        """The other session gets everything in the loop's next turn."""

    def send_now(self) -> None:
        """So it does then."""

    def rest(self) -> None:
        """Both sides are of one program."""

    def wake_from_anywhere(self) -> None:
        loop = self._pair.known_loop
        if loop is not None:
            loop.soon_from_anywhere(self._pair.carry)

    def now(self) -> float:
        return time.monotonic()

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._pair.start(run)


class MemoryPair:
    """What `memory_pair` returns."""

    def __init__(self, main_a: Any, main_b: Any, options: SessionOptions | None, codec: Codec) -> None:
        # Starts the sessions' calls inside `async with`, whose end is theirs; None outside.
        self.spawn: Spawn | None = None
        self._tasks: AbstractAsyncContextManager[Spawn] | None = None
        # What cancels the calls of detached tasks.
        self._running: set[anyio.CancelScope] = set()
        # The event loop, from the first time that one is needed.
        self.known_loop: Loop | None = None
        side = _Side(self)
        self._sessions = (
            RpcSession(side, main_a, options, codec, "memory", releases_streams=True),
            RpcSession(side, main_b, options, codec, "memory", releases_streams=True),
        )

    def loop(self) -> Loop:
        """The running event loop, which must be the same every time."""
        if self.known_loop is None:
            self.known_loop = running_loop()
        return self.known_loop

    def start(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function in a task that is cancelled when the sessions end."""
        if self.spawn is not None:
            self.spawn(run)
        else:
            self.loop().spawn(partial(self._run_detached, run))

    async def _run_detached(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with anyio.CancelScope() as scope:
            self._running.add(scope)
            try:
                await run()
            finally:
                self._running.discard(scope)

    def carry(self) -> None:
        """Carry what each session has to send to the other, and the news of an end."""
        one, other = self._sessions
        for source, destination in ((one, other), (other, one)):
            for data, binary in source.messages_to_send():
                destination.receive(data, binary)
        if one.closed or other.closed:
            one.connection_lost(None, "the other session was closed")
            other.connection_lost(None, "the other session was closed")
            for scope in list(self._running):
                scope.cancel()

    def __iter__(self) -> Iterator[RpcSession]:
        return iter(self._sessions)

    async def __aenter__(self) -> tuple[RpcSession, RpcSession]:
        self._tasks = task_set()
        self.spawn = await self._tasks.__aenter__()
        return self._sessions

    async def __aexit__(self, *exc_info: object) -> None:
        for session in self._sessions:
            session.close()
        assert self._tasks is not None, "it was entered"
        # Not with the exception, which a task group would wrap: it goes on by itself.
        await self._tasks.__aexit__(None, None, None)
