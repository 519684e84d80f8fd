"""Cancellation: a marked method ends when nobody wants its result any more, any method when its session ends."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from byhand import by_hand

from capnweb_py import RpcError, RpcStub, RpcTarget, SessionClosed, cancellable, connect, memory_pair, serve

pytestmark = pytest.mark.anyio


class Api(RpcTarget):
    """Its methods write down what happens to them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._changed = anyio.Event()

    def note(self, text: str) -> None:
        self.log.append(text)
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, text: str) -> None:
        with anyio.fail_after(60):
            while text not in self.log:
                await self._changed.wait()

    @cancellable
    async def slow(self, name: str = "slow") -> str:
        await self._run(name)
        return name

    async def unmarked(self, name: str = "unmarked") -> None:
        await self._run(name)

    async def _run(self, name: str) -> None:
        self.note(f"{name} begins")
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.note(f"{name} is over")

    @cancellable
    async def until_told(self, told: RpcStub) -> Counter:
        self.note("until_told begins")
        try:
            await told()
        except BaseException:
            self.note("until_told is over")
            raise
        return Counter(self)

    @cancellable
    async def shielded(self, release: RpcStub) -> None:
        self.note("shielded begins")
        try:
            await anyio.sleep_forever()
        finally:
            self.note("cleaning up")
            with anyio.CancelScope(shield=True):
                await release()
            self.note("cleaned up")

    @cancellable
    async def stubborn(self) -> str:
        self.note("stubborn begins")
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return "an answer all the same"

    def plain(self) -> str:
        return "at once"

    def listen(self) -> None:
        self.note("listening")


class Counter(RpcTarget):
    def __init__(self, api: Api) -> None:
        self._api = api

    def increment(self) -> int:
        self._api.note("increment")
        return 1

    def dispose(self) -> None:
        self._api.note("the counter is disposed")


async def settled() -> None:
    """Let everything happen that can."""
    gc.collect()
    await anyio.wait_all_tasks_blocked()
    await anyio.wait_all_tasks_blocked()


# By hand: what releasing does, message by message.


async def test_releasing_the_pending_result_of_a_marked_method_cancels_it() -> None:
    api = Api()
    async with by_hand(api) as peer:
        peer.say("push", ["pipeline", 0, ["slow"], []])
        peer.say("pull", 1)
        await api.until("slow begins")
        peer.say("release", 1, 1)
        await api.until("slow is over")
        await settled()
        assert peer.hear() == []
        assert peer.session.stats().exports == 1
        assert peer.session.deliveries.in_progress == 0


async def test_a_method_that_is_not_marked_runs_on() -> None:
    api = Api()
    async with by_hand(api) as peer:
        peer.say("push", ["pipeline", 0, ["unmarked"], []])
        await api.until("unmarked begins")
        peer.say("release", 1, 1)
        await settled()
        assert api.log == ["unmarked begins"]
    assert api.log == ["unmarked begins", "unmarked is over"]


async def test_a_marked_method_that_is_released_before_its_first_step_never_begins() -> None:
    api = Api()
    async with by_hand(api) as peer:
        peer.say("push", ["pipeline", 0, ["slow"], ["first"]])
        peer.say("push", ["pipeline", 0, ["slow"], ["second"]])
        peer.say("push", ["pipeline", 0, ["unmarked"], ["third"]])
        peer.say("release", 2, 1)
        peer.say("release", 3, 1)
        await api.until("third begins")
        assert api.log == ["first begins", "third begins"]


async def test_a_marked_method_that_is_released_while_an_argument_is_awaited_never_begins() -> None:
    api = Api()
    async with by_hand(api) as peer:
        peer.say("push", ["pipeline", 0, ["slow"], [["promise", -1]]])
        peer.say("pull", 1)
        peer.say("release", 1, 1)
        peer.say("resolve", -1, "late")
        await settled()
        assert api.log == []
        assert peer.hear() == [["release", -1, 1]]
        assert peer.session.deliveries.in_progress == 0
        assert (peer.session.stats().imports, peer.session.stats().exports) == (1, 1)


async def test_a_call_that_is_pipelined_on_it_keeps_it_running() -> None:
    api = Api()
    async with by_hand(api) as peer:
        peer.say("push", ["pipeline", 0, ["until_told"], [["export", -1]]])
        peer.say("push", ["pipeline", 1, ["increment"], []])
        peer.say("release", 1, 1)
        peer.say("release", 2, 1)
        await api.until("until_told begins")
        await settled()
        assert api.log == ["until_told begins"]
        (told,) = (message for message in peer.hear() if message[0] == "stream")
        peer.say("resolve", 1, None)
        await api.until("the counter is disposed")
        assert told == ["stream", ["pipeline", -1, [], []]]
        assert api.log == ["until_told begins", "increment", "the counter is disposed"]


async def test_a_member_of_its_result_keeps_it_running_until_that_is_released_too() -> None:
    api = Api()
    async with by_hand(api) as peer:
        peer.say("push", ["pipeline", 0, ["slow"], []])
        peer.say("push", ["pipeline", 1, ["length"]])
        peer.say("pull", 2)
        peer.say("release", 1, 1)
        await api.until("slow begins")
        await settled()
        assert api.log == ["slow begins"]
        peer.say("release", 2, 1)
        await api.until("slow is over")


async def test_two_references_to_a_result_are_both_to_be_released() -> None:
    api = Api()
    async with by_hand(api) as peer:
        peer.say("push", ["pipeline", 0, ["slow"], []])
        peer.say("push", ["pipeline", 1])
        await api.until("slow begins")
        peer.say("release", 2, 1)
        await settled()
        assert api.log == ["slow begins"]
        peer.say("release", 1, 1)
        await api.until("slow is over")


async def test_a_release_that_crosses_the_answer_changes_nothing() -> None:
    api = Api()
    async with by_hand(api) as peer:
        peer.say("push", ["pipeline", 0, ["until_told"], [["export", -1]]])
        peer.say("pull", 1)
        await api.until("until_told begins")
        peer.hear()
        peer.say("resolve", 1, None)
        peer.say("release", 1, 1)
        await settled()
        assert api.log[:1] == ["until_told begins"]
        assert not peer.session.closed
        assert peer.session.stats().exports == 1


async def test_a_method_that_answers_all_the_same_is_taken_at_its_word() -> None:
    api = Api()
    async with by_hand(api) as peer:
        peer.say("push", ["pipeline", 0, ["stubborn"], []])
        await api.until("stubborn begins")
        peer.say("release", 1, 1)
        await settled()
        assert peer.session.stats().exports == 1
        assert peer.session.deliveries.in_progress == 0


async def test_a_marked_plain_method_answers_as_ever() -> None:
    class Plain(RpcTarget):
        @cancellable
        def hello(self) -> str:
            return "hello"

        @staticmethod
        @cancellable
        async def static() -> str:
            return "static"

    async with memory_pair(None, Plain()) as (client, _):
        assert await client.remote_main.hello() == "hello"
        assert await client.remote_main.static() == "static"


async def test_the_result_of_a_stream_message_can_only_be_released_where_both_sides_know_it() -> None:
    api = Api()
    async with by_hand(api) as peer:
        peer.say("stream", ["pipeline", 0, ["plain"], []])
        peer.say("release", 1, 1)
        assert peer.hear()[-1][0] == "abort"


async def test_a_release_that_crosses_the_answer_of_a_stream_message_is_dropped() -> None:
    api = Api()
    async with by_hand(api, releases_streams=True) as peer:
        peer.say("stream", ["pipeline", 0, ["plain"], []])
        peer.say("release", 1, 1)
        assert peer.hear() == [["resolve", 1, "at once"]]
        assert not peer.session.closed


@pytest.mark.parametrize("unknown", [2, -1])
async def test_what_was_never_a_call_cannot_be_released_there_either(unknown: int) -> None:
    async with by_hand(Api(), releases_streams=True) as peer:
        peer.say("stream", ["pipeline", 0, ["plain"], []])
        peer.say("release", unknown, 1)
        assert peer.hear()[-1][0] == "abort"


# Between two peers.


async def call_and_cancel(call: Callable[[], Any], api: Api, name: str) -> None:
    """Await a call in a task, which is cancelled once the call runs."""
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            promise = call()
            await promise

        tasks.start_soon(wait)
        await api.until(f"{name} begins")
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("codec", ["json", "cbor"])
async def test_cancelling_the_task_that_awaits_a_call_cancels_the_call(codec: str) -> None:
    api = Api()
    async with memory_pair(None, api, codec=codec) as (client, server):
        await call_and_cancel(lambda: client.remote_main.slow(), api, "slow")
        await api.until("slow is over")
        await settled()
        for session in (client, server):
            assert (session.stats().imports, session.stats().exports) == (1, 1)


async def test_cancelling_works_over_a_connection() -> None:
    api = Api()
    async with serve(api, "127.0.0.1", 0) as server, connect(server.url) as main:
        await call_and_cancel(lambda: main.slow(), api, "slow")
        await api.until("slow is over")
        assert await main.plain() == "at once"


async def test_with_a_peer_that_knows_streams_only_as_npm_does_a_call_in_a_with_block_can_be_released() -> None:
    api = Api()
    async with serve(api, "127.0.0.1", 0) as server, connect(server.url, codec="json") as main:

        async def wait() -> None:
            with main.slow() as promise:
                await promise

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await api.until("slow begins")
            tasks.cancel_scope.cancel()
        await api.until("slow is over")
        assert await main.plain() == "at once"


async def test_a_call_to_such_a_peer_goes_as_a_stream_unless_it_is_to_be_released() -> None:
    async with by_hand() as peer, anyio.create_task_group() as tasks:

        async def ask() -> None:
            with peer.main.first() as promise:
                await promise
            await peer.main.second()

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["push", ["pipeline", 0, ["first"], []]], ["pull", 1]]
        peer.say("resolve", 1, None)
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["release", 1, 1], ["stream", ["pipeline", 0, ["second"], []]]]
        tasks.cancel_scope.cancel()


async def test_a_timeout_cancels_the_call_and_a_promise_that_was_kept_can_be_awaited_again() -> None:
    api = Api()
    async with memory_pair(None, api) as (client, _):
        answer = anyio.Event()

        async def told() -> None:
            await answer.wait()

        promise = client.remote_main.until_told(told)
        with anyio.move_on_after(0.01) as scope:
            await promise
        assert scope.cancelled_caught
        await settled()
        assert api.log == ["until_told begins"]
        answer.set()
        counter = await promise
        assert await counter.increment() == 1


async def test_awaiting_that_is_cancelled_leaves_nothing_behind_on_the_promise() -> None:
    api = Api()
    async with memory_pair(None, api) as (client, _):
        promise = client.remote_main.slow()
        local = RpcStub(api).slow("local")
        for waited in (promise, local):
            for _ in range(3):
                with anyio.move_on_after(0.001):
                    await waited
        assert not promise._hook.entry.awaited  # type: ignore[attr-defined]
        assert not local._hook._hook._queue  # type: ignore[attr-defined]


async def test_one_of_two_that_await_the_same_promise_can_be_cancelled() -> None:
    api = Api()
    async with memory_pair(None, api) as (client, _), anyio.create_task_group() as tasks:
        answer = anyio.Event()
        values: list[Any] = []

        async def told() -> None:
            await answer.wait()

        promise = client.remote_main.until_told(told).increment()

        async def wait() -> None:
            values.append(await promise)

        tasks.start_soon(wait)
        with anyio.move_on_after(0.01):
            await promise
        answer.set()
        await settled()
        assert values == [1]
        assert await promise == 1


async def test_dropping_and_disposing_a_promise_cancel_the_call() -> None:
    api = Api()
    async with memory_pair(None, api) as (client, _):
        kept = client.remote_main.slow("kept")
        dropped = client.remote_main.slow("dropped")
        await api.until("dropped begins")
        del dropped
        await api.until("dropped is over")
        assert "kept is over" not in api.log
        kept.dispose()
        await api.until("kept is over")
        with pytest.raises(RpcError, match="disposed"):
            await kept


async def test_a_call_on_this_side_is_cancelled_in_the_same_ways() -> None:
    api = Api()
    stub = RpcStub(api)
    kept = stub.slow("kept")
    dropped = stub.slow("dropped")
    part = stub.slow("part").length
    copied = copy.copy(stub.slow("copied"))
    await api.until("copied begins")
    await call_and_cancel(lambda: stub.slow("member").length, api, "member")
    await api.until("member is over")
    await call_and_cancel(lambda: stub.slow("awaited"), api, "awaited")
    await api.until("awaited is over")
    del dropped
    await api.until("dropped is over")
    kept.dispose()
    await api.until("kept is over")
    assert "part is over" not in api.log
    del part
    await api.until("part is over")
    assert "copied is over" not in api.log
    del copied
    await api.until("copied is over")


async def test_a_relay_passes_on_the_release() -> None:
    api = Api()
    async with memory_pair(None, api) as (middle, _), memory_pair(None, middle.remote_main) as (client, _server):
        await call_and_cancel(lambda: client.remote_main.slow(), api, "slow")
        await api.until("slow is over")


async def test_a_wrapped_and_a_bound_function_keep_the_mark() -> None:
    api = Api()

    async def run(name: str) -> None:
        await api._run(name)

    marked = cancellable(run)

    @functools.wraps(marked)
    async def wrapper(name: str) -> None:
        await marked(name)

    class Functions(RpcTarget):
        def partial(self) -> Any:
            return functools.partial(marked, "partial")

        def wrapped(self) -> Any:
            return wrapper

    async with memory_pair(None, Functions()) as (client, _):
        await call_and_cancel(lambda: client.remote_main.partial()(), api, "partial")
        await api.until("partial is over")
        await call_and_cancel(lambda: client.remote_main.wrapped()("wrapped"), api, "wrapped")
        await api.until("wrapped is over")


# The end of a session.


@pytest.mark.parametrize("name", ["slow", "unmarked"])
async def test_a_disconnect_cancels_running_calls(name: str) -> None:
    api = Api()
    async with serve(api, "127.0.0.1", 0) as server:
        async with connect(server.url) as main:
            promise = main[name]()
            await api.until(f"{name} begins")
        await api.until(f"{name} is over")
        with pytest.raises(SessionClosed):
            await promise


@pytest.mark.parametrize("name", ["slow", "unmarked"])
async def test_closing_a_pair_that_is_no_context_cancels_its_calls(name: str) -> None:
    api = Api()
    client, server = memory_pair(None, api)
    promise = client.remote_main[name]()
    await api.until(f"{name} begins")
    client.close()
    await api.until(f"{name} is over")
    assert server.closed
    with pytest.raises(SessionClosed):
        await promise


async def test_a_shield_holds_back_the_end_of_the_session() -> None:
    api = Api()
    finish = anyio.Event()

    class Shielding(RpcTarget):
        @cancellable
        async def work(self) -> None:
            with anyio.CancelScope(shield=True):
                api.note("work begins")
                await finish.wait()
                api.note("work is done")
            await anyio.lowlevel.checkpoint()
            api.note("never")

    async with anyio.create_task_group() as tasks:

        async def end() -> None:
            await anyio.wait_all_tasks_blocked()
            finish.set()

        async with memory_pair(None, Shielding()) as (client, _):
            promise = client.remote_main.work()
            await api.until("work begins")
            tasks.start_soon(end)
        del promise
    assert api.log == ["work begins", "work is done"]


async def test_a_release_during_the_cleanup_of_a_cancelled_method_is_nothing_new() -> None:
    api = Api()
    finish = anyio.Event()

    async with memory_pair(None, api) as (client, _):

        async def release() -> None:
            await finish.wait()

        promise = client.remote_main.shielded(release)
        await api.until("shielded begins")
        promise.dispose()
        await api.until("cleaning up")
        promise.dispose()
        finish.set()
        await api.until("cleaned up")
        assert api.log == ["shielded begins", "cleaning up", "cleaned up"]


async def test_a_call_that_a_timeout_ends_is_released_while_its_task_goes_on() -> None:
    api = Api()

    async def ask(main: RpcStub, name: str) -> None:
        promise = main.slow(name)
        await promise

    async with memory_pair(None, api) as (client, _):
        with anyio.move_on_after(0.01):
            await client.remote_main.slow("direct")
        await api.until("direct is over")
        with anyio.move_on_after(0.01):
            await ask(client.remote_main, "inner")
        await api.until("inner is over")
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await ask(client.remote_main, "failing")
        await api.until("failing is over")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_cancels_in_its_own_ways(anyio_backend: str) -> None:
    api = Api()

    async def ask(main: RpcStub, name: str) -> None:
        promise = main.slow(name)
        await promise

    async with memory_pair(None, api) as (client, _):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(client.remote_main, "wait_for"), 0.01)
        await api.until("wait_for is over")
        task = asyncio.create_task(ask(client.remote_main, "task"))
        await api.until("task begins")
        task.cancel()
        await api.until("task is over")
        with pytest.raises(TimeoutError) as kept:
            async with asyncio.timeout(0.01):
                await client.remote_main.slow("timeout")
        await api.until("timeout is over")
        assert kept.value.__cause__ is not None
