"""The session alone: every message of the protocol, in text, with no transport and no event loop around it."""

from __future__ import annotations

import json
from typing import Any

import anyio
import attrs
import pytest
from byhand import Peer, by_hand

from capnweb_py import (
    LimitExceeded,
    Limits,
    ProtocolError,
    RpcError,
    RpcPromise,
    RpcSession,
    RpcStub,
    RpcTarget,
    SessionClosed,
    SessionOptions,
    SessionStats,
)
from capnweb_py.codec.json import JsonCodec


class Counter(RpcTarget):
    def __init__(self) -> None:
        self.disposed = 0
        self._count = 0

    def increment(self, by: int = 1) -> int:
        self._count += by
        return self._count

    def dispose(self) -> None:
        self.disposed += 1


class Api(RpcTarget):
    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._gate = anyio.Event()

    def echo(self, value: Any = None) -> Any:
        return value

    def make(self) -> Counter:
        return Counter()

    def keep(self, value: Any) -> None:
        self._kept.append(value)

    def drop(self) -> None:
        self._kept.clear()

    def fail(self) -> None:
        raise ValueError("failed")

    def relay(self, callback: Any) -> Any:
        return callback(1)

    async def wait(self) -> str:
        await self._gate.wait()
        return "waited"

    async def later(self, value: Any) -> Any:
        return value

    def open(self) -> None:
        self._gate.set()


def limited(**limits: int) -> SessionOptions:
    return SessionOptions(limits=Limits(**limits))


def value_of(promise: RpcPromise) -> Any:
    """What awaiting a promise gives whose value is there. Nothing is waited for."""
    awaiting = promise.__await__()
    with pytest.raises(StopIteration) as stopped:
        next(awaiting)
    return stopped.value.value


# As the side that is called.


def test_a_push_is_answered_when_it_is_pulled_and_held_until_it_is_released() -> None:
    peer = Peer(Api())
    peer.say("push", ["pipeline", 0, ["echo"], [5]])
    assert peer.hear() == []
    assert peer.session.stats() == SessionStats(imports=1, exports=2)
    peer.say("pull", 1)
    assert peer.hear() == [["resolve", 1, 5]]
    assert peer.session.stats().exports == 2
    peer.say("release", 1, 1)
    assert peer.session.stats().exports == 1
    assert peer.hear() == []


def test_a_stream_is_pulled_and_released_by_itself() -> None:
    peer = Peer(Api())
    peer.say("stream", ["pipeline", 0, ["echo"], [5]])
    assert peer.hear() == [["resolve", 1, 5]]
    assert peer.session.stats().exports == 1


def test_pushes_and_streams_share_one_count_of_ids() -> None:
    peer = Peer(Api())
    peer.say("push", ["pipeline", 0, ["echo"], ["a"]])
    peer.say("stream", ["pipeline", 0, ["echo"], ["b"]])
    peer.say("release", 1, 1)
    peer.say("push", ["pipeline", 0, ["echo"], ["c"]])
    peer.say("pull", 3)
    assert peer.hear() == [["resolve", 2, "b"], ["resolve", 3, "c"]]


def test_a_failure_is_rejected() -> None:
    peer = Peer(Api())
    assert peer.call("fail") == ["reject", 1, ["error", "ValueError", "failed"]]
    assert peer.session.stats().exports == 1


def test_a_pull_is_answered_once_however_often_it_is_asked() -> None:
    peer = Peer(Api())
    peer.say("push", ["pipeline", 0, ["echo"], [5]])
    peer.say("pull", 1)
    peer.say("pull", 1)
    assert peer.hear() == [["resolve", 1, 5]]


def test_calls_and_members_are_pipelined_on_a_result() -> None:
    peer = Peer(Api())
    peer.say("push", ["pipeline", 0, ["make"], []])
    peer.say("stream", ["pipeline", 1, ["increment"], [5]])
    peer.say("push", ["pipeline", 0, ["echo"], [{"a": [[7, 8]]}]])
    peer.say("stream", ["pipeline", 3, ["a", 1]])
    peer.say("stream", ["pipeline", 0, ["echo"], [["pipeline", 3, ["a"]]]])
    assert peer.hear() == [["resolve", 2, 5], ["resolve", 4, 8], ["resolve", 5, [[7, 8]]]]


def test_what_is_pipelined_on_a_failed_call_fails_with_its_error() -> None:
    peer = Peer(Api())
    peer.say("push", ["pipeline", 0, ["fail"], []])
    peer.say("stream", ["pipeline", 1, ["x", "y"], []])
    peer.say("stream", ["pipeline", 1, ["x"]])
    peer.say("stream", ["pipeline", 0, ["echo"], [["pipeline", 1]]])
    assert peer.hear() == [["reject", number, ["error", "ValueError", "failed"]] for number in (2, 3, 4)]


def test_what_is_passed_by_reference_counts_down_and_ids_are_never_used_again() -> None:
    peer = Peer(Api())
    assert peer.call("make") == ["resolve", 1, ["export", -1]]
    peer.say("release", -1, 1)
    assert peer.call("make") == ["resolve", 2, ["export", -2]]
    assert peer.session.stats().exports == 2


def test_what_the_peer_sends_back_is_the_original_object() -> None:
    api = Api()
    peer = Peer(api)
    counter = Counter()
    peer.main.f(counter)
    peer.hear()
    peer.call("keep", ["import", -1])
    assert api._kept == [counter]
    assert api._kept[0] == RpcStub(counter)


def test_a_stub_of_the_peer_goes_back_as_its_own() -> None:
    peer = Peer(Api())
    assert peer.call("echo", ["export", -7]) == ["resolve", 1, ["import", -7]]


def test_a_promise_of_the_peer_goes_back_as_its_own_and_its_result_is_not_waited_for() -> None:
    peer = Peer(Api())
    peer.say("stream", ["pipeline", 0, ["relay"], [["export", -1]]])
    assert peer.hear()[:2] == [["push", ["pipeline", -1, [], [1]]], ["resolve", 1, ["pipeline", 1]]]


def test_each_introduction_of_an_id_is_counted_and_all_are_released_together() -> None:
    peer = Peer(Api())
    peer.call("keep", ["export", -3])
    peer.call("keep", [[["export", -3], ["export", -3]]])
    assert peer.session.stats().imports == 2
    peer.say("stream", ["pipeline", 0, ["drop"], []])
    assert sorted(peer.hear()) == [["release", -3, 3], ["resolve", 3, None]]
    assert peer.session.stats().imports == 1


def test_a_release_may_come_in_parts() -> None:
    counter = Counter()
    stub = RpcStub(counter)
    peer = Peer(Api())
    peer.main.f(stub)
    peer.hear()
    assert peer.session.stats().exports == 2
    peer.say("release", -1, 0)
    assert peer.session.stats().exports == 2
    peer.say("release", -1, 1)
    assert peer.session.stats().exports == 1
    assert counter.disposed == 0
    stub.dispose()
    assert counter.disposed == 1


def test_a_release_before_the_answer_forgets_the_answer() -> None:
    peer = Peer(Api())
    peer.say("push", ["pipeline", 0, ["relay"], [["export", -1]]])
    peer.hear()
    peer.say("pull", 1)
    peer.say("release", 1, 1)
    peer.hear()
    peer.say("resolve", 1, 5)
    assert [message for message in peer.hear() if message[0] != "release"] == []
    assert peer.session.stats() == SessionStats(1, 1)


# As the side that calls.


def test_a_call_that_nobody_awaits_is_never_pulled() -> None:
    peer = Peer()
    promise = peer.main.f(1)
    assert peer.hear() == [["push", ["pipeline", 0, ["f"], [1]]]]
    del promise
    assert peer.hear() == [["release", 1, 1]]
    assert peer.session.stats() == SessionStats(1, 1)


def test_a_chain_is_sent_as_pushes_on_promises() -> None:
    peer = Peer()
    one = peer.main.make("x")
    two = one.child.get(one.name, [one])
    assert peer.hear() == [
        ["push", ["pipeline", 0, ["make"], ["x"]]],
        ["push", ["pipeline", 1, ["child", "get"], [["pipeline", 1, ["name"]], [[["pipeline", 1]]]]]],
    ]
    assert peer.session.stats().imports == 3
    del one, two
    assert sorted(peer.hear()) == [["release", 1, 1], ["release", 2, 1]]


@pytest.mark.anyio
async def test_a_call_that_is_awaited_at_once_is_a_stream() -> None:
    async with by_hand() as peer, anyio.create_task_group() as tasks:
        results: list[Any] = []

        async def call() -> None:
            results.append(await peer.main.f(1))

        tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["stream", ["pipeline", 0, ["f"], [1]]]]
        peer.say("resolve", 1, "done")
        await anyio.wait_all_tasks_blocked()
        assert results == ["done"]
        assert peer.hear() == []
        assert peer.session.stats() == SessionStats(1, 1)


@pytest.mark.anyio
async def test_a_call_that_is_awaited_and_referred_to_is_pushed_and_pulled() -> None:
    async with by_hand() as peer, anyio.create_task_group() as tasks:
        promise = peer.main.f()
        member = promise.g()

        async def wait() -> None:
            await promise

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [
            ["push", ["pipeline", 0, ["f"], []]],
            ["pull", 1],
            ["push", ["pipeline", 1, ["g"], []]],
        ]
        peer.say("resolve", 1, {"g": 1})
        assert peer.hear() == [["release", 1, 1]]
        del member


@pytest.mark.anyio
async def test_a_call_that_is_awaited_after_it_was_sent_is_pulled() -> None:
    async with by_hand() as peer, anyio.create_task_group() as tasks:
        promise = peer.main.f()
        assert peer.hear() == [["push", ["pipeline", 0, ["f"], []]]]

        async def wait() -> None:
            await promise

        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["pull", 1]]
        peer.say("resolve", 1, 5)
        assert await promise == 5
        assert peer.hear() == [["release", 1, 1]]


def test_a_stub_in_a_result_is_used_by_its_id() -> None:
    peer = Peer()
    promise = peer.main.make()
    peer.hear()
    peer.say("resolve", 1, ["export", -1])
    promise.increment()
    assert ["push", ["pipeline", -1, ["increment"], []]] in peer.hear()
    stub = value_of(promise)
    assert peer.session.stats().imports == 2
    del promise
    assert peer.session.stats().imports == 2
    stub.dispose()
    assert ["release", -1, 1] in peer.hear()
    assert peer.session.stats().imports == 1


def test_a_stub_in_an_answer_to_a_released_call_is_released() -> None:
    peer = Peer()
    peer.main.make().dispose()
    assert peer.hear() == [["push", ["pipeline", 0, ["make"], []]], ["release", 1, 1]]
    peer.say("resolve", 1, [[["export", -1], ["export", -2]]])
    assert sorted(peer.hear()) == [["release", -2, 1], ["release", -1, 1]]
    assert peer.session.stats() == SessionStats(1, 1)


def test_an_answer_that_comes_twice_is_released_twice_and_changes_nothing() -> None:
    peer = Peer()
    promise = peer.main.f()
    peer.hear()
    peer.say("resolve", 1, 5)
    peer.say("resolve", 1, ["export", -1])
    peer.say("reject", 1, ["error", "Error", "late"])
    assert peer.hear() == [["release", 1, 1], ["release", -1, 1]]
    assert value_of(promise) == 5


def test_a_call_that_is_let_go_of_while_its_answer_is_read_is_released_once() -> None:
    class Main(RpcTarget):
        def let_go(self) -> int:
            promise.dispose()
            return 1

    peer = Peer(Main())
    promise = peer.main.f()
    peer.hear()
    peer.say("resolve", 1, ["pipeline", 0, ["let_go"], []])
    assert peer.hear() == [["release", 1, 1]]


def test_a_promise_that_this_side_publishes_is_resolved_after_the_message_that_names_it() -> None:
    peer = Peer()
    peer.main.f(RpcStub({"a": 5}).a)
    assert peer.hear() == [
        ["push", ["pipeline", 0, ["f"], [["promise", -1]]]],
        ["release", 1, 1],
        ["resolve", -1, 5],
    ]
    peer.say("release", -1, 1)
    assert peer.session.stats() == SessionStats(1, 1)


def test_a_promise_that_the_peer_publishes_is_waited_for_unasked() -> None:
    api = Api()
    peer = Peer(api)
    peer.say("stream", ["pipeline", 0, ["echo"], [["promise", -1]]])
    assert peer.hear() == []
    peer.say("resolve", -1, "late")
    assert sorted(peer.hear()) == [["release", -1, 1], ["resolve", 1, "late"]]
    assert peer.session.stats() == SessionStats(1, 1)


def test_a_promise_that_resolves_to_itself_before_it_was_sent_is_an_error() -> None:
    peer = Peer(Api())
    peer.say("push", ["pipeline", 0, ["relay"], [["export", -1]]])
    peer.hear()
    peer.say("resolve", 1, ["pipeline", 1])
    peer.say("pull", 1)
    assert ["reject", 1, ["error", "RpcError", "the promise resolves to itself"]] in peer.hear()


def test_a_promise_that_resolves_to_itself_is_an_error() -> None:
    peer = Peer(Api())
    peer.say("push", ["pipeline", 0, ["relay"], [["export", -1]]])
    peer.say("pull", 1)
    peer.hear()
    peer.say("resolve", 1, ["pipeline", 1])
    assert peer.hear() == [["stream", None], ["release", 1, 1]]
    peer.say("resolve", 2, None)
    peer.say("stream", ["pipeline", 1, ["x"], []])
    assert ["reject", 2, ["error", "RpcError", "the promise resolves to itself"]] in peer.hear()
    assert not peer.session.closed


@pytest.mark.anyio
@pytest.mark.parametrize("reference", [["import", 1], ["pipeline", 1], ["pipeline", 1, ["x"]]], ids=str)
async def test_a_result_that_leads_back_to_its_own_call_is_an_error(reference: list[Any]) -> None:
    class Relay(RpcTarget):
        async def relay(self, callback: Any) -> Any:
            promise = callback(1)
            await callback(2)
            return promise

    async with by_hand(Relay()) as peer:
        peer.say("push", ["pipeline", 0, ["relay"], [["export", -1]]])
        peer.say("pull", 1)
        await anyio.wait_all_tasks_blocked()
        peer.hear()
        peer.say("resolve", 1, reference)
        peer.say("resolve", 2, "go on")
        await anyio.wait_all_tasks_blocked()
        assert ["reject", 1, ["error", "RpcError", "the promise resolves to itself"]] in peer.hear()


@pytest.mark.parametrize("thrown", [5, None, "text", {"a": 1}, [[1]], ["undefined"], ["bigint", "1" * 5000]], ids=ascii)
def test_anything_can_be_thrown(thrown: Any) -> None:
    peer = Peer()
    promise = peer.main.f()
    peer.hear()
    peer.say("reject", 1, thrown)
    with pytest.raises(RpcError, match="the peer threw something that is no error"):
        next(promise.__await__())
    assert not peer.session.closed


def test_an_answer_that_python_cannot_hold_fails_that_call_alone() -> None:
    peer = Peer(Api())
    promises = [peer.main.f(), peer.main.g()]
    peer.hear()
    peer.say("resolve", 1, [[["export", -1], ["date", 1e300]]])
    peer.say("reject", 2, ["error", "E", "m", None, {"when": ["date", 1e300]}])
    for promise in promises:
        with pytest.raises(RpcError, match="beyond the dates that Python has"):
            next(promise.__await__())
    assert ["release", -1, 1] in peer.hear()
    assert peer.call("echo", ["date", 1e300])[0] == "reject"
    assert not peer.session.closed


def test_a_call_on_what_turned_out_to_be_this_sides_waits_for_what_the_peer_forwards() -> None:
    counter = Counter()
    peer = Peer(Api())
    promise = peer.main.identity(counter)
    first = promise.increment(1)
    peer.hear()
    peer.say("resolve", 1, ["import", -1])
    second = promise.increment(10)
    assert counter._count == 0, "the peer has not forwarded the first call yet"
    assert [message for message in peer.hear() if message[0] != "release"] == [["stream", None]]
    peer.say("push", ["pipeline", -1, ["increment"], [1]])
    assert counter._count == 1
    peer.say("resolve", 3, None)
    assert counter._count == 11
    assert value_of(second) == 11
    del first


# Aborts.

BAD_MESSAGES = [
    "null", "5", '"push"', "{}", "[]", "[[]]", "[5]", '["no such"]', '["push"]', '["push",1,2]', '["stream"]', '["stream",1,2]',  # noqa: E501
    '["pull"]', '["pull","1"]', '["pull",true]', '["pull",1.0]', '["pull",99]', '["pull",-1]', '["pull",1e400]',
    '["pull",99999999999999999999999]',
    '["resolve"]', '["resolve",1]', '["resolve",0,1]', '["resolve",1,1]', '["resolve",99,1]', '["resolve","1",1]',
    '["resolve",true,1]', '["resolve",1.5,1]', '["reject",1]', '["reject",0,["error","E","m"]]', '["reject",99,5]',
    '["release"]', '["release",0]', '["release",-5,1]', '["release",99,1]', '["release",0,2]', '["release",0,-1]',
    '["release",0,true]', '["release",0,0.5]', '["release",false,1]', '["abort"]',
    '["push",[]]', '["push",["import"]]', '["push",["import",99]]', '["push",["import",-1]]', '["push",["import",true]]',  # noqa: E501
    '["push",["import","0"]]', '["push",["pipeline",0,"x"]]', '["push",["pipeline",0,[1.5]]]', '["push",["pipeline",0,[true]]]',  # noqa: E501
    '["push",["pipeline",0,[null]]]', '["push",["pipeline",0,[["x"]]]]', '["push",["pipeline",0,["echo"],5]]',
    '["push",["pipeline",0,["echo"],[],1]]', '["push",["pipeline",99,["x"],[]]]',
    '["push",["export",0]]', '["push",["export",1]]', '["push",["export",1.0]]', '["push",["export"]]',
    '["push",["promise",1]]', '["push",[[["promise",-1],["promise",-1]]]]', '["push",[[["export",-1],["promise",-1]]]]',
    '["push",["nonsense",1]]', '["push",{"a":["nonsense"]}]', '["push",["pipeline",0,["echo"],[["nonsense"]]]]',
    "", "not json", '["push",1', "\x00", '["push",NaN]',
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_MESSAGES)
def test_a_message_that_breaks_the_protocol_aborts_the_session_with_a_reason(text: str) -> None:
    counter = Counter()
    peer = Peer(Api())
    promise = peer.main.f(counter)
    peer.hear()
    peer.say("release", -1, 1)
    promise.dispose()
    peer.hear()
    del promise
    if text in ('["resolve",1,1]', '["reject",99,5]'):
        peer.main.unsent()  # its id is not known to the peer before it is sent
        text = text.replace("1,1]", "2,1]")
    peer.session.receive(text)
    assert isinstance(peer.session.end, ProtocolError)
    assert peer.session.aborted
    *_, abort = peer.hear()
    assert abort[0] == "abort"
    assert abort[1][:2] == ["error", "ProtocolError"]
    assert abort[1][2] == str(peer.session.end)
    assert peer.session.stats() == SessionStats(0, 0)


def test_an_abort_of_the_peer_ends_the_session_with_its_reason() -> None:
    peer = Peer(Api())
    promise = peer.main.f()
    told: list[BaseException] = []
    peer.main.on_broken(told.append)
    peer.hear()
    peer.say("abort", ["error", "RangeError", "enough"])
    assert [(type(error), str(error)) for error in told] == [(SessionClosed, "the peer aborted the session: enough")]
    assert peer.session.closed
    assert not peer.session.aborted
    assert peer.hear() == []
    with pytest.raises(SessionClosed, match="the peer aborted the session: enough") as caught:
        next(promise.__await__())
    assert caught.value.__cause__.name == "RangeError"  # type: ignore[union-attr]


def test_nothing_is_taken_after_an_abort() -> None:
    api = Api()
    peer = Peer(api)
    peer.say("nonsense")
    peer.hear()
    peer.say("push", ["pipeline", 0, ["keep"], [1]])
    peer.say("also nonsense")
    assert api._kept == []
    assert peer.hear() == []


def test_calls_on_an_ended_session_fail_and_send_nothing() -> None:
    peer = Peer()
    main = peer.main
    peer.session.close()
    counter = Counter()
    promise = main.f(counter)
    assert peer.hear() == []
    with pytest.raises(SessionClosed, match="the session was closed on this side"):
        next(promise.__await__())


def test_the_end_fails_what_is_pending_and_disposes_what_was_exported() -> None:
    counter, main_object = Counter(), Counter()
    peer = Peer(main_object)
    promise = peer.main.f(counter)
    peer.hear()
    peer.session.connection_lost(OSError("cable"), "the connection was lost")
    assert (counter.disposed, main_object.disposed) == (1, 1)
    with pytest.raises(SessionClosed, match="the connection was lost") as caught:
        next(promise.__await__())
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_that_cannot_be_sent_is_replaced() -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise Unspeakable

    class Main(RpcTarget):
        def fail(self) -> None:
            raise Unspeakable

    peer = Peer(Main())
    replaced = ["error", "Error", "an error occurred that could not be sent"]
    assert peer.call("fail") == ["reject", 1, replaced]


def test_a_method_that_closes_the_session_ends_the_message_that_called_it() -> None:
    class Main(RpcTarget):
        def close(self) -> None:
            peer.session.close()

    peer = Peer(Main())
    peer.say("stream", [[["pipeline", 0, ["close"], []], ["pipeline", 0, ["close"], []], ["export", -1]]])
    assert peer.session.closed
    assert not peer.session.aborted
    assert peer.hear() == []
    assert peer.session.stats() == SessionStats(0, 0)


def test_a_peer_without_a_main_object_says_so() -> None:
    peer = Peer()
    assert peer.call("f") == ["reject", 1, ["error", "RpcError", "this connection has no main object"]]


# Limits.


def assert_aborted_by(peer: Peer, problem: str) -> None:
    assert isinstance(peer.session.end, LimitExceeded)
    assert problem in str(peer.session.end)
    *_, abort = peer.hear()
    assert abort == ["abort", ["error", "LimitExceeded", str(peer.session.end)]]


def test_max_message_size() -> None:
    peer = Peer(Api(), limited(max_message_size=100))
    assert peer.call("echo", "x" * 10)[0] == "resolve"
    peer.say("push", "x" * 90)
    assert_aborted_by(peer, "a message of 102 bytes is larger than max_message_size = 100")


def test_max_depth() -> None:
    peer = Peer(Api(), limited(max_depth=3))
    assert peer.call("echo", {"a": 1})[0] == "resolve"
    peer.say("push", {"a": {"a": {"a": {"a": {}}}}})
    assert_aborted_by(peer, "the message nests deeper than max_depth = 3")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '["push",' + '{"a":' * 900 + "1" + "}" * 900 + "]"], ids=["open", "closed"]
)
def test_a_message_may_nest_as_deep_as_it_likes_without_harm(text: str) -> None:
    peer = Peer(Api())
    peer.session.receive(text)
    assert peer.session.aborted


def test_calls_may_nest_as_deep_as_they_like_without_harm() -> None:
    peer = Peer(Api(), limited(max_depth=400))
    peer.say("stream", nested_calls(250))
    assert peer.session.aborted or peer.hear()[0][:2] in (["resolve", 1], ["reject", 1])


def nested_calls(depth: int) -> Any:
    """Calls, each the argument of the next."""
    call: Any = 1
    for _ in range(depth):
        call = ["pipeline", 0, ["echo"], [call]]
    return call


def test_max_depth_adds_up_over_arguments_that_are_calls() -> None:
    peer = Peer(Api(), limited(max_depth=8))
    peer.say("stream", nested_calls(7))
    assert peer.hear() == [["resolve", 1, 1]]
    peer.say("stream", nested_calls(8))
    assert_aborted_by(peer, "the message nests deeper than max_depth = 8")


def test_calls_as_arguments_of_calls_are_well_within_the_default_depth() -> None:
    peer = Peer(Api())
    peer.say("stream", nested_calls(64))
    assert peer.hear() == [["resolve", 1, 1]]


def test_an_argument_as_deep_as_a_peer_of_the_same_limits_writes_it_is_taken() -> None:
    deepest: Any = 1
    for _ in range(Limits().max_depth - 2):
        deepest = [deepest]
    peer = Peer(Api())
    peer.main.f(deepest)
    (_, (*_, arguments)), *_ = peer.hear()
    peer.say("push", ["pipeline", 0, ["echo"], arguments])
    assert not peer.session.closed


def test_max_bigint_digits() -> None:
    peer = Peer(Api(), limited(max_bigint_digits=5))
    assert peer.call("echo", ["bigint", "-12345"])[0] == "resolve"
    peer.say("push", ["bigint", "123456"])
    assert_aborted_by(peer, "a bigint has more than max_bigint_digits = 5 digits")


def test_max_exports_of_a_peer_that_never_releases() -> None:
    peer = Peer(Api(), limited(max_exports=3))
    for _ in range(3):
        peer.say("push", 1)
    assert_aborted_by(peer, "more than max_exports = 3 entries of the export table are in use")


def test_max_exports_of_this_side_fails_the_call_here() -> None:
    peer = Peer(Api(), limited(max_exports=2))
    with pytest.raises(LimitExceeded, match="max_exports = 2"):
        peer.main.f(Counter(), Counter())
    assert peer.session.stats().exports == 1
    assert not peer.session.closed


def test_max_imports_of_a_peer_that_exports_too_much() -> None:
    peer = Peer(Api(), limited(max_imports=3))
    peer.say("push", [[["export", -1], ["export", -2], ["export", -3]]])
    assert_aborted_by(peer, "more than max_imports = 3 entries of the import table are in use")


def test_max_imports_of_this_side_fails_the_call_here() -> None:
    peer = Peer(Api(), limited(max_imports=2))
    kept = peer.main.f()
    with pytest.raises(LimitExceeded, match="max_imports = 2"):
        peer.main.f()
    del kept


@pytest.mark.anyio
async def test_max_calls_fails_the_one_call() -> None:
    async with by_hand(Api(), limited(max_calls=2)) as peer:
        for _ in range(3):
            peer.say("stream", ["pipeline", 0, ["wait"], []])
        assert peer.hear() == [
            ["reject", 3, ["error", "LimitExceeded", "more than max_calls = 2 calls are in progress"]]
        ]
        await anyio.wait_all_tasks_blocked()
        peer.say("stream", ["pipeline", 0, ["open"], []])
        await anyio.wait_all_tasks_blocked()
        assert sorted(peer.hear()) == [["resolve", 1, "waited"], ["resolve", 2, "waited"], ["resolve", 4, None]]
        peer.say("stream", ["pipeline", 0, ["wait"], []])
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["resolve", 5, "waited"]]


@pytest.mark.anyio
async def test_a_call_that_waits_for_an_argument_counts_once() -> None:
    async with by_hand(Api(), limited(max_calls=1)) as peer:
        peer.say("stream", ["pipeline", 0, ["later"], [["promise", -1]]])
        peer.say("stream", ["pipeline", 0, ["wait"], []])
        assert peer.hear()[0][:2] == ["reject", 2]
        peer.say("resolve", -1, 5)
        await anyio.wait_all_tasks_blocked()
        assert ["resolve", 1, 5] in peer.hear()


@pytest.mark.parametrize("limits", [{"max_depth": 401}, {"max_calls": 0}, {"max_exports": -1}])
def test_a_limit_is_checked_where_it_is_made(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        Limits(**limits)


def test_limits_are_values() -> None:
    assert Limits() == Limits()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Limits().max_calls = 5  # type: ignore[misc]


# What a hostile peer costs.


@pytest.mark.anyio
@pytest.mark.parametrize("reference", [["pipeline", 0], ["import", 0], ["pipeline", 0, ["x"]]], ids=str)
async def test_a_chain_of_promises_may_be_as_long_as_it_likes(reference: list[Any]) -> None:
    async with by_hand(Api()) as peer:
        peer.say("push", ["pipeline", 0, ["wait"], []])
        for number in range(1, 3000):
            peer.say("push", [reference[0], number, *reference[2:]])
        peer.say("pull", 3000)
        peer.say("stream", ["pipeline", 0, ["open"], []])
        await anyio.wait_all_tasks_blocked()
        assert not peer.session.closed
        assert {message[1] for message in peer.hear()} == {3000, 3001}


@pytest.mark.anyio
async def test_a_chain_of_calls_that_wait_for_each_other_may_be_as_long_as_it_likes() -> None:
    async with by_hand(Api()) as peer:
        peer.say("push", ["pipeline", 0, ["wait"], []])
        for number in range(1, 3000):
            peer.say("push", ["pipeline", 0, ["echo"], [["pipeline", number]]])
        peer.say("pull", 3000)
        peer.say("stream", ["pipeline", 0, ["open"], []])
        await anyio.wait_all_tasks_blocked()
        assert sorted(peer.hear()) == [["resolve", 3000, "waited"], ["resolve", 3001, None]]


def test_a_path_may_be_as_long_as_it_likes() -> None:
    peer = Peer(Api())
    peer.say("stream", ["pipeline", 0, ["x"] * 100_000])
    assert peer.hear()[0][0] == "reject"


def test_an_index_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(TypeError, match="an index beyond 2"):
        Peer().main[10**5000]


def test_messages_are_what_the_codec_makes_of_trees() -> None:
    peer = Peer()
    peer.main.f("\ud800")
    (data, binary), _ = peer.session.messages_to_send()
    assert not binary
    assert json.loads(data) == ["push", ["pipeline", 0, ["f"], ["\ud800"]]]


def test_a_peer_with_nothing_to_do_is_sent_much_at_once() -> None:
    """Once, until it says something: calls that are sent before they are awaited take more messages."""
    peer = Hastening()
    calls = []
    for _ in range(40):
        calls.append(peer.main.f(["x" * 1000]))
    assert len(peer.sent) == 1
    assert len(peer.sent[0]) in range(17, 19)
    assert all(message[0] == "push" for message in peer.sent[0])
    peer.hear()
    peer.say("resolve", 1, 1)
    for _ in range(40):
        calls.append(peer.main.f(["x" * 1000]))
    assert len(peer.sent) == 2
    peer.hear()
    for call in calls:
        call.dispose()


@pytest.mark.anyio
async def test_a_call_on_an_awaited_one_is_sent_with_it() -> None:
    """What is sent at once includes a call that was awaited: the next one on it must count by then."""
    async with anyio.create_task_group() as tasks:
        peer = Hastening()
        first = peer.main.f()
        others = [peer.main.g(["x" * 9000]) for _ in range(2)]

        async def wait() -> None:
            await first

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        second = first.h([1])
        (sent,) = peer.sent
        assert [message[0] for message in sent] == ["push", "pull", "push", "push", "push"]
        assert sent[-1] == ["push", ["pipeline", 1, ["h"], [[[1]]]]]
        tasks.cancel_scope.cancel()
    for promise in (first, second, *others):
        promise.dispose()


def test_a_session_that_ends_while_much_is_sent_fails_the_call_that_led_to_it() -> None:
    class Failing(JsonCodec):
        def encode(self, tree: Any) -> tuple[bytes, bool]:
            if tree[0] != "abort":
                raise RuntimeError("no")
            return super().encode(tree)

    peer = Hastening()
    peer.session = RpcSession(peer, None, None, Failing())
    calls = [peer.main.f(["x" * 9000]) for _ in range(3)]
    assert peer.session.closed
    for call in calls:
        with pytest.raises(SessionClosed):
            call._hook.pull()


def test_what_is_called_while_messages_are_written_waits_for_the_next_time() -> None:
    """`on_send_error` runs while promises that were passed are resolved."""

    def report(error: BaseException) -> None:
        kept.append(peer.main.report({"text": str(error)}))

    class Main(RpcTarget):
        def fail(self) -> None:
            raise ValueError("no")

    peer = Hastening(Main(), SessionOptions(on_send_error=report))
    mine = RpcStub(Main())
    kept: list[RpcPromise] = [peer.main.f([mine.fail(), mine.fail()]), peer.main.f(["x" * 17_000])]
    kinds = [message[0] for message in peer.hear()]
    assert kinds.count("reject") == 2
    assert all(not sent for sent in peer.sent)
    assert kinds.index("reject") > kinds.index("push")
    for promise in kept:
        promise.dispose()


def test_one_large_call_is_not_sent_before_it_is_awaited() -> None:
    peer = Hastening()
    peer.main.f(["x" * 100_000]).dispose()
    assert peer.sent == []


class Hastening(Peer):
    """A peer that takes what the session would send at once."""

    def __init__(self, main: Any = None, options: SessionOptions | None = None) -> None:
        super().__init__(main, options)
        self.sent: list[list[Any]] = []

    def send_now(self) -> None:
        self.sent.append(self.hear())
