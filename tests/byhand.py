"""A session whose peer is the test: messages are said to it and heard from it one at a time, as trees.

There is no transport and no codec in between but JSON text. A test that needs asynchronous methods to run opens the
peer with `by_hand`; all others build a `Peer`, in which nothing ever runs later.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from capnweb_py import RpcSession, RpcStub, SessionOptions
from capnweb_py.loops import Spawn, task_set


class Peer:
    """The host of a session, and the other end of its connection."""

    def __init__(
        self,
        main: Any = None,
        options: SessionOptions | None = None,
        spawn: Spawn | None = None,
        *,
        releases_streams: bool = False,
    ) -> None:
        self._spawn = spawn
        # What the session takes for the time, in seconds. It stands still unless the test moves it.
        self.clock = 0.0
        self.session = RpcSession(self, main, options, name="the test", releases_streams=releases_streams)

    @property
    def main(self) -> RpcStub:
        """The session's stub of the test's main object."""
        return self.session.remote_main

    def wake(self) -> None:
        """The test looks when it likes."""

    hurry = send_now = rest = wake_from_anywhere = wake

    def now(self) -> float:
        return self.clock

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._spawn is not None, "asynchronous methods run in by_hand() only"
        self._spawn(run)

    def say(self, *message: Any) -> None:
        """Send a message to the session."""
        self.session.receive(json.dumps(message))

    def hear(self) -> list[Any]:
        """The messages that the session has sent since the last time."""
        return [json.loads(data) for data, _ in self.session.messages_to_send()]

    def ask(self, *path: str | int) -> Any:
        """Get a member of the session's main object. Returns the answer: ["resolve", id, ...] or ["reject", ...]."""
        return self._answer_of(["pipeline", 0, list(path)])

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a plain method of the session's main object with expressions. Returns the answer, as `ask` does."""
        return self._answer_of(["pipeline", 0, [name], list(arguments)])

    def _answer_of(self, expression: Any) -> Any:
        self.say("stream", expression)
        (answer,) = (message for message in self.hear() if message[0] in ("resolve", "reject"))
        return answer


@asynccontextmanager
async def by_hand(
    main: Any = None, options: SessionOptions | None = None, *, releases_streams: bool = False
) -> AsyncIterator[Peer]:
    """A peer whose session runs asynchronous methods, until the context ends."""
    async with task_set() as spawn:
        peer = Peer(main, options, spawn, releases_streams=releases_streams)
        try:
            yield peer
        finally:
            peer.session.close()
