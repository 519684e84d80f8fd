"""What a hostile peer, or an unlucky application, can make a session do: never much, and never for long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from byhand import Peer, by_hand

from capnweb_py import Limits, RemoteError, RpcPromise, RpcTarget, SessionOptions, memory_pair
from capnweb_py.errors import remote_error


class Api(RpcTarget):
    def echo(self, *values: Any) -> list[Any]:
        return list(values)

    def tree(self) -> dict[str, Any]:
        parent: dict[str, Any] = {"children": []}
        parent["children"] += [{"parent": parent}, {"parent": parent}]
        return parent

    @property
    def many(self) -> list[int]:
        return list(range(300_000))


def test_promises_that_double_are_resolved_some_at_a_time() -> None:
    peer = Peer(Api())
    peer.say("push", [["a"]])
    for level in range(1, 20):
        peer.say("push", [[["pipeline", level], ["pipeline", level]]])
    peer.say("pull", 20)
    for _ in range(5):
        assert len(peer.hear()) <= 100
    assert peer.session.stats().exports < 500


def test_promises_inside_each_other_are_resolved_at_any_depth() -> None:
    levels = 5000
    found: list[Any] = []

    class Deep(RpcTarget):
        def take(self, value: Any) -> None:
            found.append(value)

    peer = Peer(Deep())
    peer.say("push", "innermost")
    for level in range(1, levels + 1):
        peer.say("push", [[["pipeline", level]]])
    assert peer.call("take", ["pipeline", levels + 1])[0] == "resolve"
    (whole,) = found
    for _ in range(levels):
        (whole,) = whole
    assert whole == "innermost"


def test_a_result_that_is_passed_on_twice_each_time_is_refused_in_the_end() -> None:
    peer = Peer(Api(), SessionOptions(limits=Limits(max_copied=1000)))
    peer.say("push", ["pipeline", 0, ["echo"], [1]])
    for level in range(1, 15):
        peer.say("push", ["pipeline", 0, ["echo"], [["pipeline", level], ["pipeline", level]]])
    peer.say("pull", 15)
    ((kind, _, error),) = peer.hear()
    assert (kind, error[1]) == ("reject", "LimitExceeded")


def test_a_text_that_is_passed_on_a_thousand_times_is_refused() -> None:
    peer = Peer(Api())
    peer.say("push", "x" * 1_000_000)
    peer.say("stream", ["pipeline", 0, ["echo"], [[[["pipeline", 1]] * 1000]]])
    ((kind, _, error),) = peer.hear()
    assert (kind, error[1]) == ("reject", "LimitExceeded")


def test_what_never_was_a_peers_is_passed_on_in_any_size() -> None:
    peer = Peer(Api())
    (answer,) = [peer.ask("many")]
    assert answer[0] == "resolve"
    assert len(answer[2][0]) == 300_000


def test_a_result_that_contains_itself_twice_is_let_go_of() -> None:
    peer = Peer(Api())
    assert peer.call("tree")[0] == "reject"
    assert peer.session.stats().exports == 1


def test_a_long_line_of_promises_ends_with_the_session() -> None:
    peer = Peer(Api())
    peer.say("push", ["promise", -1])
    peer.say("pull", 1)
    for number in range(1, 3000):
        peer.say("resolve", -number, ["promise", -number - 1])
    peer.session.connection_lost(None)
    assert peer.session.closed
    assert (peer.session.stats().imports, peer.session.stats().exports) == (0, 0)


async def never() -> None:
    """What no peer will ever see the end of."""


@pytest.mark.anyio
async def test_a_release_of_what_was_never_announced_does_not_hurt() -> None:
    peer = Peer(Api())
    promise = RpcPromise(never())
    peer.main.f(promise)
    peer.say("release", -1, 1)
    assert [message[0] for message in peer.hear()] in (["push"], ["push", "release"])
    assert await promise is None


def test_rejections_count_as_answers() -> None:
    peer = Peer(Api())
    peer.say("stream", ["pipeline", 0, ["missing" * 1000], []])
    ((kind, *_),) = peer.hear()
    assert kind == "reject"
    assert peer.session.answered_bytes > 7000


@pytest.mark.anyio
async def test_nobody_waits_for_the_answer_to_a_call_that_was_released() -> None:
    peer = Peer(Api())
    peer.say("push", ["promise", -1])
    peer.say("pull", 1)
    peer.say("release", 1, 1)
    await peer.session.drain()


def test_names_of_errors_are_not_kept() -> None:
    before = len(RemoteError.__subclasses__())
    for number in range(50):
        assert isinstance(remote_error(f"Made{number}Up", "text"), RemoteError)
    assert len(RemoteError.__subclasses__()) == before


def test_an_application_can_make_a_remote_error() -> None:
    error = RemoteError("text")
    assert (str(error), error.name, error.props) == ("text", "Error", {})


@pytest.mark.parametrize("raised", [SystemExit(3), GeneratorExit()], ids=["exit", "generator exit"])
@pytest.mark.anyio
async def test_a_method_cannot_end_the_program(raised: BaseException) -> None:
    class Ending(RpcTarget):
        def plain(self) -> None:
            raise raised

        async def later(self) -> None:
            raise raised

        def fine(self) -> str:
            return "fine"

    async with memory_pair(None, Ending()) as (client, _):
        for name in ("plain", "later"):
            with pytest.raises(RemoteError):
                await client.remote_main[name]()
        assert await client.remote_main.fine() == "fine"


def test_private_keywords_are_refused() -> None:
    class Searching(RpcTarget):
        def search(self, text: str, *, _all: bool = False) -> bool:
            return _all

    assert Peer(Searching()).call("search", "a", {"_all": True})[0] == "reject"


def test_the_limit_has_a_name() -> None:
    with pytest.raises(ValueError, match="max_copied"):
        Limits(max_copied=0)


class Slow(RpcTarget):
    """Answers with what it was called with, when all calls have come."""

    def __init__(self) -> None:
        self.due = anyio.Event()

    async def echo(self, value: Any) -> Any:
        await self.due.wait()
        return value


@asynccontextmanager
async def many_answers() -> AsyncIterator[Peer]:
    """A peer that is about to get 20 answers of 1,000 bytes each, of which it may have 3,000 under way."""
    main = Slow()
    async with by_hand(main, SessionOptions(limits=Limits(max_unsent=3000))) as peer:
        peer.say("push", "x" * 1000)
        for _ in range(20):
            peer.say("stream", ["pipeline", 0, ["echo"], [["pipeline", 1]]])
        await anyio.wait_all_tasks_blocked()
        main.due.set()
        await anyio.wait_all_tasks_blocked()
        yield peer


@pytest.mark.anyio
async def test_calls_that_end_together_are_answered_as_the_connection_takes_it() -> None:
    async with many_answers() as peer:
        answers = peer.hear()
        assert len(answers) == 3
        peer.session.congested = True
        assert peer.hear() == []
        peer.session.congested = False
        for _ in range(5):
            answers += peer.hear()
        assert len(answers) == 18
        answers += peer.hear()
        assert len(answers) == 20
        assert peer.session.stats().exports == 2


@pytest.mark.anyio
async def test_an_abort_does_not_wait_for_answers() -> None:
    async with many_answers() as peer:
        peer.say("bonjour")
        assert [message[0] for message in peer.hear()] == ["resolve"] * 3 + ["abort"]


@pytest.mark.anyio
async def test_a_session_that_is_closed_on_this_side_says_all_that_it_has_to_say() -> None:
    async with many_answers() as peer:
        peer.session.close()
        assert len(peer.hear()) == 20
