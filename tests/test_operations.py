"""Living with a server: how it stops, what it says of itself, and what it logs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import attrs
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from proxying import SECRET, Server, fetch, http_scope, proxy, serving, start, websocket_scope
from websockets.protocol import CLOSING
from websockets.server import ServerProtocol

from capnweb_py import Backoff, ProxyError, RemoteError, RpcTarget, SessionOptions, Unreachable, memory_pair
from capnweb_py.bindings.channels import Channel
from capnweb_py.bindings.d1 import D1Error
from capnweb_py.bindings.kv import KvError
from capnweb_py.bindings.queue_channels import QueueError
from capnweb_py.bindings.tunnel import TunnelError
from capnweb_py.errors import SessionClosed
from capnweb_py.remote import connect_env
from capnweb_py.web import Request, Response
from proxy_server.app import ProxyApp
from proxy_server.bindings.service import RpcService
from proxy_server.closing_sockets import ClosingWebSocket
from proxy_server.refusals import Refusal, Refusals
from proxy_server.watching import Watch

pytestmark = pytest.mark.anyio

CONFIG: Final = """
[server]
secret = "{secret}"
drain_timeout = {seconds}
[bindings.SVC]
type = "service"
target = "tests.services:Service"
"""


@pytest.fixture
def configured(tmp_path: Path) -> Callable[[int], Path]:
    def write(seconds: int) -> Path:
        path = tmp_path / "capnweb.toml"
        path.write_text(CONFIG.format(secret=SECRET, seconds=seconds))
        return path

    return write


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path: Path = tmp_path_factory.mktemp("operations") / "capnweb.toml"
    path.write_text(CONFIG.format(secret=SECRET, seconds=5))
    with serving(path) as server:
        yield server.url


async def ended(server: Server) -> tuple[str, str]:
    """What the server has written by its end."""
    return await anyio.to_thread.run_sync(server.ended)


# Stopping


@attrs.define
class Held:
    """A callback of a call's, which runs until it is let go."""

    begun: anyio.Event = attrs.field(factory=anyio.Event)
    go_on: anyio.Event = attrs.field(factory=anyio.Event)

    async def hold(self, value: Any) -> Any:
        self.begun.set()
        await self.go_on.wait()
        return value

    async def body(self) -> AsyncIterator[bytes]:
        yield b"first"
        self.begun.set()
        await self.go_on.wait()
        yield b"last"


async def refused(service: Any) -> Any:
    """The error of the first call that a server which is told to stop does not take."""
    while True:
        try:
            await service.hello("World")
        except RemoteError as error:
            return error


async def test_a_call_that_runs_is_finished_before_the_server_stops(configured: Callable[[int], Path]) -> None:
    server = start(configured(20))
    held = Held()
    outcome: list[Any] = []

    async def call(service: Any) -> None:
        outcome.append(await service.call_each(["finished"], held.hold))

    with anyio.fail_after(60):
        async with connect_env(server.url) as env, anyio.create_task_group() as tasks:
            counter = await env.SVC.make_counter(1)
            tasks.start_soon(call, env.SVC)
            await held.begun.wait()
            server.process.terminate()
            error = await refused(env.SVC)
            assert "the server is shutting down, and has not run this" in str(error)
            assert isinstance(error, ConnectionError)
            assert error.may_have_run is False
            assert await counter.increment() == 2, "what was given out before goes on"
            held.go_on.set()
        assert outcome == [["finished"]]
        _, said = await ended(server)
    assert server.process.returncode == 0, said


async def test_a_request_that_runs_is_finished_before_the_server_stops(configured: Callable[[int], Path]) -> None:
    server = start(configured(20))
    held = Held()
    outcome: list[str] = []

    async def request(service: Any) -> None:
        response = await service.fetch("https://a.example/upload", method="POST", body=held.body())
        outcome.append(await response.text())

    with anyio.fail_after(60):
        async with connect_env(server.url, backoff=Backoff(patience=0)) as env, anyio.create_task_group() as tasks:
            tasks.start_soon(request, env.SVC)
            await held.begun.wait()
            server.process.terminate()
            await nobody_listens(server.url)
            with pytest.raises(Unreachable) as caught:
                await env.SVC.fetch("https://a.example/teapot")
            assert not caught.value.may_have_run
            held.go_on.set()
        assert outcome == ["firstlast"]
        assert await ended(server) == ("", "")
    assert server.process.returncode == 0


async def test_a_request_on_a_connection_that_exists_is_not_run_either(configured: Callable[[int], Path]) -> None:
    server = start(configured(20))
    held = Held()

    async def call(service: Any) -> None:
        await service.call_each([1], held.hold)

    with anyio.fail_after(60):
        async with connect_env(server.url, backoff=Backoff(patience=0)) as env, anyio.create_task_group() as tasks:
            tasks.start_soon(call, env.SVC)
            await held.begun.wait()
            assert await (await env.SVC.fetch("https://a.example/teapot")).text()
            server.process.terminate()
            await refused(env.SVC)
            with pytest.raises(Unreachable, match="shutting down, and has not run this") as caught:
                await env.SVC.fetch("https://a.example/teapot", method="POST", body="x")
            assert not caught.value.may_have_run
            held.go_on.set()
        await ended(server)


async def nobody_listens(url: str) -> None:
    host, port = url.split("/")[2].split(":")
    while True:
        try:
            stream = await anyio.connect_tcp(host, int(port))
        except OSError:
            return
        await stream.aclose()


async def test_the_time_to_finish_is_limited(configured: Callable[[int], Path]) -> None:
    server = start(configured(0))
    held = Held()
    failures: list[SessionClosed] = []

    async def call(service: Any) -> None:
        try:
            await service.call_each(["never"], held.hold)
        except SessionClosed as error:
            failures.append(error)

    with anyio.fail_after(60):
        async with connect_env(server.url) as env, anyio.create_task_group() as tasks:
            tasks.start_soon(call, env.SVC)
            await held.begun.wait()
            server.process.terminate()
        _, said = await ended(server)
    assert [error.may_have_run for error in failures] == [True]
    assert "not everything has finished within 0 s, and what runs is cut off" in said
    assert server.process.returncode == 0


async def test_a_line_says_when_the_server_begins_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "proxy_server")
    async with proxy(SVC=RpcService("tests:Api", Api)) as app:
        await app.drain(5)
    assert caplog.messages == ["shutting down: 0 requests that run and 0 sessions have 5 s to finish"]


async def test_requests_and_sessions_that_come_too_late_are_refused() -> None:
    async with proxy(SVC=RpcService("tests:Api", Api)) as app:
        await app.drain(0)
        reply = await fetch(app, http_scope("SVC"))
        assert (reply.status, reply.header("connection")) == (503, "close")
        assert reply.body == b"the server is shutting down, and has not run this"
        assert reply.header("capnweb-refused") == "stopping"
        late = await fetch(app, websocket_scope("MF-Binding=SVC"))
        assert (late.status, late.header("capnweb-refused")) == (503, "stopping")
        assert (await fetch(app, http_scope("SVC", path="/wrong/"))).status == 401, "who may not know is told nothing"


class Transport:
    """As much of a transport as closing needs."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_websocket_that_its_client_closes_may_be_told_to_stop() -> None:
    socket = ClosingWebSocket.__new__(ClosingWebSocket)
    socket.conn = ServerProtocol()
    socket.conn.state = CLOSING
    socket.handshake_complete, socket.close_sent = True, False
    socket.ping_timer = socket.pong_timer = None
    socket.transport = transport = Transport()
    socket.shutdown()
    assert transport.closed


# Pages


def page(name: str) -> dict[str, Any]:
    return http_scope(None, path=f"/{SECRET}/{name}")


class Api(RpcTarget):
    def hello(self) -> str:
        return "Hello!"

    def fail(self) -> None:
        raise LookupError("the value")

    def fetch(self, request: Request) -> Response:
        if request.url.endswith("/fail"):
            raise LookupError("the value")
        return Response("Hello!")


async def test_health() -> None:
    async with proxy(SVC=RpcService("tests:Api", Api)) as app:
        reply = await fetch(app, page("healthz"))
        assert (reply.status, reply.header("content-type")) == (200, "application/json")
        assert json.loads(reply.body) == {"status": "ok", "bindings": 1, "sessions": 0}
        await app.drain(0)
        reply = await fetch(app, page("healthz"))
        assert (reply.status, json.loads(reply.body)["status"]) == (503, "draining")


@pytest.mark.parametrize("name", ["healthz", "metrics"])
async def test_pages_are_behind_the_secret(name: str) -> None:
    async with proxy(SVC=RpcService("tests:Api", Api)) as app:
        unauthorized = await fetch(app, http_scope("SVC", path="/wrong/"))
        for path in (f"/{name}", f"/wrong/{name}", f"/{SECRET}x/{name}", f"/{SECRET}/x/{name}", f"/{SECRET}/{name}/x"):
            reply = await fetch(app, http_scope(None, path=path))
            assert (reply.status, reply.body) == (401, unauthorized.body)
        foreign = http_scope(None, path=f"/{SECRET}/{name}", headers=[("origin", "https://a.example")])
        assert (await fetch(app, foreign)).status != 200


async def numbers(app: ProxyApp) -> dict[str, float]:
    """The metrics, by their names and labels."""
    reply = await fetch(app, page("metrics"))
    assert (reply.status, reply.header("content-type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return samples(reply.body.decode())


def samples(text: str) -> dict[str, float]:
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_requests_are_counted() -> None:
    async with proxy(SVC=RpcService("tests:Api", Api)) as app:
        assert await numbers(app) == {"capnweb_bindings": 1}
        await fetch(app, http_scope("SVC", method="POST", headers=[("content-length", "4")]), b"1234")
        await fetch(app, http_scope("SVC", headers=[("mf-url", "https://a.example/fail")]))
        counted = await numbers(app)
    assert counted["capnweb_calls_total SVC http"] == 2
    assert counted["capnweb_errors_total SVC http"] == 1
    assert counted["capnweb_bytes_total SVC http in"] == 4
    assert counted["capnweb_bytes_total SVC http out"] == len("Hello!") + len("the value")
    assert counted["capnweb_call_seconds_count SVC http"] == 2
    assert counted["capnweb_call_seconds_bucket SVC http +Inf"] == 2


async def test_calls_are_counted(url: str) -> None:
    async with httpx2.AsyncClient() as client:

        async def now() -> dict[str, float]:
            return samples((await client.get(f"{url}metrics")).text)

        before = await now()
        async with connect_env(url) as env:
            await env.SVC.hello("World")
            with pytest.raises(LookupError):
                await env.SVC.fail("LookupError")
            during = await now()
            assert during["capnweb_sessions SVC"] == 1
        for name, more in {"calls": 2, "errors": 1}.items():
            name = f"capnweb_{name}_total SVC rpc"
            assert during[name] - before.get(name, 0) == more
        assert during["capnweb_bytes_total SVC rpc in"] > 0
        with anyio.fail_after(60):
            while (await now())["capnweb_sessions SVC"]:
                await anyio.lowlevel.checkpoint()


async def test_websockets_and_raw_connections_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "capnweb.toml"
    path.write_text(
        f"""
        [server]
        secret = "{SECRET}"
        [bindings.CHAT]
        type = "service"
        target = "tests.chat:Chat"
        [bindings.NOWHERE]
        type = "connect"
        allow = ["db.internal:5432"]
        """
    )
    server = start(path)
    with anyio.fail_after(20):
        async with httpx2.AsyncClient() as client, connect_env(server.url) as env:
            async with env.CHAT.websocket("https://a.example/echo") as chat:
                await chat.send("x")
                await chat.receive()
            async with env.NOWHERE.connect("127.0.0.1:1") as stream:
                with pytest.raises(TunnelError):
                    await stream.receive()
            counted: dict[str, float] = {}
            while "capnweb_calls_total CHAT websocket" not in counted:
                counted = samples((await client.get(f"{server.url}metrics")).text)
            while not counted.get("capnweb_errors_total NOWHERE websocket"):
                counted = samples((await client.get(f"{server.url}metrics")).text)
        server.process.terminate()
        _, said = await ended(server)
    assert (counted["capnweb_calls_total CHAT websocket"], counted["capnweb_errors_total CHAT websocket"]) == (1, 0)
    assert counted["capnweb_calls_total NOWHERE websocket"] == 1
    lines = [line.partition(", after ")[0] for line in said.splitlines()]
    assert lines == ["WARNING proxy_server: NOWHERE websocket CONNECT 127.0.0.1:1 failed: AddressRefused"]


async def test_what_was_asked_of_a_name_that_is_none_is_not_counted() -> None:
    async with proxy(SVC=RpcService("tests:Api", Api)) as app:
        assert (await fetch(app, http_scope("NONE"))).status == 400
        assert (await fetch(app, http_scope("SVC", path="/wrong/"))).status == 401
        assert await numbers(app) == {
            "capnweb_bindings": 1,
            "capnweb_refusals_total binding": 1,
            "capnweb_refusals_total secret": 1,
        }


async def test_times_are_counted_in_buckets() -> None:
    now = 0.0
    watch = Watch(lambda: 1, lambda: now)
    on_call = watch.calls_of("SVC")
    for seconds in (0.001, 0.003, 100.0):
        on_end = on_call("hello")
        now += seconds
        on_end(None)
    counted = samples(watch.exposition().decode())
    buckets = {bound: counted[f"capnweb_call_seconds_bucket SVC rpc {bound}"] for bound in ("0.001", "0.005", "+Inf")}
    assert buckets == {"0.001": 1, "0.005": 2, "+Inf": 3}
    assert counted["capnweb_call_seconds_sum SVC rpc"] == pytest.approx(100.004)


# What a session tells of its calls


async def test_a_session_tells_of_each_call_and_of_its_end() -> None:
    told: list[tuple[str, Any]] = []

    def on_call(name: str) -> Callable[[BaseException | None], object]:
        return lambda error: told.append((name, error and type(error).__name__))

    class Target(Api):
        async def wait(self) -> None:
            await anyio.sleep_forever()

        async def total(self, numbers: AsyncIterator[int]) -> int:
            return sum([number async for number in numbers])

    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async with memory_pair(None, Target(), options=SessionOptions(on_call=on_call)) as (client, _server):
        api = client.remote_main
        await api.hello()
        with pytest.raises(LookupError):
            await api.fail()
        assert await api.total(numbers()) == 3
        await api["no such"].map(lambda value: value)
        pending = api.wait()
        await anyio.wait_all_tasks_blocked()
    with pytest.raises(SessionClosed):
        await pending
    assert ("hello", None) in told
    assert ("fail", "LookupError") in told
    assert ("total", None) in told
    assert ("map", None) in told
    assert told[-1][0] == "wait"
    assert len([name for name, _ in told if name in {"write", "close"}]) == 0, "chunks of streams are no calls"


# Logs


async def logged(configured: Callable[[int], Path], *arguments: str) -> str:
    """What a server logs of failed calls whose names, errors and queries are values."""
    server = start(configured(5), *arguments)
    async with connect_env(server.url) as env:
        with pytest.raises(ValueError, match="on purpose"):
            await env.SVC.fail("ValueError")
        with pytest.raises(RemoteError, match="on purpose"):
            await env.SVC.fail("OutOfStock")
        failed = await env.SVC.fetch("https://a.example/fail?token=hidden", method="POST", body="hidden")
        await failed.text()
        response = await env.SVC.fetch("https://a.example/fail", method="POST")
        await response.text()
        await env.SVC.fetch("https://a.example/teapot?token=hidden")
    server.process.terminate()
    _, said = await ended(server)
    assert SECRET not in said
    return said


async def test_each_failed_call_is_a_line(configured: Callable[[int], Path]) -> None:
    said = await logged(configured)
    lines = [line.partition(", after ")[0] for line in said.splitlines()]
    assert lines == [
        "WARNING proxy_server: SVC rpc fail failed: ValueError",
        "WARNING proxy_server: SVC rpc fail failed: OutOfStock",
        "WARNING proxy_server: SVC http POST /fail failed: LookupError",
    ]
    assert "on purpose" not in said
    assert "hidden" not in said


async def test_lines_may_be_json(configured: Callable[[int], Path]) -> None:
    said = await logged(configured, "--log-json")
    lines = [json.loads(line) for line in said.splitlines()]
    assert [(line["level"], line["logger"]) for line in lines] == [("warning", "proxy_server")] * 3
    assert {key: lines[2]["call"][key] for key in ("binding", "channel", "call", "error")} == {
        "binding": "SVC",
        "channel": "http",
        "call": "POST /fail",
        "error": "LookupError",
    }
    assert all(line["call"]["ms"] >= 0 for line in lines)
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    assert "on purpose" not in said


async def test_what_errors_say_is_for_who_asks_for_it(configured: Callable[[int], Path]) -> None:
    assert "no answer today" in await logged(configured, "--log-level", "debug")


DECLINING: Final = """
[bindings.KV]
type = "kv_namespace"
[bindings.DB]
type = "d1"
[bindings.QUEUE]
type = "queue"
"""


async def declined(tmp_path: Path, channel: Channel, *arguments: str) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """What a server logs of calls that bindings decline, or find nothing for, and its metrics."""
    config = tmp_path / "capnweb.toml"
    config.write_text(DECLINING)
    server = start(config, "--log-json", *arguments)
    async with connect_env(server.url, channel=channel) as env:
        assert await env.KV.get("nothing") is None
        with pytest.raises(KvError, match="413"):
            await env.KV.put("k", "v", metadata="x" * 2000)
        with pytest.raises(D1Error, match="no such table"):
            await env.DB.exec("SELECT * FROM absent")
        with pytest.raises(QueueError):
            await env.QUEUE.send("x" * 200_000)
    async with httpx2.AsyncClient() as client:
        counted = samples((await client.get(f"{server.url}metrics")).text)
    server.process.terminate()
    _, said = await ended(server)
    lines = [json.loads(line) for line in said.splitlines()]
    return [line for line in lines if "call" in line], counted


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_what_a_binding_declines_is_no_failure(tmp_path: Path, channel: Channel) -> None:
    lines, counted = await declined(tmp_path, channel)
    assert lines == []
    assert {name: count for name, count in counted.items() if name.startswith("capnweb_errors") and count} == {}
    assert counted[f"capnweb_calls_total KV {channel}"] == 2


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_who_asks_for_it_sees_what_a_binding_declines(tmp_path: Path, channel: Channel) -> None:
    lines, _ = await declined(tmp_path, channel, "--log-level", "info")
    assert {line["level"] for line in lines} == {"info"}
    assert [line["call"]["binding"] for line in lines] == (
        # Over RPC, the facade's statements bring their errors as values.
        ["KV", "DB", "QUEUE"] if channel == "http" else ["KV", "QUEUE"]
    )
    assert "HTTP 413" in lines[0]["call"]["error"]
    assert "was declined" in lines[0]["message"]


# Refusals


async def test_each_refusal_is_a_line(configured: Callable[[int], Path]) -> None:
    server = start(configured(5), "--log-json")
    strange = server.url.replace(SECRET, "a-secret-of-another-time")
    for url, bindings in ((strange, {"SVC": "service"}), (server.url, {"CVS": "service", "SVC": "kv_namespace"})):
        async with connect_env(url, bindings=bindings) as env:
            for name, kind in bindings.items():
                with pytest.raises(ProxyError):
                    await (env[name].list() if kind == "kv_namespace" else env[name].hello("World"))
    server.process.terminate()
    _, said = await ended(server)
    assert SECRET not in said
    assert "a-secret-of-another-time" not in said
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["level"] for line in lines] == ["warning"] * 3
    assert [line["refused"] for line in lines] == [
        {"reason": "secret", "binding": "SVC", "channel": "websocket", "status": 401, "left_out": 0},
        {"reason": "binding", "binding": "CVS", "channel": "websocket", "status": 400, "left_out": 0},
        {"reason": "type", "binding": "SVC", "channel": "http", "status": 400, "left_out": 0},
    ]
    assert lines[1]["message"] == "refused a request for the binding CVS: binding, HTTP 400"


async def test_refusals_do_not_fill_a_disk(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    refusals = Refusals(lambda: now)
    secret = Refusal(401, "no", "secret")

    async def refuse(refusal: Refusal, times: int) -> list[dict[str, Any]]:
        async def send(_event: Any) -> None:
            """It goes nowhere."""

        caplog.clear()
        for _ in range(times):
            await refusals.refuse(refusal, "line\nfeed" * 100, {"type": "http"}, send, send)
        return [vars(record)["refused"] for record in caplog.records]

    logged = await refuse(secret, 1000)
    assert len(logged) == 10
    assert max(len(refused["binding"]) for refused in logged) < 300
    assert "\n" not in caplog.text.replace("\nWARNING", "").rstrip()
    assert len(await refuse(Refusal(400, "no", "binding"), 1)) == 1, "each reason has lines of its own"
    now = 59.0
    assert await refuse(secret, 5) == []
    now = 60.0
    assert [refused["left_out"] for refused in await refuse(secret, 2)] == [995, 0]
    assert "; 995 more like it were not logged" in caplog.text
    assert refusals.counts == {"secret": 1007, "binding": 1}


async def test_a_server_that_says_much_goes_on(configured: Callable[[int], Path]) -> None:
    """More than a pipe holds, which nobody reads."""
    with serving(configured(5)) as server:
        async with connect_env(server.url) as env:
            for _ in range(2000):
                with pytest.raises(ValueError, match="on purpose"):
                    await env.SVC.fail("ValueError")
        assert len(server.said()) > 65536
