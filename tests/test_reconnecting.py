"""Connections that are lost: the next use makes another one, and a call that fails says whether it may have run."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import attrs
import pytest
from proxying import SECRET, Server, serving, start
from relay import relay
from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.http11 import Response as HandshakeResponse

from capnweb_py import (
    AnswerLost,
    Backoff,
    CallNotSent,
    RemoteError,
    RpcError,
    RpcTarget,
    SessionClosed,
    Unreachable,
    memory_pair,
    open_session,
    serve,
)
from capnweb_py.backoff import passes
from capnweb_py.lazy import LazySession
from capnweb_py.loops import task_set
from capnweb_py.remote import connect_env
from capnweb_py.web_socket import WebSocketRefused

pytestmark = pytest.mark.anyio

CONFIG: Final = f"""
[server]
secret = "{SECRET}"
[bindings.SVC]
type = "service"
target = "tests.services:Service"
[bindings.ANYWHERE]
type = "connect"
allow = ["127.0.0.1:1"]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("reconnecting") / "capnweb.toml"
    path.write_text(CONFIG)
    return path


def port_of(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


@attrs.define
class Time:
    """Time that passes only while somebody sleeps, and what is to happen meanwhile."""

    now: float = 0.0
    slept: list[float] = attrs.field(factory=list)
    then: Callable[[], object] = lambda: None

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.then()

    def backoff(self, **settings: Any) -> Backoff:
        return Backoff(chance=lambda: 1.0, clock=lambda: self.now, sleep=self.sleep, **settings)


# Backoff


def waits(chance: float) -> list[float]:
    return list(islice(Backoff(first=0.1, longest=1, chance=lambda: chance).waits(), 6))


async def test_waits_double_up_to_the_longest() -> None:
    assert waits(1) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1, 1])


async def test_chance_takes_away_up_to_half_of_a_wait() -> None:
    assert waits(0) == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5])
    assert waits(0.5) == pytest.approx([0.075, 0.15, 0.3, 0.6, 0.75, 0.75])


async def test_patience_ends() -> None:
    time = Time()

    async def attempt() -> None:
        raise ConnectionRefusedError("nobody is there")

    with pytest.raises(ConnectionRefusedError):
        await time.backoff(first=1, longest=4, patience=10).retry(attempt)
    assert time.slept == [1, 2, 4]


async def test_what_does_not_pass_is_not_tried_again() -> None:
    time = Time()

    async def attempt() -> None:
        raise PermissionError("never") from InvalidStatus(HandshakeResponse(401, "", Headers()))

    with pytest.raises(PermissionError):
        await time.backoff().retry(attempt)
    assert time.slept == []


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (Unreachable("nobody is there"), True),
        (caused(RpcError(""), InvalidMessage("it ended")), True),
        (caused(RpcError(""), InvalidStatus(HandshakeResponse(503, "", Headers()))), True),
        (caused(RpcError(""), InvalidStatus(HandshakeResponse(401, "", Headers()))), False),
        (caused(RpcError(""), InvalidStatus(HandshakeResponse(400, "", Headers()))), False),
        (RpcError("it does not speak the codec"), False),
        (ValueError(), False),
    ],
)
async def test_what_may_pass_by_itself(error: Exception, expected: bool) -> None:
    assert passes(error) is expected


# A proxy that restarts


@contextlib.contextmanager
def restarting(config: Path) -> Iterator[tuple[Server, Callable[[], None]]]:
    """A proxy, and what starts it again on its port."""
    first = start(config)
    with contextlib.ExitStack() as servers:
        servers.callback(first.ended)
        servers.callback(first.process.kill)

        def restart() -> None:
            servers.enter_context(serving(config, "--port", str(port_of(first.url))))

        yield first, restart


def end(server: Server) -> None:
    server.process.kill()
    server.ended()


async def test_the_next_call_waits_for_a_proxy_that_restarts(config: Path) -> None:
    time = Time()
    with restarting(config) as (first, restart):
        async with connect_env(first.url, backoff=time.backoff()) as env:
            assert await env.SVC.hello("World") == "Hello, World!"
            end(first)
            await noticed(env.SVC)
            time.then = lambda: restart() if len(time.slept) == 3 else None
            assert await env.SVC.hello("World") == "Hello, World!"
            assert time.slept == pytest.approx([0.1, 0.2, 0.4])


async def test_so_does_the_next_request_of_any_method(config: Path) -> None:
    time = Time()
    with restarting(config) as (first, restart):
        async with connect_env(first.url, backoff=time.backoff()) as env:
            assert (await env.SVC.fetch("https://a.example/teapot")).status == 418
            end(first)
            time.then = lambda: restart() if len(time.slept) == 3 else None
            response = await env.SVC.fetch("https://a.example/upload", method="POST", body=chunks())
            assert await response.text() == "onetwo"
            assert time.slept == pytest.approx([0.1, 0.2, 0.4])


async def chunks() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


async def websocket(env: Any) -> None:
    with pytest.raises(WebSocketRefused, match="418"):  # by the service
        async with env.SVC.websocket("https://a.example/teapot"):
            raise AssertionError("it has none")


async def connection(env: Any) -> None:
    async with env.ANYWHERE.connect("127.0.0.1:1"):
        pass


async def first_call(env: Any) -> None:
    await env.SVC.hello("World")


@pytest.mark.parametrize("use", [websocket, connection, first_call])
async def test_so_does_what_was_not_used_before(config: Path, use: Callable[[Any], Awaitable[None]]) -> None:
    time = Time()
    with restarting(config) as (first, restart):
        async with connect_env(first.url, backoff=time.backoff()) as env:
            end(first)
            time.then = lambda: restart() if len(time.slept) == 3 else None
            await use(env)
            assert time.slept == pytest.approx([0.1, 0.2, 0.4])


async def test_so_does_a_request_on_a_connection_to_a_proxy_that_is_shutting_down(config: Path) -> None:
    held, unread = Held(), chunks()
    with restarting(config) as (first, restart):

        async def sleep(_seconds: float) -> None:
            assert first.process.poll() is None
            with pytest.raises(Unreachable, match="shutting down, and has not run this") as caught:
                await env.SVC.fetch("https://a.example/upload", method="POST", body=unread)
            assert caught.value.may_have_run is False
            held.go_on.set()
            await anyio.to_thread.run_sync(first.ended)
            restart()

        with anyio.fail_after(20):
            async with connect_env(first.url, backoff=Backoff(sleep=sleep)) as env, anyio.create_task_group() as tasks:
                tasks.start_soon(held.call, env.SVC)
                await held.begun.wait()
                await two_at_a_time(env.SVC)
                first.process.terminate()
                with pytest.raises(ConnectionRefusedError):
                    await called_until_it_fails(env.SVC)
                assert (await env.SVC.fetch("https://a.example/teapot", method="POST", body="x")).status == 418


@attrs.define
class Held:
    """A callback that runs until it is let go."""

    begun: anyio.Event = attrs.field(factory=anyio.Event)
    go_on: anyio.Event = attrs.field(factory=anyio.Event)

    async def call(self, service: Any) -> None:
        await service.call_each([1], self.hold)

    async def hold(self, value: Any) -> Any:
        self.begun.set()
        await self.go_on.wait()
        return value


async def called_until_it_fails(service: Any) -> None:
    while True:
        await service.hello("World")


async def two_at_a_time(service: Any) -> None:
    """Leave two idle connections behind."""
    responses = [await service.fetch("https://a.example/teapot") for _ in range(2)]
    for response in responses:
        await response.text()


@pytest.mark.parametrize("use", ["hello", "fetch"])
async def test_a_proxy_that_stays_away_is_waited_for_once(config: Path, use: str) -> None:
    time = Time()
    with restarting(config) as (first, restart):
        async with connect_env(first.url, backoff=time.backoff(patience=1)) as env:

            async def call() -> None:
                await (env.SVC.hello("World") if use == "hello" else env.SVC.fetch("https://a.example/teapot"))

            await call()
            end(first)
            if use == "hello":
                await noticed(env.SVC)
            for expected in ([0.1, 0.2, 0.4], []):
                with pytest.raises(
                    ConnectionError, match=r"the binding 'SVC' of the proxy at .* cannot be reached"
                ) as caught:
                    await call()
                assert caught.value.may_have_run is False
                assert time.slept == pytest.approx(expected)
                time.slept.clear()
            restart()
            await call()


async def test_a_proxy_that_was_never_there_is_not_waited_for() -> None:
    time = Time()
    async with connect_env("http://127.0.0.1:9/s/", bindings={"SVC": "service"}, backoff=time.backoff()) as env:
        for _ in range(2):
            with pytest.raises(Unreachable):
                await env.SVC.hello("World")
            with pytest.raises(Unreachable):
                await env.SVC.fetch("https://a.example/")
    assert time.slept == []


async def test_the_end_of_the_env_ends_the_waiting(config: Path) -> None:
    with restarting(config) as (first, _restart):
        waiting = anyio.Event()

        async def sleep(_seconds: float) -> None:
            waiting.set()
            await anyio.sleep_forever()

        async with connect_env(first.url, backoff=Backoff(sleep=sleep)) as env:
            assert await env.SVC.hello("World") == "Hello, World!"
            end(first)
            await noticed(env.SVC)
            pending = env.SVC.hello("World")
            with anyio.fail_after(60):
                await waiting.wait()
        with pytest.raises(SessionClosed, match="was closed before it could be reached"):
            await pending


# Idle connections


async def test_an_idle_connection_that_the_network_has_cut_does_not_keep_the_next_call_from_working(
    config: Path,
) -> None:
    with serving(config) as server, relay(("127.0.0.1", port_of(server.url))) as between:
        url = server.url.replace(f":{port_of(server.url)}/", f":{between.port}/")
        async with connect_env(url) as env:
            for _ in range(3):
                assert await env.SVC.hello("World") == "Hello, World!"
                assert (await env.SVC.fetch("https://a.example/teapot")).status == 418
                before = between.connections
                between.cut()
                await noticed(env.SVC)
                assert await env.SVC.hello("World") == "Hello, World!"
                assert between.connections > before


async def noticed(service: Any) -> None:
    """Wait until the end of the service's connection is noticed, by which time nothing waits on it."""
    ended = anyio.Event()
    service._channels.rpc.on_broken(lambda _error: ended.set())
    with anyio.fail_after(60):
        await ended.wait()


async def test_a_connection_that_goes_silent_is_given_up_and_the_next_call_has_another() -> None:
    """As one does that a router has forgotten: nothing is told of it, and no answer comes."""

    class Api(RpcTarget):
        def hello(self) -> str:
            return "Hello!"

    opened: list[Any] = []
    async with serve(Api) as server, task_set() as spawn:

        @contextlib.asynccontextmanager
        async def opening() -> AsyncIterator[Any]:
            async with open_session(server.url, ping_interval=0.01, ping_timeout=0.01) as session:
                opened.append(session)
                yield session

        lazy = LazySession(opening, "the server", spawn)
        assert await lazy.main().hello() == "Hello!"
        opened[0].connection_lost(None, "no answer to a ping")
        assert await lazy.main().hello() == "Hello!"
        assert len(opened) == 2
        await lazy.aclose()


# Whether a call may have run


class Api(RpcTarget):
    def hello(self) -> str:
        return "Hello!"

    def api(self) -> Api:
        return self


async def failure_of(call: Awaitable[object]) -> SessionClosed:
    with pytest.raises(SessionClosed) as caught:
        await call
    return caught.value


async def test_a_call_in_flight_may_have_run(config: Path) -> None:
    server = start(config)
    async with connect_env(server.url) as env:
        with pytest.raises(SessionClosed) as caught:
            await env.SVC.wait(server.process.kill)
        assert caught.value.may_have_run
    server.ended()


async def test_a_request_in_flight_may_have_run(config: Path) -> None:
    server = start(config)
    async with connect_env(server.url) as env, anyio.create_task_group() as tasks:

        async def kill() -> None:
            await env.SVC.fetch("https://a.example/arrived")
            server.process.kill()

        async def body() -> AsyncIterator[bytes]:
            yield b"first"
            tasks.start_soon(kill)
            await anyio.sleep_forever()

        with pytest.raises(AnswerLost) as caught:
            await env.SVC.fetch("https://a.example/upload", method="POST", body=body())
        assert caught.value.may_have_run
        tasks.cancel_scope.cancel()
    server.ended()


async def test_a_call_that_was_not_sent_has_not_run() -> None:
    async with memory_pair(None, Api()) as (client, _server):
        call = client.remote_main.hello()
        client.connection_lost(None)
        error = await failure_of(call)
        assert isinstance(error, CallNotSent)
        assert not error.may_have_run


async def test_calls_in_a_row_that_were_not_sent_have_not_run() -> None:
    async with memory_pair(None, Api()) as (client, _server):
        call = client.remote_main.api().api().hello()
        client.connection_lost(None)
        assert not (await failure_of(call)).may_have_run


async def test_what_was_built_on_a_call_that_was_sent_may_have_run() -> None:
    async with memory_pair(None, Api()) as (client, _server):
        first = client.remote_main.api()
        client.messages_to_send()
        call = first.hello()
        client.connection_lost(None)
        assert (await failure_of(first)).may_have_run
        assert (await failure_of(call)).may_have_run


async def test_what_is_called_on_something_after_its_session_has_not_run() -> None:
    async with memory_pair(None, Api()) as (client, _server):
        api = await client.remote_main.api()
        client.connection_lost(None)
        for stub in (client.remote_main, api):
            assert not (await failure_of(stub.hello())).may_have_run
            assert not (await failure_of(stub.motto)).may_have_run
            assert not (await failure_of(stub.map(lambda value: value))).may_have_run


async def test_what_a_session_sends_at_its_end_may_run() -> None:
    async with memory_pair(None, Api()) as (client, _server):
        call = client.remote_main.hello()
        client.close()
        assert (await failure_of(call)).may_have_run


# A main object that takes no more calls


async def test_a_main_object_that_is_retired_lets_go_on_what_runs() -> None:
    disposed: list[bool] = []

    class Waiting(RpcTarget):
        def __init__(self) -> None:
            self._go_on = anyio.Event()

        async def wait(self) -> str:
            await self._go_on.wait()
            return "done"

        def go_on(self) -> Callable[[], None]:
            return self._go_on.set

        def dispose(self) -> None:
            disposed.append(True)

    async with memory_pair(None, Waiting()) as (client, server):
        go_on = await client.remote_main.go_on()
        running = client.remote_main.wait()
        await anyio.wait_all_tasks_blocked()
        server.retire(RpcError("no more today"))
        server.retire(RpcError("twice"))
        with pytest.raises(RemoteError, match="no more today"):
            await client.remote_main.go_on()
        await go_on()
        assert await running == "done"
        assert not disposed
    assert disposed == [True]
