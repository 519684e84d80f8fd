"""The HTTP/1.1 client against real servers: ones that are written out byte by byte, and uvicorn."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest
import trustme
import uvicorn
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteStream
from anyio.streams.tls import TLSListener

from capnweb_py import backoff
from capnweb_py.backoff import Backoff
from capnweb_py.errors import Unreachable
from capnweb_py.http11 import CHUNK_SIZE, Http11Client
from capnweb_py.loops import task_set
from capnweb_py.web import ReadableStream, Request, Response

pytestmark = pytest.mark.anyio

OK: Final = b"HTTP/1.1 200 OK\r\n"
EMPTY: Final = OK + b"Content-Length: 0\r\n\r\n"


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = BufferedByteStream(stream)

    async def head(self) -> list[str]:
        """The lines of the next request's head."""
        return (await self._stream.receive_until(b"\r\n\r\n", 65536)).decode("latin-1").split("\r\n")

    async def exactly(self, size: int) -> bytes:
        return await self._stream.receive_exactly(size)

    async def chunk(self) -> bytes:
        """The next chunk of a body; b"" is the last."""
        size = int(await self._stream.receive_until(b"\r\n", 20), 16)
        return (await self._stream.receive_exactly(size + 2))[:-2]

    async def send(self, *data: bytes) -> None:
        await self._stream.send(b"".join(data))

    async def gone(self) -> None:
        """Wait until the client has closed the connection, and drop what it still sends."""
        try:
            while True:
                await self._stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """A server that plays a script on each connection, the last one again and again. Then it closes the connection."""

    def __init__(self, scripts: tuple[Script, ...], scheme: str, port: int) -> None:
        self.url = f"{scheme}://127.0.0.1:{port}/"
        self.name = f"127.0.0.1:{port}"
        self.connections = 0
        self._scripts = scripts

    async def handle(self, stream: ByteStream) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        async with stream:
            await script(Peer(stream))


@asynccontextmanager
async def playing(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a server. All scripts have to end before the block does, so that what they assert counts."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as tcp, anyio.create_task_group() as tasks:
        listener = tcp if tls is None else TLSListener(tcp, tls, standard_compatible=False)
        server = Server(scripts, "http" if tls is None else "https", tcp.extra(SocketAttribute.local_port))
        async with anyio.create_task_group() as connections:
            tasks.start_soon(listener.serve, server.handle, connections)
            yield server
        tasks.cancel_scope.cancel()


def answering(response: bytes) -> Script:
    """A script that answers one request, whose body it does not read."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response)

    return script


@pytest.fixture
async def client() -> AsyncIterator[Http11Client]:
    with anyio.fail_after(60):
        async with task_set() as spawn, Http11Client(spawn) as client:
            yield client


async def get(client: Http11Client, server: Server) -> Response:
    return await client.exchange(Request(server.url), server.url)


async def post(client: Http11Client, server: Server, body: Any) -> Response:
    return await client.exchange(Request(server.url, method="POST", body=body), server.url)


# What is sent


async def sent(client: Http11Client, request: Request, path: str = "") -> list[str]:
    """The head of a request as its server sees it, the line and then the headers in their order."""
    heads: list[list[str]] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await peer.gone()

    async with playing(script) as server:
        await client.exchange(request, server.url + path)
        await client.aclose()
    assert f"host: {server.name}" in heads[0]
    return [line for line in heads[0] if line and not line.startswith("host:")]


async def test_nothing_is_added_to_a_request(client: Http11Client) -> None:
    assert await sent(client, Request("https://a.example/")) == ["GET / HTTP/1.1"]


async def test_the_targets_path_query_and_headers(client: Http11Client) -> None:
    request = Request("https://a.example/", headers=[("X-One", "1"), ("x-list", "é"), ("x-list", "2")])
    assert await sent(client, request, "a%20b/ü?q=[1]#part") == [
        "GET /a%20b/%C3%BC?q=[1] HTTP/1.1",
        "x-one: 1",
        "x-list: é",
        "x-list: 2",
    ]


async def test_headers_of_a_connection_are_the_clients_own(client: Http11Client) -> None:
    headers = {"connection": "close", "host": "b", "transfer-encoding": "gzip", "upgrade": "x", "content-length": "9"}
    assert await sent(client, Request("https://a.example/", headers=headers)) == ["GET / HTTP/1.1"]


async def two_chunks() -> AsyncIterator[bytes]:
    yield b"one"
    yield b""
    yield b"two"


@pytest.mark.parametrize(
    ("body", "framing"),
    [
        (None, "content-length: 0"),
        (b"", "content-length: 0"),
        (b"onetwo", "content-length: 6"),
        (ReadableStream, "content-length: 6"),
        (two_chunks, "transfer-encoding: chunked"),
    ],
)
async def test_how_a_body_is_framed(client: Http11Client, body: Any, framing: str) -> None:
    if body is ReadableStream:
        body = ReadableStream(two_chunks(), length=6)
    elif body is two_chunks:
        body = two_chunks()
    received: list[bytes] = []

    async def script(peer: Peer) -> None:
        assert framing in await peer.head()
        if framing.endswith("chunked"):
            while chunk := await peer.chunk():
                received.append(chunk)
        else:
            received.append(await peer.exactly(int(framing[-1])))
        await peer.send(EMPTY)

    async with playing(script) as server:
        await post(client, server, body)
    assert b"".join(received) == (b"onetwo" if body else b"")


async def test_what_cannot_be_sent_is_refused(client: Http11Client) -> None:
    for url in ("ftp://a.example/", "nothing", "http://a.example:x/"):
        with pytest.raises(ValueError, match=r"requests go to http|is not an absolute URL|is not a valid URL"):
            await client.exchange(Request("https://a.example/"), url)
    with pytest.raises(ValueError, match="the request cannot be sent: Illegal header value"):
        await client.exchange(Request("https://a.example/", headers={"x": "a\fb"}), "http://a.example/")


# What comes back


@pytest.mark.parametrize(
    "response",
    [
        b"Content-Length: 6\r\n\r\nonetwo",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3;x=y\r\ntwo\r\n0\r\nTrailer: 1\r\n\r\n",
        b"\r\nonetwo",
    ],
    ids=["length", "chunked", "until the end"],
)
async def test_a_response(client: Http11Client, response: bytes) -> None:
    head = b"HTTP/1.1 203 All right\r\nSet-Cookie: a=1\r\nX-A: \xe9\r\nSet-Cookie: b=2\r\n"
    async with playing(answering(head + response)) as server:
        answer = await get(client, server)
        assert (answer.status, answer.status_text, answer.headers["x-a"]) == (203, "All right", "é")
        assert answer.headers.get_all("set-cookie") == ["a=1", "b=2"]
        assert await answer.bytes() == b"onetwo"


async def test_a_response_that_arrives_byte_by_byte(client: Http11Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        for byte in OK + b"Content-Length: 3\r\n\r\none":
            await peer.send(bytes([byte]))
        await peer.gone()

    async with playing(script) as server:
        assert await (await get(client, server)).bytes() == b"one"
        await client.aclose()


async def test_informational_responses_are_passed_over(client: Http11Client) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with playing(answering(early + OK + b"Content-Length: 3\r\n\r\none")) as server:
        response = await get(client, server)
        assert (response.status, "link" in response.headers, await response.text()) == (200, False, "one")


async def test_compressed_content_stays_compressed(client: Http11Client) -> None:
    async with playing(answering(OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08")) as server:
        response = await get(client, server)
        assert (response.headers["content-encoding"], await response.bytes()) == ("gzip", b"\x1f\x8b\x08")


@pytest.mark.parametrize(
    ("method", "response"),
    [
        ("HEAD", OK + b"Content-Length: 5\r\n\r\n"),
        ("HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
        ("GET", EMPTY),
    ],
)
async def test_responses_without_a_body_leave_the_connection_to_the_next(
    client: Http11Client, method: str, response: bytes
) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.head()
            await peer.send(response)
        await peer.gone()

    async with playing(script) as server:
        for _ in range(2):
            answer = await client.exchange(Request(server.url, method=method), server.url)
            assert await answer.bytes() == b""
        assert server.connections == 1
        await client.aclose()


# Connections


async def test_a_connection_is_used_again_when_its_response_was_read(client: Http11Client) -> None:
    async def script(peer: Peer) -> None:
        for number in b"123":
            await peer.head()
            assert await peer.chunk() == b"one"
            assert await peer.chunk() == b"two"
            assert await peer.chunk() == b""
            await peer.send(OK, b"Content-Length: 1\r\n\r\n%c" % number)
        await peer.gone()

    async with playing(script) as server:
        assert [await (await post(client, server, two_chunks())).text() for _ in range(3)] == ["1", "2", "3"]
        assert server.connections == 1
        await client.aclose()


async def test_each_of_several_requests_at_a_time_has_a_connection(client: Http11Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK, b"Content-Length: 1\r\n\r\n")
        await peer.gone()

    async with playing(script) as server:
        responses = [await get(client, server) for _ in range(3)]
        assert server.connections == 3
        for response in responses:
            assert response.body is not None
            await response.body.aclose()


@pytest.mark.parametrize(
    "response",
    [
        OK + b"Connection: close\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
        OK + b"Content-Length: 1\r\n\r\nand more than that",
    ],
)
async def test_connections_that_are_good_for_one_request(client: Http11Client, response: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response)
        await peer.gone()

    async with playing(script) as server:
        for number in (1, 2):
            assert await (await get(client, server)).text() == "a"
            assert server.connections == number


async def test_an_idle_connection_that_was_closed_is_not_used(client: Http11Client) -> None:
    """Not even by a request that could not be sent again."""
    async with playing(answering(EMPTY)) as server:
        for number in (1, 2, 3):
            await post(client, server, two_chunks())
            # The server's side of the connection is closed as soon as it has answered.
            assert server.connections == number
            await until_closed(client)


async def until_closed(client: Http11Client) -> None:
    """Wait until no idle connection is usable."""
    while any(connection.is_alive() for connection in client._idle):
        await anyio.lowlevel.checkpoint()


async def test_a_request_is_sent_again_when_an_idle_connection_is_closed_under_it(client: Http11Client) -> None:
    async def closing(peer: Peer) -> None:
        await peer.head()
        await peer.send(EMPTY)
        await peer.head()

    bodies: list[bytes] = []

    async def second(peer: Peer) -> None:
        await peer.head()
        bodies.append(await peer.exactly(4))
        await peer.send(EMPTY)

    async with playing(closing, second) as server:
        await get(client, server)
        response = await client.exchange(Request(server.url, method="PUT", body="body"), server.url)
        assert (response.status, bodies, server.connections) == (200, [b"body"], 2)


@pytest.mark.parametrize(("method", "body"), [("POST", b"body"), ("PUT", two_chunks)])
async def test_what_may_have_been_done_is_not_sent_again(client: Http11Client, method: str, body: Any) -> None:
    async def closing(peer: Peer) -> None:
        await peer.head()
        await peer.send(EMPTY)
        await peer.head()

    async with playing(closing) as server:
        await get(client, server)
        request = Request(server.url, method=method, body=body if isinstance(body, bytes) else body())
        with pytest.raises(ConnectionError, match=f"{server.name} cannot be reached: .* before it answered"):
            await client.exchange(request, server.url)
        assert server.connections == 1


async def test_a_new_connection_that_is_closed_is_no_reason_to_try_again(client: Http11Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()

    async with playing(script) as server:
        with pytest.raises(ConnectionError, match="it closed the connection before it answered"):
            await get(client, server)
        assert server.connections == 1


async def test_nobody_listens(client: Http11Client) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
    url = f"http://127.0.0.1:{port}/secret/"
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{port} cannot be reached: ") as caught:
        await client.exchange(Request(url), url)
    assert "secret" not in str(caught.value)


# Both ways at a time


async def test_chunks_go_back_and_forth(client: Http11Client) -> None:
    """Each chunk of the request is made after the one before has come back."""
    heard = [anyio.Event() for _ in range(3)]

    async def body() -> AsyncIterator[bytes]:
        for number, event in enumerate(heard):
            yield b"%d" % number
            await event.wait()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK, b"Transfer-Encoding: chunked\r\n\r\n")
        while chunk := await peer.chunk():
            await peer.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await peer.send(b"0\r\n\r\n")

    async with playing(script) as server:
        response = await post(client, server, body())
        assert response.body is not None
        async for chunk in response.body:
            heard[int(chunk)].set()
    assert all(event.is_set() for event in heard)


async def test_an_early_response_and_the_rest_of_the_request(client: Http11Client) -> None:
    """The response is complete before the request is; the connection then serves another."""
    answered, arrived = anyio.Event(), anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await answered.wait()
        yield b"last"

    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.chunk() == b"first"
        await peer.send(OK, b"Content-Length: 5\r\n\r\nearly")
        assert await peer.chunk() == b"last"
        assert await peer.chunk() == b""
        arrived.set()
        await peer.head()
        await peer.send(EMPTY)

    async with playing(script, answering(EMPTY)) as server:
        assert await (await post(client, server, body())).text() == "early"
        answered.set()
        await arrived.wait()
        while not client._idle:
            await anyio.lowlevel.checkpoint()
        await get(client, server)
        assert server.connections == 1


@pytest.mark.parametrize("length", [None, 1 << 40])
async def test_a_server_that_answers_and_closes_before_it_has_read_everything(
    client: Http11Client, length: int | None
) -> None:
    closed = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(CHUNK_SIZE)
        finally:
            closed.set()

    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
    async with playing(answering(refusal)) as server:
        response = await post(client, server, ReadableStream(body(), length=length))
        assert (response.status, await response.text()) == (413, "big")
        await closed.wait()


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(CHUNK_SIZE)


async def test_closing_the_response_ends_the_request(client: Http11Client) -> None:
    closed = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await anyio.sleep_forever()
        finally:
            closed.set()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK, b"Transfer-Encoding: chunked\r\n\r\n")
        await peer.gone()

    async with playing(script) as server:
        response = await post(client, server, body())
        assert response.body is not None
        await response.body.aclose()
        assert closed.is_set()


@pytest.mark.parametrize("body", [None, endless])
async def test_a_cancelled_exchange_closes_its_connection(client: Http11Client, body: Any) -> None:
    """While it waits for the response, and while the response is read."""
    begun = anyio.Event()

    async def silent(peer: Peer) -> None:
        await peer.head()
        begun.set()
        await peer.gone()

    async def half(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK, b"Content-Length: 5\r\n\r\nhalf")
        await peer.gone()

    async with playing(silent, half) as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(post, client, server, body and body())
            await begun.wait()
            tasks.cancel_scope.cancel()
        response = await post(client, server, body and body())
        assert response.body is not None
        with anyio.CancelScope() as scope:
            async for _ in response.body:
                scope.cancel()
    assert scope.cancelled_caught
    assert not client._exchanges


async def test_a_response_that_is_collected_unread_gives_its_connection_up(client: Http11Client) -> None:
    async def half(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK, b"Content-Length: 5\r\n\r\nhalf")
        await peer.gone()

    async with playing(half, answering(EMPTY)) as server:
        assert (await get(client, server)).status == 200
        gc.collect()
        await get(client, server)
    assert not client._exchanges


async def test_closing_the_client_ends_what_runs(client: Http11Client) -> None:
    async def half(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK, b"Content-Length: 5\r\n\r\nhalf")
        await peer.gone()

    async with playing(half) as server:
        response = await post(client, server, endless())
        await client.aclose()
        with pytest.raises(ConnectionError, match=r"the response of .* broke off: the connection has been closed here"):
            await response.bytes()
        with pytest.raises(ConnectionError, match="the client is closed"):
            await get(client, server)


# What goes wrong


async def test_a_request_body_that_fails_before_the_response(client: Http11Client) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError("nothing more today")

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    async with playing(script) as server:
        with pytest.raises(LookupError, match="nothing more today"):
            await post(client, server, body())


async def test_a_request_body_that_fails_while_the_response_is_read(client: Http11Client) -> None:
    reading = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await reading.wait()
        raise LookupError("nothing more today")

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK, b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await peer.gone()

    async with playing(script) as server:
        response = await post(client, server, body())
        assert response.body is not None
        chunks = aiter(response.body)
        assert await anext(chunks) == b"first"
        reading.set()
        with pytest.raises(LookupError, match="nothing more today"):
            await anext(chunks)


async def test_a_request_body_that_fails_after_the_response_is_logged(
    client: Http11Client, caplog: pytest.LogCaptureFixture
) -> None:
    answered = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await answered.wait()
        raise LookupError("nothing more today")

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(EMPTY)
        await peer.gone()

    async with playing(script) as server:
        await post(client, server, body())
        answered.set()
    assert [record.message for record in caplog.records] == [
        f"a request's body failed after its response from {server.name}"
    ]


@pytest.mark.parametrize("length", [5, 7])
async def test_a_request_body_of_another_length_than_it_says(client: Http11Client, length: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    async with playing(script) as server:
        with pytest.raises(ValueError, match="does not have the length that it declares"):
            await post(client, server, ReadableStream(two_chunks(), length=length))


async def test_a_request_body_that_is_not_bytes(client: Http11Client) -> None:
    async def body() -> AsyncIterator[Any]:
        yield "text"

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    async with playing(script) as server:
        with pytest.raises(TypeError, match="a bytes-like object is required"):
            await post(client, server, body())


async def test_a_body_that_is_being_read_already(client: Http11Client) -> None:
    stream = ReadableStream(two_chunks())
    chunks = aiter(stream)
    await anext(chunks)
    with pytest.raises(RuntimeError, match="already being read"):
        await client.exchange(Request("http://127.0.0.1:1/", method="POST", body=stream), "http://127.0.0.1:1/")
    assert [chunk async for chunk in chunks] == [b"", b"two"]


@pytest.mark.parametrize(
    "response",
    [
        b"Content-Length: 6\r\n\r\none",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n6\r\ntw",
    ],
)
async def test_a_response_that_breaks_off(client: Http11Client, response: bytes) -> None:
    async with playing(answering(OK + response)) as server:
        answer = await get(client, server)
        assert answer.body is not None
        chunks = aiter(answer.body)
        assert await anext(chunks) == b"one"
        with pytest.raises(ConnectionError, match=f"the response of {server.name} broke off: it closed the connection"):
            await collected(chunks)
        with pytest.raises(ConnectionError):
            await anext(chunks)


async def collected(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
        b"HTTP/1.1 700 Beyond\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
async def test_what_is_no_response(client: Http11Client, response: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response)
        await peer.gone()

    async with playing(script) as server:
        with pytest.raises(ConnectionError, match=f"the response of {server.name} is not valid: "):
            await get(client, server)


async def test_a_malformed_body(client: Http11Client) -> None:
    async with playing(answering(OK + b"Transfer-Encoding: chunked\r\n\r\nno size\r\n")) as server:
        response = await get(client, server)
        with pytest.raises(ConnectionError, match="is not valid: illegal chunk header"):
            await response.bytes()


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
async def trusting(authority: trustme.CA) -> AsyncIterator[Http11Client]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with anyio.fail_after(60):
        async with task_set() as spawn, Http11Client(spawn, tls=context) as client:
            yield client


async def test_tls_and_a_connection_that_is_used_again(trusting: Http11Client, server_tls: ssl.SSLContext) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.head()
            await peer.send(OK, b"Transfer-Encoding: chunked\r\n\r\n")
            while chunk := await peer.chunk():
                await peer.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await peer.send(b"0\r\n\r\n")
        await peer.gone()

    piece = bytes(range(256)) * 256

    async def body() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield piece

    async with playing(script, tls=server_tls) as server:
        for _ in range(2):
            assert await (await post(trusting, server, body())).bytes() == piece * 200
        assert server.connections == 1
        await trusting.aclose()


async def test_an_authority_that_is_not_trusted(client: Http11Client, server_tls: ssl.SSLContext) -> None:
    async def unreached(_peer: Peer) -> None:
        raise AssertionError("the handshake succeeded")

    async with playing(unreached, tls=server_tls) as server:
        with pytest.raises(ConnectionError, match=f"{server.name} cannot be reached: .*CERTIFICATE_VERIFY_FAILED"):
            await get(client, server)


async def test_a_server_that_does_not_speak_tls(trusting: Http11Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with playing(script) as server:
        with pytest.raises(ConnectionError, match="cannot be reached: "):
            await trusting.exchange(Request(server.url), server.url.replace("http:", "https:"))


# A server of others


Event = MutableMapping[str, Any]


async def echo(
    _scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
) -> None:
    """An ASGI application that gives each chunk back before it reads the next."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        event = await receive()
        more = event.get("more_body", False)
        await send({"type": "http.response.body", "body": event.get("body", b""), "more_body": more})


@pytest.fixture(scope="module")
def echo_url() -> Iterator[str]:
    """uvicorn with the application above, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(echo, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


async def test_an_echo_of_100_megabytes_is_never_held(client: Http11Client, echo_url: str) -> None:
    piece = bytes(range(256)) * (CHUNK_SIZE // 256)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(1600):
            yield piece

    response = await client.exchange(Request(echo_url, method="POST", body=body()), echo_url)
    assert response.body is not None
    size = 0
    tracemalloc.start()
    try:
        async for chunk in response.body:
            at = size % len(piece)
            assert chunk == (piece + piece)[at : at + len(chunk)]
            size += len(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 1600 * len(piece)
    assert peak < 8_000_000


async def test_many_exchanges_at_a_time(client: Http11Client, echo_url: str) -> None:
    answers: dict[int, str] = {}

    async def ask(number: int) -> None:
        response = await client.exchange(Request(echo_url, method="PUT", body=f"{number}"), echo_url)
        answers[number] = await response.text()

    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(ask, number)
        assert answers == {number: f"{number}" for number in range(50)}
        answers.clear()
    assert len(client._idle) <= 20


async def test_many_exchanges_at_a_time_after_all_idle_connections_were_closed(client: Http11Client) -> None:
    met = [anyio.Event(), anyio.Event()]

    async def meeting(peer: Peer) -> None:
        """Answer when as many requests are there as are sent at a time: each has a connection of its own."""
        await peer.head()
        if server.connections % 5 == 0:
            met[server.connections // 5 - 1].set()
        await met[(server.connections - 1) // 5].wait()
        await peer.send(EMPTY)

    async with playing(meeting) as server:
        for number in (1, 2):
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(get, client, server)
            assert server.connections == 5 * number
            await until_closed(client)


async def test_of_the_servers_that_were_there_before_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "MAX_KNOWN", 2)
    there = True
    waited = 0

    async def sleep(_seconds: float) -> None:
        nonlocal waited
        waited += 1

    async def reach(client: Http11Client, host: str) -> int:
        """Request something. Returns how often the server was waited for."""
        before = waited
        try:
            response = await client.exchange(Request(f"http://{host}/"), f"http://{host}/")
            await response.bytes()
        except Unreachable:
            pass
        return waited - before

    async with playing(answering(EMPTY)) as server, task_set() as spawn:

        async def connect(_host: str, _port: int) -> SocketStream:
            if not there:
                raise ConnectionRefusedError
            return await anyio.connect_tcp("127.0.0.1", int(server.name.partition(":")[2]))

        patient = Backoff(sleep=sleep, clock=lambda: waited, patience=5)
        async with Http11Client(spawn, connector=connect, backoff=patient) as client:
            for host in ("a", "b", "a", "c"):
                await reach(client, host)
            there = False
            assert [bool(await reach(client, host)) for host in ("a", "b", "c")] == [True, False, True]
