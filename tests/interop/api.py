"""The main object that the Python server offers: api.mjs holds the same one, method for method, in JavaScript.

A World is what the sessions of one server share: who is connected, what was disposed of, what happened.
"""

from __future__ import annotations

import gc
import itertools
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import anyio

from capnweb_py import (
    ReadableStream,
    RemoteError,
    Response,
    RpcError,
    RpcPromise,
    RpcSession,
    RpcTarget,
    WritableStream,
    cancellable,
)
from capnweb_py.server import Server
from capnweb_py.stream_session import StreamServer

from .values import VALUES, WEB_VALUES, described, same


class World:
    """What the sessions of one server share."""

    def __init__(self) -> None:
        # The server, once it listens.
        self.server: Server | StreamServer | None = None
        self.mains: list[Api] = []
        self.kept: dict[str, Any] = {}
        self.disposals: Tally[str] = Tally()
        self._events: dict[str, tuple[anyio.Event, list[Any]]] = {}

    def new_main(self) -> Api:
        """The main object of one more session."""
        self.mains.append(Api(self, len(self.mains)))
        return self.mains[-1]

    def session_of(self, main: Api) -> RpcSession:
        """The session that offers a main object."""
        assert self.server is not None, "the server listens before a client can ask"
        return next(session for session in self.server.sessions if session.local_main is main)

    def happened(self, name: str, detail: object) -> None:
        """Note an event, the first of its name."""
        event, details = self._event(name)
        details.append(detail)
        event.set()

    async def occurred(self, name: str) -> Any:
        """Wait for the event, and return its detail."""
        event, details = self._event(name)
        await event.wait()
        return details[0]

    def _event(self, name: str) -> tuple[anyio.Event, list[Any]]:
        return self._events.setdefault(name, (anyio.Event(), []))


class Counter(RpcTarget):
    """Counts, and notes its end."""

    def __init__(self, world: World, name: str, start: int = 0) -> None:
        self._world = world
        self._name = name
        self._count = start

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
        self._world.disposals[self._name] += 1


class Journal(RpcTarget):
    """Writes down what arrives, in order; `linger` is asynchronous, but it begins when it is called."""

    def __init__(self) -> None:
        self._marks: list[int] = []

    def mark(self, tag: int) -> None:
        self._marks.append(tag)

    async def linger(self, tag: int) -> None:
        self._marks.append(tag)
        await anyio.lowlevel.checkpoint()

    def marks(self) -> list[int]:
        return list(self._marks)


class Guarded(RpcTarget):
    """A target whose end is an event."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    def dispose(self) -> None:
        self._world.happened(self._name, None)


class Vault(RpcTarget):
    """A target whose every member is off limits, but for one method."""

    def __init__(self) -> None:
        self.secret = "an instance attribute"

    def open(self) -> str:
        return "open"

    def _combination(self) -> str:
        return "0000"


class _Basin:
    """A sink that notes what becomes of it."""

    def __init__(self, world: World, name: str, kind: str | None) -> None:
        self._world = world
        self._name = name
        self._kind = kind
        self._chunks: list[Any] = []

    async def write(self, chunk: Any) -> None:
        if self._kind is not None and self._chunks:
            raise FAILURES[self._kind]()
        self._chunks.append(chunk)

    async def aclose(self) -> None:
        self._world.happened(self._name, {"chunks": self._chunks, "error": None})

    async def abort(self, error: BaseException) -> None:
        self._world.happened(self._name, {"chunks": self._chunks, "error": str(error)})


class OutOfCheese(Exception):
    """An error of an unknown name, with attributes."""

    def __init__(self, message: str, aisle: int) -> None:
        super().__init__(message)
        self.aisle = aisle
        self.tags = ["brie", {"ripe": True}]


class RangeError(Exception):
    """JavaScript's, by name."""


def _caused() -> Exception:
    error = RuntimeError("outer")
    error.__cause__ = TypeError("inner")
    return error


FAILURES: Final[dict[str, Callable[[], Exception]]] = {
    "type": lambda: TypeError("no such shape"),
    "range": lambda: RangeError("out of range"),
    "plain": lambda: RuntimeError("näh \U0001f600"),
    "custom": lambda: OutOfCheese("please reboot", 7),
    "cause": _caused,
    "aggregate": lambda: ExceptionGroup("several", [TypeError("one"), RangeError("two")]),
}


class Api(RpcTarget):
    """The main object of one session of a World."""

    def __init__(self, world: World, session_id: int) -> None:
        self._world = world
        self._id = session_id

    # What a test asks about the server itself.

    def id(self) -> int:
        return self._id

    def stats(self, session_id: int) -> dict[str, int]:
        """What a session holds at this moment. Cycles of garbage may hold stubs, so they go first."""
        gc.collect()
        stats = self._world.session_of(self._world.mains[session_id]).stats()
        return {"imports": stats.imports, "exports": stats.exports}

    def disposals(self, name: str) -> int:
        return self._world.disposals[name]

    async def occurred(self, name: str) -> Any:
        return await self._world.occurred(name)

    # Values.

    def echo(self, value: Any) -> Any:
        return value

    def value(self, name: str) -> Any:
        return VALUES[name]()

    def check(self, name: str, value: Any) -> bool:
        return same(value, VALUES[name]())

    def web_value(self, name: str) -> Any:
        return WEB_VALUES[name]()

    async def check_web_value(self, name: str, value: Any) -> Any:
        received, expected = await described(value), await described(WEB_VALUES[name]())
        return received == expected or received

    def broken_response(self) -> Response:
        """A response whose body fails after its first piece."""

        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise RangeError("out of paper")

        return Response(pieces())

    def endless_response(self, name: str) -> Response:
        """A response without an end. Notes under `name` that nobody reads on."""

        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(1000)
            finally:
                self._world.happened(name, None)

        return Response(pieces())

    def square(self, number: int) -> int:
        return number * number

    def add(self, left: int, right: int) -> int:
        return left + right

    def options(self, first: int, *, scale: int | None = None) -> list[int | None]:
        return [first, scale]

    @property
    def config(self) -> dict[str, Any]:
        return {"limits": {"depth": 3}, "list": [10, 20, {"deep": "x"}]}

    # Capabilities.

    def counter(self, name: str, start: int = 0) -> Counter:
        counter = Counter(self._world, name, start)
        self._last = counter
        return counter

    def owns(self, counter: object) -> bool:
        """Whether the argument is the counter that was made last."""
        return counter == self._last

    async def tardy(self, name: str) -> Counter:
        await anyio.lowlevel.checkpoint()
        return Counter(self._world, name)

    async def after(self, gate: Any, name: str) -> Counter:
        """A counter that is there when `gate` has returned."""
        await gate()
        return Counter(self._world, name)

    def journal(self) -> Journal:
        return Journal()

    async def late_journal(self) -> Journal:
        await anyio.lowlevel.checkpoint()
        return Journal()

    def vault(self) -> Vault:
        return Vault()

    def stepper(self, name: str, start: int) -> Callable[[int], int]:
        """A bound method: the function alone, which keeps its object alive."""
        return Counter(self._world, name, start).increment

    def guarded(self, name: str) -> Guarded:
        """A target that the caller holds, and whose end is noted as the event `name`."""
        return Guarded(self._world, name)

    def adder(self, left: int) -> Callable[[int], int]:
        return lambda right: left + right

    def bundle(self, name: str) -> dict[str, Any]:
        counters = [Counter(self._world, name, 1), Counter(self._world, name, 2)]
        return {"counters": counters, "deep": {"adder": self.adder(100)}}

    async def call(self, callback: Any, *arguments: Any) -> Any:
        return await callback(*arguments)

    async def each(self, callbacks: list[Any], value: Any) -> list[Any]:
        promises = [callback(value) for callback in callbacks]
        return [await promise for promise in promises]

    async def nested(self, holder: dict[str, Any]) -> list[Any]:
        inner = holder["inner"]
        target = inner["target"]
        return [await inner["callbacks"][0](3), await target.increment(4), await target.value]

    async def bump(self, counter: Any, by: int) -> int:
        result: int = await counter.increment(by)
        return result

    def eventually(self, left: int, right: int) -> dict[str, Any]:
        """A promise in a result is replaced by what it becomes before the caller sees it."""

        async def add() -> int:
            await anyio.lowlevel.checkpoint()
            return left + right

        return {"sum": RpcPromise(add()), "later": [RpcPromise(add())]}

    async def burst(self, listener: Any, count: int) -> None:
        promises = [listener(tag) for tag in range(count)]
        for promise in promises:
            await promise

    def handback(self, stub: Any) -> list[Any]:
        """In a list: npm capnweb mistakes a result that is nothing but the caller's own object for a promise."""
        return [stub]

    def keep(self, name: str, stub: Any) -> None:
        self._world.kept[name] = stub

    def kept(self, name: str) -> list[Any]:
        return [self._world.kept[name]]

    def drop(self, name: str) -> None:
        del self._world.kept[name]

    def watch(self, name: str) -> None:
        """Note under `name` how the kept stub `name` breaks."""
        self._world.kept[name].on_broken(lambda error: self._world.happened(name, str(error)))

    async def note(self, name: str, callback: Any) -> None:
        """Note under `name` how the call of `callback` fails."""
        try:
            await callback()
        except RemoteError as error:
            aisle = error.props.get("aisle")
            self._world.happened(name, {"name": error.name, "message": error.message, "aisle": aisle})
        except RpcError as error:
            self._world.happened(name, {"name": type(error).__name__, "message": str(error), "aisle": None})
            raise

    async def main(self, by: int) -> Any:
        """Call the main object of the peer."""
        return await self._world.session_of(self).remote_main.increment(by)

    async def forever(self, *held: Any) -> None:
        """Unfinished until the session ends; until then it holds its arguments."""
        await anyio.sleep_forever()

    @cancellable
    async def endless(self, name: str) -> None:
        """The same, until the result is released: noted under `name`."""
        try:
            await anyio.sleep_forever()
        finally:
            self._world.happened(name, "cancelled")

    # Streams.

    async def numbers(
        self, count: int | None, *, kind: str | None = None, name: str | None = None
    ) -> AsyncIterator[int]:
        """Numbers, without end where there is no count; then a failure. The event `name` is that it was cancelled."""
        numbers = itertools.count() if count is None else range(count)
        try:
            for number in numbers:
                yield number
        except BaseException:
            if name is not None:
                self._world.happened(name, None)
            raise
        if kind is not None:
            raise FAILURES[kind]()

    async def collect(self, stream: ReadableStream[Any]) -> list[Any]:
        return [chunk async for chunk in stream]

    async def first(self, stream: ReadableStream[Any], count: int) -> list[Any]:
        """The first `count` chunks; then it lets go of the stream."""
        chunks = aiter(stream)
        return [await anext(chunks) for _ in range(count)]

    async def measure(self, stream: ReadableStream[bytes]) -> list[int]:
        """How many bytes a stream has, and the sum of them."""
        length = total = 0
        async for chunk in stream:
            length += len(chunk)
            total += sum(chunk)
        return [length, total]

    async def pieces(self, count: int, size: int) -> AsyncIterator[bytes]:
        """`count` chunks of bytes."""
        for index in range(count):
            yield bytes([index]) * size

    async def fill(self, stream: WritableStream, chunks: list[Any]) -> None:
        async with stream:
            for chunk in chunks:
                await stream.write(chunk)

    async def give_up(self, stream: WritableStream, kind: str) -> None:
        await stream.write("a chunk")
        await stream.abort(FAILURES[kind]())

    def basin(self, name: str, *, kind: str | None = None) -> WritableStream:
        """A stream to be written. What becomes of it is the event `name`; with `kind`, the second write fails."""
        return WritableStream(_Basin(self._world, name, kind))

    async def counters(self, name: str, count: int) -> AsyncIterator[Counter]:
        """Counters as chunks."""
        for start in range(count):
            yield Counter(self._world, name, start)

    async def total(self, stream: ReadableStream[Any]) -> int:
        return sum([await counter.increment(1) async for counter in stream])

    # Errors.

    def fail(self, kind: str) -> None:
        raise FAILURES[kind]()

    async def fail_later(self, kind: str) -> None:
        await anyio.lowlevel.checkpoint()
        raise FAILURES[kind]()

    def failure(self, kind: str) -> Exception:
        return FAILURES[kind]()

    def unsendable(self) -> dict[str, Any]:
        return {"fine": Counter(self._world, "unsendable"), "wrong": [{1, 2}]}
