"""A session that is opened when it is first used, and again when it is used after it has ended.

A peer that cannot be reached fails the first use at once. One that was there before is waited for a while: it may be
about to start again. (After that, a use tries once, until there is a session again.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import TypeAlias

import anyio

from .backoff import Reached
from .client import open_session
from .errors import CallNotSent, ProxyError, Unreachable
from .hooks import ErrorHook, PromiseHook
from .loops import Spawn
from .options import SessionOptions
from .session import RpcSession, SessionStats
from .stub import RpcStub, make_stub

__all__ = ["LazySession", "Reach"]

# Has a session opened: once, or again and again while its peer is away.
Reach: TypeAlias = Callable[[Callable[[], Awaitable[RpcSession]]], Awaitable[RpcSession]]


class LazySession:
    """The way to a peer's main object that costs nothing until it is used.

    Args:
        peer: its URL, or what opens a session with it.
        title: what errors call the peer.
        spawn: starts the task that holds a session open. It must outlive `aclose`.
        options: of the sessions, where the peer is a URL.
        reach: how a peer is reached that was there before; by default, `Reached` of its own. Sessions with one peer
            share it.
    """

    def __init__(
        self,
        peer: str | Callable[[], AbstractAsyncContextManager[RpcSession]],
        title: str,
        spawn: Spawn,
        options: SessionOptions | None = None,
        reach: Reach | None = None,
    ) -> None:
        self._open = partial(open_session, peer, options=options) if isinstance(peer, str) else peer
        self._title = title
        self._spawn = spawn
        self._reach = reach or partial(Reached().reach, title)
        self._known = False
        # The main stub, from the first use on: calls on it wait for the session to open.
        self._main: RpcStub | None = None
        self._session: RpcSession | None = None
        # Of the session that is used last: set when it is to be closed, and when it is; and what gives up opening it.
        self._over = anyio.Event()
        self._closed = anyio.Event()
        self._attempt = anyio.CancelScope()
        # Whether `aclose` has been called.
        self._finished = False

    @property
    def idle(self) -> bool:
        """Whether nothing is lost when the session is closed: it is not open, or nobody refers to anything of it."""
        if self._main is None or self._session is None:
            return self._main is None
        return self._session.closed or self._session.stats() == SessionStats(imports=1, exports=1)

    def main(self) -> RpcStub:
        """The peer's main object. Calls on it wait until the session is open, and fail if it cannot be opened."""
        if self._finished:
            return make_stub(ErrorHook(CallNotSent(f"{self._title} cannot be used any more: its connection is closed")))
        if self._main is None or (self._session is not None and self._session.closed):
            opening = PromiseHook()
            self._main, self._session = make_stub(opening), None
            self._over, self._closed, self._attempt = anyio.Event(), anyio.Event(), anyio.CancelScope()
            self._spawn(partial(self._run, opening, self._over, self._closed))
        return self._main

    async def _run(self, opening: PromiseHook, over: anyio.Event, closed: anyio.Event) -> None:
        """Hold a session open until it is to be closed, or ends by itself."""
        failure: Exception | None = None
        opened = False
        try:
            with self._attempt:
                async with AsyncExitStack() as stack:
                    session = await self._opened(stack)
                    self._session = session
                    session.remote_main.on_broken(lambda _error: over.set())
                    opened = True
                    opening.settle(session.remote_main._hook.dup())
                    await over.wait()
        except Exception as error:
            # Whatever it is, it is this session's failure, not that of the tasks beside it.
            failure = error
        finally:
            if not opened:
                self._main = None  # the next use tries again
                opening.settle(ErrorHook(self._unopened(failure)))
            closed.set()

    async def _opened(self, stack: AsyncExitStack) -> RpcSession:
        """A session, open until the stack ends."""

        async def attempt() -> RpcSession:
            return await stack.enter_async_context(self._open())

        return await self._reach(attempt)

    def _unopened(self, failure: Exception | None) -> Exception:
        """What calls fail with that waited for a session which did not open."""
        if failure is None:
            return CallNotSent(f"{self._title} was closed before it could be reached")
        if isinstance(failure, ProxyError):
            return failure
        error = Unreachable(f"{self._title} cannot be reached: {failure}")
        error.__cause__ = failure
        return error

    async def aclose(self) -> None:
        """Close the session, if it is open, for good. One that is being opened is given up."""
        self._finished = True
        if self._main is not None:
            self._over.set()
            if self._session is None:
                self._attempt.cancel()
            await self._closed.wait()
