"""What a session learns of the stream that carries its messages: that sending failed, and that there is no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from capnweb_py import RpcSession, RpcTarget, SessionClosed, SessionStats
from capnweb_py.codec import JSON
from capnweb_py.session import Message
from capnweb_py.transports.driver import StreamDriver, StreamEnded, run_session

pytestmark = pytest.mark.anyio


class Main(RpcTarget):
    def __init__(self) -> None:
        self.disposed = 0

    def dispose(self) -> None:
        self.disposed += 1


class Stream:
    """A stream of messages that takes what is sent, until it is broken, and brings nothing."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.closed_with: tuple[int, str] | None = None
        # What the stream ends with: when the next message is sent, and when it is set while one is waited for.
        self.refusal: StreamEnded | None = None
        self.ended = anyio.Event()
        self.ending = StreamEnded("the stream has come to its end")

    async def send(self, messages: list[Message]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.sent += messages

    async def receive(self) -> Message:
        await self.ended.wait()
        raise self.ending

    async def close(self, code: int, reason: str) -> None:
        self.closed_with = (code, reason)


def ended(text: str, cause: OSError) -> StreamEnded:
    error = StreamEnded(text)
    error.__cause__ = cause
    return error


@asynccontextmanager
async def session_over(stream: Stream, main: Any = None) -> AsyncIterator[RpcSession]:
    async with run_session(StreamDriver(stream, None), main, None, JSON, "the test") as session:
        yield session


async def test_a_message_that_cannot_be_sent_fails_all_that_is_pending_and_all_that_comes() -> None:
    stream, main, argument = Stream(), Main(), Main()
    broken: list[BaseException] = []
    async with session_over(stream, main) as session:
        session.remote_main.on_broken(broken.append)
        pending = session.remote_main.first(argument)
        await anyio.wait_all_tasks_blocked()
        assert len(stream.sent) == 1
        stream.refusal = ended("the cable was cut", cause := OSError("cut"))
        for promise in (session.remote_main.second(), pending, session.remote_main.third()):
            with pytest.raises(SessionClosed, match="the cable was cut") as caught:
                await promise
            assert caught.value.__cause__ is cause
        assert len(stream.sent) == 1
        assert [str(error) for error in broken] == ["the cable was cut"]
        assert (main.disposed, argument.disposed) == (1, 1)
        assert session.stats() == SessionStats(0, 0)
    assert stream.closed_with == (1000, "")


async def test_the_end_of_what_is_received_fails_all_that_is_pending() -> None:
    stream, main = Stream(), Main()
    async with session_over(stream, main) as session:
        pending = session.remote_main.first()
        await anyio.wait_all_tasks_blocked()
        stream.ended.set()
        with pytest.raises(SessionClosed, match="the stream has come to its end"):
            await pending
        assert main.disposed == 1
        assert session.stats() == SessionStats(0, 0)
