"""Sessions over real WebSocket connections, on both event loops."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trustme
from rawpeer import RawPeer, raw_client, raw_server

from capnweb_py import (
    Limits,
    RpcError,
    RpcTarget,
    SessionClosed,
    SessionOptions,
    SessionStats,
    connect,
    open_session,
    serve,
)
from capnweb_py.transports import driver, websocket
from capnweb_py.transports.driver import CLOSE_TIMEOUT
from capnweb_py.transports.websocket import Listening

pytestmark = pytest.mark.anyio


class Api(RpcTarget):
    def __init__(self) -> None:
        self.disposed = anyio.Event()

    async def hello(self, name: str) -> str:
        return f"Hello, {name}!"

    def echo(self, value: Any) -> Any:
        return value

    async def call_me(self, callback: Any) -> Any:
        return await callback(41)

    async def wait(self) -> None:
        await anyio.sleep_forever()

    def dispose(self) -> None:
        self.disposed.set()


@pytest.mark.parametrize("codec", [None, "json", "cbor"])
async def test_calls_go_both_ways_and_nothing_stays_held(codec: str | None) -> None:
    async with serve(Api) as server, open_session(server.url, codec=codec) as session:
        api = session.remote_main
        assert await api.hello("World") == "Hello, World!"
        assert await api.call_me(lambda number: number + 1) == 42
        assert await api.echo({"bytes": b"\0\xff", "text": "\ud800ü"}) == {"bytes": b"\0\xff", "text": "\ud800ü"}
        data = bytes(range(256)) * 4000
        assert await api.echo(data) == data
        await api.echo(1)
        (other,) = server.sessions
        assert (session.stats(), other.stats()) == (SessionStats(1, 1), SessionStats(1, 1))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "ws://127.0.0.1:1/"),
        ("::1", "ws://[::1]:1/"),
        ("0.0.0.0", "ws://127.0.0.1:1/"),
        ("::", "ws://[::1]:1/"),
    ],
)
async def test_the_url_of_a_server_can_be_connected_to(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def listen_nowhere(*_arguments: Any, **_settings: Any) -> AsyncIterator[Listening]:
        yield Listening(host, 1, ())

    # Of the real thing, this would listen on all addresses of the machine that runs the tests.
    monkeypatch.setattr("capnweb_py.server.listen", listen_nowhere)
    async with serve(Api, host) as server:
        assert server.url == url


async def test_a_class_is_made_for_each_session_and_an_instance_shared() -> None:
    made: list[Api] = []

    def make() -> Api:
        made.append(Api())
        return made[-1]

    async with serve(make) as server:
        async with connect(server.url) as one, connect(server.url) as other:
            assert await one.hello("a") != await other.hello("b")
        for api in made:
            await api.disposed.wait()
    assert len(made) == 2
    shared = Api()
    async with serve(shared) as server:
        for _ in range(2):
            async with connect(server.url) as client:
                await client.hello("a")
        assert not shared.disposed.is_set()
    assert shared.disposed.is_set()


async def test_what_was_called_and_not_awaited_is_sent_before_the_connection_closes() -> None:
    got: list[int] = []
    all_there = anyio.Event()

    class Sink(RpcTarget):
        def put(self, number: int) -> None:
            got.append(number)
            if number == 99:
                all_there.set()

    async with serve(Sink) as server:
        async with connect(server.url) as sink:
            for number in range(100):
                sink.put(number)
        await all_there.wait()
    assert got == list(range(100))


async def test_tls() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with serve(Api, ssl=server_context) as server:
        assert server.url.startswith("wss://")
        async with connect(server.url, ssl=client_context) as api:
            assert await api.hello("TLS") == "Hello, TLS!"
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connect(server.url):
                pass


# The handshake.


async def close_at_once(peer: RawPeer) -> None:
    """A server that ends every connection after its handshake."""


async def test_headers_are_sent() -> None:
    async def handle(peer: RawPeer) -> None:
        assert peer.request is not None
        got.append(peer.request.headers["Authorization"])

    got: list[str] = []
    async with raw_server(handle) as url, open_session(url, headers={"Authorization": "Bearer x"}):
        pass
    assert got == ["Bearer x"]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        (["capnweb.json"], "capnweb.json"),
        (["capnweb.json", "capnweb.cbor"], "capnweb.cbor"),
        (["capnweb.cbor"], "capnweb.cbor"),
        (["something.else"], None),
    ],
)
async def test_a_server_takes_the_best_codec_that_is_offered(offered: list[str], chosen: str | None) -> None:
    async with serve(Api) as server, raw_client(server.url, offered) as peer:
        assert peer.subprotocol == chosen
        await peer.say('["stream",["pipeline",0,["hello"],["x"]]]')
        assert await peer.text() == '["resolve",1,"Hello, x!"]'


async def answer_in_text(peer: RawPeer) -> None:
    """A server that speaks JSON, and echoes the argument of one call."""
    kind, (_, _, _, (argument,)) = json.loads(await peer.text())
    assert kind == "stream"
    await peer.say(json.dumps(["resolve", 1, argument]))
    await peer.close_frame()


def first(offered: Sequence[str]) -> str | None:
    return offered[0]


@pytest.mark.parametrize("choose", [first, lambda offered: None], ids=["the first", "none"])
async def test_a_client_speaks_json_with_a_server_that_does_not_look_at_its_offers(choose: Any) -> None:
    async with raw_server(answer_in_text, choose) as url, connect(url) as api:
        assert await api.echo(b"\xff") == b"\xff"


async def test_a_codec_that_is_asked_for_is_spoken_or_refused() -> None:
    async with raw_server(close_at_once) as url:
        with pytest.raises(RpcError, match=r"does not speak the codec 'cbor'; leave the choice open with codec=None"):
            async with connect(url, codec="cbor"):
                pass
        with pytest.raises(ValueError, match="unknown codec 'xml'; one of cbor, json"):
            async with connect(url, codec="xml"):
                pass


async def test_a_url_that_is_none_of_a_websocket_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"begins with ws:// or wss://"):
        async with connect("http://127.0.0.1/"):
            pass
    with pytest.raises(ValueError, match=r"the URL is none of a WebSocket: fragment"):
        async with connect("ws://127.0.0.1/#there"):
            pass


async def test_a_server_that_is_not_there_is_an_os_error() -> None:
    async with serve(Api) as server:
        url = server.url
    with pytest.raises(OSError):  # noqa: PT011
        async with connect(url):
            pass


async def test_a_server_that_is_no_websocket_server_is_an_rpc_error() -> None:
    async def refuse(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, refuse)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(RpcError, match=r"refused the connection: .*403"):
            async with connect(f"ws://127.0.0.1:{port}/"):
                pass
        tasks.cancel_scope.cancel()


async def test_a_port_in_use_is_an_os_error() -> None:
    async with serve(Api) as server:
        with pytest.raises(OSError, match=r"(?i)in use"):
            async with serve(Api, port=server.port):
                pass


async def test_a_page_of_a_foreign_origin_is_refused() -> None:
    async with serve(Api, origins=["https://good.example"]) as server:
        async with connect(server.url, headers={"Origin": "https://good.example"}) as api:
            assert await api.echo(1) == 1
        with pytest.raises(RpcError, match="refused the connection"):
            async with connect(server.url, headers={"Origin": "https://evil.example"}):
                pass


# The end.


async def test_an_abort_closes_with_its_code_and_a_reason() -> None:
    async with serve(Api) as server, raw_client(server.url) as peer:
        await peer.say('["nonsense"]')
        assert json.loads(await peer.text()) == ["abort", ["error", "ProtocolError", "bad RPC message: ['nonsense']"]]
        close = await peer.close_frame()
        assert (close.code, close.reason) == (3000, "bad RPC message: ['nonsense']")


async def test_the_reason_is_cut_between_characters() -> None:
    async with serve(Api) as server, raw_client(server.url) as peer:
        await peer.say('["stream",["pipeline",0,["echo"],[1]]]')
        await peer.text()
        (session,) = server.sessions
        session.abort(RpcError("ü" * 100))
        assert json.loads(await peer.text())[1][2] == "ü" * 100
        assert (await peer.close_frame()).reason == "ü" * 61  # 122 of 123 bytes


async def test_a_client_that_leaves_closes_normally() -> None:
    codes: list[int] = []

    async def handle(peer: RawPeer) -> None:
        codes.append((await peer.close_frame()).code)

    async with raw_server(handle) as url:
        async with connect(url):
            pass
        await anyio.wait_all_tasks_blocked()
    assert codes == [1000]


@pytest.mark.parametrize("text", ['["abort",["error","RangeError","enough"]]', "nonsense"])
async def test_pending_calls_fail_when_the_session_ends(text: str) -> None:
    async def handle(peer: RawPeer) -> None:
        await peer.text()
        await peer.say(text)
        await peer.close_frame()

    async with raw_server(handle) as url, connect(url) as api:
        with pytest.raises(SessionClosed, match=r"enough|the message is not JSON"):
            await api.wait()
        with pytest.raises(SessionClosed):
            await api.again()


async def test_pending_calls_fail_when_the_connection_breaks() -> None:
    async def handle(peer: RawPeer) -> None:
        await peer.text()

    async with raw_server(handle) as url, connect(url) as api:
        with pytest.raises(SessionClosed, match="the connection was lost"):
            await api.wait()


async def test_all_promises_of_a_result_are_resolved() -> None:
    async with serve(Api()) as server, raw_client(server.url) as peer:
        await peer.say('["push", 1]', json.dumps(["stream", [[["pipeline", 1]] * 200]]))
        with anyio.fail_after(60):
            answers = [json.loads(await peer.text()) for _ in range(201)]
        assert answers[1:] == [["resolve", -number, 1] for number in range(1, 201)]


async def test_large_answers_of_calls_that_end_together_arrive() -> None:
    class Slow(RpcTarget):
        def __init__(self) -> None:
            self.due = anyio.Event()

        async def echo(self, text: str) -> str:
            await self.due.wait()
            return text

        def go(self) -> None:
            self.due.set()

    options = SessionOptions(limits=Limits(max_unsent=100_000))
    async with serve(Slow, options=options) as server, raw_client(server.url) as peer:
        await peer.say(json.dumps(["push", "x" * 50_000]))
        for _ in range(100):
            await peer.say('["stream", ["pipeline", 0, ["echo"], [["pipeline", 1]]]]')
        await peer.say('["push", ["pipeline", 0, ["go"], []]]')
        with anyio.fail_after(60):
            assert [len(await peer.text()) > 50_000 for _ in range(100)] == [True] * 100


async def test_calls_end_with_their_session() -> None:
    class Busy(Api):
        async def wait(self) -> None:
            try:
                started.set()
                await anyio.sleep_forever()
            finally:
                cancelled.set()

    started, cancelled = anyio.Event(), anyio.Event()
    async with serve(Busy) as server:
        async with connect(server.url) as api:
            pending = api.wait()
            await api.echo(1)
            await started.wait()
        await cancelled.wait()
    with pytest.raises(SessionClosed):
        await pending


class Mine(Exception):
    pass


async def test_an_exception_of_the_body_comes_out_as_it_is() -> None:
    async with serve(Api) as server:
        with pytest.raises(Mine):  # noqa: PT012
            async with connect(server.url) as api:
                await api.hello("x")
                raise Mine
    with pytest.raises(Mine):
        async with serve(Api) as server, connect(server.url):
            raise Mine


async def test_no_task_stays_behind() -> None:
    before = {task.id for task in anyio.get_running_tasks()}
    async with serve(Api) as server:
        async with connect(server.url) as api:
            api.wait()
            await api.hello("x")
        with pytest.raises(Mine):  # noqa: PT012
            async with connect(server.url) as api:
                api.wait()
                raise Mine
    assert {task.id for task in anyio.get_running_tasks()} <= before


async def test_a_session_can_be_cancelled() -> None:
    async with serve(Api) as server:
        with anyio.CancelScope() as scope:
            async with connect(server.url) as api:
                await api.hello("x")
                scope.cancel()
                await api.wait()
        assert scope.cancelled_caught


# Keep-alive, and peers that do not keep up.


async def test_a_client_notices_a_server_that_answers_no_pings() -> None:
    async def handle(peer: RawPeer) -> None:
        codes.append((await peer.close_frame()).code)

    codes: list[int] = []
    async with raw_server(handle) as url, connect(url, ping_interval=0.01, ping_timeout=0.01) as api:
        with pytest.raises(SessionClosed):
            await api.wait()
    assert codes == [1011]


async def test_a_server_notices_a_client_that_answers_no_pings() -> None:
    made: list[Api] = []

    def make() -> Api:
        made.append(Api())
        return made[-1]

    async with serve(make, ping_interval=0.01, ping_timeout=0.01) as server:
        async with raw_client(server.url) as peer:
            assert (await peer.close_frame()).code == 1011
        await made[0].disposed.wait()


async def test_a_peer_that_answers_no_ping_is_not_waited_for_to_answer_a_close_frame() -> None:
    async def stay(peer: RawPeer) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(CLOSE_TIMEOUT / 2):
        async with raw_server(stay) as url, connect(url, ping_interval=0.01, ping_timeout=0.01) as api:
            with pytest.raises(SessionClosed, match="1011 keepalive ping timeout"):
                await api.wait()
        async with serve(Api(), ping_interval=0.01, ping_timeout=0.01) as server, raw_client(server.url) as peer:
            assert (await peer.close_frame()).code == 1011
            while server.sessions:
                await anyio.lowlevel.checkpoint()


async def test_a_connection_whose_pings_are_answered_stays() -> None:
    async with (
        serve(Api, ping_interval=0.001, ping_timeout=5) as server,
        open_session(server.url, ping_interval=0.001, ping_timeout=5) as session,
    ):
        for _ in range(200):  # which take longer than many pings
            assert await session.remote_main.hello("x") == "Hello, x!"


async def test_a_peer_that_reads_no_answers_is_not_asked_for_more_calls() -> None:
    ahead = 0
    most_ahead = 0

    class Generous(RpcTarget):
        def give(self) -> str:
            nonlocal ahead, most_ahead
            ahead += 1
            most_ahead = max(ahead, most_ahead)
            return "x" * 500_000

    calls = 300
    options = SessionOptions(limits=Limits(max_unsent=1_000_000))
    async with serve(Generous, options=options) as server, raw_client(server.url) as peer:
        await peer.say(*['["stream",["pipeline",0,["give"],[]]]'] * calls)
        for number in range(1, calls + 1):
            assert (await peer.text()).startswith(f'["resolve",{number},')
            ahead -= 1
    # What fills the buffers of two sockets, and no more.
    assert most_ahead * 500_000 < 40_000_000


async def test_asynchronous_methods_do_not_begin_for_a_client_that_does_not_read() -> None:
    begun: list[int] = []

    class Generous(RpcTarget):
        async def give(self, number: int) -> bytes:
            begun.append(number)
            return bytes(500_000)

    calls = 300
    options = SessionOptions(limits=Limits(max_unsent=1_000_000))
    async with serve(Generous, options=options) as server, raw_client(server.url) as peer:
        await peer.say(*[f'["stream",["pipeline",0,["give"],[{number}]]]' for number in range(calls)])
        await quiet(lambda: len(begun))
        # What fills the buffers of two sockets, and no more.
        assert len(begun) * 500_000 < 40_000_000
        for number in range(1, calls + 1):
            assert (await peer.text()).startswith(f'["resolve",{number},')
    assert begun == list(range(calls))


async def test_no_more_asynchronous_methods_run_at_a_time_than_max_running_says() -> None:
    begun: list[int] = []
    due = anyio.Event()

    class Generous(RpcTarget):
        async def give(self, number: int) -> int:
            begun.append(number)
            await due.wait()
            return number

    options = SessionOptions(limits=Limits(max_running=3))
    async with serve(Generous, options=options) as server, raw_client(server.url) as peer:
        await peer.say(*[f'["stream",["pipeline",0,["give"],[{number}]]]' for number in range(100)])
        while len(begun) < 3:
            await anyio.lowlevel.checkpoint()
        await quiet(lambda: len(begun))
        assert begun == [0, 1, 2]
        due.set()
        assert sorted([json.loads(await peer.text())[2] for _ in range(100)]) == list(range(100))
    assert begun == list(range(100))


async def quiet(state: Callable[[], object]) -> None:
    """Wait until nothing changes any more."""
    before = None
    while (now := state()) != before:
        before = now
        for _ in range(20):
            await anyio.wait_all_tasks_blocked()


async def test_a_message_that_is_too_large_ends_the_connection() -> None:
    options = SessionOptions(limits=Limits(max_message_size=1000))
    async with serve(Api, options=options) as server:
        async with connect(server.url) as api:
            with pytest.raises(SessionClosed, match="1009"):
                await api.echo("x" * 1001)
        async with connect(server.url) as api:
            assert await api.echo("x" * 900) == "x" * 900


async def test_a_session_that_has_stopped_reading_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Talkative(RpcTarget):
        def talk(self) -> str:
            return "x" * 1_000_000

    async def flood(peer: RawPeer) -> None:
        await peer.say(*['["stream",["pipeline",0,["talk"],[]]]'] * 200)
        await anyio.sleep_forever()

    for module in (websocket, driver):
        monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.1)
    options = SessionOptions(limits=Limits(max_unsent=1_000_000))
    async with raw_server(flood) as url:
        with anyio.fail_after(60):
            async with open_session(url, local_main=Talkative(), options=options):
                await anyio.wait_all_tasks_blocked()
