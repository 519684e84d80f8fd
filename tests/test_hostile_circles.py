"""What a hostile peer can do with promises that lead back to themselves, or that many things wait for: nothing that has
no end, or costs more than it sent.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from byhand import Peer

from capnweb_py import RpcTarget
from capnweb_py.hooks import PromiseHook
from capnweb_py.imports import Import
from capnweb_py.payload import Settling


class Api(RpcTarget):
    def first(self, value: Any) -> Any:
        return value[0]

    def renamed(self, value: Any) -> Any:
        return {"new": value["old"], "old": 7}

    def mirrored(self, value: Any) -> Any:
        return {"same": value["same"]}

    def same(self, value: Any) -> Any:
        return value


def say_circle(peer: Peer, kind: str, method: str) -> None:
    """Call a method with its own result."""
    peer.say(kind, ["pipeline", 0, [method], [["promise", -1]]])
    peer.say("resolve", -1, ["import", 1])


def test_a_result_that_is_a_member_of_itself_fails() -> None:
    peer = Peer(Api())
    say_circle(peer, "stream", "first")
    released, (kind, _, error) = peer.hear()
    assert (released, kind, error[2]) == (["release", -1, 1], "reject", "the promise resolves to itself")


def test_a_member_of_a_result_that_is_that_member_of_it_fails() -> None:
    peer = Peer(Api())
    say_circle(peer, "stream", "mirrored")
    answers = peer.hear() + peer.hear()
    assert answers[1] == ["resolve", 1, {"same": ["promise", -1]}]
    assert (answers[2][:2], answers[2][2][2]) == (["reject", -1], "the promise resolves to itself")


@pytest.mark.parametrize("arguments", [[], [[1]]])
def test_what_waits_for_such_a_member_fails(arguments: list[Any]) -> None:
    peer = Peer(Api())
    peer.say("push", ["pipeline", 0, ["mirrored"], [["promise", -1]]])
    peer.say("push", ["pipeline", 1, ["same"], *arguments])
    peer.say("resolve", -1, ["import", 1])
    peer.say("pull", 2)
    _, (kind, _, error) = peer.hear()
    assert (kind, error[2]) == ("reject", "the promise resolves to itself")


def test_a_member_of_a_result_can_be_another_member_of_it() -> None:
    peer = Peer(Api())
    say_circle(peer, "stream", "renamed")
    assert (peer.hear() + peer.hear())[-1] == ["resolve", -1, 7]


def test_a_value_that_contains_itself_is_no_argument() -> None:
    peer = Peer(Api())
    peer.say("push", ["promise", -1])
    peer.say("resolve", -1, {"inner": ["pipeline", 1]})
    error = peer.call("same", ["pipeline", 1])[2]
    assert error[2] == "the value contains itself: a promise in it resolves to what it is in"


def test_two_values_that_come_to_contain_each_other_are_no_arguments() -> None:
    peer = Peer(Api())
    peer.say("push", ["promise", -1])
    peer.say("push", ["promise", -2])
    peer.say("push", ["pipeline", 0, ["same"], [["pipeline", 1]]])
    peer.say("resolve", -1, {"two": ["pipeline", 2]})
    peer.say("resolve", -2, {"one": ["pipeline", 1]})
    peer.say("pull", 3)
    (answer,) = (message for message in peer.hear() if message[0] == "reject")
    assert answer[2][2] == "the value contains itself: a promise in it resolves to what it is in"
    assert peer.session.deliveries.in_progress == 0


def test_a_value_may_be_twice_in_an_argument() -> None:
    peer = Peer(Api())
    peer.say("push", ["promise", -1])
    peer.say("push", ["promise", -2])
    peer.say("push", ["pipeline", 0, ["same"], [{"a": ["pipeline", 1], "b": ["pipeline", 1], "c": ["pipeline", 2]}]])
    peer.say("resolve", -1, {"two": ["pipeline", 2]})
    peer.say("resolve", -2, 2)
    peer.say("pull", 3)
    assert peer.hear()[-1] == ["resolve", 3, {"a": {"two": 2}, "b": {"two": 2}, "c": 2}]


class Watched:
    """A callback that counts how often it is compared with others."""

    comparisons = 0

    def __call__(self) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        Watched.comparisons += 1
        return self is other


@pytest.mark.parametrize("kind", ["promise", "import", "arguments"])
def test_each_of_many_that_wait_lets_go_at_the_same_cost(kind: str) -> None:
    session = Peer().session
    pending = {"promise": PromiseHook(), "import": Import(session, -1), "arguments": Settling(1)}[kind]
    callbacks = [Watched() for _ in range(300)]
    for callback in callbacks:
        pending.subscribe(callback)
    Watched.comparisons = 0
    for callback in reversed(callbacks):
        pending.unsubscribe(callback)
    assert Watched.comparisons < 1000


def test_nobody_is_advised_of_a_call_that_the_peer_has_dropped() -> None:
    peer = Peer(Api())
    peer.say("push", ["export", -1])
    with warnings.catch_warnings(record=True) as advice:
        warnings.simplefilter("always")
        peer.say("push", [[["pipeline", 1, ["a name for the log"], []]]])
        peer.say("release", 2, 1)
    assert advice == []
    assert [message[0] for message in peer.hear()] == ["push", "release"]
