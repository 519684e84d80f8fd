"""Streams between two sessions: what goes in comes out, whatever ends one end ends the other, and nothing is left."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from links import linked
from witnesses import NOTHING_HELD

from capnweb_py import (
    UNDEFINED,
    LimitExceeded,
    Limits,
    ReadableStream,
    RemoteError,
    RpcError,
    RpcPromise,
    RpcSession,
    RpcStub,
    RpcTarget,
    SessionClosed,
    SessionOptions,
    WritableStream,
    memory_pair,
    serialize,
)

pytestmark = pytest.mark.anyio


class Numbers:
    """A source that counts, and knows what became of it."""

    def __init__(self, count: int = 10**9, error: Exception | None = None) -> None:
        self.count = count
        self.error = error
        self.taken = 0
        self.closed = anyio.Event()

    async def chunks(self) -> AsyncIterator[int]:
        try:
            while self.taken < self.count:
                self.taken += 1
                yield self.taken - 1
            if self.error is not None:
                raise self.error
        finally:
            self.closed.set()

    async def slow(self, gate: anyio.Event) -> AsyncIterator[int]:
        """One number, and then nothing until the gate opens."""
        try:
            self.taken += 1
            yield 0
            await gate.wait()
        finally:
            self.closed.set()


class Sink:
    """An application's own sink, which knows what became of it."""

    def __init__(self, fail_at: str = "") -> None:
        self.chunks: list[Any] = []
        self.end: Any = None
        self.ended = anyio.Event()
        self._fail_at = fail_at

    async def write(self, chunk: Any) -> None:
        if self._fail_at == "write" and len(self.chunks) == 2:
            raise OutOfCheese("no room", 7)
        self.chunks.append(chunk)

    async def aclose(self) -> None:
        self._end("closed")
        if self._fail_at == "aclose":
            raise OutOfCheese("the end went wrong", 7)

    async def abort(self, error: BaseException) -> None:
        self._end(error)
        if self._fail_at == "abort":
            raise OutOfCheese("the abort went wrong", 7)

    def _end(self, end: Any) -> None:
        assert self.end is None, "a sink ends once"
        self.end = end
        self.ended.set()


class OutOfCheese(Exception):
    def __init__(self, message: str, aisle: int) -> None:
        super().__init__(message)
        self.aisle = aisle


class Part(RpcTarget):
    """A capability to be sent as a chunk."""

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self.gone = anyio.Event()

    def square(self, value: int) -> int:
        return value * value

    @property
    def number(self) -> int:
        return self._number

    def dispose(self) -> None:
        self.gone.set()


class Api(RpcTarget):
    def __init__(self) -> None:
        self.made: Any = None
        self.kept: list[Any] = []
        self.happened = anyio.Event()
        self.outcome: Any = None

    def give(self) -> Any:
        return self.made

    async def collect(self, stream: Any) -> list[Any]:
        return [chunk async for chunk in stream]

    async def first(self, stream: Any, count: int = 1) -> list[Any]:
        chunks = []
        async for chunk in stream:
            chunks.append(chunk)
            if len(chunks) == count:
                break
        return chunks

    async def fill(self, stream: Any, *chunks: Any) -> None:
        async with stream:
            for chunk in chunks:
                await stream.write(chunk)

    async def process(self, given: Any, output: Any) -> str:
        async with output:
            async for chunk in given:
                await output.write(f"processed: {chunk}")
        return "done"

    def echo(self, value: Any) -> Any:
        return value

    def keep(self, value: Any) -> None:
        self.kept.append(value)

    def ignore(self, *values: Any) -> None:
        pass

    def drop(self) -> None:
        self.kept.clear()

    async def write_to_kept(self, *chunks: Any) -> None:
        for chunk in chunks:
            await self.kept[0].write(chunk)

    async def note(self, stream: Any) -> None:
        """Read a stream that is not expected to end well."""
        chunks = []
        try:
            async for chunk in stream:
                chunks.append(chunk)
        except BaseException as error:
            self.outcome = error
            raise
        finally:
            self.kept = chunks
            self.happened.set()


async def settled(*sessions: RpcSession) -> None:
    """Wait until nothing runs any more, and check that nothing is held."""
    for _ in range(3):
        await anyio.wait_all_tasks_blocked()
    assert [session.stats() for session in sessions] == [NOTHING_HELD] * len(sessions)


@asynccontextmanager
async def connected(options: SessionOptions | None = None) -> AsyncIterator[tuple[Api, RpcStub]]:
    """An Api and the stub of it. At the end nothing may be held by either session; nothing is left to the collector."""
    api = Api()
    gc.disable()
    try:
        async with memory_pair(None, api, options=options) as (client, server):
            yield api, client.remote_main
            api.made = None
            api.kept.clear()
            await settled(client, server)
    finally:
        gc.enable()


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Api, RpcStub]]:
    """The same, with a session in between that serves the main stub of another."""
    api = Api()
    gc.disable()
    try:
        async with (
            memory_pair(None, api) as (middle, server),
            memory_pair(None, middle.remote_main) as (client, front),
        ):
            yield api, client.remote_main
            api.made = None
            api.kept.clear()
            await settled(client, front, middle, server)
    finally:
        gc.enable()


@pytest.fixture(params=[connected, relayed], ids=["direct", "relayed"])
def connection(request: pytest.FixtureRequest) -> Any:
    """Both: a relay is transparent."""
    return request.param


# What can be sent as a stream.


async def async_generator() -> AsyncIterator[str]:
    yield "a"
    yield "b"


def generator() -> Iterator[str]:
    yield "a"
    yield "b"


class OwnIterable:
    """An async iterable of one's own, with an iterator of its own."""

    async def __aiter__(self) -> AsyncIterator[str]:
        yield "a"
        yield "b"


def receive_stream() -> Any:
    send, receive = anyio.create_memory_object_stream[str](2)
    with send:
        send.send_nowait("a")
        send.send_nowait("b")
    return receive


SOURCES = {
    "async generator": async_generator,
    "generator": generator,
    "iterable of one's own": OwnIterable,
    "ReadableStream": lambda: ReadableStream(async_generator()),
    "anyio memory stream": receive_stream,
}


@pytest.mark.parametrize("source", SOURCES)
async def test_every_kind_of_source_can_be_an_argument_and_a_result(connection: Any, source: str) -> None:
    async with connection() as (api, main):
        assert await main.collect(SOURCES[source]()) == ["a", "b"]
        api.made = SOURCES[source]()
        stream = await main.give()
        assert isinstance(stream, ReadableStream)
        assert [chunk async for chunk in stream] == ["a", "b"]
        del stream


async def test_streams_travel_inside_values_and_callbacks(connection: Any) -> None:
    async with connection() as (api, main):
        api.made = {"streams": [async_generator(), generator()], "label": "two"}
        result = await main.give()
        assert result["label"] == "two"
        assert [[chunk async for chunk in stream] for stream in result["streams"]] == [["a", "b"], ["a", "b"]]
        del result

        async def collect(value: Any) -> list[Any]:
            return [chunk async for chunk in value["stream"]]

        await main.keep(collect)
        assert await api.kept[0]({"stream": async_generator()}) == ["a", "b"]


async def test_a_stream_travels_as_a_property_of_an_error(connection: Any) -> None:
    class Refusing(Api):
        def refuse(self) -> None:
            error = OutOfCheese("see the log", 1)
            error.log = async_generator()  # type: ignore[attr-defined]
            raise error

    async with memory_pair(None, Refusing()) as (client, server):
        with pytest.raises(RemoteError, match="see the log") as raised:
            await client.remote_main.refuse()
        assert [chunk async for chunk in raised.value.log] == ["a", "b"]
        del raised
        gc.collect()
        await settled(client, server)


async def test_a_stream_of_streams(connection: Any) -> None:
    async def outer() -> AsyncIterator[Any]:
        yield async_generator()
        yield async_generator()

    async with connection() as (api, main):
        api.made = outer()
        assert [[item async for item in inner] async for inner in await main.give()] == [["a", "b"], ["a", "b"]]


async def test_chunks_are_any_values() -> None:
    chunks = [{"name": "test", "value": 42}, [1, 2, 3], b"\x00\xff", None, 10**30, float("inf"), "ü", UNDEFINED, []]

    async def yields() -> AsyncIterator[Any]:
        for chunk in chunks:
            yield chunk

    async with connected() as (_, main):
        assert await main.collect(yields()) == chunks
        sink = Sink()
        await main.fill(WritableStream(sink), *chunks)
        assert (sink.chunks, sink.end) == (chunks, "closed")


async def test_many_chunks_keep_their_order(connection: Any) -> None:
    async with connection() as (_, main):
        assert await main.collect(Numbers(3000).chunks()) == list(range(3000))


async def test_an_empty_stream(connection: Any) -> None:
    async with connection() as (_, main):
        assert await main.collect(Numbers(0).chunks()) == []
        sink = Sink()
        await main.fill(WritableStream(sink))
        assert (sink.chunks, sink.end) == ([], "closed")


async def test_readable_and_writable_in_one_call(connection: Any) -> None:
    async with connection() as (_, main):
        sink = Sink()
        assert await main.process(async_generator(), WritableStream(sink)) == "done"
        assert (sink.chunks, sink.end) == (["processed: a", "processed: b"], "closed")


async def test_a_writable_can_be_a_result_and_sit_in_a_dict(connection: Any) -> None:
    async with connection() as (api, main):
        sink = Sink()
        api.made = {"stream": WritableStream(sink), "label": "test"}
        result = await main.give()
        async with result["stream"] as stream:
            await stream.write(f"{result['label']}: hello")
        assert (sink.chunks, sink.end) == (["test: hello"], "closed")
        del result, stream


async def test_a_writable_over_an_anyio_stream(connection: Any) -> None:
    async with connection() as (_, main):
        send, receive = anyio.create_memory_object_stream[Any](5)
        await main.fill(WritableStream(send), 1, 2)
        async with receive:
            assert [chunk async for chunk in receive] == [1, 2]


async def test_writes_need_not_wait_for_each_other() -> None:
    class Eager(Api):
        async def burst(self, stream: Any) -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(5):
                    tasks.start_soon(stream.write, number)
                    await anyio.lowlevel.checkpoint()
            await stream.aclose()

    async with memory_pair(None, Eager()) as (client, server):
        sink = Sink()
        await client.remote_main.burst(WritableStream(sink))
        assert (sink.chunks, sink.end) == ([0, 1, 2, 3, 4], "closed")
        await settled(client, server)


# Capabilities in chunks.


async def test_a_capability_in_a_chunk_lives_until_the_reader_lets_go(connection: Any) -> None:
    parts = [Part(number) for number in range(3)]

    async def yields() -> AsyncIterator[Part]:
        for part in parts:
            yield part

    async with connection() as (api, main):
        api.made = yields()
        seen = []
        async for chunk in await main.give():
            assert await chunk.square(5) == 25
            seen.append(await chunk.number)
            if len(seen) == 2:
                kept = chunk
        assert seen == [0, 1, 2]
        del chunk
        await parts[0].gone.wait()
        await parts[2].gone.wait()
        assert not parts[1].gone.is_set()
        assert await kept.square(3) == 9
        del kept
        await parts[1].gone.wait()


async def test_a_chunk_is_let_go_of_while_the_stream_goes_on(connection: Any) -> None:
    part, gate = Part(), anyio.Event()

    async def yields() -> AsyncIterator[Any]:
        yield {"part": part}
        await gate.wait()
        yield "last"

    async with connection() as (api, main):
        api.made = yields()
        chunks = aiter(await main.give())
        chunk = await anext(chunks)
        assert await chunk["part"].square(2) == 4
        del chunk
        await part.gone.wait()
        gate.set()
        assert [chunk async for chunk in chunks] == ["last"]
        del chunks


async def test_capabilities_in_unread_chunks_are_released_with_the_stream(connection: Any) -> None:
    parts = [Part(number) for number in range(3)]

    async def yields() -> AsyncIterator[Part]:
        for part in parts:
            yield part

    async with connection() as (_, main):
        (chunk,) = await main.first(yields())
        assert await chunk.number == 0
        del chunk
        for part in parts:
            await part.gone.wait()


async def test_a_promise_in_a_chunk_is_its_value_for_the_reader(connection: Any) -> None:
    async with connection() as (_, main):

        async def yields() -> AsyncIterator[Any]:
            yield [main.echo("early")]
            yield RpcPromise(later())

        async def later() -> str:
            return "late"

        assert await main.collect(yields()) == [["early"], "late"]


async def test_a_promise_in_a_chunk_that_fails_ends_the_stream() -> None:
    async def fails() -> None:
        raise OutOfCheese("never there", 3)

    async def yields() -> AsyncIterator[Any]:
        yield RpcPromise(fails())
        yield "unseen"

    async with connected() as (_, main):
        with pytest.raises(RemoteError, match="never there"):
            await main.collect(yields())


# Errors.


async def test_what_a_source_raises_reaches_the_reader(connection: Any) -> None:
    async with connection() as (api, main):
        source = Numbers(2, OutOfCheese("the source broke", 7))
        main.note(source.chunks())
        with pytest.raises(RemoteError, match="the source broke") as raised:
            await main.collect(Numbers(2, OutOfCheese("the source broke", 7)).chunks())
        assert (raised.value.name, raised.value.aisle) == ("OutOfCheese", 7)
        del raised
        await api.happened.wait()
        assert api.outcome.aisle == 7
        api.outcome = None
        assert source.closed.is_set()


async def test_what_a_sink_raises_reaches_the_writer(connection: Any) -> None:
    async with connection() as (_, main):
        sink = Sink(fail_at="write")
        with pytest.raises(RemoteError, match="no room") as raised:
            await main.fill(WritableStream(sink), *range(10))
        assert raised.value.aisle == 7
        del raised
        assert sink.chunks == [0, 1]
        assert isinstance(sink.end, OutOfCheese)


async def test_a_sink_that_fails_to_close_fails_the_closing(connection: Any) -> None:
    async with connection() as (_, main):
        sink = Sink(fail_at="aclose")
        with pytest.raises(RemoteError, match="the end went wrong"):
            await main.fill(WritableStream(sink), 1)
        assert sink.end == "closed"


async def test_a_sink_that_fails_to_abort_is_logged(connection: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Aborting(Api):
        async def give_up(self, stream: Any) -> None:
            await stream.write(1)
            await stream.abort(OutOfCheese("enough", 4))

    sink = Sink(fail_at="abort")
    async with memory_pair(None, Aborting()) as (client, server):
        with caplog.at_level(logging.ERROR, "capnweb_py"):
            await client.remote_main.give_up(WritableStream(sink))
            await sink.ended.wait()
            await settled(client, server)
    assert "the abort went wrong" in caplog.text
    assert isinstance(sink.end, RemoteError)
    assert sink.end.aisle == 4


@pytest.mark.parametrize("raised", [SystemExit(3), GeneratorExit()], ids=["exit", "generator exit"])
async def test_a_source_or_sink_cannot_end_the_program(raised: BaseException) -> None:
    class Ending(Sink):
        async def write(self, chunk: Any) -> None:
            raise raised

        async def abort(self, error: BaseException) -> None:
            self._end(error)
            raise raised

    def source() -> Iterator[int]:
        yield 1
        raise raised

    async with connected() as (_, main):
        with pytest.raises(RemoteError, match="ended with"):
            await main.collect(source())
        sink = Ending()
        with pytest.raises(RemoteError, match="ended with"):
            await main.fill(WritableStream(sink), 1, 2)
        await sink.ended.wait()


async def test_an_error_after_the_last_chunk_comes_after_it(connection: Any) -> None:
    async with connection() as (api, main):
        api.made = Numbers(3, ValueError("at the end")).chunks()
        chunks = []
        with pytest.raises(ValueError, match="at the end"):  # noqa: PT012
            async for chunk in await main.give():
                chunks.append(chunk)
        # As in JavaScript, an error overtakes what was written and not read.
        assert chunks == [0, 1, 2][: len(chunks)]


async def test_a_chunk_that_cannot_be_sent_ends_the_stream_with_the_reason(connection: Any) -> None:
    async def yields() -> AsyncIterator[Any]:
        yield 1
        yield {1, 2}

    async with connection() as (_, main):
        with pytest.raises(TypeError, match="set cannot be sent"):
            await main.collect(yields())


async def test_a_chunk_that_cannot_be_written_leaves_the_stream_as_it_was(connection: Any) -> None:
    class Careful(Api):
        async def try_set(self, stream: Any) -> str:
            async with stream:
                await stream.write(1)
                with pytest.raises(TypeError, match="set cannot be sent"):
                    await stream.write({1})
                await stream.write(2)
            return "fine"

    async with memory_pair(None, Careful()) as (client, server):
        sink = Sink()
        assert await client.remote_main.try_set(WritableStream(sink)) == "fine"
        assert (sink.chunks, sink.end) == ([1, 2], "closed")
        await settled(client, server)


async def test_a_block_that_fails_aborts_its_stream(connection: Any) -> None:
    class Failing(Api):
        async def fail_in_block(self, stream: Any) -> None:
            async with stream:
                await stream.write(1)
                raise OutOfCheese("in the block", 5)

    async with memory_pair(None, Failing()) as (client, server):
        sink = Sink()
        with pytest.raises(RemoteError, match="in the block"):
            await client.remote_main.fail_in_block(WritableStream(sink))
        await sink.ended.wait()
        assert (str(sink.end), sink.end.aisle) == ("in the block", 5)
        await settled(client, server)


async def test_nothing_is_written_after_the_end() -> None:
    async with connected() as (api, main):
        sink = Sink()
        await main.keep(WritableStream(sink))
        stream = api.kept[0]
        async with stream:
            await stream.write(1)
            await stream.aclose()
            await stream.aclose()
            await stream.abort()
            with pytest.raises(RpcError, match="the stream was closed"):
                await stream.write(2)
        with pytest.raises(TypeError, match="the WritableStream was closed"):
            await main.ignore(stream)
        assert (sink.chunks, sink.end) == ([1], "closed")
        del stream


async def test_an_abort_without_a_reason() -> None:
    async with connected() as (api, main):
        sink = Sink()
        await main.keep(WritableStream(sink))
        await api.kept[0].abort()
        await sink.ended.wait()
        assert str(sink.end) == "the stream was aborted"
        with pytest.raises(RpcError):
            await api.kept[0].write(1)


# Letting go.


async def test_a_loop_that_is_left_cancels_the_source(connection: Any) -> None:
    async with connection() as (_, main):
        source = Numbers()
        assert await main.first(source.chunks(), 3) == [0, 1, 2]
        await source.closed.wait()


async def test_a_loop_that_is_left_cancels_the_source_of_a_stream_that_is_still_there(connection: Any) -> None:
    async with connection() as (api, main):
        source = Numbers()
        api.made = source.chunks()
        stream = await main.give()
        async for chunk in stream:
            if chunk == 2:
                break
        await source.closed.wait()
        with pytest.raises(RuntimeError, match="already being read"):
            aiter(stream)
        del stream


async def test_closing_a_stream_cancels_its_source(connection: Any) -> None:
    async with connection() as (api, main):
        for begun in (False, True):
            source = Numbers()
            api.made = source.chunks()
            stream = await main.give()
            if begun:
                chunks = aiter(stream)
                assert await anext(chunks) == 0
            await stream.aclose()
            await source.closed.wait()
        with pytest.raises(RpcError, match="let go of"):
            await anext(chunks)
        del stream, chunks


async def test_a_stream_that_is_lost_cancels_its_source(connection: Any) -> None:
    async with connection() as (api, main):
        source = Numbers()
        api.made = source.chunks()
        await main.give()
        await source.closed.wait()
        ignored = Numbers()
        await main.ignore(ignored.chunks())
        await ignored.closed.wait()


async def test_a_source_that_waits_is_cancelled_with_its_next_write() -> None:
    async with connected() as (api, main):
        source, gate = Numbers(), anyio.Event()
        api.made = source.slow(gate)
        await main.give()
        # It has written one chunk, which was refused, and would wait for ever.
        await source.closed.wait()
        assert not gate.is_set()


async def test_a_writable_that_is_lost_is_aborted(connection: Any) -> None:
    async with connection() as (api, main):
        sink = Sink()
        await main.keep(WritableStream(sink))
        await api.kept[0].write("data")
        api.drop()
        await sink.ended.wait()
        assert sink.chunks == ["data"]
        assert "let go of the stream" in str(sink.end)


async def test_arguments_of_a_call_that_is_rejected_are_closed(connection: Any) -> None:
    async with connection() as (_, main):
        source, sink = Numbers(), Sink()
        with pytest.raises(TypeError):
            await main.missing(source.chunks(), WritableStream(sink))
        await source.closed.wait()
        await sink.ended.wait()


class Closing:
    """An async iterable that knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = anyio.Event()

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        raise AssertionError("it is not to be read")

    async def aclose(self) -> None:
        self.closed.set()


async def test_a_result_that_nobody_pulled_is_closed() -> None:
    async with connected() as (api, main):
        source, other, sink = Closing(), Closing(), Sink()
        api.made = {"a": [source], "b": ReadableStream(other), "c": WritableStream(sink)}
        promise = main.give()
        await main.echo(1)
        del promise
        await source.closed.wait()
        await other.closed.wait()
        await sink.ended.wait()


async def test_a_result_that_cannot_be_sent_is_closed() -> None:
    async with connected() as (api, main):
        source, sink = Closing(), Sink()
        api.made = [source, WritableStream(sink), {1}]
        with pytest.raises(TypeError, match="set cannot be sent"):
            await main.give()
        api.made = None
        await source.closed.wait()
        await sink.ended.wait()


async def test_a_call_that_cannot_be_sent_gives_its_streams_back_unread() -> None:
    async with connected() as (_, main):
        given, made, sink = ReadableStream(async_generator()), async_generator(), Sink()
        writable, plain = WritableStream(sink), generator()
        with pytest.raises(TypeError, match="set cannot be sent"):
            main.ignore([given, made, plain, writable], {1})
        assert not given.locked
        assert not writable.locked
        assert [await main.collect(source) for source in (given, made, plain)] == [["a", "b"]] * 3
        await main.fill(writable, 1)
        assert (sink.chunks, sink.end) == ([1], "closed")


async def test_a_call_that_cannot_be_sent_gives_a_peers_streams_back() -> None:
    async with connected() as (api, main):
        sink = Sink()
        await main.keep(WritableStream(sink))
        await main.keep(async_generator())
        writable, readable = api.kept
        for _ in range(2):
            with pytest.raises(TypeError, match="set cannot be sent"):
                main.ignore(writable, readable, {1})
        await writable.write(1)
        await writable.aclose()
        assert (sink.chunks, sink.end) == ([1], "closed")
        assert [chunk async for chunk in readable] == ["a", "b"]
        del writable, readable


async def test_a_limit_gives_a_writable_back() -> None:
    async with connected(SessionOptions(limits=Limits(max_exports=2, max_imports=2))) as (_, main):
        writable = WritableStream(Sink())
        with pytest.raises(LimitExceeded):
            main.ignore(RpcStub(lambda: None), writable)
        assert not writable.locked


@pytest.mark.parametrize("source", ["async generator", "generator", "ReadableStream"])
async def test_a_stream_is_sent_once(source: str) -> None:
    async with connected() as (_, main):
        stream = SOURCES[source]()
        with pytest.raises(TypeError, match=r"sent before|only an unread one"):
            main.ignore(stream, [stream])
        assert await main.collect(stream) == ["a", "b"]
        with pytest.raises(TypeError, match=r"sent before|only an unread one"):
            main.collect(stream)


async def test_a_stream_that_is_being_read_cannot_be_sent() -> None:
    async with connected() as (_, main):
        stream = ReadableStream(async_generator())
        assert await anext(aiter(stream)) == "a"
        with pytest.raises(TypeError, match="only an unread one can be sent"):
            main.collect(stream)
        await stream.aclose()


async def test_a_writable_is_sent_once_and_not_written_after() -> None:
    async with connected() as (_, main):
        sink = Sink()
        stream = WritableStream(sink)
        async with stream:
            promise = main.fill(stream, 1)
            with pytest.raises(TypeError, match="given away before"):
                main.fill(stream, 2)
            with pytest.raises(RpcError, match="was given away"):
                await stream.write(3)
        await promise
        assert (sink.chunks, sink.end) == ([1], "closed")


def test_a_stream_needs_a_session() -> None:
    for stream in (async_generator(), WritableStream(Sink())):
        with pytest.raises(TypeError, match="a stream needs a session to be sent"):
            serialize(stream)


def test_a_sink_has_a_method_to_write() -> None:
    with pytest.raises(TypeError, match=r"an async write\(\) or send\(\)"):
        WritableStream([])


# Reading.


async def test_two_readers_at_once_get_a_clear_error() -> None:
    async with connected() as (api, main):
        gate = anyio.Event()
        api.made = Numbers().slow(gate)
        stream = await main.give()
        chunks = aiter(stream)
        with pytest.raises(RuntimeError, match="already being read"):
            aiter(stream)
        assert await anext(chunks) == 0
        async with anyio.create_task_group() as tasks:

            async def wait(chunks: AsyncIterator[int]) -> None:
                with pytest.raises(StopAsyncIteration):
                    await anext(chunks)

            tasks.start_soon(wait, chunks)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match="read by another task"):
                await anext(chunks)
            gate.set()
        del stream, chunks


async def test_a_cancelled_read_loses_no_chunk(connection: Any) -> None:
    gates = [anyio.Event() for _ in range(5)]

    async def yields() -> AsyncIterator[int]:
        for number, gate in enumerate(gates):
            await gate.wait()
            yield number

    async with connection() as (api, main):
        api.made = yields()
        chunks = aiter(await main.give())
        for number, gate in enumerate(gates):
            async with anyio.create_task_group() as tasks:

                async def read(chunks: AsyncIterator[int]) -> None:
                    await anext(chunks)
                    raise AssertionError("it was cancelled before there was a chunk")

                tasks.start_soon(read, chunks)
                await anyio.wait_all_tasks_blocked()
                gate.set()
                tasks.cancel_scope.cancel()
            assert await anext(chunks) == number
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
        del chunks


async def test_polling_an_idle_stream_leaves_nothing_behind() -> None:
    async with connected() as (api, main):
        gate = anyio.Event()
        api.made = Numbers().slow(gate)
        chunks = aiter(await main.give())
        await anext(chunks)

        async def poll(chunks: AsyncIterator[int]) -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(chunks)

        for _ in range(10):
            await poll(chunks)
        before = len(gc.get_objects())
        for _ in range(200):
            await poll(chunks)
        assert len(gc.get_objects()) < before + 100
        gate.set()
        del chunks


async def test_a_cancelled_write_has_written_its_chunk() -> None:
    async with linked(Api()) as link:
        sink = Sink()
        link.client.remote_main.keep(WritableStream(sink))
        await link.run()
        stream = link.server.local_main.kept[0]

        async def write_large() -> None:
            with anyio.CancelScope() as scope:
                link.spawn(cancel_soon)
                scopes.append(scope)
                await stream.write(bytes(400_000))
            assert scope.cancelled_caught
            await stream.write("after")
            await stream.aclose()

        async def cancel_soon() -> None:
            scopes[0].cancel()

        scopes: list[anyio.CancelScope] = []
        link.spawn(write_large)
        await link.run()
        assert sink.chunks == [bytes(400_000), "after"]
        assert sink.end == "closed"


# Backpressure.


async def test_a_source_is_read_no_faster_than_the_reader_reads(connection: Any) -> None:
    chunk = bytes(50_000)

    async def yields() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield chunk

    taken = 0
    async with connection() as (api, main):
        api.made = yields()
        stream = await main.give()
        await anyio.wait_all_tasks_blocked()
        # A window of 256 KiB on each session that it passes.
        assert 3 <= taken <= 12
        before = taken
        chunks = aiter(stream)
        for _ in range(4):
            await anext(chunks)
        await anyio.wait_all_tasks_blocked()
        # The window may double while the link is explored.
        assert before < taken <= 3 * before
        del stream, chunks


async def test_a_blocked_write_fails_with_what_an_earlier_one_failed_with() -> None:
    gate = anyio.Event()

    class Gated(Sink):
        async def write(self, chunk: Any) -> None:
            await gate.wait()
            raise OutOfCheese("simulated", 1)

    async with connected() as (api, main):
        await main.keep(WritableStream(Gated()))
        stream = api.kept[0]
        async with anyio.create_task_group() as tasks:

            async def write(stream: WritableStream) -> None:
                with pytest.raises(RemoteError, match="simulated"):  # noqa: PT012
                    for _ in range(20):
                        await stream.write("x" * 100_000)

            tasks.start_soon(write, stream)
            await anyio.wait_all_tasks_blocked()
            gate.set()
        del stream


async def test_writes_are_stream_messages() -> None:
    async with linked(Api()) as link:
        sink = Sink()
        link.client.remote_main.fill(WritableStream(sink), "a", "b")
        await link.run()
        assert (sink.chunks, sink.end) == (["a", "b"], "closed")
        kinds = [data.split(b'"')[1] for data in link.to_client]
        # write, write, close, and the release of the stream.
        assert kinds.count(b"stream") == 3
        assert b"push" not in kinds


# The end of a session.


async def test_a_lost_connection_ends_both_ends_of_a_readable() -> None:
    api = Api()
    async with memory_pair(None, api) as (client, server):
        gate, source = anyio.Event(), Numbers()
        promise = client.remote_main.note(source.slow(gate))
        await anyio.wait_all_tasks_blocked()
        cause = OSError("the cable was cut")
        server.connection_lost(cause)
        await api.happened.wait()
        await source.closed.wait()
        assert isinstance(api.outcome, SessionClosed)
        assert api.outcome.__cause__ is cause
        assert api.kept == [0]
        with pytest.raises(SessionClosed):
            await promise


async def test_a_lost_connection_ends_both_ends_of_a_writable() -> None:
    api = Api()
    async with memory_pair(None, api) as (client, server):
        sink = Sink()
        await client.remote_main.keep(WritableStream(sink))
        await api.kept[0].write(1)
        cause = OSError("the cable was cut")
        client.connection_lost(cause)
        server.connection_lost(None)
        await sink.ended.wait()
        assert isinstance(sink.end, SessionClosed)
        assert sink.end.__cause__ is cause
        for step in (api.kept[0].write(2), api.kept[0].aclose()):
            with pytest.raises(SessionClosed):
                await step


async def test_what_was_closed_before_the_end_can_still_be_read() -> None:
    api = Api()
    async with memory_pair(None, api) as (client, server):
        await client.remote_main.keep(async_generator())
        await anyio.wait_all_tasks_blocked()
        server.connection_lost(None)
        assert [chunk async for chunk in api.kept[0]] == ["a", "b"]


async def test_a_blocked_writer_learns_of_the_end() -> None:
    async with memory_pair(None, Api()) as (client, server):
        source = Numbers()
        await client.remote_main.keep(source.chunks())
        await anyio.wait_all_tasks_blocked()
        assert source.taken > 1000
        client.close()
        await source.closed.wait()
        assert server is not None


async def test_streams_of_a_call_that_is_never_delivered_are_closed() -> None:
    async with memory_pair(None, Api()) as (client, _):
        source, sink = Closing(), Sink()
        promise = client.remote_main.ignore(source, WritableStream(sink))
        client.close()
        await source.closed.wait()
        await sink.ended.wait()
        assert isinstance(sink.end, SessionClosed)
        with pytest.raises(SessionClosed):
            await promise


async def test_a_sink_that_is_busy_is_aborted_at_the_end_of_the_session() -> None:
    begun = anyio.Event()

    class Busy(Sink):
        async def write(self, chunk: Any) -> None:
            begun.set()
            await anyio.sleep_forever()

    sink, api = Busy(), Api()
    async with memory_pair(None, api) as (client, _):
        await client.remote_main.keep(WritableStream(sink))
        await api.kept[0].write(1)
        await begun.wait()
    assert isinstance(sink.end, RpcError)


async def test_a_relayed_writable_is_aborted_when_either_connection_is_lost() -> None:
    for lost in (0, 1):
        api, sink = Api(), Sink()
        async with (
            memory_pair(None, api) as (middle, server),
            memory_pair(None, middle.remote_main) as (client, front),
        ):
            await client.remote_main.keep(WritableStream(sink))
            await api.kept[0].write(1)
            while not sink.chunks:
                await anyio.wait_all_tasks_blocked()
            (middle, front)[lost].close()
            await sink.ended.wait()
            assert sink.chunks == [1]
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RpcError):  # noqa: PT012
                for _ in range(3):
                    await api.kept[0].write(2)
                    await anyio.wait_all_tasks_blocked()
            assert server is not None


async def test_a_relayed_readable_is_closed_when_either_connection_is_lost() -> None:
    async def two(gate: anyio.Event, closed: anyio.Event) -> AsyncIterator[int]:
        try:
            yield 0
            await gate.wait()
            yield 1
            await anyio.sleep_forever()
        finally:
            closed.set()

    for lost in (0, 1):
        api, gate, closed = Api(), anyio.Event(), anyio.Event()
        async with (
            memory_pair(None, api) as (middle, _),
            memory_pair(None, middle.remote_main) as (client, front),
        ):
            promise = client.remote_main.note(two(gate, closed))
            await anyio.wait_all_tasks_blocked()
            (middle, front)[lost].close()
            await anyio.wait_all_tasks_blocked()
            gate.set()  # what is lost behind the relay is learned from the next write
            await closed.wait()
            await api.happened.wait()
            assert api.kept == [0]
            with pytest.raises(RpcError):
                await promise


# Local use: no session in between.


async def test_a_stream_passes_through_a_local_call() -> None:
    stub = RpcStub(Api())
    assert await stub.collect(async_generator()) == ["a", "b"]
    sink = Sink()
    await stub.fill(WritableStream(sink), 1, 2)
    assert (sink.chunks, sink.end) == ([1, 2], "closed")


async def test_a_call_that_waits_for_a_promise_keeps_its_streams(connection: Any) -> None:
    async with connection() as (api, main):
        api.made = api
        same = main.give()
        assert await same.collect(async_generator()) == ["a", "b"]
        sink = Sink()
        await same.fill(WritableStream(sink), 1)
        assert sink.chunks == [1]
        del same
