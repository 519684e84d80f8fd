"""Stubs and promises in the hands of Python itself and its tools: never a remote call that nobody asked for."""

from __future__ import annotations

import collections.abc
import contextlib
import copy
import gc
import inspect
import json
import logging
import math
import operator
import pickle
import pprint
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import anyio
import anyio.lowlevel
import pytest
from byhand import Peer

from capnweb_py import RpcPromise, RpcStub, RpcTarget, SessionClosed, connect, memory_pair, serve

pytestmark = pytest.mark.anyio


class Api(RpcTarget):
    def hello(self, name: str = "World") -> str:
        return f"Hello, {name}!"

    def tree(self) -> Any:
        return {"name": "root", "self": self}

    def refuse(self) -> None:
        raise LookupError("no such thing")

    @property
    def title(self) -> str:
        return "the api"

    async def later(self) -> str:
        await anyio.lowlevel.checkpoint()
        return "later"


# What tools look for on any object.
PROBED = (
    "_repr_html_", "_ipython_display_", "_ipython_canary_method_should_not_exist_", "__wrapped__", "__array__",
    "__dict__", "__fspath__", "__html__", "__length_hint__", "__signature__", "_asdict", "__dataclass_fields__",
)  # fmt: skip


class Probed:
    """A stub or promise of a peer that must not be asked anything."""

    def __init__(self, kind: str) -> None:
        self._peer = Peer()
        self.handle: Any = {
            "stub": lambda: self._peer.main,
            "member": lambda: self._peer.main.member[0],
            "call": lambda: self._peer.main.method(1),
        }[kind]()
        self._peer.hear()

    def assert_unasked(self) -> None:
        assert self._peer.hear() == []


@pytest.fixture(params=["stub", "member", "call"])
def handle(request: pytest.FixtureRequest) -> Iterator[Any]:
    probed = Probed(request.param)
    yield probed.handle
    probed.assert_unasked()


@pytest.fixture(params=["member", "call"])
def promise(request: pytest.FixtureRequest) -> Iterator[Any]:
    probed = Probed(request.param)
    yield probed.handle
    probed.assert_unasked()


@pytest.fixture
def stub() -> Iterator[Any]:
    probed = Probed("stub")
    yield probed.handle
    probed.assert_unasked()


# What Python and its tools ask by themselves.


def test_tools_that_look_at_an_object_find_nothing_to_call(handle: Any) -> None:
    for name in PROBED:
        assert not hasattr(handle, name), name
    assert {"dup", "dispose", "map", "on_broken"} <= set(dir(handle))
    inspect.getmembers(handle)
    assert list(inspect.signature(handle).parameters) == ["arguments", "keywords"]
    assert inspect.unwrap(handle) is handle
    assert not inspect.iscoroutinefunction(handle)
    assert not inspect.isgenerator(handle)
    assert inspect.getdoc(handle)
    assert not hasattr(handle, "__wrapped__")
    pprint.pformat({"handle": [handle]})
    mock.create_autospec(handle)


def test_a_member_of_any_other_name_is_there_without_asking(handle: Any) -> None:
    assert isinstance(handle.anything, RpcPromise)
    assert hasattr(handle, "read")


def test_it_is_text_without_asking(handle: Any) -> None:
    assert f"{handle}" == str(handle) == repr(handle)
    assert f"{handle!r:>5}"
    assert f"{handle}".startswith(("<RpcStub: ", "<RpcPromise: "))
    with pytest.raises(TypeError, match="unsupported format string"):
        f"{handle:.2f}"


def test_it_is_what_it_is(handle: Any) -> None:
    promised = isinstance(handle, RpcPromise)
    assert isinstance(handle, collections.abc.Awaitable) == promised
    assert isinstance(handle, (collections.abc.Callable, collections.abc.Hashable))
    assert isinstance(handle, contextlib.AbstractContextManager)
    for other in (
        "Mapping",
        "Sequence",
        "Set",
        "Coroutine",
        "AsyncIterable",
        "AsyncIterator",
        "Iterator",
        "ByteString",
    ):
        assert not isinstance(handle, getattr(collections.abc, other)), other
    if not promised:
        assert not isinstance(handle, (collections.abc.Iterable, collections.abc.Sized, collections.abc.Container))


def test_it_equals_itself_and_is_a_key(handle: Any) -> None:
    assert handle == handle
    assert not (handle != handle)  # noqa: SIM202
    assert {handle: 1}[handle] == 1
    assert handle in [handle, 1]
    assert handle != object()
    assert handle is not None
    assert handle == mock.ANY
    assert handle == mock.ANY


def test_it_is_no_json(handle: Any) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps({"value": handle})


def test_it_is_no_pickle(handle: Any) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled: it is a reference over a connection"):
            pickle.dumps([handle], protocol)


@pytest.mark.parametrize("copied", [copy.copy, lambda handle: copy.deepcopy({"in": [handle]})["in"][0]])
def test_a_copy_is_a_second_reference(handle: Any, copied: Callable[[Any], Any]) -> None:
    second = copied(handle)
    assert type(second) is type(handle)
    assert second is not handle


def test_it_takes_no_members(handle: Any) -> None:
    with pytest.raises(AttributeError, match="cannot be assigned to"):
        handle.name = 1
    with pytest.raises(TypeError):
        handle["name"] = 1
    with pytest.raises(AttributeError):
        del handle.name


async def test_only_a_promise_can_be_awaited_and_neither_is_an_asynchronous_context_or_iterable(stub: Any) -> None:
    with pytest.raises(TypeError, match="can't be used in 'await' expression"):
        await stub
    for handle in (stub, stub.member):
        with pytest.raises(TypeError, match="asynchronous context manager"):
            async with handle:
                pass
        with pytest.raises(TypeError, match="__aiter__"):
            async for _ in handle:
                pass


def test_a_stub_is_true_and_has_no_value(stub: Any) -> None:
    assert stub
    for use in (len, iter, int, float, lambda it: it + 1, lambda it: it < 1, lambda it: 1 in it, operator.index):
        with pytest.raises(TypeError):
            use(stub)


BINARY = "add sub mul matmul truediv floordiv mod pow lshift rshift and_ xor or_ lt le gt ge".split()  # noqa: SIM905


@pytest.mark.parametrize(
    "use",
    [
        bool, len, list, iter, reversed, int, float, complex, operator.index, round, math.floor, math.ceil, math.trunc,
        abs, operator.neg, operator.pos, operator.invert, hex, bytes, sum, max, sorted,
        lambda promise: 1 in promise,
        lambda promise: not promise,
        lambda promise: [0][promise],
        lambda promise: divmod(promise, 2),
        lambda promise: divmod(2, promise),
        lambda promise: range(promise),
    ],
)  # fmt: skip
def test_the_value_of_a_promise_is_to_be_awaited(promise: Any, use: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"a promise has no value yet: await it first"):
        use(promise)


@pytest.mark.parametrize("name", BINARY)
def test_a_promise_cannot_be_calculated_with(promise: Any, name: str) -> None:
    operate = getattr(operator, name)
    for one, other in ((promise, 1), (1, promise)):
        with pytest.raises(TypeError, match="a promise has no value yet: await it first"):
            operate(one, other)


def test_comparing_a_promise_with_a_value_is_false_and_warned_of(promise: Any) -> None:
    with pytest.warns(RuntimeWarning, match="was compared with a value: await it first") as caught:
        assert promise != "text"
    assert caught[0].filename == __file__
    with pytest.warns(RuntimeWarning, match="await it first"):
        assert promise != 5
    assert promise != object()


# What it points at.


async def test_its_text_says_what_it_points_at() -> None:
    async with serve(Api, "127.0.0.1", 0) as server, connect(server.url) as main:
        url = server.url.rstrip("/")
        assert repr(main) == f"<RpcStub: the main object of {url}>"
        assert repr(main.user["name"][0]) == f"<RpcPromise: .user.name[0] of the main object of {url}>"
        promise = main.hello()
        assert repr(promise) == f"<RpcPromise: result 1 of {url}, not awaited>"
        assert repr(promise.length) == f"<RpcPromise: .length of result 1 of {url}, not awaited>"
        await promise
        assert repr(promise) == "<RpcPromise: the value 'Hello, World!'>"
        tree = main.tree()
        value = await tree
        assert repr(value["self"]) == f"<RpcStub: -1 of {url}>"
        refused = main.refuse()
        with pytest.raises(LookupError):
            await refused
        assert repr(refused) == "<RpcPromise: what failed with LookupError: no such thing>"
        value["self"].dispose()
        assert repr(value["self"]) == "<RpcStub: nothing: disposed>"
    assert "SessionClosed" in repr(main)


def test_the_text_of_what_is_here() -> None:
    api = Api()
    assert repr(RpcStub(api)) == f"<RpcStub: {api!r}>"
    assert repr(RpcStub([1, 2])) == "<RpcStub: the value [1, 2]>"
    assert len(repr(RpcStub(list(range(1000))))) < 100


async def test_the_text_of_what_is_awaited() -> None:
    peer = Peer()
    async with anyio.create_task_group() as tasks:
        promise = peer.main.hello()

        async def wait() -> None:
            await promise

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert repr(promise) == "<RpcPromise: result 1 of the test, pending>"
        peer.hear()
        peer.say("resolve", 1, "text")
    pending = RpcPromise(anyio.lowlevel.checkpoint())
    assert repr(pending) == "<RpcPromise: what is not there yet>"
    await pending


# Awaiting twice.


async def test_awaiting_in_several_tasks_gives_the_same_value_for_one_call() -> None:
    async with memory_pair(None, Api()) as (client, server):
        values: list[Any] = []
        promise = client.remote_main.tree()

        async def wait() -> None:
            values.append(await promise)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
        assert values[0] is values[1] is values[2] is await promise
        assert server.stats().exports == 2


async def test_awaiting_a_failed_promise_again_gives_the_same_error() -> None:
    async with memory_pair(None, Api()) as (client, _):
        errors: list[str] = []
        promise = client.remote_main.refuse()

        async def wait() -> None:
            with pytest.raises(LookupError) as caught:
                await promise
            errors.append(str(caught.value))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(wait)
        await wait()
        assert errors == ["no such thing"] * 3


# Disposing.


async def test_disposing_the_promise_of_a_member_leaves_the_whole_as_it_is() -> None:
    async with memory_pair(None, Api()) as (client, _):
        tree = client.remote_main.tree()
        name = tree.name
        assert await name == "root"
        name.dispose()
        name.dispose()
        with pytest.raises(Exception, match="this stub was disposed"):
            await name
        assert await tree.name == "root"
        with client.remote_main.title as title:
            assert await title == "the api"
        with pytest.raises(Exception, match="this stub was disposed"):
            await title
        assert await client.remote_main.hello() == "Hello, World!"


async def test_a_copy_outlives_the_original() -> None:
    async with memory_pair(None, Api()) as (client, server):
        stub = (await client.remote_main.tree())["self"]
        second = copy.copy(stub)
        assert second == stub
        stub.dispose()
        assert await second.hello() == "Hello, World!"
        promise = client.remote_main.hello("again")
        third = copy.deepcopy(promise)
        promise.dispose()
        assert await third == "Hello, again!"
        assert await copy.copy(second.title) == "the api"
        del second, third, stub, promise
        await anyio.wait_all_tasks_blocked()
        assert (client.stats().imports, server.stats().exports) == (1, 1)


# A forgotten await.


def forgotten(caught: list[warnings.WarningMessage]) -> list[str]:
    gc.collect()
    return [str(warning.message) for warning in caught if warning.category is RuntimeWarning]


def test_a_call_that_nothing_is_done_with_is_warned_of() -> None:
    peer = Peer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peer.main.users.save("Ada")
        line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    (text,) = forgotten(caught)
    assert text == (
        "the call users.save() was made, but nobody waits for its result, or its error: write `await` before it, or"
        " `.dispose()` behind it if neither matters"
    )
    assert (caught[0].filename, caught[0].lineno) == (__file__, line)
    assert [message[0] for message in peer.hear()] == ["push", "release"]


async def test_a_call_whose_promise_is_used_in_any_way_is_not_warned_of() -> None:
    async with memory_pair(None, Api()) as (client, _):
        main = client.remote_main
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await main.hello()  # awaited
            main.hello().dispose()  # disposed
            with main.hello():  # the same
                pass
            await main.tree().name  # pipelined on
            await main.hello(main.hello())  # passed
            kept = main.hello()  # kept until it was sent
            await anyio.wait_all_tasks_blocked()
            del kept
            main.title  # noqa: B018  # no call
            with anyio.move_on_after(0):
                await main.later()  # cancelled
            closing = main.hello()
            client.close()
            del closing
            with pytest.raises(SessionClosed):
                await main.hello()
        assert forgotten(caught) == []


def test_it_is_logged_where_warnings_are_errors(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "capnweb_py"):
        warnings.simplefilter("error")
        peer.main.save("Ada")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the call save() was made" in caplog.text


# Asynchronous properties.


class Lazy(RpcTarget):
    @property
    async def user(self) -> Any:
        await anyio.lowlevel.checkpoint()
        return {"name": "Ada", "api": Api()}

    @property
    async def broken(self) -> Any:
        await anyio.lowlevel.checkpoint()
        raise LookupError("nobody")

    @property
    async def function(self) -> Any:
        return lambda number: number + 1

    def itself(self) -> Lazy:
        return self

    @property
    async def endless(self) -> None:
        await anyio.sleep_forever()


async def use_asynchronous_properties(main: RpcStub) -> None:
    assert (await main.user)["name"] == "Ada"
    assert await main.user.name == "Ada"
    assert await main.user.api.hello() == "Hello, World!"
    assert await main.function(1) == 2
    assert (await main.itself().user)["name"] == "Ada"
    assert await main.itself().user.name == "Ada"
    for promise in (main.broken, main.broken.name, main.broken.method()):
        with pytest.raises(LookupError, match="nobody"):
            await promise


async def test_asynchronous_properties_are_awaited_where_they_are() -> None:
    async with memory_pair(None, Lazy()) as (client, server):
        await use_asynchronous_properties(client.remote_main)
        with anyio.move_on_after(0.01):
            await client.remote_main.endless  # the session's end cancels it
        assert server.deliveries.in_progress == 1
    assert server.deliveries.in_progress == 0


async def test_asynchronous_properties_on_this_side() -> None:
    await use_asynchronous_properties(RpcStub(Lazy()))
