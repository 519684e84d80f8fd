""".map(): what a program writes, and what comes of it, on values of this side and over a session."""

from __future__ import annotations

import gc
import threading
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import attrs
import pytest
from byhand import Peer

from capnweb_py import (
    UNDEFINED,
    LimitExceeded,
    Limits,
    RemoteError,
    RpcPromise,
    RpcSession,
    RpcStub,
    RpcTarget,
    SessionOptions,
    SessionStats,
    memory_pair,
)
from capnweb_py.hooks import ErrorHook, Hook, PromiseHook
from capnweb_py.mapper import Mapper, Provenance, copies_of
from capnweb_py.metering import Meter
from capnweb_py.web import ReadableStream
from capnweb_py.write_queue import Unread, WriteQueue, WriterHook

pytestmark = pytest.mark.anyio


@attrs.frozen
class User:
    id: int
    name: str


class Counter(RpcTarget):
    disposals: ClassVar[Tally[str]] = Tally()

    def __init__(self, start: int = 0, name: str = "") -> None:
        self._count = start
        self._name = name

    def increment(self, by: int = 1) -> int:
        self._count += by
        return self._count

    async def soon(self, by: int = 1) -> int:
        await anyio.lowlevel.checkpoint()
        return self.increment(by)

    @property
    def value(self) -> int:
        return self._count

    def dispose(self) -> None:
        Counter.disposals[self._name] += 1


class Api(RpcTarget):
    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._tags = ["a"]
        self._held = [Counter(1, "held"), Counter(2, "held")]

    def echo(self, value: Any = None) -> Any:
        return value

    async def later(self, value: Any = None) -> Any:
        await anyio.lowlevel.checkpoint()
        return value

    def fibonacci(self, length: int) -> list[int]:
        numbers = [0, 1]
        while len(numbers) < length:
            numbers.append(numbers[-1] + numbers[-2])
        return numbers[:length]

    def counter(self, start: int, name: str = "") -> Counter:
        return Counter(start, name)

    def counters(self, name: str) -> list[Counter]:
        return [Counter(number, name) for number in range(3)]

    def users(self) -> list[User]:
        return [User(1, "Ada"), User(2, "Grace")]

    def profile(self, user_id: int) -> dict[str, Any]:
        return {"id": user_id, "tags": ["a", {"b": None}]}

    def options(self, value: Any, *, scale: int = 1) -> list[Any]:
        return [value, scale]

    def note(self, *values: Any) -> None:
        self.seen.append(list(values))

    async def linger(self, *values: Any) -> None:
        self.seen.append(list(values))
        await anyio.lowlevel.checkpoint()

    def refuse(self, value: Any) -> Any:
        if value == 2:
            raise ValueError("not two")
        return value

    def spoil(self, value: Any) -> list[Any]:
        value.append("spoiled")
        return list(value)

    @property
    def rows(self) -> list[list[int]]:
        return [[1], [2]]

    def tags(self) -> list[str]:
        return self._tags

    def lasting(self) -> list[Counter]:
        return self._held


@pytest.fixture(autouse=True)
def count_disposals_anew() -> None:
    Counter.disposals.clear()


@asynccontextmanager
async def over_a_session(api: Api) -> AsyncIterator[RpcStub]:
    async with memory_pair(None, api) as (client, server):
        yield client.remote_main
        await nothing_left(client, server)


@asynccontextmanager
async def on_this_side(api: Api) -> AsyncIterator[RpcStub]:
    yield RpcStub(api)


async def nothing_left(*sessions: RpcSession) -> None:
    gc.collect()
    for _ in range(3):
        await anyio.wait_all_tasks_blocked()
    assert [session.stats() for session in sessions] == [SessionStats(1, 1)] * len(sessions)


Way = Callable[[Api], Any]


@pytest.fixture(params=[over_a_session, on_this_side])
def way(request: pytest.FixtureRequest) -> Way:
    """How the test reaches its Api."""
    chosen: Way = request.param
    return chosen


# Behaviours that the reference's tests check.


@pytest.mark.parametrize(
    ("value", "mapped"), [(None, None), (UNDEFINED, UNDEFINED), (2, 2), (4, 6), ([1, 2], [3, 5]), ([], [])]
)
async def test_lists_single_values_and_nothing(way: Way, value: Any, mapped: Any) -> None:
    async with way(Api()) as api:
        counter = RpcStub(Counter(2 if value in (4, [1, 2]) else 0))
        assert await api.echo(value).map(lambda i: counter.increment(i)) == mapped


async def test_calls_for_each_item(way: Way) -> None:
    async with way(Api()) as api:
        outer = RpcStub(Counter())

        def callback(i: Any) -> dict[str, Any]:
            counter = api.counter(i)
            value = counter.increment(3)
            outer.increment()
            return {"counter": counter, "value": value}

        results = await api.fibonacci(6).map(callback)
        assert [result["value"] for result in results] == [3, 4, 4, 5, 6, 8]
        assert [await result["counter"].value for result in results] == [3, 4, 4, 5, 6, 8]
        assert await outer.value == 6
        del results


async def test_maps_inside_maps(way: Way) -> None:
    async with way(Api()) as api:
        result = await api.fibonacci(5).map(lambda i: api.fibonacci(i).map(lambda j: api.fibonacci(j)))
        assert result == [[], [[]], [[]], [[], [0]], [[], [0], [0]]]


async def test_nobody_has_to_await_a_map_that_fails() -> None:
    async def fail() -> None:
        raise ValueError("ignored")

    RpcPromise(fail()).map(lambda i: i).dispose()
    RpcPromise(fail()).map(lambda i: i)
    await anyio.wait_all_tasks_blocked()


async def test_captures_are_released_when_what_is_mapped_has_failed() -> None:
    counter = RpcStub(Counter(name="failed subject"))
    failed = RpcStub(Api()).refuse(2).map(lambda i: counter.increment(i))
    counter.dispose()
    assert Counter.disposals["failed subject"] == 1
    with pytest.raises(ValueError, match="not two"):
        await failed


# What a callback may return and use.


async def test_results_of_any_shape(way: Way) -> None:
    async with way(Api()) as api:
        users = api.users()
        assert await users.map(lambda user: user) == [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}]
        assert await users.map(lambda user: user.name) == ["Ada", "Grace"]
        assert await users.map(lambda user: (user.id, [user.name, {"again": user.id}])) == [
            [1, ["Ada", {"again": 1}]],
            [2, ["Grace", {"again": 2}]],
        ]
        assert await users.map(lambda user: User(user.id, "same")) == [
            {"id": 1, "name": "same"},
            {"id": 2, "name": "same"},
        ]
        assert await users.map(lambda user: None) == [None, None]
        assert (
            await users.map(lambda user: [b"\xff", 10**20, float("inf"), UNDEFINED])
            == [[b"\xff", 10**20, float("inf"), UNDEFINED]] * 2
        )
        assert await users.map(lambda user: user.missing) == [UNDEFINED, UNDEFINED]
        assert (
            await users.map(lambda user: {"none": api.echo(None), "x": [user.nothing]})
            == [{"none": None, "x": [UNDEFINED]}] * 2
        )
        assert await users.map(lambda user: api.profile(user.id).tags[1]) == [{"b": None}] * 2
        assert await users.map(lambda user: api.echo("x" * 1000)) == ["x" * 1000] * 2
        assert await users.map(lambda user: api.echo(list(range(1000)))) == [list(range(1000))] * 2
        assert await users.map(lambda user: api.echo([1.5, b"abc", True, None])) == [[1.5, b"abc", True, None]] * 2
        assert await users.map(lambda user: api.later(user.name)) == ["Ada", "Grace"]
        del users


async def test_methods_of_each_item(way: Way) -> None:
    async with way(Api()) as api:
        counters = api.counters("each item")
        assert await counters.map(lambda counter: counter.increment(10)) == [10, 11, 12]
        assert await counters.map(lambda counter: counter.value) == [10, 11, 12]
        assert await counters.map(lambda counter: [counter.soon(5)]) == [[15], [16], [17]]
        del counters


async def test_a_member_is_mapped(way: Way) -> None:
    async with way(Api()) as api:
        assert await api.rows.map(lambda row: row[0]) == [1, 2]
        assert await api.profile(5).tags[0].map(lambda tag: [tag]) == ["a"]


async def test_what_is_no_list_is_one_item(way: Way) -> None:
    async with way(Api()) as api:
        assert await api.profile(5).map(lambda profile: profile.tags[0]) == "a"
        assert await api.counter(5).map(lambda counter: [counter.increment()]) == [6]
        assert await api.echo("text").map(lambda text: {"text": text}) == {"text": "text"}
        assert await api.map(lambda itself: itself.echo(7)) == 7


async def test_a_result_is_pipelined_upon(way: Way) -> None:
    async with way(Api()) as api:
        mapped = api.users().map(lambda user: {"user": user, "counter": api.counter(user.id)})
        assert await mapped[1].user.name == "Grace"
        assert await mapped[1].counter.increment() == 3
        assert await api.echo([mapped[0].user]) == [{"id": 1, "name": "Ada"}]
        assert await mapped.map(lambda pair: pair.user.id).map(lambda number: api.options(number, scale=2)) == [
            [1, 2],
            [2, 2],
        ]
        del mapped


async def test_promises_and_members_of_promises_are_captured(way: Way) -> None:
    async with way(Api()) as api:
        profile, waiting = api.profile(9), api.later("late")
        assert await api.echo([1, 2]).map(lambda i: [i, profile.id, api.echo(profile.tags[0]), waiting]) == [
            [1, 9, "a", "late"],
            [2, 9, "a", "late"],
        ]
        assert await api.echo([1]).map(lambda i: profile.tags.map(lambda tag: [i, tag])) == [
            [[1, "a"], [1, {"b": None}]]
        ]
        for promise in (profile, waiting):
            promise.dispose()


async def test_a_promise_of_a_list_that_is_not_there_yet(way: Way) -> None:
    async with way(Api()) as api:
        assert await api.later([1, 2]).map(lambda i: api.later(i)) == [1, 2]


async def test_promises_inside_a_list_are_items() -> None:
    api = RpcStub(Api())
    assert await api.echo([api.later(1), 2, api.later([3])]).map(lambda i: api.echo(i)) == [1, 2, [3]]


async def test_keyword_arguments_are_the_options(way: Way) -> None:
    async with way(Api()) as api:
        assert await api.echo([1, 2]).map(lambda i: api.options(i, scale=i)) == [[1, 1], [2, 2]]


async def test_each_item_is_a_copy(way: Way) -> None:
    async with way(Api()) as api:
        rows = [["a"], ["b"]]
        assert await api.echo(rows).map(lambda row: [api.spoil(row), api.spoil(row), row]) == [
            [[name, "spoiled"], [name, "spoiled"], [name]] for name in "ab"
        ]
        assert rows == [["a"], ["b"]]


async def test_each_result_is_a_copy(way: Way) -> None:
    async with way(Api()) as api:
        results = await api.echo([1, 2]).map(lambda i: api.tags())
        results[0].append("changed")
        assert results == [["a", "changed"], ["a"]]
        assert await api.tags() == ["a"]


async def test_an_error_of_one_item_fails_the_whole(way: Way) -> None:
    async with way(Api()) as api:
        failing = api.echo([1, 2, 3]).map(lambda i: {"value": api.refuse(i)})
        with pytest.raises(ValueError, match="not two"):
            await failing
        assert await failing[0].value == 1
        del failing


async def test_calls_begin_in_the_order_of_items_and_of_instructions(way: Way) -> None:
    target = Api()
    async with way(target) as api:

        def callback(i: Any) -> None:
            api.note("first", i)
            api.linger("second", i)
            api.note("third", i)

        before, mapped, after = api.note("before"), api.echo([1, 2]).map(callback), api.note("after")
        await after
        await mapped
        assert target.seen == [
            ["before"],
            *([word, number] for number in (1, 2) for word in ("first", "second", "third")),
            ["after"],
        ]
        del before, mapped, after


async def test_targets_live_as_long_as_the_result(way: Way) -> None:
    async with way(Api()) as api:
        results = await api.echo([1, 2]).map(
            lambda i: {"counter": api.counter(i, "results"), "dropped": [api.counter(i, "dropped")][0].value}
        )
        await anyio.wait_all_tasks_blocked()
        assert Counter.disposals["results"] == 0
        assert Counter.disposals["dropped"] == 2
        assert [await result["counter"].increment() for result in results] == [2, 3]
        del results
        await anyio.wait_all_tasks_blocked()
        assert Counter.disposals["results"] == 2


async def test_a_part_of_a_result_keeps_its_targets() -> None:
    async with memory_pair(None, Api()) as (client, server):
        counters = client.remote_main.counters("part")
        mapped = counters.map(lambda counter: [counter])
        one = mapped[1][0]
        held = one.dup()
        del counters, mapped, one
        await anyio.wait_all_tasks_blocked()
        assert Counter.disposals["part"] == 0
        assert await held.increment() == 2
        del held
        await nothing_left(client, server)
        assert Counter.disposals["part"] == 3


async def test_targets_of_the_application_are_not_disposed_by_mapping_them() -> None:
    async with memory_pair(None, Api()) as (client, server):
        lasting = await client.remote_main.lasting()
        assert await client.remote_main.lasting().map(lambda counter: counter.increment()) == [2, 3]
        assert Counter.disposals["held"] == 0
        del lasting
        await nothing_left(client, server)


async def test_a_stub_in_the_result_is_captured(way: Way) -> None:
    async with way(Api()) as api:
        counter = RpcStub(Counter(1))
        results = await api.echo([1, 2]).map(lambda i: [i, counter])
        assert [await result[1].increment(result[0]) for result in results] == [2, 4]
        assert results[0][1] == counter
        del results


async def test_a_duplicate_of_a_placeholder_is_a_stub(way: Way) -> None:
    async with way(Api()) as api:
        results = await api.counters("duplicates").map(lambda counter: [counter.dup(), counter.dup().increment()])
        assert [await stub.value for stub, _ in results] == [1, 2, 3]
        del results


async def test_between_two_sessions() -> None:
    async with memory_pair(None, Api()) as (one, one_server), memory_pair(None, Api()) as (two, two_server):
        counter = two.remote_main.counter(10)
        mapped = one.remote_main.echo([1, 2]).map(lambda i: [counter.increment(i), two.remote_main.echo(i)])
        assert await mapped == [[11, 1], [13, 2]]
        relayed = one.remote_main.echo(two.remote_main).map(lambda other: other.profile(3).id)
        assert await relayed == 3
        del mapped, relayed
        counter.dispose()
        await nothing_left(one, one_server, two, two_server)


async def test_a_relay_passes_maps_on() -> None:
    async with memory_pair(None, Api()) as (inner, inner_server):
        async with memory_pair(None, inner.remote_main) as (outer, relay):
            local = RpcStub(Counter(5))
            assert await outer.remote_main.users().map(lambda user: [user.name, local.increment(user.id)]) == [
                ["Ada", 6],
                ["Grace", 8],
            ]
            assert await outer.remote_main.map(lambda api: api.echo(3)) == 3
            local.dispose()
            await nothing_left(outer, relay)
        await nothing_left(inner_server)


async def test_a_relay_of_a_list_maps_the_list() -> None:
    async with memory_pair(None, [1, 2]) as (inner, _), memory_pair(None, inner.remote_main) as (outer, _):
        assert await outer.remote_main.map(lambda number: [number]) == [[1], [2]]


# What is sent.


async def test_a_map_takes_one_round_trip() -> None:
    client = Peer()
    mapped = client.main.users().map(lambda user: client.main.profile(user.id)).map(lambda profile: profile.tags)
    assert [message[0] for message in client.hear()] == ["push", "push", "push", "release", "release"]
    del mapped


async def test_a_map_that_cannot_be_sent_leaves_nothing() -> None:
    peer = Peer(options=SessionOptions(limits=Limits(max_imports=1)))
    counter = RpcStub(Counter(name="unsent"))
    with pytest.raises(LimitExceeded, match="max_imports") as raised:
        peer.main.map(lambda i: counter.increment(i))
    counter.dispose()
    assert Counter.disposals["unsent"] == 1
    assert peer.session.stats() == SessionStats(1, 1)
    assert peer.hear() == []
    del raised


@pytest.mark.parametrize("kind", ["failed", "failed promise", "disposed import", "writer", "placeholder", "atom"])
async def test_a_mapper_is_disposed_whatever_it_is_applied_to(kind: str) -> None:
    failed = PromiseHook()
    failed.settle(ErrorHook(ValueError("failed")))
    imported = Peer().main.dup()._hook
    imported.dispose()
    placeholders: list[Any] = []
    Peer().main.map(placeholders.append)
    hooks: dict[str, Hook] = {
        "failed": ErrorHook(ValueError("failed")),
        "failed promise": failed,
        "disposed import": imported,
        "writer": WriterHook(WriteQueue(Unread(1, Meter(1, 1, int)))),
        "placeholder": placeholders[0]._hook,
        "atom": RpcStub(5)._hook,
    }
    target = Counter(name="captured")
    mapper = Mapper([RpcStub(target)._hook], [1], Provenance(Limits()))
    try:
        hooks[kind].map((), mapper)
    except TypeError:
        assert kind == "placeholder"
    assert Counter.disposals["captured"] == 1


async def test_copies_of_an_instruction_share_nothing() -> None:
    shared: list[Any] = [1]
    for odd in (1, object()):
        tree = {"tree": [shared, shared, odd]}
        first, second, _ = copies_of(tree)()["tree"]
        assert first == second == shared
        assert len({id(first), id(second), id(shared)}) == 3


async def test_a_session_that_has_ended_maps_nothing() -> None:
    async with memory_pair(None, Api()) as (client, _):
        counter = RpcStub(Counter(name="ended"))
        pending = client.remote_main.later([1]).map(lambda i: counter.increment(i))
        client.close()
        after = client.remote_main.map(lambda i: counter.increment(i))
        counter.dispose()
        for promise in (pending, after):
            with pytest.raises(Exception, match="session"):
                await promise
        await anyio.wait_all_tasks_blocked()
        del pending, after, promise
        gc.collect()
        assert Counter.disposals["ended"] == 1


# Misuse.


async def chunks() -> AsyncIterator[bytes]:
    yield b"chunk"


MISUSES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "equal": (lambda x: x == 1, "compared"),
    "equal, reflected": (lambda x: x == [1], "compared"),
    "different": (lambda x: x.name != "Ada", "compared"),
    "less": (lambda x: x.id < 3, "compared"),
    "in a list": (lambda x: x in [1, 2], "compared"),
    "sorted": (lambda x: sorted([x.a, x.b]), "compared"),
    "sum": (lambda x: x + 1, "calculated with"),
    "sum, reflected": (lambda x: 1 + x, "calculated with"),
    "product": (lambda x: x.f() * 2, "calculated with"),
    "negation": (lambda x: -x, "calculated with"),
    "bits": (lambda x: x | 1, "calculated with"),
    "rounded": (lambda x: round(x), "calculated with"),
    "truth": (lambda x: x.admin and "yes", "tested for truth"),
    "not": (lambda x: not x, "tested for truth"),
    "condition": (lambda x: 1 if x.f() else 2, "tested for truth"),
    "iteration": (lambda x: [y for y in x], "iterated over"),  # noqa: C416
    "unpacking": (lambda x: [*x.items], "iterated over"),
    "membership": (lambda x: 1 in x, "searched"),
    "length": (lambda x: len(x.items), "measured"),
    "text": (lambda x: str(x), "turned into text"),
    "f-string": (lambda x: f"Hello, {x.name}!", "turned into text"),
    "number": (lambda x: int(x), "turned into a number"),
    "index": (lambda x: [1, 2][x], "turned into a number"),
    "key": (lambda x: {1: 2}[x], "looked up"),
    "set": (lambda x: {x}, "looked up"),
    "on_broken": (lambda x: x.on_broken(print), "watched"),
    "lambda": (lambda x: x.each(lambda y: y), "Make an RpcStub of it before"),
    "target": (lambda x: x.f(Counter()), "Make an RpcStub of it before"),
    "target in the result": (lambda x: [x, Counter()], "Make an RpcStub of it before"),
    "stream": (lambda x: x.write(ReadableStream(chunks())), "a stream cannot be passed"),
    "set in the result": (lambda x: {1, 2}, "at the result of the callback of map"),
    "assignment": (lambda x: setattr(x, "name", 1), "cannot be assigned"),
    "slice": (lambda x: x[0:1], "slice"),
}


@pytest.mark.parametrize("misuse", MISUSES)
async def test_misuse_fails_at_once_and_leaves_nothing(misuse: str) -> None:
    callback, advice = MISUSES[misuse]
    async with memory_pair(None, Api()) as (client, server):
        counter = RpcStub(Counter(name="misuse"))
        users = client.remote_main.users()
        with pytest.raises((TypeError, AttributeError), match=advice) as raised:
            users.map(lambda x: [counter.increment(), callback(x)])
        counter.dispose()
        # However long the error lives, and with it the frames of its traceback.
        assert Counter.disposals["misuse"] == 1
        del raised
        assert await users.map(lambda x: x.id) == [1, 2]
        del users
        await nothing_left(client, server)


async def test_a_map_that_fails_sends_nothing() -> None:
    peer = Peer()
    with pytest.raises(ZeroDivisionError):
        peer.main.map(lambda x: [peer.main.f(x), 1 // 0])
    assert peer.hear() == []


async def test_a_callback_cannot_be_async() -> None:
    ran: list[Any] = []

    async def callback(x: Any) -> Any:
        ran.append(x)
        return await x.name

    with pytest.raises(TypeError, match=r"cannot be async"):
        RpcStub(Api()).users().map(callback)
    assert ran == []
    peer = Peer()
    for awaitable in (anyio.Event().wait, lambda: anyio.Event().wait()):
        with pytest.raises(TypeError, match=r"cannot be async"):
            peer.main.map(lambda x, awaitable=awaitable: awaitable())
    assert peer.hear() == []


async def test_a_placeholder_cannot_be_awaited() -> None:
    kept: list[Any] = []
    RpcStub(Api()).users().map(lambda x: kept.append(x.name))
    with pytest.raises(TypeError, match="awaited"):
        await kept[0]


async def test_a_placeholder_that_escapes() -> None:
    peer = Peer()
    kept: list[Any] = []
    mapped = peer.main.map(lambda x: kept.extend([x, x.name, x.f()]))
    peer.hear()
    uses: list[Callable[[Any], Any]] = [
        lambda x: x.g(),
        lambda x: x(),
        lambda x: x.member.g(1),
        lambda x: x.map(lambda y: y),
        lambda x: x.dup(),
        lambda x: x.member.dup(),
        lambda x: peer.main.f(x),
        lambda x: peer.main.f([x.member]),
        lambda x: peer.main.map(lambda y: x),
        lambda x: peer.main.map(lambda y: x.f(y)),
        lambda x: peer.main.map(lambda y: [y.f(x.member)]),
        lambda x: peer.main.map(lambda y: x.map(lambda z: z)),
        lambda x: peer.main.map(lambda y: y.map(lambda z: [y, x])),
        lambda x: RpcPromise(x),
    ]
    for placeholder in kept:
        for use in uses:
            with pytest.raises(TypeError, match="placeholder of a callback of map"):
                use(placeholder)
    with pytest.raises(TypeError, match="placeholder of a callback of map"):
        await RpcStub(Api()).note(kept[0])
    assert peer.hear() == []
    assert peer.session.stats().exports == 1
    del mapped


async def test_a_placeholder_of_the_outer_callback_outlives_an_inner_one_alone() -> None:
    peer = Peer()

    def callback(x: Any) -> Any:
        inner: list[Any] = []
        x.items.map(lambda y: inner.append(y))
        with pytest.raises(TypeError, match="outside of"):
            x.f(inner[0])
        return x

    assert peer.main.map(callback) is not None


async def test_a_callback_belongs_to_its_thread() -> None:
    """A call made elsewhere meanwhile is a call."""
    peer = Peer()
    errors: list[BaseException] = []

    def elsewhere(placeholder: Any) -> None:
        RpcStub(Counter(name="elsewhere")).dispose()
        try:
            placeholder.f()
        except TypeError as error:
            errors.append(error)

    def callback(x: Any) -> Any:
        thread = threading.Thread(target=elsewhere, args=[x])
        thread.start()
        thread.join()
        return x

    assert peer.main.map(callback) is not None
    assert Counter.disposals["elsewhere"] == 1
    assert "outside of" in str(errors[0])


async def test_calls_in_a_callback_are_made_on_the_other_side_alone() -> None:
    target = Api()
    stub = RpcStub(target)
    async with memory_pair(None, Api()) as (client, _):
        nothing = client.remote_main.echo([])
        assert await nothing.map(lambda i: stub.note(i)) == []
        assert target.seen == []
        assert await stub.echo(5) == 5
        del nothing


async def test_a_debugger_can_show_a_placeholder() -> None:
    shown: list[str] = []
    Peer().main.map(lambda x: shown.extend([repr(x), repr(x.a[0]), repr(x.f()), repr([x])]))
    assert all("laceholder" in text for text in shown)
    assert ".a[0] of each item" in shown[1]


async def test_a_placeholder_is_a_promise() -> None:
    Peer().main.map(lambda x: [isinstance(x, RpcPromise), isinstance(x.f(), RpcPromise)])


async def test_errors_of_a_callback_come_out_as_they_are() -> None:
    with pytest.raises(KeyError):
        RpcStub(Api()).users().map(lambda x: {}["missing"])
    assert await RpcStub(Api()).users().map(lambda x: x.id) == [1, 2]


async def test_a_remote_error_reaches_who_awaits() -> None:
    async with memory_pair(None, Api()) as (client, _):
        with pytest.raises(RemoteError, match="no_such_method is not a function"):
            await client.remote_main.users().map(lambda user: client.remote_main.no_such_method(user))
