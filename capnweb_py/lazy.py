"""A session that is opened when it is first used, and again when it is used after it has ended."""

from __future__ import annotations

from functools import partial

import anyio

from .client import open_session
from .errors import RpcError, SessionClosed
from .hooks import ErrorHook, PromiseHook
from .loops import Spawn
from .options import SessionOptions
from .session import RpcSession
from .stub import RpcStub, make_stub

__all__ = ["LazySession"]


class LazySession:
    """The way to a peer's main object that costs nothing until it is used.

    Args:
        url: of the peer.
        title: what errors call the peer.
        spawn: starts the task that holds a session open. It must outlive `aclose`.
        options: of the sessions.
    """

    def __init__(self, url: str, title: str, spawn: Spawn, options: SessionOptions | None = None) -> None:
        self._url = url
        self._title = title
        self._spawn = spawn
        self._options = options
        # The main stub, from the first use on: calls on it wait for the session to open.
        self._main: RpcStub | None = None
        self._session: RpcSession | None = None
        # Of the session that is used last: set when it is to be closed, and when it is.
        self._over = anyio.Event()
        self._closed = anyio.Event()
        # Whether `aclose` has been called.
        self._finished = False

    def main(self) -> RpcStub:
        """The peer's main object. Calls on it wait until the session is open, and fail if it cannot be opened."""
        if self._finished:
            return make_stub(
                ErrorHook(SessionClosed(f"{self._title} cannot be used any more: its connection is closed"))
            )
        if self._main is None or (self._session is not None and self._session.closed):
            opening = PromiseHook()
            self._main, self._session = make_stub(opening), None
            self._over, self._closed = anyio.Event(), anyio.Event()
            self._spawn(partial(self._run, opening, self._over, self._closed))
        return self._main

    async def _run(self, opening: PromiseHook, over: anyio.Event, closed: anyio.Event) -> None:
        """Hold a session open until it is to be closed, or ends by itself."""
        try:
            async with open_session(self._url, options=self._options) as session:
                self._session = session
                session.remote_main.on_broken(lambda _error: over.set())
                opening.settle(session.remote_main._hook.dup())
                await over.wait()
        except (OSError, RpcError) as error:
            failure = ConnectionError(f"{self._title} cannot be reached: {error}")
            failure.__cause__ = error
            opening.settle(ErrorHook(failure))
            self._main = None  # the next use tries again
        finally:
            closed.set()

    async def aclose(self) -> None:
        """Close the session, if it is open, for good."""
        self._finished = True
        if self._main is not None:
            self._over.set()
            await self._closed.wait()
