"""Replaying maps, message by message: the rules of the protocol, the limits, and what hostile peers send."""

from __future__ import annotations

import gc
import json
import time
from typing import Any

import anyio
import pytest
from byhand import Peer, by_hand

from capnweb_py import Limits, RpcTarget, SessionOptions, SessionStats

ONE = SessionStats(imports=1, exports=1)


class Gate(RpcTarget):
    def __init__(self) -> None:
        self._opened = anyio.Event()

    async def wait(self, broken: bool = False) -> list[int]:
        await self._opened.wait()
        if broken:
            raise ValueError("the gate is broken")
        return [5, 6]

    def open(self) -> None:
        self._opened.set()

    def double(self, number: int) -> int:
        return 2 * number


class Api(RpcTarget):
    def echo(self, *values: Any) -> Any:
        return values[0] if len(values) == 1 else list(values)

    def many(self, count: int) -> list[int]:
        return list(range(count))

    def big(self, count: int) -> list[str]:
        return ["x" * 10_000] * count

    def set(self) -> Any:
        return {1, 2}

    async def forever(self) -> None:
        await anyio.sleep_forever()


def mapped(peer: Peer, value: Any, captures: list[Any], instructions: list[Any], path: tuple[Any, ...] = ()) -> Any:
    """Push a value and map it. Returns the answer."""
    peer.say("push", value)
    subject = peer.session._next_pushed - 1  # the test and the session count alike
    peer.say("stream", ["remap", subject, list(path), captures, instructions])
    answers = [message for message in peer.hear() if message[0] in ("resolve", "reject")]
    peer.say("release", subject, 1)
    kind, _, answer = answers[0]
    return answer if kind == "resolve" else (answer[1], answer[2])


def test_ids_inside_are_the_input_the_results_and_the_captures() -> None:
    peer = Peer(Api())
    instructions = [["pipeline", -1, ["echo"], [["pipeline", 0], 10]], ["pipeline", 1, [1]]]
    assert mapped(peer, [[1, 2]], [["import", 0]], [*instructions, [[["pipeline", 0], ["pipeline", 2]]]]) == [
        [[[1, 10]], [[2, 10]]]
    ]
    assert mapped(peer, 5, [["import", 0]], [*instructions, [[["pipeline", 0], ["pipeline", 2]]]]) == [[5, 10]]
    assert mapped(peer, None, [], [1]) is None
    assert mapped(peer, ["undefined"], [], [1]) == ["undefined"]
    assert mapped(peer, {"a": [[1]]}, [], [["pipeline", 0]], ("a",)) == [[1]]
    assert peer.session.stats() == ONE


def test_a_value_among_the_instructions_is_a_result() -> None:
    peer = Peer(Api())
    assert mapped(peer, [[1, 2]], [], [{"a": [[["pipeline", 0]]]}, ["bigint", "5"], ["pipeline", 1, ["a", 0]]]) == [
        [1, 2]
    ]
    assert mapped(peer, [[1]], [["import", 0]], [["import", -1], ["pipeline", 1, ["echo"], [7]], ["pipeline", 2]]) == [
        [7]
    ]


@pytest.mark.parametrize(
    ("instructions", "problem"),
    [
        ([], "no instructions"),
        ([["pipeline", 1]], "refers to 1"),
        ([["pipeline", 2], 1], "refers to 2"),
        ([["pipeline", -2]], "refers to -2"),
        ([["import", 7]], "refers to 7"),
        ([["export", -1]], "cannot refer to exports"),
        ([["promise", -1]], "cannot refer to exports"),
        ([["remap", 0, [], [["export", -1]], [1]]], "cannot refer to exports"),
        ([["readable", 1]], "cannot refer to streams"),
        ([["writable", -1]], "cannot refer to streams"),
        ([["nonsense"]], "unknown special value"),
        ([[1, 2]], "unknown special value"),
        ([["remap", 0]], "malformed 'remap'"),
        ([["remap", 0, [], [["pipeline", 0]], [1]]], "captures imports and exports"),
        ([["remap", 0, [], [["import", 5]], [1]]], "refers to 5"),
        ([["pipeline", 0, "path"]], "a property path"),
    ],
)
def test_a_broken_mapper_fails_its_call_alone(instructions: list[Any], problem: str) -> None:
    peer = Peer(Api())
    name, message = mapped(peer, [[1, 2]], [["import", 0]], instructions)
    assert name == "ProtocolError"
    assert problem in message
    assert peer.call("echo", 5) == ["resolve", 3, 5]
    assert peer.session.stats() == ONE


@pytest.mark.parametrize(
    "expression",
    [
        ["remap"],
        ["remap", 0, [], []],
        ["remap", 0, [], [], [1], 2],
        ["remap", "0", [], [], [1]],
        ["remap", 0, "path", [], [1]],
        ["remap", 0, [None], [], [1]],
        ["remap", 0, [], {}, [1]],
        ["remap", 0, [], [], {}],
        ["remap", 9, [], [], [1]],
        ["remap", 0, [], [1], [1]],
        ["remap", 0, [], [["import"]], [1]],
        ["remap", 0, [], [["import", 9]], [1]],
        ["remap", 0, [], [["import", 0, []]], [1]],
        ["remap", 0, [], [["pipeline", 0]], [1]],
        ["remap", 0, [], [["export", 1]], [1]],
        ["remap", 0, [], [["export", "x"]], [1]],
    ],
)
def test_a_malformed_map_aborts(expression: list[Any]) -> None:
    peer = Peer(Api())
    peer.say("push", expression)
    ((kind, error),) = peer.hear()
    assert (kind, error[1]) == ("abort", "ProtocolError")
    assert peer.session.closed


def test_every_item_has_instructions_of_its_own() -> None:
    """Reading an expression consumes it."""
    peer = Peer(Api())
    literal = {"list": [[1, [[["bytes", "+/8"]]], ["inf"], {"none": None}]], "text": "\ud800"}
    answer = mapped(
        peer, [[1, 2, 3]], [["import", 0]], [["pipeline", -1, ["echo"], [literal]], [[["pipeline", 1], literal]]]
    )
    assert answer == [[[[literal, literal]]] * 3]


def test_small_results_are_in_the_answer_and_others_follow() -> None:
    peer = Peer(Api())
    peer.say("push", [[1, 2]])
    peer.say(
        "stream", ["remap", 1, [], [["import", 0]], [["pipeline", -1, ["echo"], [["pipeline", 0], 0]], ["pipeline", 1]]]
    )
    assert peer.hear() == [["resolve", 2, [[[[1, 0]], [[2, 0]]]]]]
    peer.say("stream", ["remap", 1, [], [["import", 0]], [["pipeline", -1, ["big"], [1]], ["pipeline", 1]]])
    messages = peer.hear()
    assert messages[0] == ["resolve", 3, [[["promise", -1], ["promise", -2]]]]
    assert [message[:2] for message in messages[1:]] == [["resolve", -1], ["resolve", -2]]


def test_results_of_many_parts_follow() -> None:
    peer = Peer(Api())
    many = ["remap", 1, [], [["import", 0]], [["pipeline", -1, ["many"], [1000]], ["pipeline", 1]]]
    peer.say("push", [[1, 2]])
    peer.say("stream", many)
    assert peer.hear()[0] == ["resolve", 2, [[["promise", -1], ["promise", -2]]]]


def test_captures_of_the_peers_are_released_at_the_end() -> None:
    peer = Peer(Api())
    peer.say("push", [[1, 2]])
    peer.say("stream", ["remap", 1, [], [["export", -1]], [["pipeline", -1, [], [["pipeline", 0]]], 7]])
    messages = peer.hear()
    assert ["resolve", 2, [[7, 7]]] in messages
    assert [message for message in messages if message[0] == "push"] == [
        ["push", ["pipeline", -1, [], [["promise", number]]]] for number in (-1, -2)
    ]
    assert [message[2] for message in messages if message[0] == "resolve" and message[1] < 0] == [1, 2]
    peer.say("release", -1, 1)
    peer.say("release", -2, 1)
    assert ["release", -1, 1] in messages
    peer.say("release", 1, 1)
    assert peer.session.stats() == ONE


def test_results_that_are_the_peers_own_go_back_as_its_own() -> None:
    peer = Peer(Api())
    peer.say("push", [[1, 2]])
    peer.say("push", ["remap", 1, [], [["export", -1]], [["pipeline", -1, [], [["pipeline", 0]]], ["pipeline", 1]]])
    peer.say("pull", 2)
    assert ["resolve", 2, [[["pipeline", 1], ["pipeline", 2]]]] in peer.hear()


@pytest.mark.anyio
async def test_a_map_of_a_call_that_runs_waits_for_it() -> None:
    async with by_hand(Gate()) as peer:
        peer.say("push", ["pipeline", 0, ["wait"], []])
        peer.say(
            "stream",
            ["remap", 1, [], [["import", 0]], [["pipeline", -1, ["double"], [["pipeline", 0]]], ["pipeline", 1]]],
        )
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == []
        peer.say("stream", ["pipeline", 0, ["open"], []])
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["resolve", 3, None], ["resolve", 2, [[10, 12]]]]
        peer.say("release", 1, 1)
        assert peer.session.stats() == ONE


@pytest.mark.anyio
async def test_a_map_of_a_call_that_fails_fails_with_it() -> None:
    async with by_hand(Gate()) as peer:
        peer.say("push", ["pipeline", 0, ["wait"], [True]])
        peer.say("stream", ["remap", 1, [], [["export", -1]], [1]])
        peer.say("stream", ["pipeline", 0, ["open"], []])
        await anyio.wait_all_tasks_blocked()
        peer.say("release", 1, 1)
        messages = peer.hear()
        assert ["reject", 2, ["error", "ValueError", "the gate is broken"]] in messages
        assert ["release", -1, 1] in messages
        assert peer.session.stats() == ONE


def test_a_map_of_a_promise_of_the_peers_goes_to_the_peer() -> None:
    peer = Peer(Api())
    peer.say("push", ["promise", -1])
    peer.say("push", ["remap", 1, ["items"], [["import", 0], ["import", 1]], [["pipeline", -1, ["echo"], [1]]]])
    assert peer.hear() == [
        ["push", ["remap", -1, ["items"], [["export", -1], ["import", -1]], [["pipeline", -1, ["echo"], [1]]]]]
    ]


@pytest.mark.anyio
async def test_calls_that_run_count_as_calls() -> None:
    async with by_hand(Api(), SessionOptions(limits=Limits(max_calls=3))) as peer:
        peer.say("push", [[1, 2, 3, 4]])
        peer.say("push", ["remap", 1, [], [["import", 0]], [["pipeline", -1, ["forever"], []], ["pipeline", 1]]])
        peer.say("pull", 2)
        assert [
            "reject",
            -4,
            ["error", "LimitExceeded", "more than max_calls = 3 calls are in progress"],
        ] in peer.hear()
        peer.say("release", 2, 1)
        await anyio.wait_all_tasks_blocked()


def test_the_depth_of_a_message_holds_inside() -> None:
    nested: Any = [[]]
    for _ in range(50):
        nested = [[nested]]
    peer = Peer(Api(), SessionOptions(limits=Limits(max_depth=40)))
    assert mapped(peer, 1, [], [nested])[0] == "LimitExceeded"
    inner: Any = [["pipeline", 0]]
    for _ in range(7):
        inner = [["remap", 0, [], [], inner], ["pipeline", 1]]
    name, message = mapped(peer, 1, [], inner)
    assert (name, message) == ("LimitExceeded", "the message nests deeper than max_depth = 40")
    assert mapped(peer, 1, [], inner[0][4][0][4]) == 1
    assert peer.session.stats() == ONE


def test_the_digits_of_a_bigint_hold_inside() -> None:
    peer = Peer(Api(), SessionOptions(limits=Limits(max_bigint_digits=10)))
    assert mapped(peer, 1, [], [["bigint", "9" * 11]])[0] == "LimitExceeded"


def test_a_result_that_cannot_be_sent_fails_the_call() -> None:
    peer = Peer(Api())
    peer.say("push", [[1]])
    peer.say("stream", ["remap", 1, [], [["import", 0]], [["pipeline", -1, ["set"], []], ["pipeline", 1]]])
    assert [message[0] for message in peer.hear()] == ["resolve", "reject"]


# Hostile.


def steps(limit: int) -> SessionOptions:
    return SessionOptions(limits=Limits(max_map_steps=limit))


def is_refused(answer: Any) -> bool:
    return isinstance(answer, tuple) and answer[0] == "LimitExceeded" and "max_map_steps" in answer[1]


def test_maps_inside_maps_that_multiply_are_refused() -> None:
    peer = Peer(Api(), steps(5_000))
    inner: Any = [1]
    for _ in range(6):
        inner = [["remap", -1, [], [["import", -1]], inner], ["pipeline", 1]]
    began = time.perf_counter()
    peer.say("push", [[0] * 30])
    peer.say("stream", ["remap", 1, [], [["import", 1]], inner])
    assert "max_map_steps" in json.dumps(peer.hear())
    assert time.perf_counter() - began < 5


def test_maps_whose_results_are_dropped_at_once_are_counted_for_their_message() -> None:
    class Counting(RpcTarget):
        calls = 0

        def count(self) -> None:
            Counting.calls += 1

    peer = Peer(Counting(), steps(1_000))
    inner = ["remap", -1, [], [["import", -2]], [["pipeline", -1, ["count"], []], 1]]
    peer.say("push", [[0] * 30])
    peer.say("push", ["remap", 1, [], [["import", 1], ["import", 0]], [inner, 1]])
    assert 0 < Counting.calls < 200


def test_instructions_without_end_are_refused() -> None:
    peer = Peer(Api(), steps(10_000))
    assert is_refused(mapped(peer, [[0] * 20], [], [1] * 1_000))
    assert is_refused(mapped(peer, [[0] * 20], [], [[[1] * 1_000]]))
    assert is_refused(mapped(peer, [[0] * 20], [], [{str(number): number for number in range(1_000)}]))
    assert is_refused(mapped(peer, 1, [], [1] * 20_000))
    assert mapped(peer, [[0] * 20], [], [1] * 100) == [[1] * 20]
    assert peer.session.stats() == ONE


def test_captures_without_end_inside_are_refused() -> None:
    peer = Peer(Api(), steps(10_000))
    inner = ["remap", 0, [], [["import", 0]] * 1_000, [1]]
    assert is_refused(mapped(peer, [[0] * 20], [], [inner]))


def test_what_a_map_cost_counts_while_its_result_is_held() -> None:
    peer = Peer(Api(), steps(1_000))
    peer.say("push", [[0] * 100])
    for number in range(2, 7):
        peer.say("push", ["remap", 1, [], [], [["pipeline", 0]]])
        peer.say("pull", number)
    answers = [(message[0], message[1]) for message in peer.hear()]
    # Each costs 1 for the item, 1 for the instruction and 2 for its parts, a hundred times.
    assert answers == [("resolve", 2), ("resolve", 3), ("reject", 4), ("reject", 5), ("reject", 6)]
    peer.say("release", 2, 1)
    gc.collect()
    peer.say("stream", ["remap", 1, [], [], [["pipeline", 0]]])
    assert peer.hear()[-1][0] == "resolve"


def test_results_that_double_stay_small() -> None:
    peer = Peer(Api())
    peer.say("push", [["a"]])
    for level in range(1, 30):
        peer.say("push", ["remap", level, [], [["import", level]], [[[["pipeline", -1], ["pipeline", -1]]]]])
    began = time.perf_counter()
    peer.say("pull", 30)
    for _ in range(5):
        assert len(peer.hear()) <= 100
    assert peer.session.stats().exports < 500
    assert time.perf_counter() - began < 5


def test_a_map_of_a_map_of_a_map_over_a_large_list() -> None:
    peer = Peer(Api(), steps(100_000))
    peer.say("push", ["pipeline", 0, ["many"], [10_000]])
    for level in range(1, 10):
        peer.say("push", ["remap", level, [], [], [[[["pipeline", 0], ["pipeline", 0]]]]])
    peer.say("stream", ["pipeline", 10])
    assert peer.hear()[-1][2][1] == "LimitExceeded"


def test_large_results_that_are_there_already_are_not_copied_into_the_answer() -> None:
    peer = Peer(Api())
    peer.say("push", [[0] * 1_000])
    peer.say("stream", ["remap", 1, [], [["import", 0]], [["pipeline", -1, ["big"], [60]], ["pipeline", 1]]])
    assert sum(len(json.dumps(message)) for message in peer.hear()) < 40_000_000
    assert not peer.session.closed


def test_maps_inside_one_another_do_not_exhaust_the_stack() -> None:
    peer = Peer(Api())
    inner: Any = [["pipeline", 0]]
    for _ in range(200):
        inner = [["remap", 0, [], [], inner], ["pipeline", 1]]
    assert mapped(peer, 1, [], inner)[0] == "LimitExceeded"
    peer = Peer(Api(), SessionOptions(limits=Limits(max_depth=400)))
    answer = mapped(peer, 1, [], inner)
    assert answer[0] == "LimitExceeded"
    assert peer.session.stats() == ONE


def test_a_method_that_extends_the_list_that_is_mapped_does_not_make_it_endless() -> None:
    class Growing(RpcTarget):
        def __init__(self) -> None:
            self.items = [1, 2]

        def all(self) -> list[int]:
            return self.items

        def grow(self) -> int:
            self.items.append(3)
            return len(self.items)

    peer = Peer(Growing())
    peer.say("push", ["pipeline", 0, ["all"], []])
    peer.say("stream", ["remap", 1, [], [["import", 0]], [["pipeline", -1, ["grow"], []], ["pipeline", 1]]])
    assert peer.hear() == [["resolve", 2, [[3, 4]]]]


@pytest.mark.anyio
async def test_a_capture_that_is_gone_is_still_there_for_its_map() -> None:
    async with by_hand(Gate()) as peer:
        peer.say("push", ["pipeline", 0, ["wait"], []])
        peer.say("push", [["kept"]])
        peer.say("stream", ["remap", 1, [], [["import", 2]], [["pipeline", -1, [0]]]])
        peer.say("release", 2, 1)
        peer.say("stream", ["pipeline", 0, ["open"], []])
        await anyio.wait_all_tasks_blocked()
        assert peer.hear()[-1] == ["resolve", 3, [["kept", "kept"]]]
