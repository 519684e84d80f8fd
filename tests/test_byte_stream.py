"""Sessions over byte streams: TCP, Unix sockets, TLS and memory, in both framings, with peers of every kind."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from anyio.abc import AnyByteStream, ByteStream, Listener, SocketAttribute
from anyio.streams.stapled import StapledObjectStream
from anyio.streams.tls import TLSListener, TLSStream

from capnweb_py import (
    LimitExceeded,
    Limits,
    ProtocolError,
    RpcTarget,
    SessionClosed,
    SessionOptions,
    open_stream_session,
    serve_streams,
)
from capnweb_py.transports import driver as driver_module
from capnweb_py.transports.framing import FramingName, LengthFraming

pytestmark = pytest.mark.anyio

WAYS: list[tuple[str, FramingName]] = [("json", "length"), ("cbor", "length"), ("json", "newline")]


class Api(RpcTarget):
    def __init__(self) -> None:
        self.started = anyio.Event()
        self.cancelled = anyio.Event()

    def echo(self, value: Any) -> Any:
        return value

    async def call(self, function: Any) -> Any:
        return await function("called back")

    async def wait(self) -> None:
        self.started.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()


def memory_streams(capacity: float = 0) -> tuple[AnyByteStream, AnyByteStream]:
    """Two ends of a byte stream, without a socket. Each write waits until it is read, but for `capacity` of them."""
    to_b, from_a = anyio.create_memory_object_stream[bytes](capacity)
    to_a, from_b = anyio.create_memory_object_stream[bytes](capacity)
    return StapledObjectStream(to_b, from_b), StapledObjectStream(to_a, from_a)


class OneByteAtATime(ByteStream):
    """A stream that reads as little as can be."""

    def __init__(self, inner: ByteStream) -> None:
        self._inner = inner

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._inner.receive(1)

    async def send(self, item: bytes) -> None:
        await self._inner.send(item)

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def raw_peer(
    options: SessionOptions | None = None, framing: FramingName = "length"
) -> AsyncIterator[tuple[Api, Any, AnyByteStream]]:
    """An Api served over TCP, its session, and the client's end of the connection as bare bytes."""
    api = Api()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with (
        serve_streams(listener, api, options=options, framing=framing) as server,
        await connect_tcp(listener) as stream,
    ):
        while not server.sessions:
            await anyio.lowlevel.checkpoint()
        (session,) = server.sessions
        yield api, session, stream


async def connect_tcp(listener: Listener[Any]) -> ByteStream:
    return await anyio.connect_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port))


async def read_all(stream: AnyByteStream) -> bytes:
    return b"".join([part async for part in stream])


def framed(*texts: str) -> bytes:
    return LengthFraming(0).write([(text.encode(), False) for text in texts])


# ---- every kind of stream


async def check_session(stream: AnyByteStream, codec: str, framing: FramingName) -> None:
    async with open_stream_session(stream, codec=codec, framing=framing) as session:
        api = session.remote_main
        big = "line\nbreak" * 100_000
        assert await api.echo(["text", b"\x00\n\xff", 1.5, big]) == ["text", b"\x00\n\xff", 1.5, big]
        assert await api.call(lambda text: text.upper()) == "CALLED BACK"
        calls = [api.echo(index) for index in range(100)]
        assert [await call for call in calls] == [*range(100)]


@pytest.mark.parametrize(("codec", "framing"), WAYS)
async def test_a_session_over_tcp(codec: str, framing: FramingName) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with serve_streams(listener, Api, codec=codec, framing=framing) as server:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(check_session, await connect_tcp(listener), codec, framing)
        while server.sessions:
            await anyio.lowlevel.checkpoint()


async def test_a_session_over_a_unix_socket(tmp_path: Path) -> None:
    listener = await anyio.create_unix_listener(tmp_path / "socket")
    async with serve_streams(listener, Api):
        await check_session(await anyio.connect_unix(tmp_path / "socket"), "json", "length")


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Those of a server on 127.0.0.1, and of a client that trusts it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("standard_compatible", [True, False])
async def test_a_session_over_tls(standard_compatible: bool, caplog: pytest.LogCaptureFixture) -> None:
    server_context, client_context = tls_contexts()
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with serve_streams(TLSListener(plain, server_context, standard_compatible), Api, codec="cbor") as server:
        # Who does not get through the handshake harms nobody else.
        stranger = await connect_tcp(plain)
        await stranger.send(b"no TLS at all")
        await read_all(stranger)
        await stranger.aclose()
        stream = await TLSStream.wrap(
            await connect_tcp(plain),
            hostname="127.0.0.1",
            ssl_context=client_context,
            standard_compatible=standard_compatible,
        )
        await check_session(stream, "cbor", "length")
        while server.sessions:
            await anyio.lowlevel.checkpoint()
    assert "could not be served" not in caplog.text


@pytest.mark.parametrize(("codec", "framing"), WAYS)
async def test_a_session_over_memory(codec: str, framing: FramingName) -> None:
    one, other = memory_streams()
    async with open_stream_session(one, local_main=Api(), codec=codec, framing=framing):
        await check_session(other, codec, framing)


async def test_a_stream_that_gives_one_byte_at_a_time() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with (
        serve_streams(listener, Api),
        open_stream_session(OneByteAtATime(await connect_tcp(listener))) as session,
    ):
        assert await session.remote_main.echo(["a", {"b": 1}]) == ["a", {"b": 1}]


async def test_both_sides_have_a_main_object_and_a_name() -> None:
    one, other = memory_streams()
    async with (
        open_stream_session(one, local_main=Api(), name="the other") as a,
        open_stream_session(other, local_main=Api()) as b,
    ):
        assert await a.remote_main.echo(1) == 1
        assert await b.remote_main.echo(2) == 2
        assert repr(a) == "<RpcSession the other>"
        assert repr(b) == "<RpcSession a byte stream>"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"codec": "cbor", "framing": "newline"}, "carries JSON text alone"),
        ({"codec": "xml"}, "unknown codec 'xml'"),
        ({"framing": "lines"}, "unknown framing 'lines'"),
    ],
)
async def test_what_does_not_go_together_is_refused_at_once(arguments: dict[str, Any], problem: str) -> None:
    one, other = memory_streams(1)
    with pytest.raises(ValueError, match=problem):
        async with open_stream_session(one, **arguments):
            pass
    await one.send(b"still open")
    assert await other.receive() == b"still open"
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        with pytest.raises(ValueError, match=problem):
            async with serve_streams(listener, Api, **arguments):
                pass
    await one.aclose()
    await other.aclose()


# ---- ends


async def test_the_end_of_the_context_sends_what_was_called() -> None:
    heard = anyio.Event()

    class Listening(RpcTarget):
        def say(self, word: str) -> None:
            assert word == "bye"
            heard.set()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with serve_streams(listener, Listening):
        async with open_stream_session(await connect_tcp(listener)) as session:
            session.remote_main.say("bye")
        await heard.wait()


async def test_the_end_of_one_side_is_that_of_the_other() -> None:
    one, other = memory_streams()
    api = Api()
    async with open_stream_session(one, local_main=api) as server:
        async with open_stream_session(other) as client:
            pending = client.remote_main.wait()
            pending.on_broken(lambda error: None)
            await api.started.wait()
            server.close()
            await client.wait_closed()
            with pytest.raises(SessionClosed, match=r"the peer closed the stream$"):
                await pending
        await api.cancelled.wait()
        await server.wait_closed()


async def test_a_lost_client_ends_the_calls_that_it_made() -> None:
    async with raw_peer() as (api, session, stream):
        await stream.send(framed('["push",["pipeline",0,["wait"],[]]]'))
        await api.started.wait()
        await stream.aclose()
        await session.wait_closed()
        await api.cancelled.wait()


async def test_what_was_answered_when_a_peer_half_closes_is_sent() -> None:
    async with raw_peer() as (_, session, stream):
        await stream.send(framed(*(f'["stream",["pipeline",0,["echo"],[{index}]]]' for index in range(3))))
        await stream.send_eof()
        assert await read_all(stream) == framed(*(f'["resolve",{index + 1},{index}]' for index in range(3)))
        await session.wait_closed()
        assert str(session.end) == "the peer closed the stream"


@pytest.mark.parametrize(
    ("framing", "data"), [("length", b"\1\0"), ("length", b"\1\0\0\0\4[1,"), ("newline", b'["push",1]')]
)
async def test_a_stream_that_ends_inside_a_message(framing: FramingName, data: bytes) -> None:
    async with raw_peer(framing=framing) as (_, session, stream):
        await stream.send(data)
        await stream.send_eof()
        await session.wait_closed()
        assert isinstance(session.end, SessionClosed)
        assert str(session.end) == "the peer closed the stream in the middle of a message"
        assert await read_all(stream) == b""


async def test_a_connection_that_breaks_fails_what_is_pending() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    accepted: list[Any] = []

    async def cut(stream: Any) -> None:
        await stream.receive()
        # Closing with a byte unread, at once: the peer gets a reset.
        stream.extra(SocketAttribute.raw_socket).setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()
        accepted.append(stream)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, cut)
        async with open_stream_session(await connect_tcp(listener)) as session:
            with pytest.raises(SessionClosed, match=r"the connection was lost|the peer closed the stream"):
                await session.remote_main.hello("x" * 1000)
        assert accepted
        tasks.cancel_scope.cancel()


async def test_the_end_of_the_server_closes_every_session() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    api = Api()
    ends: list[BaseException | None] = []

    async def call() -> None:
        async with open_stream_session(await connect_tcp(listener)) as session:
            with pytest.raises(SessionClosed):
                await session.remote_main.wait()
            ends.append(session.end)

    async with anyio.create_task_group() as tasks:
        async with serve_streams(listener, api):
            tasks.start_soon(call)
            await api.started.wait()
        assert api.cancelled.is_set()
    assert [str(end) for end in ends] == ["the peer closed the stream"]
    with pytest.raises(OSError):  # noqa: PT011  (which one, the system decides)
        await connect_tcp(listener)


async def test_a_main_object_that_cannot_be_made_costs_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    made: list[Api] = []

    def make() -> Api:
        made.append(Api())
        if len(made) == 1:
            raise RuntimeError("not yet")
        return made[-1]

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with serve_streams(listener, make):
        with caplog.at_level(logging.ERROR):
            async with open_stream_session(await connect_tcp(listener)) as session:
                await session.wait_closed()
        assert "a byte stream could not be served" in caplog.text
        async with open_stream_session(await connect_tcp(listener)) as session:
            assert await session.remote_main.echo(1) == 1


async def test_an_instance_is_disposed_when_the_server_ends() -> None:
    disposed = anyio.Event()

    class Owned(RpcTarget):
        def hello(self) -> str:
            return "hello"

        def dispose(self) -> None:
            disposed.set()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with serve_streams(listener, Owned()):
        for _ in range(2):
            async with open_stream_session(await connect_tcp(listener)) as session:
                assert await session.remote_main.hello() == "hello"
        assert not disposed.is_set()
    assert disposed.is_set()


# ---- hostile peers


@pytest.mark.parametrize(
    ("framing", "data", "end", "problem"),
    [
        (
            "length",
            b"\1\x7f\xff\xff\xff",
            LimitExceeded,
            "a message of 2147483647 bytes is larger than max_message_size",
        ),
        ("length", b"GET / HTTP/1.1\r\n\r\n", ProtocolError, "a message begins with the byte 71, not with 1"),
        ("length", b'["push",1]\n', ProtocolError, "a message begins with the byte 91"),
        ("length", b"\1\0\0\0\0", ProtocolError, "the message is not JSON"),
        ("length", b"\2\0\0\0\1\x80", ProtocolError, "a binary message came over a connection that speaks JSON text"),
        ("newline", b"x" * 2000, LimitExceeded, "a message on one line is larger than max_message_size = 1000"),
        ("newline", b"GET / HTTP/1.1\r\n", ProtocolError, "the message is not JSON"),
        ("newline", b"\1\0\0\0\2[]\n", ProtocolError, "the message is not JSON"),
    ],
)
async def test_what_breaks_a_rule_is_answered_with_an_abort(
    framing: FramingName, data: bytes, end: type, problem: str
) -> None:
    options = SessionOptions(limits=Limits(max_message_size=1000))
    async with raw_peer(options, framing) as (_, session, stream):
        await stream.send(data)
        answer = await read_all(stream)
        assert b'["abort",["error","' + end.__name__.encode() in answer
        assert problem in str(session.end)
        assert isinstance(session.end, end)


async def test_what_came_before_a_broken_rule_is_done() -> None:
    async with raw_peer() as (_, _session, stream):
        await stream.send(framed('["stream",["pipeline",0,["echo"],[7]]]') + b"?????")
        answer = await read_all(stream)
        assert answer.startswith(framed('["resolve",1,7]'))
        assert b'["abort"' in answer


async def test_a_peer_that_goes_on_writing_still_gets_the_abort() -> None:
    options = SessionOptions(limits=Limits(max_message_size=1000))
    async with raw_peer(options) as (_, _session, stream), anyio.create_task_group() as tasks:

        async def write() -> None:
            await stream.send(b"\1\xff\xff\xff\xff" + bytes(5_000_000))
            await stream.send_eof()

        tasks.start_soon(write)
        assert b'["abort"' in await read_all(stream)


async def test_a_peer_that_reads_no_answers_is_not_asked_for_more() -> None:
    """It makes calls without end and reads nothing. What waits for it stays within bounds, and so do the calls."""
    calls = 0

    class Talkative(RpcTarget):
        def talk(self) -> str:
            nonlocal calls
            calls += 1
            return "x" * 10_000

    one, other = memory_streams()
    options = SessionOptions(limits=Limits(max_unsent=100_000))
    call = framed('["stream",["pipeline",0,["talk"],[]]]')
    async with open_stream_session(one, local_main=Talkative(), options=options), anyio.create_task_group() as tasks:

        async def flood() -> None:
            while True:
                await other.send(call)

        tasks.start_soon(flood)
        await anyio.wait_all_tasks_blocked()
        assert 10 <= calls <= 13
        answers = LengthFraming(20_000)
        for _ in range(100):  # it goes on as soon as the peer reads
            while answers.next() is None:
                answers.feed(await other.receive())
        assert calls >= 100
        tasks.cancel_scope.cancel()
        await other.aclose()


async def test_a_peer_that_reads_nothing_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "CLOSE_TIMEOUT", 0.01)
    one, other = memory_streams()
    with anyio.fail_after(60):
        async with open_stream_session(one) as session:
            pending = session.remote_main.hello()
            pending.on_broken(lambda error: None)
    with pytest.raises(SessionClosed):
        await pending
    await other.aclose()


async def test_a_peer_that_never_ends_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "CLOSE_TIMEOUT", 0.01)
    one, other = memory_streams()
    with anyio.fail_after(60):
        async with open_stream_session(one):
            pass
    with pytest.raises(anyio.EndOfStream):
        await other.receive()
    await other.aclose()


# ---- cancellation


class Halved(ByteStream):
    """A stream that sends the first half of what it is given, and never goes on."""

    def __init__(self, inner: ByteStream) -> None:
        self._inner = inner
        self.halfway = anyio.Event()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._inner.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self._inner.send(item[: len(item) // 2])
        self.halfway.set()
        await anyio.sleep_forever()

    async def send_eof(self) -> None:
        raise AssertionError("the end of the messages is not that of half a message")

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_a_cancelled_send_ends_the_session_and_sends_nothing_more() -> None:
    async with raw_peer() as (_, session, stream):
        halved = Halved(stream)
        with anyio.CancelScope() as scope:
            async with open_stream_session(halved) as client:
                client.remote_main.echo("a long enough text").on_broken(lambda error: None)
                await halved.halfway.wait()
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert client.closed
        await session.wait_closed()
        assert str(session.end) == "the peer closed the stream in the middle of a message"


async def test_cancelling_one_who_awaits_does_not_harm_the_stream() -> None:
    async with raw_peer() as (_, _session, stream), open_stream_session(stream) as client:
        for _ in range(20):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await client.remote_main.echo("x" * 100_000)
        assert await client.remote_main.echo("whole") == "whole"


async def test_an_exception_of_the_body_comes_out_as_it_is() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    with pytest.raises(KeyError):  # noqa: PT012
        async with serve_streams(listener, Api), open_stream_session(await connect_tcp(listener)) as session:
            assert await session.remote_main.echo(1) == 1
            raise KeyError
