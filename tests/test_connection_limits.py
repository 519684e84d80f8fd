"""Peers that are slow, or too many, at the server of the proxy. The loop's clock jumps where a test has it jump."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import uvicorn
from uvicorn.server import ServerState

from proxy_server.closing_sockets import ClosingWebSocket
from proxy_server.config import ConnectionLimits
from proxy_server.connection_limits import Connections, LimitedH11

LIMITS = ConnectionLimits(head_timeout=20, body_timeout=60, max_connections=3, max_connections_per_address=3)

HEAD = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Jumping(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


@attrs.frozen
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        """Send something, and let the server take it."""
        self.writer.write(data)
        await turns()

    async def hear(self) -> bytes:
        """Something of what the server sends; nothing at the end."""
        async with asyncio.timeout(60):
            return await self.reader.read(65_536)

    def hears_the_end(self) -> bool:
        return self.reader.at_eof()


@attrs.frozen
class Served:
    port: int
    # What applications have received, and may send when it is set.
    events: list[str]
    due: asyncio.Event
    clients: list[Client]

    async def client(self, host: str = "127.0.0.1") -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, local_addr=(host, 0)))
        self.clients.append(client)
        await turns()
        return client


async def turns() -> None:
    """Let what is under way on this machine arrive, and be taken."""
    for _ in range(50):
        await asyncio.sleep(0)


async def jump(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Jumping)
    loop.ahead += seconds
    await turns()


@asynccontextmanager
async def served(limits: ConnectionLimits = LIMITS) -> AsyncIterator[Served]:
    """An application that takes a body to its end, waits, and answers in two parts: the first is early for "/early". To
    "/no" it answers at once, and for "/later" it waits before it takes the body."""
    events: list[str] = []
    due = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        if scope["path"] == "/early":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/later":
            await due.wait()
        if scope["path"] != "/no":
            more = True
            while more:
                event = await receive()
                events.append(event["type"])
                more = event.get("more_body", False)
            await due.wait()
        if scope["path"] != "/early":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"an answer"})

    http: Any = partial(LimitedH11, connections=Connections(limits))
    config = uvicorn.Config(app, http=http, ws=ClosingWebSocket, log_config=None, lifespan="off", timeout_keep_alive=75)
    config.load()
    loop = asyncio.get_running_loop()
    state = ServerState()
    listener = await loop.create_server(lambda: http(config, state, {}, loop), "127.0.0.1", 0)
    async with listener:
        server = Served(listener.sockets[0].getsockname()[1], events, due, [])
        try:
            yield server
        finally:
            due.set()
            for client in server.clients:
                client.writer.close()
            await turns()
    assert not state.connections


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Has a test run on a loop whose clock jumps."""

    def run_test() -> None:
        with asyncio.Runner(loop_factory=Jumping) as runner:
            runner.run(test())

    run_test.__name__ = test.__name__
    return run_test


@run
async def test_a_connection_on_which_no_request_comes_is_closed() -> None:
    async with served() as server:
        client = await server.client()
        await jump(19)
        assert not client.hears_the_end()
        await jump(2)
        assert client.hears_the_end()


@run
async def test_a_head_that_comes_bit_by_bit_is_not_waited_for_longer() -> None:
    async with served() as server:
        client = await server.client()
        for byte in HEAD[:11]:
            await client.say(bytes([byte]))
            await jump(2)
        assert client.hears_the_end()


@run
async def test_the_head_of_a_second_request_has_its_time_from_its_first_byte_on() -> None:
    async with served() as server:
        server.due.set()
        client = await server.client()
        await client.say(HEAD)
        assert b"an answer" in await client.hear()
        await jump(4)
        await client.say(HEAD[:5])
        await jump(19)
        assert not client.hears_the_end()
        await jump(2)
        assert client.hears_the_end()


@run
async def test_a_body_that_stops_is_not_waited_for() -> None:
    async with served() as server:
        client = await server.client()
        await client.say(UPLOAD + b"1")
        await jump(59)
        assert not client.hears_the_end()
        await jump(2)
        assert client.hears_the_end()
        assert server.events == ["http.request", "http.disconnect"]


@run
async def test_a_body_that_moves_slowly_is_taken_to_its_end() -> None:
    async with served() as server:
        server.due.set()
        client = await server.client()
        await client.say(UPLOAD)
        for byte in b"1234567890":
            await jump(50)
            await client.say(bytes([byte]))
        assert b"an answer" in await client.hear()


@run
async def test_the_rest_of_a_body_whose_request_is_answered_has_the_time_of_a_head() -> None:
    async with served() as server:
        client = await server.client()
        await client.say(UPLOAD.replace(b" / ", b" /no "))
        assert b"an answer" in await client.hear()
        for byte in b"1234":
            assert not client.hears_the_end()
            await jump(5)
            await client.say(bytes([byte]))
        assert client.hears_the_end()


@run
async def test_a_client_that_waits_for_leave_to_send_its_body_is_waited_for() -> None:
    async with served() as server:
        client = await server.client()
        await client.say(UPLOAD.replace(b" / ", b" /later ").replace(b"\n\r\n", b"\nexpect: 100-continue\r\n\r\n"))
        await jump(200)
        server.due.set()
        assert (await client.hear()).startswith(b"HTTP/1.1 100 ")


@run
async def test_a_body_that_the_application_does_not_take_is_waited_for() -> None:
    async with served() as server:
        client = await server.client()
        await client.say(UPLOAD.replace(b" / ", b" /later ").replace(b"10", b"1000000") + bytes(999_999))
        await jump(200)
        server.due.set()
        await turns()
        await client.say(b"0")
        assert b"an answer" in await client.hear()


@run
async def test_an_answer_may_take_as_long_as_it_likes() -> None:
    async with served() as server:
        client = await server.client()
        await client.say(UPLOAD + b"1234567890")
        await jump(100_000)
        server.due.set()
        assert b"an answer" in await client.hear()


@run
async def test_a_body_beside_an_answer_that_has_begun_may_rest() -> None:
    async with served() as server:
        client = await server.client()
        await client.say(UPLOAD.replace(b" / ", b" /early ") + b"1")
        assert b"200 OK" in await client.hear()
        await jump(1000)
        await client.say(b"234567890")
        server.due.set()
        assert b"an answer" in await client.hear()


@run
async def test_a_websocket_may_rest() -> None:
    async with served() as server:
        client = await server.client()
        await client.say(UPGRADE)
        assert b"101 Switching Protocols" in await client.hear()
        await jump(19)
        await jump(19)
        assert not client.hears_the_end()


@pytest.mark.parametrize("header", [b"content-length: 50", b"transfer-encoding: chunked"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_handshake_with_a_body_is_refused_at_once(method: bytes, header: bytes) -> None:
    async def test() -> None:
        async with served() as server:
            client = await server.client()
            await client.say(UPGRADE.replace(b"GET", method).replace(b"\n\r\n", b"\n" + header + b"\r\n\r\n"))
            assert (await client.hear()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert await client.hear() == b""

    run(test)()


@run
async def test_a_connection_that_is_one_too_many_is_told_so() -> None:
    async with served() as server:
        websocket, *others = [await server.client() for _ in range(3)]
        await websocket.say(UPGRADE)
        one_too_many = await server.client()
        await one_too_many.say(HEAD)
        said = await one_too_many.hear()
        assert said.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert said.endswith(b"\r\n\r\nthere are max_connections = 3 connections to this server already")
        await turns()
        assert one_too_many.hears_the_end()
        silent = await server.client()
        await jump(3)
        assert silent.hears_the_end()
        assert not any(client.hears_the_end() for client in (websocket, *others))


@pytest.mark.parametrize("request_", [HEAD, UPGRADE])
def test_a_connection_that_is_closed_makes_room_for_another(request_: bytes) -> None:
    async def test() -> None:
        async with served() as server:
            server.due.set()
            clients = [await server.client() for _ in range(3)]
            for client in clients:
                await client.say(request_)
            clients[1].writer.close()
            await turns()
            another = await server.client()
            await another.say(request_)
            assert b" 503 " not in await another.hear()

    run(test)()


@run
async def test_one_address_does_not_get_all_connections() -> None:
    async with served(attrs.evolve(LIMITS, max_connections_per_address=2)) as server:
        server.due.set()
        for host, status in (("127.0.0.1", 200), ("127.0.0.1", 200), ("127.0.0.1", 503), ("127.0.0.2", 200)):
            client = await server.client(host)
            await client.say(HEAD)
            assert b" %d " % status in await client.hear()
