"""gather(): many promises awaited at once, on both event loops."""

from __future__ import annotations

import gc
from typing import Any

import anyio
import pytest
from byhand import by_hand

from capnweb_py import RemoteError, RpcPromise, RpcStub, RpcTarget, cancellable, gather, memory_pair

pytestmark = pytest.mark.anyio


class Counter(RpcTarget):
    def __init__(self, value: int) -> None:
        self._value = value

    @property
    def value(self) -> int:
        return self._value


class Api(RpcTarget):
    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.ended = anyio.Event()
        self.opened = anyio.Event()

    def echo(self, value: Any) -> Any:
        self.begun.append(value)
        return value

    def counter(self, value: int) -> Counter:
        return Counter(value)

    def fail(self, text: str) -> None:
        raise ValueError(text)

    async def gate(self) -> str:
        await self.opened.wait()
        return "open"

    @cancellable
    async def forever(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.ended.set()


async def test_values_come_in_the_order_of_the_promises() -> None:
    main = Api()
    async with memory_pair(main, None) as (_, session):
        api = session.remote_main
        values = await gather(api.gate(), api.echo(1), api.counter(5).value, main_opens(main, api))
        assert values == ["open", 1, 5, "opened"]
        assert await gather() == []


def main_opens(main: Api, api: RpcStub) -> RpcPromise[Any]:
    main.opened.set()
    return api.echo("opened")


async def test_calls_are_made_in_order_and_each_is_one_message() -> None:
    async with by_hand() as peer, anyio.create_task_group() as tasks:
        found: list[Any] = []

        async def run() -> None:
            found.extend(await gather(*[peer.main.f(i) for i in range(3)]))

        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["stream", ["pipeline", 0, ["f"], [i]]] for i in range(3)]
        for answered in (2, 3, 1):
            peer.say("resolve", answered, answered * 10)
        await anyio.wait_all_tasks_blocked()
        assert found == [10, 20, 30]
        assert peer.session.stats().imports == 1


async def test_a_promise_may_be_given_twice_and_awaited_again() -> None:
    async with memory_pair(Api(), None) as (_, session):
        promise = session.remote_main.echo([1])
        assert await gather(promise, promise) == [[1], [1]]
        assert await promise == [1]
        assert await gather(promise) == [[1]]


async def test_promises_inside_a_value_are_waited_for() -> None:
    main = Api()
    async with memory_pair(main, None) as (_, session):
        api = session.remote_main
        nested = api.echo({"inner": api.gate()})
        main.opened.set()
        assert await gather(nested, api.echo(2)) == [{"inner": "open"}, 2]


async def test_nothing_is_pulled_after_what_is_known_to_have_failed() -> None:
    async with by_hand() as peer:
        failed = peer.main.f()
        async with anyio.create_task_group() as tasks:
            errors: list[Exception] = []

            async def run() -> None:
                for promises in ([failed], [failed, peer.main.g]):
                    try:
                        await gather(*promises)
                    except RemoteError as error:
                        errors.append(error)

            tasks.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            peer.hear()
            peer.say("reject", 1, ["error", "RangeError", "no"])
        assert len(errors) == 2
        assert peer.hear() == []


async def test_a_promise_of_this_side() -> None:
    later = anyio.Event()

    async def value() -> str:
        await later.wait()
        return "mine"

    async with memory_pair(Api(), None) as (_, session):
        mine = RpcPromise(value())
        later.set()
        assert await gather(mine, session.remote_main.echo("theirs")) == ["mine", "theirs"]


async def test_the_first_error_ends_it_and_the_others_are_let_go_of() -> None:
    main = Api()
    async with memory_pair(main, None) as (_, session):
        api = session.remote_main
        with pytest.raises(ValueError, match="broken"):
            await gather(api.forever(), api.fail("broken"))
        with anyio.fail_after(60):
            await main.ended.wait()
        await anyio.wait_all_tasks_blocked()
        assert session.stats().imports == 1


async def failure_of(api: RpcStub, failing_first: bool) -> BaseException:
    try:
        if failing_first:
            await gather(api.fail("broken"), api.forever())
        else:
            await gather(api.forever(), api.fail("broken"))
    except ValueError as error:
        return error
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("failing_first", [True, False])
async def test_an_exception_that_is_kept_keeps_no_promise(failing_first: bool) -> None:
    main = Api()
    gc.disable()  # their references alone are to do it
    try:
        async with memory_pair(main, None) as (_, session):
            api = session.remote_main
            kept = await failure_of(api, failing_first)
            with anyio.fail_after(60):
                await main.ended.wait()
            assert kept.__traceback__ is not None
    finally:
        gc.enable()


async def test_an_error_of_this_side_keeps_its_traceback() -> None:
    async def failing() -> None:
        raise ValueError("deep inside")

    async with memory_pair(Api(), None):
        with pytest.raises(ValueError, match="deep inside") as caught:
            await gather(RpcPromise(failing()))
        assert "failing" in [entry.name for entry in caught.traceback]


async def test_promises_inside_each_other_are_no_deep_recursion() -> None:
    levels = 5000
    found: list[Any] = []
    async with by_hand() as peer:
        promise = peer.main.f()

        async def run() -> None:
            found.extend(await gather(promise))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            peer.hear()
            peer.say("resolve", 1, [[["promise", -1]]])
            for level in range(1, levels):
                peer.say("resolve", -level, [[["promise", -level - 1]]])
            peer.say("resolve", -levels, "innermost")  # the innermost is there last
    (whole,) = found
    for _ in range(levels):
        (whole,) = whole
    assert whole == "innermost"


async def test_what_a_cancelled_gather_waited_for_does_not_refer_to_it() -> None:
    async with by_hand() as peer:
        promise = peer.main.f()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gather, promise)
            await anyio.wait_all_tasks_blocked()
            peer.hear()
            peer.say("resolve", 1, [[["promise", -1]]])  # a list with a promise that is never resolved
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        payload = promise._hook.pull()
        assert payload.settling._awaited_by == []
        promise.dispose()


async def test_an_error_that_is_there_already() -> None:
    async with memory_pair(Api(), None) as (_, session):
        failed = session.remote_main.fail("before")
        with pytest.raises(ValueError, match="before"):
            await failed
        for _ in range(2):
            with pytest.raises(ValueError, match="before"):
                await gather(failed, session.remote_main.echo(1))


async def test_who_is_cancelled_lets_go_of_all() -> None:
    main = Api()
    gc.disable()  # their references alone are to do it
    try:
        async with memory_pair(main, None) as (_, session):
            api = session.remote_main
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(gather, api.forever(), api.gate())
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
            with anyio.fail_after(60):
                await main.ended.wait()
            main.opened.set()
            await anyio.wait_all_tasks_blocked()
            assert session.stats().imports == 1
    finally:
        gc.enable()


async def test_who_is_cancelled_leaves_nothing_behind_at_a_promise_that_was_kept() -> None:
    async with by_hand() as peer:
        promise = peer.main.f()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gather, promise)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert not promise._hook.entry.awaited
        promise.dispose()


async def test_a_session_that_ends_fails_it() -> None:
    async with by_hand() as peer, anyio.create_task_group() as tasks:
        errors: list[BaseException] = []

        async def run() -> None:
            try:
                await gather(peer.main.f(), peer.main.g())
            except Exception as error:
                errors.append(error)

        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        peer.session.close()
        await anyio.wait_all_tasks_blocked()
        assert [type(error).__name__ for error in errors] == ["SessionClosed"]


@pytest.mark.parametrize("other", [1, RpcStub(Api)])
async def test_what_is_no_promise_is_refused_before_anything_is_awaited(other: Any) -> None:
    async with by_hand() as peer:
        with pytest.raises(TypeError, match=f"argument 1 is a {type(other).__name__}"):
            await gather(peer.main.member, other)
        assert peer.hear() == []
