"""The connect binding: TCP through the proxy as anyio streams, over the tunnel and over RPC, and what is refused."""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel
import httpx2
import pytest
import trustme
import websockets.sync.client
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream
from listening import echo, everything, listening, proxy_server
from proxying import SECRET, Server, opener, proxy, serving, websocket_scope, wired
from websockets.exceptions import ConnectionClosed

from capnweb_py import RpcError
from capnweb_py.bindings.tunnel import TunnelError
from capnweb_py.remote import connect_env
from proxy_server.bindings.connect import Connect
from proxy_server.channels import tcp
from proxy_server.config import ConfigError, read
from proxy_server.egress import AllowList

pytestmark = pytest.mark.anyio

PASSWORD: Final = "not-for-anybodys-eyes"
LARGE: Final = 8 << 20

# Those that the tests of both channels run over.
CHANNELS: Final = ("http", "rpc")

Handler = Callable[[SocketStream], Awaitable[None]]


@pytest.fixture(params=CHANNELS)
def channel(request: pytest.FixtureRequest) -> Literal["http", "rpc"]:
    name: Literal["http", "rpc"] = request.param
    return name


@pytest.fixture
def no_dropping(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy drops no connection that does not end by itself."""
    monkeypatch.setattr(tcp, "_LINGER", 1000.0)


def served(**table: Any) -> AbstractAsyncContextManager[str]:
    """A proxy server with a connect binding, which allows loopback by default; yields its connection string."""
    return proxy_server(DB={"type": "connect", "allow": ["127.0.0.1:*"], **table})


@asynccontextmanager
async def through(channel: Literal["http", "rpc"] = "http", **table: Any) -> AsyncIterator[Any]:
    """The facade of that binding."""
    with anyio.fail_after(60):
        async with served(**table) as url, connect_env(url, channel=channel) as env:
            yield env.DB


async def test_bytes_go_both_ways(channel: Any) -> None:
    async with listening(echo) as address, through(channel) as db, db.connect(address) as stream:
        for word in (b"one", b"\x00\xff", b"three"):
            await stream.send(word)
            assert await stream.receive() == word


async def test_no_more_is_received_than_was_asked_for(channel: Any) -> None:
    async with listening(echo) as address, through(channel) as db, db.connect(address) as stream:
        await stream.send(b"abcdef")
        assert [await stream.receive(4), await stream.receive(4)] == [b"abcd", b"ef"]


async def test_the_end_of_what_the_server_sends_is_the_end_of_the_stream(channel: Any) -> None:
    async def greet(stream: ByteStream) -> None:
        await stream.send(b"good bye")

    async with listening(greet) as address, through(channel) as db, db.connect(address) as stream:
        assert await everything(stream) == b"good bye"
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()


@pytest.mark.usefixtures("no_dropping")
async def test_all_that_was_sent_before_the_end_arrives(channel: Any) -> None:
    received: list[int] = []
    done = anyio.Event()

    async def count(stream: ByteStream) -> None:
        received.append(len(await everything(stream)))
        done.set()

    async with listening(count) as address, through(channel) as db:
        async with db.connect(address) as stream:
            await stream.send(bytes(LARGE))
            await stream.send_eof()
        with anyio.fail_after(60):
            await done.wait()
    assert received == [LARGE]


async def test_over_rpc_the_server_may_answer_after_the_end_of_what_it_gets() -> None:
    async def answer_at_the_end(stream: ByteStream) -> None:
        await stream.send(str(len(await everything(stream))).encode())

    async with listening(answer_at_the_end) as address, through("rpc") as db, db.connect(address) as stream:
        await stream.send(b"12345")
        await stream.send_eof()
        assert await everything(stream) == b"5"


async def test_over_the_tunnel_the_end_is_that_of_both_directions() -> None:
    async with listening(echo) as address, through() as db, db.connect(address) as stream:
        await stream.send_eof()
        assert await everything(stream) == b""
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"more")


async def test_megabytes_arrive_whole_in_both_directions_at_a_time(channel: Any) -> None:
    data = bytes(range(256)) * (LARGE // 256)
    async with listening(echo) as address, through(channel) as db, db.connect(address) as stream:
        back = bytearray()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.send, data)
            while len(back) < LARGE:
                back += await stream.receive()
    assert back == data


async def test_a_sender_that_is_faster_than_the_server_reads_has_to_wait(channel: Any) -> None:
    ready, go_on, sent = anyio.Event(), anyio.Event(), 0

    async def read_late(stream: ByteStream) -> None:
        await stream.receive()
        ready.set()
        # From here on anyio reads no more than it is asked for.
        await stream.receive()
        await go_on.wait()
        await everything(stream)

    async def send_much(stream: ByteStream) -> None:
        nonlocal sent
        while True:
            await stream.send(bytes(65536))
            sent += 65536

    async with listening(read_late) as address, through(channel) as db, db.connect(address) as stream:
        await stream.send(b"a")
        await ready.wait()
        with anyio.move_on_after(1):
            await send_much(stream)
        # What buffers on the way hold: sockets of three connections, and a window of the session.
        assert sent < 48 << 20
        go_on.set()


async def test_a_server_that_is_faster_than_its_reader_has_to_wait(channel: Any) -> None:
    sent, stuck = 0, anyio.Event()

    async def flood(stream: ByteStream) -> None:
        nonlocal sent
        with anyio.move_on_after(1):
            while True:
                await stream.send(bytes(65536))
                sent += 65536
        stuck.set()

    async with listening(flood) as address, through(channel) as db, db.connect(address) as stream:
        await stream.receive()
        await stuck.wait()
        assert sent < 48 << 20


@pytest.mark.usefixtures("no_dropping")
async def test_a_connection_that_is_closed_here_is_closed_there(channel: Any) -> None:
    over = anyio.Event()

    async def wait(stream: ByteStream) -> None:
        try:
            await everything(stream)
        except anyio.BrokenResourceError:
            pass
        over.set()

    async with listening(wait) as address, through(channel) as db:
        async with db.connect(address) as stream:
            await stream.send(b"a")
        with anyio.fail_after(60):
            await over.wait()


async def how_it_ends(stream: ByteStream) -> str:
    """Whether all that was sent has come, "end", or not, "reset"."""
    try:
        await everything(stream)
    except anyio.BrokenResourceError:
        return "reset"
    return "end"


async def test_who_is_cancelled_is_done_at_once_and_resets_the_connection() -> None:
    """An end would say that all has been sent."""
    ended: list[str] = []
    over = anyio.Event()

    async def wait(stream: ByteStream) -> None:
        ended.append(await how_it_ends(stream))
        over.set()

    async with listening(wait) as address, through() as db:
        began = anyio.current_time()
        with anyio.CancelScope() as scope:
            async with db.connect(address) as stream:
                await stream.send(b"half of it")
                scope.cancel()
                await stream.receive()
        assert anyio.current_time() - began < 3
        with anyio.fail_after(60):
            await over.wait()
    assert ended == ["reset"]


async def test_who_is_cancelled_in_the_middle_of_sending_resets_the_connection() -> None:
    """What was cut short is not followed by an end that says it was whole."""
    ended: list[str] = []
    over, go_on = anyio.Event(), anyio.Event()

    async def read_late(stream: ByteStream) -> None:
        await go_on.wait()
        ended.append(await how_it_ends(stream))
        over.set()

    async with listening(read_late) as address, through() as db:
        async with db.connect(address) as stream:
            with anyio.move_on_after(0.5):
                while True:
                    await stream.send(bytes(1 << 20))
            with pytest.raises(TunnelError, match="a send was cancelled"):
                await stream.send(b"more")
        go_on.set()
        with anyio.fail_after(60):
            await over.wait()
    assert ended == ["reset"]


async def test_a_client_that_vanishes_resets_the_connection() -> None:
    """An end would say that all has been sent."""
    ended: list[str] = []
    over = anyio.Event()

    async def wait(stream: ByteStream) -> None:
        try:
            await everything(stream)
            ended.append("end")
        except anyio.BrokenResourceError:
            ended.append("reset")
        over.set()

    async with listening(wait) as address, served() as url:

        def vanish() -> None:
            with _open(url, {"MF-Binding": "DB", "MF-Connect-Address": address}) as tunnel:
                tunnel.send(b"half of it")
                tunnel.socket.shutdown(socket.SHUT_RDWR)

        await anyio.to_thread.run_sync(vanish)
        with anyio.fail_after(60):
            await over.wait()
    assert ended == ["reset"]


async def test_a_connection_that_breaks_is_an_error_with_a_reason(channel: Any) -> None:
    async def reset(stream: SocketStream) -> None:
        await stream.receive()
        stream.extra(SocketAttribute.raw_socket).setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
        )

    async with listening(reset) as address, through(channel) as db, db.connect(address) as stream:
        await stream.send(b"a")
        with pytest.raises(TunnelError, match="broke off: Connection reset by peer"):
            await everything(stream)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.2:80", "refused: 127.0.0.2:80 is not on the binding's allow-list"),
        ("localhost:80", "refused: localhost:80 is not on the binding's allow-list"),
        ("example.com:443", "refused: example.com:443 is not on the binding's allow-list"),
        ("[::1]:80", r"refused: \[::1\]:80 is not on the binding's allow-list"),
        ("127.0.0.1", 'refused: "127.0.0.1" is no address: "host:port" is one'),
        ("127.0.0.1:1", "127.0.0.1:1 cannot be reached: Connection refused"),
    ],
)
async def test_what_cannot_be_connected_to_says_why(channel: Any, address: str, reason: str) -> None:
    async with through(channel) as db:
        with pytest.raises(TunnelError, match=reason):
            async with db.connect(address) as stream:
                await stream.receive()


async def test_a_name_that_leads_elsewhere_is_refused(channel: Any) -> None:
    """The list has the name; what it leads to is loopback, which is not on it."""
    async with through(channel, allow=["*:*"]) as db:
        with pytest.raises(
            TunnelError, match="refused: localhost:80 leads to an address that is not on the allow-list"
        ):
            async with db.connect("localhost:80") as stream:
                await stream.receive()


async def test_tls_is_spoken_with_the_server_from_the_first_byte_on(channel: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with (
        listening(echo, tls) as address,
        through(channel, tls=True, ca=str(tmp_path / "ca.pem")) as db,
        db.connect(address) as stream,
    ):
        await stream.send(b"secret")
        assert await stream.receive() == b"secret"


async def test_the_end_over_tls_is_one_that_the_server_takes_for_the_end(
    channel: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    received = b""
    over = anyio.Event()

    async def collect(stream: SocketStream) -> None:
        nonlocal received
        # Without the farewell of TLS, this raises.
        received = await everything(await TLSStream.wrap(stream, server_side=True, ssl_context=tls))
        over.set()

    async with listening(collect) as address, through(channel, tls=True, ca=str(tmp_path / "ca.pem")) as db:
        async with db.connect(address) as stream:
            await stream.send(b"all of it")
            await stream.send_eof()
        with anyio.fail_after(60):
            await over.wait()
    assert received == b"all of it"
    assert not caplog.records


async def test_connections_end_with_their_session() -> None:
    over = anyio.Event()

    async def wait(stream: ByteStream) -> None:
        try:
            await everything(stream)
        finally:
            over.set()

    async with listening(wait) as address, served() as url:
        async with connect_env(url, channel="rpc") as env:
            await env.DB.rpc.connect(address)
        with anyio.fail_after(60):
            await over.wait()


async def test_a_certificate_of_nobody_that_is_trusted_is_refused(channel: Any, tmp_path: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with listening(refuse_tls(tls)) as address, through(channel, tls=True) as db:
        with pytest.raises(TunnelError, match="cannot be reached: "):
            async with db.connect(address) as stream:
                await stream.receive()


def refuse_tls(tls: ssl.SSLContext) -> Handler:
    """A handshake with clients that do not trust the server."""

    async def handle(stream: SocketStream) -> None:
        try:
            await TLSStream.wrap(stream, server_side=True, ssl_context=tls)
        except (ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
            pass

    return handle


async def test_http_requests_go_to_the_same_addresses(channel: Any) -> None:
    async def answer(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with listening(answer) as address, through(channel) as db:
        response = await db.fetch(f"http://{address}/")
        assert await response.text() == "hi"
        refused = await db.fetch("http://127.0.0.2/")
        assert (refused.status, await refused.text()) == (
            403,
            "refused: 127.0.0.2:80 is not on the binding's allow-list",
        )


async def test_the_connection_string_is_told_to_who_has_the_binding_and_to_no_log(
    channel: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "proxy_server")
    monkeypatch.setenv("DATABASE_URL", f"postgres://user:{PASSWORD}@db.internal:5432/app")
    async with through(channel, connection_string={"env": "DATABASE_URL"}) as db:
        assert await db.connection_string() == f"postgres://user:{PASSWORD}@db.internal:5432/app"
        assert PASSWORD not in repr(db)
    assert PASSWORD not in caplog.text


async def test_over_rpc_the_connection_string_is_where_connect_goes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(echo) as address:
        monkeypatch.setenv("DATABASE_URL", f"postgres://user:{PASSWORD}@{address}/app")
        async with through("rpc", connection_string={"env": "DATABASE_URL"}) as db:
            stream = await db.rpc.connect()
            await stream["writable"].write(b"a")
            chunks = aiter(stream["readable"])
            assert await anext(chunks) == b"a"


async def test_a_binding_without_a_connection_string_says_so(channel: Any) -> None:
    async with through(channel) as db:
        with pytest.raises(RpcError, match="this binding has no connection string"):
            await db.connection_string()


async def test_the_connection_string_is_for_who_has_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgres://user:{PASSWORD}@db/app")
    async with served(connection_string={"env": "DATABASE_URL"}) as url:
        headers = {"MF-HD-Seed": "true", "MF-Binding": "DB"}
        allowed = await anyio.to_thread.run_sync(lambda: httpx2.get(url, headers=headers))
        refused = await anyio.to_thread.run_sync(lambda: httpx2.get(url.replace(SECRET, "x"), headers=headers))
    assert allowed.json() == {"connectionString": f"postgres://user:{PASSWORD}@db/app"}
    assert (refused.status_code, PASSWORD in refused.text) == (401, False)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Server]:
    """A proxy server in a process of its own."""
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.DB]\ntype = "connect"\nallow = ["127.0.0.1:*"]\n')
    with serving(config) as server:
        yield server


async def test_a_proxy_that_is_killed_is_an_error_at_both_ends(process: Server, channel: Any) -> None:
    over = anyio.Event()

    async def echo_until_it_ends(stream: ByteStream) -> None:
        try:
            await echo(stream)
        finally:
            over.set()

    async with (
        listening(echo_until_it_ends) as address,
        connect_env(process.url, channel=channel) as env,
        env.DB.connect(address) as stream,
    ):
        await stream.send(b"half of it")
        await stream.receive()
        process.process.kill()
        with anyio.fail_after(60):
            with pytest.raises(TunnelError):
                await everything(stream)
            await over.wait()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells of open files so")
async def test_of_many_connections_nothing_is_left(process: Server, channel: Any) -> None:

    def open_files() -> int:
        return len(os.listdir(f"/proc/{process.process.pid}/fd"))

    async def use(db: Any, address: str, number: int) -> None:
        async with db.connect(address) as stream:
            await stream.send(b"a")
            if number % 3:
                await stream.receive()
            if number % 2:
                await stream.send_eof()

    async with listening(echo) as address, connect_env(process.url, channel=channel) as env:
        await use(env.DB, address, 1)
        with anyio.fail_after(60):
            before = open_files()
            for _ in range(5):
                async with anyio.create_task_group() as tasks:
                    for number in range(20):
                        tasks.start_soon(use, env.DB, address, number)
            while open_files() > before:
                await anyio.lowlevel.checkpoint()


# The tunnel itself


def _open(url: str, headers: Mapping[str, str]) -> Any:
    return websockets.sync.client.connect(url.replace("http", "ws", 1), additional_headers=headers)


def _closed(url: str, address: str) -> tuple[int, str]:
    """The close code and the reason of a tunnel."""
    with _open(url, {"MF-Binding": "DB", "MF-Connect-Address": address}) as tunnel:
        with pytest.raises(ConnectionClosed) as ended:
            tunnel.recv()
        assert ended.value.rcvd is not None
        return ended.value.rcvd.code, ended.value.rcvd.reason


async def test_a_refusal_closes_the_tunnel_with_1011_and_a_reason_that_fits() -> None:
    address = "ä" * 100 + ".example:1"
    async with served() as url:
        code, reason = await anyio.to_thread.run_sync(_closed, url, address.encode().decode("latin-1"))
    assert code == 1011
    assert reason.startswith("refused: ")
    assert 120 <= len(reason.encode()) <= 123


async def test_the_end_of_the_connection_closes_the_tunnel_with_1000() -> None:
    async def hang_up(_stream: ByteStream) -> None:
        pass

    async with listening(hang_up) as address, served() as url:
        assert await anyio.to_thread.run_sync(_closed, url, address) == (1000, "")


async def test_text_counts_as_its_bytes() -> None:
    async with listening(echo) as address, served() as url:

        def exchange() -> Any:
            with _open(url, {"MF-Binding": "DB", "MF-Connect-Address": address}) as tunnel:
                tunnel.send("ü")
                return tunnel.recv()

        assert await anyio.to_thread.run_sync(exchange) == "ü".encode()


async def test_a_binding_of_another_type_makes_no_connections() -> None:
    class Other:
        def rpc_main(self) -> object: ...
        async def fetch(self, _request: Any) -> Any: ...
        async def aclose(self) -> None: ...

    scope = websocket_scope(headers=[("mf-binding", "X"), ("mf-connect-address", "127.0.0.1:1")])
    async with proxy(X=Other()) as app, wired(app, scope) as wire:
        await wire.to_app.send({"type": "websocket.connect"})
        assert (await wire.next())["status"] == 400
        assert (await wire.next())["body"] == b'this binding makes no TCP connections: those of the type "connect" do'


async def test_connections_end_with_the_binding() -> None:
    over = anyio.Event()

    async def wait(stream: ByteStream) -> None:
        try:
            await everything(stream)
        except anyio.BrokenResourceError:
            pass
        over.set()

    async with listening(wait) as address, anyio.create_task_group() as tasks:
        binding = Connect(AllowList.parse(["127.0.0.1:*"]), tasks)
        await binding.connect(address)
        await binding.aclose()
        with anyio.fail_after(60):
            await over.wait()


async def test_a_tunnel_whose_server_stops_ends() -> None:
    async with listening(echo) as address, anyio.create_task_group() as tasks:
        binding = Connect(AllowList.parse(["127.0.0.1:*"]), tasks)
        scope = websocket_scope(headers=[("mf-binding", "DB"), ("mf-connect-address", address)])
        async with proxy(DB=opener(binding)) as app, wired(app, scope) as wire:
            await wire.to_app.send({"type": "websocket.connect"})
            assert (await wire.next())["type"] == "websocket.accept"
            await wire.to_app.send({"type": "websocket.disconnect", "code": 1012})
            await wire.ended.wait()
            assert wire.failure is None
            assert not binding._connections


# The configuration


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, 'bindings.DB: the key "allow" is missing'),
        ({"allow": []}, 'bindings.DB: the key "allow" is missing'),
        ({"allow": ["db.internal"]}, 'bindings.DB.allow: "db.internal" names no port'),
        ({"allow": ["a:1"], "tls": "yes"}, "bindings.DB.tls: true or false is needed here"),
        ({"allow": ["a:1"], "ca": "none.pem"}, "bindings.DB.ca: .*none.pem is no file of certificates"),
        (
            {"allow": ["a:1"], "connection_string": "postgres://"},
            "bindings.DB.connection_string: a table is needed here",
        ),
        (
            {"allow": ["a:1"], "connection_string": {"env": "NOT_SET_ANYWHERE"}},
            "bindings.DB.connection_string.env: the environment variable NOT_SET_ANYWHERE is not set",
        ),
        ({"allow": ["a:1"], "alow": []}, 'bindings.DB.alow: unknown key: did you mean "allow"?'),
    ],
)
def test_a_mistake_in_the_table_is_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read({"bindings": {"DB": {"type": "connect", **table}}}, Path("capnweb.toml"))


@pytest.mark.parametrize("kind", ["connect", "hyperdrive", "vpc_network", "vpc_service"])
def test_wranglers_names_are_taken(kind: str) -> None:
    config = read({"bindings": {"DB": {"type": kind, "allow": ["a:1"]}}}, Path("capnweb.toml"))
    assert config.bindings["DB"].kind == kind
    assert json.dumps(dict(config.bindings["DB"].written))
