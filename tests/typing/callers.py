"""What type checkers know of a peer's main object, right and wrong. Checked by test_typing.py, and never run.

A line that is to be an error ends in a comment with mypy's code for it; all others must be none.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol, assert_type

from capnweb_py import RpcPromise, RpcStub, RpcTarget, connect

URL = "ws://127.0.0.1:8000/"


class Counter(Protocol):
    async def increment(self, by: int = 1) -> int: ...

    @property
    def value(self) -> RpcPromise[int]: ...


class Pipelined(Counter, Awaitable[Counter], Protocol):
    """A counter that can be used before it is there."""


class Api(Protocol):
    async def hello(self, name: str, *, shout: bool = False) -> str: ...

    def make_counter(self) -> RpcPromise[Counter]: ...

    def find_counter(self, name: str) -> Pipelined: ...


class Target(RpcTarget):
    async def hello(self, name: str) -> str:
        return name

    def plain(self) -> int:
        return 1


async def without_main() -> None:
    async with connect(URL) as api:
        assert_type(api, RpcStub)
        assert_type(api.anything(1).member[0], RpcPromise)
        assert_type(await api.anything(1), Any)
    async with connect(URL, names="camel") as api:
        assert_type(api, RpcStub)


async def with_a_protocol() -> None:
    async with connect(URL, main=Api, codec="json") as api:
        assert_type(api, Api)
        assert_type(await api.hello("World", shout=True), str)
        await api.hello(5)  # error: arg-type
        await api.hello("World", loud=True)  # error: call-arg
        await api.hullo("World")  # error: attr-defined
        (await api.hello("World")).increment()  # error: attr-defined
        api.hello("World").upper()  # error: attr-defined


async def pipelining() -> None:
    async with connect(URL, main=Api) as api:
        counter = api.make_counter()
        assert_type(counter, RpcPromise[Counter])
        assert_type(await counter.increment(5), Any)
        assert_type(await counter, Counter)
        assert_type(await (await counter).increment(5), int)
        assert_type(await (await counter).value, int)
        await (await counter).decrement()  # error: attr-defined

        found = api.find_counter("a")
        assert_type(await found.increment(5), int)
        assert_type(await found.value, int)
        assert_type(await found, Counter)
        await found.increment("5")  # error: arg-type


async def with_a_target() -> None:
    async with connect(URL, main=Target) as api:
        assert_type(await api.hello("World"), str)
        await api.hello()  # error: call-arg
        await api.plain()  # error: misc
        api.dispose()  # error: attr-defined


async def promises(published: Awaitable[int]) -> None:
    assert_type(RpcPromise(published), RpcPromise[int])
    assert_type(await RpcPromise(published), int)
    plain: RpcPromise = RpcPromise(published)
    assert_type(await plain, Any)
    wide: RpcPromise[object] = RpcPromise(published)
    assert_type(await wide, object)
    narrow: RpcPromise[str] = RpcPromise(published)  # error: arg-type
    await narrow


async def wrong_settings() -> None:
    connect(URL, names="snake")  # error: call-overload
    connect(URL, main=5)  # error: call-overload
    connect(URL, mane=Api)  # error: call-overload
