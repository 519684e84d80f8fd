"""Random use of a server's Api by a Python client: whatever is done, in whatever order, nothing may be left behind."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from capnweb_py import RpcStub, RpcTarget


class Tag(RpcTarget):
    """A target of this side."""

    def __init__(self, user: RandomUser) -> None:
        self._user = user
        user.tags_made += 1

    def increment(self, by: int = 1) -> int:
        return by

    def dispose(self) -> None:
        self._user.tags_disposed += 1


class RandomUser:
    """Does one random thing after another with the counters that it holds, some of them promises."""

    def __init__(self, api: RpcStub, other: RpcStub, name: str, seed: int) -> None:
        self._api = api
        self._other = other
        self._name = name
        self._random = random.Random(seed)
        self._held: list[RpcStub] = []
        # Promises that are awaited some time after the call.
        self._later: list[Awaitable[Any]] = []
        self.counters_made = 0
        self.tags_made = 0
        self.tags_disposed = 0

    async def use(self, steps: int) -> None:
        """Take so many steps, then let go of everything."""
        makers: list[Callable[[], Awaitable[None]]] = [self._make, self._make_and_await, self._make_slowly]
        others: list[Callable[[], Awaitable[None]]] = [
            self._dup,
            self._dispose,
            self._drop,
            self._call,
            self._call_later,
            self._call_and_forget,
            self._read,
            self._send_home,
            self._send_home_and_forget,
            self._send_elsewhere,
            self._pipeline,
            self._pass_target,
            self._pass_callback,
            self._get_target_back,
            self._fail,
            self._make_nested,
        ]
        for _ in range(steps):
            await self._random.choice(makers + others if self._held else makers)()
            if len(self._later) > 20:
                await self._catch_up()
        await self._catch_up()
        self._held.clear()

    async def _catch_up(self) -> None:
        while self._later:
            await self._later.pop()

    def _any(self) -> RpcStub:
        return self._random.choice(self._held)

    def _new_counter(self, method: str) -> Any:
        self.counters_made += 1
        return self._api[method](self._name)

    async def _make(self) -> None:
        self._held.append(self._new_counter("counter"))

    async def _make_and_await(self) -> None:
        self._held.append(await self._new_counter("counter"))

    async def _make_slowly(self) -> None:
        self._held.append(self._new_counter("tardy"))

    async def _make_nested(self) -> None:
        self.counters_made += 2
        bundle = self._api.bundle(self._name)
        self._later.append(bundle.deep.adder(1))
        self._held.append((await bundle)["counters"][0])

    async def _dup(self) -> None:
        self._held.append(self._any().dup())

    async def _dispose(self) -> None:
        self._held.pop(self._random.randrange(len(self._held))).dispose()

    async def _drop(self) -> None:
        self._held.pop(self._random.randrange(len(self._held)))

    async def _call(self) -> None:
        assert isinstance(await self._any().increment(), int)

    async def _call_later(self) -> None:
        self._later.append(self._any().dup().soon())

    async def _call_and_forget(self) -> None:
        self._any().increment()

    async def _read(self) -> None:
        assert isinstance(await self._any().value, int)

    async def _send_home(self) -> None:
        assert isinstance(await self._api.bump(self._any(), 1), int)

    async def _send_home_and_forget(self) -> None:
        self._api.bump(self._any(), 1)

    async def _send_elsewhere(self) -> None:
        self._later.append(self._other.bump(self._any().dup(), 1))

    async def _pipeline(self) -> None:
        self._later.append(self._api.add(self._any().increment(), self._any().soon()))

    async def _pass_target(self) -> None:
        self._later.append(self._api.bump(Tag(self), 3))

    async def _pass_callback(self) -> None:
        counter = self._any().dup()

        async def increment() -> Any:
            return await counter.increment()

        self._later.append(self._api.call(increment))

    async def _get_target_back(self) -> None:
        [tag] = await self._api.handback(Tag(self))
        assert await tag.increment(2) == 2

    async def _fail(self) -> None:
        with pytest.raises(TypeError, match="no such shape"):
            await self._api.fail("type").increment(self._any())
