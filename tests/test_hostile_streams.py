"""What a hostile peer can send in the forms of streams: an abort or a failed call, and never much of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from byhand import Peer, by_hand

from capnweb_py import Limits, RpcError, RpcTarget, SessionOptions, WritableStream

pytestmark = pytest.mark.anyio

UNDEFINED = ["undefined"]


class Api(RpcTarget):
    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.chunks: list[Any] = []
        self.end: Any = None

    def keep(self, stream: Any) -> None:
        self.kept.append(stream)

    def drop(self) -> None:
        self.kept.clear()

    def echo(self, value: Any) -> Any:
        return value

    async def read(self, stream: Any) -> None:
        try:
            async for chunk in stream:
                self.chunks.append(chunk)
            self.end = "end"
        except Exception as error:
            self.end = error

    async def numbers(self) -> AsyncIterator[int]:
        for number in range(10**9):
            yield number


def reason(peer: Peer) -> str:
    """Why the session was aborted."""
    (kind, error) = peer.hear()[-1]
    assert kind == "abort"
    text: str = error[2]
    return text


def opened(limits: Limits | None = None) -> Peer:
    """A peer that has opened the pipe 1."""
    peer = Peer(Api(), SessionOptions(limits=limits or Limits()))
    peer.say("pipe")
    return peer


def call(peer: Peer, name: str, *arguments: Any, pipe: int = 1) -> Any:
    """Call a member of a pipe. Returns the answer without its id; None where there is none yet."""
    peer.say("stream", ["pipeline", pipe, [name], list(arguments)])
    answers = peer.hear()
    return [answers[0][0], *answers[0][2:]] if answers else None


# Messages that break a rule.


@pytest.mark.parametrize("message", [["pipe", 1], ["pipe", None]])
async def test_a_pipe_has_no_parts(message: list[Any]) -> None:
    peer = Peer(Api())
    peer.say(*message)
    assert "bad RPC message" in reason(peer)


@pytest.mark.parametrize(
    "expression",
    [["readable", 0], ["readable", 2], ["readable", 9], ["readable", -1], ["readable"], ["readable", "1"],
     ["readable", 1.0], ["writable", 0], ["writable", 1], ["writable"], ["writable", "a"]],
)  # fmt: skip
async def test_references_to_no_stream_abort(expression: list[Any]) -> None:
    peer = opened()
    peer.say("push", "a value, under the id 2")
    peer.say("push", ["pipeline", 0, ["keep"], [expression]])
    assert peer.session.closed
    assert reason(peer)


async def test_a_readable_end_is_referred_to_once() -> None:
    peer = opened()
    peer.say("push", ["pipeline", 0, ["keep"], [["readable", 1]]])
    peer.say("push", ["pipeline", 0, ["keep"], [["readable", 1]]])
    assert "1 is no pipe, or its readable end was referred to before" in reason(peer)


async def test_a_pipe_that_was_released_is_gone() -> None:
    peer = opened()
    peer.say("release", 1, 1)
    peer.say("push", ["readable", 1])
    assert "no such entry on exports table: 1" in reason(peer)


# Calls that fail.


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("write", []), ("write", [1, 2]), ("close", [1]), ("abort", [1, 2]), ("getWriter", []), ("__class__", []),
     ("queue", []), ("dispose", [])],
)  # fmt: skip
async def test_odd_calls_of_a_pipe_are_rejected(name: str, arguments: list[Any]) -> None:
    peer = opened()
    kind, error = call(peer, name, *arguments)
    assert (kind, error[1]) == ("reject", "TypeError")
    assert name in error[2]
    assert call(peer, "write", 1) is None


async def test_a_pipe_is_neither_a_function_nor_a_promise_and_has_no_properties() -> None:
    peer = opened()
    for expression in (["pipeline", 1, []], ["pipeline", 1, [], []], ["pipeline", 1, ["queue"]], ["pipeline", 1]):
        peer.say("stream", expression)
        (answer,) = peer.hear()
        assert (answer[0], answer[2][1]) == ("reject", "TypeError")
    peer.say("pull", 1)
    ((kind, number, _),) = peer.hear()
    assert (kind, number) == ("reject", 1)
    assert not peer.session.closed


async def test_nothing_is_taken_after_the_end() -> None:
    for end in ("close", "abort"):
        peer = opened()
        call(peer, end)
        for name, arguments in (("write", [1]), ("close", [])):
            answer = call(peer, name, *arguments)
            assert answer[0] == "reject", (end, name)


async def test_a_second_abort_says_nothing() -> None:
    async with by_hand(Api()) as peer:
        peer.say("pipe")
        peer.say("push", ["pipeline", 0, ["read"], [["readable", 1]]])
        for text in ("first", "second"):
            assert call(peer, "abort", text) == ["resolve", UNDEFINED]
        await anyio.wait_all_tasks_blocked()
        assert "first" in str(peer.session.local_main.end)


async def test_an_abort_after_the_close_refuses_what_was_not_read() -> None:
    peer = opened()
    call(peer, "write", 1)
    call(peer, "close")
    peer.say("stream", ["pipeline", 1, ["abort"], ["late"]])
    assert [message[0] for message in peer.hear()] == ["reject", "reject", "resolve"]


@pytest.mark.parametrize("sent", ["text", 5, None, UNDEFINED, [[1]], ["error", "TypeError", "mine", None, {"code": 3}]])
async def test_a_stream_can_be_aborted_with_anything(sent: Any) -> None:
    async with by_hand(Api()) as peer:
        peer.say("pipe")
        peer.say("push", ["pipeline", 0, ["read"], [["readable", 1]]])
        assert call(peer, "abort", sent) == ["resolve", UNDEFINED]
        await anyio.wait_all_tasks_blocked()
        error = peer.session.local_main.end
        assert isinstance(error, RpcError)
        if sent == "text":
            assert "text" in str(error)
        if isinstance(sent, list) and sent[0] == "error":
            assert isinstance(error, TypeError)
            assert error.code == 3  # type: ignore[attr-defined]


async def test_a_release_while_it_is_read_ends_the_reading() -> None:
    async with by_hand(Api()) as peer:
        api = peer.session.local_main
        peer.say("pipe")
        peer.say("push", ["pipeline", 0, ["read"], [["readable", 1]]])
        peer.say("stream", ["pipeline", 1, ["write"], ["a"]])
        await anyio.wait_all_tasks_blocked()
        peer.say("release", 1, 1)
        await anyio.wait_all_tasks_blocked()
        assert api.chunks == ["a"]
        assert "let go of the stream" in str(api.end)


async def test_what_was_closed_may_be_released_before_it_is_read() -> None:
    async with by_hand(Api()) as peer:
        peer.say("pipe")
        peer.say("stream", ["pipeline", 1, ["write"], ["a"]])
        peer.say("stream", ["pipeline", 1, ["close"], []])
        peer.say("push", ["pipeline", 0, ["read"], [["readable", 1]]])
        peer.say("release", 1, 1)
        await anyio.wait_all_tasks_blocked()
        assert (peer.session.local_main.chunks, peer.session.local_main.end) == (["a"], "end")
        assert [message[0] for message in peer.hear()] == ["resolve", "resolve"]


@pytest.mark.parametrize("answer", [["resolve", 1, "a value"], ["resolve", 1, ["import", 0]],
                                    ["reject", 1, ["error", "Error", "no"]]])  # fmt: skip
async def test_an_answer_to_a_pipe_of_ours_ends_the_stream(answer: list[Any]) -> None:
    async with by_hand(Api()) as peer:
        gate, closed = anyio.Event(), anyio.Event()

        async def source() -> AsyncIterator[int]:
            try:
                yield 1
                await gate.wait()
                yield 2
                await anyio.sleep_forever()
            finally:
                closed.set()

        promise = peer.main.take(source())
        assert [message[0] for message in peer.hear()] == ["pipe", "push"]
        await anyio.wait_all_tasks_blocked()
        peer.say(*answer)
        gate.set()
        await closed.wait()
        peer.hear()
        assert not peer.session.closed
        del promise


# Never much.


async def test_what_nobody_reads_is_limited() -> None:
    peer = opened(Limits(max_unread=100_000))
    peer.say("push", ["pipeline", 0, ["keep"], [["readable", 1]]])
    written = 0
    while (answer := call(peer, "write", "x" * 10_000)) is None:
        written += 1
    assert written == 8
    assert (answer[0], answer[1][1]) == ("reject", "LimitExceeded")
    # The stream has ended, and what it held counts no more.
    peer.say("pipe")
    assert [call(peer, "write", "x" * 10_000, pipe=peer.session._next_pushed - 1) for _ in range(1)] == [None]


async def test_tiny_chunks_count_as_what_they_take() -> None:
    limit = 2_000_000
    peer = opened(Limits(max_unread=limit))
    peer.say("push", ["pipeline", 0, ["keep"], [["readable", 1]]])
    tracemalloc.start()
    try:
        while call(peer, "write", None) is None:
            pass
        assert tracemalloc.get_traced_memory()[1] < 3 * limit
    finally:
        tracemalloc.stop()


async def test_a_list_that_is_copied_into_many_chunks_counts_each_time() -> None:
    peer = opened(Limits(max_unread=1_000_000))
    peer.say("push", [[0] * 10_000])
    written = 0
    while (answer := call(peer, "write", ["pipeline", 2])) is None:
        written += 1
    assert written < 10
    assert answer[0] == "reject"


async def test_a_chunk_that_multiplies_is_refused() -> None:
    async with by_hand(Api(), SessionOptions(limits=Limits(max_copied=1000))) as peer:
        peer.say("pipe")
        peer.say("push", ["pipeline", 0, ["read"], [["readable", 1]]])
        peer.say("push", [[0] * 600])
        peer.say("stream", ["pipeline", 1, ["write"], [[[["pipeline", 3], ["pipeline", 3]]]]])
        await anyio.wait_all_tasks_blocked()
        assert type(peer.session.local_main.end).__name__ == "LimitExceeded"


async def test_pipes_are_exports_and_limited_as_such() -> None:
    peer = Peer(Api(), SessionOptions(limits=Limits(max_exports=1000)))
    for _ in range(1000):
        peer.say("pipe")
    assert "max_exports = 1000" in reason(peer)


async def test_a_peer_that_never_answers_writes_stops_the_source() -> None:
    async with by_hand(Api()) as peer:
        peer.say("push", ["pipeline", 0, ["numbers"], []])
        peer.say("pull", 1)
        await anyio.wait_all_tasks_blocked()
        heard = peer.hear()
        assert [message[0] for message in heard[:2]] == ["pipe", "resolve"]
        await anyio.wait_all_tasks_blocked()
        writes = peer.hear()
        assert sum(len(str(message)) for message in writes) < 300_000
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == []


async def test_writes_that_are_answered_with_anything_are_answered() -> None:
    async with by_hand(Api()) as peer:
        done = anyio.Event()

        async def write() -> None:
            async with kept_stream(peer) as stream:
                for number in range(3):
                    await stream.write(number)
            done.set()

        async def answer() -> None:
            peer.say("resolve", 1, {"anything": [[1, ["export", -7]]]})
            peer.say("resolve", 2, ["export", -8])
            peer.say("resolve", 3, None)
            peer.say("resolve", 4, ["promise", -9])
            peer.say("resolve", -9, 5)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            assert [message[0] for message in peer.hear()] == ["stream"] * 4
            await answer()
            await done.wait()
        peer.session.local_main.drop()
        peer.hear()
        assert peer.session.stats().imports == 1


def kept_stream(peer: Peer) -> WritableStream:
    """The stream that the peer sends under -1."""
    peer.say("push", ["pipeline", 0, ["keep"], [["writable", -1]]])
    peer.say("release", 1, 1)
    stream: WritableStream = peer.session.local_main.kept.pop()
    return stream


async def test_a_writable_of_an_id_that_is_a_promise_ends_with_it() -> None:
    async with by_hand(Api()) as peer:
        peer.say("push", ["pipeline", 0, ["keep"], [["writable", -1]]])
        stream = peer.session.local_main.kept[0]
        peer.say("reject", -1, ["error", "Error", "no stream at all"])
        with pytest.raises(RpcError, match="no stream at all"):
            await stream.write(1)
        peer.session.local_main.drop()
        del stream
