"""What a program is told when it cannot reach a binding: one kind of error, on both channels, whatever the type is."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest
from asgi_server import asgi_server
from proxying import SECRET, Server, serving, start

from capnweb_py import (
    AnswerLost,
    Backoff,
    ProxyDenied,
    ProxyError,
    RpcError,
    RpcTarget,
    SessionClosed,
    Unreachable,
    memory_pair,
)
from capnweb_py.bindings import FACADES
from capnweb_py.bindings.channels import Channel, Channels, ProxyAddress
from capnweb_py.http11 import Http11Client
from capnweb_py.remote import Env, MissingBinding, connect_env
from proxy_server.refusals import STOPPED

pytestmark = pytest.mark.anyio

CONFIG: Final = f"""
[server]
secret = "{SECRET}"
[bindings.KV]
type = "kv_namespace"
[bindings.R2]
type = "r2_bucket"
[bindings.SVC]
type = "service"
target = "tests.services:Service"
"""

Use = Callable[[Any], Awaitable[object]]


async def connecting(binding: Any) -> None:
    async with binding.connect("127.0.0.1:1") as stream:
        await stream.receive()


async def websocket(binding: Any) -> None:
    async with binding.websocket("https://a.example/echo"):
        raise AssertionError("there is no WebSocket")


# Something that each facade does. Types that are used as the same facade are not repeated.
USES: Final[dict[str, tuple[str, Use]]] = {
    "kv put": ("kv_namespace", lambda kv: kv.put("k", "v")),
    "kv get": ("kv_namespace", lambda kv: kv.get("k")),
    "kv list": ("kv_namespace", lambda kv: kv.list()),
    "r2 put": ("r2_bucket", lambda r2: r2.put("k", b"v")),
    "r2 get": ("r2_bucket", lambda r2: r2.get("k")),
    "d1": ("d1", lambda db: db.prepare("SELECT 1").all()),
    "d1 exec": ("d1", lambda db: db.exec("SELECT 1")),
    "d1 dump": ("d1", lambda db: db.dump()),
    "images": ("images", lambda images: images.info(b"x")),
    "hosted images": ("images", lambda images: images.hosted.list()),
    "queue": ("queue", lambda queue: queue.send("x")),
    "queue pull": ("queue", lambda queue: queue.pull()),
    "email": ("send_email", lambda email: email.send(from_="a@example.com", to="b@example.com", text="x")),
    "service call": ("service", lambda service: service.hello("World")),
    "service fetch": ("service", lambda service: service.fetch("https://a.example/")),
    "service websocket": ("service", websocket),
    "dispatched call": ("dispatch_namespace", lambda services: services.get("one").hello("World")),
    "dispatched fetch": ("dispatch_namespace", lambda services: services.get("one").fetch("https://a.example/")),
    "fetcher": ("fetcher", lambda fetcher: fetcher.fetch("https://a.example/")),
    "pipeline": ("pipeline", lambda pipeline: pipeline.send([{"a": 1}])),
    "connect": ("connect", connecting),
    "hyperdrive": ("hyperdrive", lambda hyperdrive: hyperdrive.connection_string()),
}
uses = pytest.mark.parametrize(("kind", "use"), USES.values(), ids=USES)
channels = pytest.mark.parametrize("channel", ["http", "rpc"])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("proxy_errors") / "capnweb.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def url(config: Path) -> Iterator[str]:
    with serving(config) as server:
        yield server.url


async def failure(url: str, kind: str, use: Use, channel: Channel = "http", name: str = "X") -> Exception:
    """What a program is told that uses a binding."""
    with anyio.fail_after(60):
        async with connect_env(url, bindings={name: kind}, channel=channel) as env:
            with pytest.raises(RpcError) as caught:
                await use(env[name])
    told = str(caught.value)
    assert SECRET not in told
    assert urlsplit(url).path not in told
    return caught.value


def host_of(url: str) -> str:
    return urlsplit(url).netloc


@channels
@uses
async def test_a_wrong_secret_is_said_to_be_one(url: str, kind: str, use: Use, channel: Channel) -> None:
    error = await failure(url.replace(SECRET, "some-other-words"), kind, use, channel)
    assert isinstance(error, ProxyDenied)
    assert isinstance(error, PermissionError)
    assert (error.reason, error.may_have_run) == ("secret", False)
    assert f"the proxy at {host_of(url)} refused the secret for the binding 'X'" in str(error)


@channels
@uses
async def test_a_name_that_the_proxy_does_not_have(url: str, kind: str, use: Use, channel: Channel) -> None:
    error = await failure(url, kind, use, channel)
    assert isinstance(error, ProxyError)
    assert (error.reason, error.may_have_run) == ("binding", False)
    assert str(error) == f"the proxy at {host_of(url)} has no binding 'X': it has KV, R2, SVC"


@channels
@uses
async def test_a_binding_of_another_type(url: str, kind: str, use: Use, channel: Channel) -> None:
    name, other = ("R2", "r2_bucket") if kind != "r2_bucket" else ("KV", "kv_namespace")
    error = await failure(url, kind, use, channel, name)
    assert isinstance(error, ProxyError)
    assert (error.reason, error.may_have_run) == ("type", False)
    assert str(error) == (
        f"the proxy at {host_of(url)} has a binding {name!r}, but not one that can be used as {kind!r}: it is of the"
        f" type {other!r}. Give it the same type at both ends"
    )


async def test_a_service_can_be_used_as_what_is_plain_http(url: str) -> None:
    async with connect_env(url, bindings={"SVC": "ai"}) as env:
        assert (await env.SVC.fetch("https://a.example/teapot")).status == 418


async def test_raw_connections_of_a_binding_that_makes_none(url: str) -> None:
    error = await failure(url, "connect", connecting, name="SVC")
    assert isinstance(error, ProxyError)
    assert "this binding makes no TCP connections" in str(error)


# What is no proxy


Answer = tuple[int, str, bytes, dict[str, str]]


@contextmanager
def web_server(*answers: Answer) -> Iterator[str]:
    """Any web server: its answers in turn, and the last one for ever. Yields a connection string to it."""
    left = list(answers)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        prefix = ""
        if scope["type"] == "websocket":
            await receive()
            prefix = "websocket."
        status, media_type, body, more = left.pop(0) if len(left) > 1 else left[0]
        headers = {"content-type": media_type, "content-length": str(len(body)), **more}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": f"{prefix}http.response.start", "status": status, "headers": pairs})
        await send({"type": f"{prefix}http.response.body", "body": body})

    with asgi_server(app) as authority:
        yield f"http://{authority}/{SECRET}/"


NOT_FOUND: Final[Answer] = (404, "text/html; charset=utf-8", b"<h1>Nothing here</h1>", {})
WELCOME: Final[Answer] = (200, "text/html", b"<h1>Welcome</h1>", {})
LOGIN: Final[Answer] = (302, "text/html", b"", {"location": "https://login.example/?token=hidden"})


@pytest.fixture(scope="module")
def no_proxy() -> Iterator[str]:
    with web_server(NOT_FOUND) as url:
        yield url


@channels
@uses
async def test_a_server_that_is_no_proxy(no_proxy: str, kind: str, use: Use, channel: Channel) -> None:
    error = await failure(no_proxy, kind, use, channel)
    assert isinstance(error, ProxyError)
    assert (error.reason, error.may_have_run) == ("no_proxy", False)
    assert str(error) == (
        f"what answers at {host_of(no_proxy)} is no proxy server: it said HTTP 404 Not Found (text/html) to a request"
        " for the binding 'X'. Is the connection string all of what \"python -m proxy_server serve\" printed?"
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(WELCOME, "HTTP 200 OK (text/html)", id="a page"),
        pytest.param(LOGIN, "HTTP 302 Found (text/html, which leads to login.example)", id="a login"),
    ],
)
@pytest.mark.parametrize("name", ["kv put", "kv get", "r2 get", "d1", "queue", "service fetch"])
async def test_an_answer_that_looks_well_is_not_taken_for_a_bindings(name: str, answer: Answer, said: str) -> None:
    kind, use = USES[name]
    with web_server(answer) as url:
        error = await failure(url, kind, use)
    assert isinstance(error, ProxyError)
    assert said in str(error)
    assert "hidden" not in str(error)


@pytest.mark.parametrize("answer", [NOT_FOUND, WELCOME, LOGIN], ids=["none", "page", "login"])
async def test_what_is_no_proxy_describes_no_bindings(answer: Answer) -> None:
    with web_server(answer) as url, pytest.raises(ProxyError, match=f"what answers at {host_of(url)} is no proxy"):
        async with connect_env(url):
            raise AssertionError("there is no proxy")


async def test_what_speaks_no_http_is_no_proxy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/{SECRET}/"

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, greet)
            with pytest.raises(Unreachable, match="no proxy server answers at") as caught:
                async with connect_env(url):
                    raise AssertionError("there is no proxy")
        assert caught.value.may_have_run is False


# Proxies of Cloudflare's, and what stands before a proxy


FOUND: Final[Answer] = (200, "text/plain", b"v", {"MF-Forwarded-Response": "true"})
NAMES_NONE: Final[Answer] = (400, "text/plain", b"Binding  not found", {})
UNMARKED: Final[Answer] = (200, "text/plain", b"v", {})


async def test_the_mark_of_a_bindings_answer_is_the_channels_own() -> None:
    with web_server(FOUND) as url:
        async with connect_env(url, bindings={"SVC": "service"}) as env:
            assert "mf-forwarded-response" not in (await env.SVC.fetch("https://a.example/")).headers


async def test_a_proxy_that_marks_nothing_is_asked_once_whether_it_is_one() -> None:
    with web_server(UNMARKED, NAMES_NONE, UNMARKED, UNMARKED, NOT_FOUND) as url:
        async with connect_env(url, bindings={"KV": "kv_namespace"}) as env:
            assert [await env.KV.get("k") for _ in range(3)] == ["v", "v", "v"]
            assert await env.KV.get("k") is None, "it is no proxy only where nothing has said that it is one"


async def test_what_the_proxy_refuses_when_it_is_asked_is_what_counts() -> None:
    refused: Answer = (401, "text/plain", b"the secret is wrong", {"capnweb-refused": "secret"})
    with web_server(UNMARKED, refused) as url:
        assert isinstance(await failure(url, "kv_namespace", USES["kv get"][1]), ProxyDenied)


async def test_the_words_of_a_proxy_that_marks_nothing() -> None:
    with web_server((400, "text/plain", b'Binding "X" not found', {}), NAMES_NONE) as url:
        error = await failure(url, "kv_namespace", USES["kv get"][1])
    assert isinstance(error, ProxyError)
    assert str(error) == f"the proxy at {host_of(url)} has no binding 'X'"


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        ((413, "text/html", b"", {}), ProxyError, "HTTP 413"),
        ((502, "text/html", b"<h1>", {}), AnswerLost, "HTTP 502 Bad Gateway (text/html)"),
        (LOGIN, ProxyError, "which leads to login.example"),
    ],
    ids=["refuses", "fails", "redirects"],
)
async def test_what_answers_in_the_place_of_a_proxy(answer: Answer, expected: type[Exception], said: str) -> None:
    with web_server(FOUND, answer) as url:
        async with connect_env(url, bindings={"KV": "kv_namespace"}) as env:
            assert await env.KV.get("k") == "v"
            with pytest.raises(expected) as caught:
                await env.KV.get("k")
    assert f"something on the way to the proxy at {host_of(url)} answered in its place" in str(caught.value)
    assert said in str(caught.value)
    assert getattr(caught.value, "may_have_run", None) is (expected is AnswerLost)


async def test_a_message_of_cloudflares_proxy_is_a_response() -> None:
    """It answers with a message and the status 500 where a binding has raised something, and does not mark that."""
    with web_server(FOUND, (500, "text/plain", b"of the handler", {})) as url:
        async with connect_env(url, bindings={"SVC": "service"}) as env:
            assert (await env.SVC.fetch("https://a.example/")).ok
            failed = await env.SVC.fetch("https://a.example/")
            assert (failed.status, await failed.text()) == (500, "of the handler")


async def test_a_binding_cannot_speak_for_the_proxy(url: str) -> None:
    async with connect_env(url) as env:
        response = await env.SVC.fetch("https://a.example/forged")
    assert (response.status, response.headers["capnweb-refused"]) == (400, "secret")
    assert "mf-forwarded-response" not in response.headers
    # As it is on the wire.
    seen = httpx2.get(url, headers={"MF-Binding": "SVC", "MF-URL": "https://a.example/forged"})
    assert seen.headers.get_list("mf-forwarded-response") == ["true"]


# One rule: what fails without an answer says whether it may have run


def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@channels
@uses
async def test_nobody_is_there(kind: str, use: Use, channel: Channel) -> None:
    error = await failure(f"http://127.0.0.1:{refused_port()}/{SECRET}/", kind, use, channel)
    assert isinstance(error, Unreachable)
    assert not isinstance(error, ProxyError)
    assert isinstance(error, ConnectionError)
    assert error.may_have_run is False
    assert "cannot be reached" in str(error)


async def test_nobody_is_there_to_connect_to() -> None:
    host = f"127.0.0.1:{refused_port()}"
    with pytest.raises(Unreachable, match="no proxy server answers at") as caught:
        async with connect_env(f"http://{host}/{SECRET}/"):
            raise AssertionError("somebody answered")
    assert caught.value.may_have_run is False
    said = str(caught.value)
    assert said.startswith(f"no proxy server answers at {host}: ")
    assert "cannot be reached" not in said
    assert said.endswith(
        'is "python -m proxy_server serve" running, and is this the connection string that it printed?'
    )


async def test_a_proxy_that_speaks_no_tls(url: str) -> None:
    with pytest.raises(Unreachable, match="what is there speaks no TLS: is the connection string to begin with http:"):
        async with connect_env(url.replace("http:", "https:")):
            raise AssertionError("there is no TLS")


LASTING: Final = {"kv get": "KV", "service call": "SVC"}


@pytest.fixture
def server(config: Path) -> Iterator[Server]:
    server = start(config)
    yield server
    server.process.kill()
    server.ended()


@channels
@pytest.mark.parametrize("name", LASTING)
async def test_a_proxy_that_has_gone_before_the_call(server: Server, name: str, channel: Channel) -> None:
    use = USES[name][1]
    async with connect_env(server.url, channel=channel, backoff=Backoff(patience=0)) as env:
        binding = env[LASTING[name]]
        await use(binding)
        ended = anyio.Event()
        binding._channels.rpc.on_broken(lambda _error: ended.set())
        server.process.kill()
        server.ended()
        await ended.wait()
        for _ in range(2):
            with pytest.raises(Unreachable) as caught:
                await use(binding)
            assert caught.value.may_have_run is False


@channels
async def test_a_proxy_that_goes_in_the_middle_of_a_call(server: Server, channel: Channel) -> None:
    async def value() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        server.process.kill()
        await anyio.sleep_forever()

    async with connect_env(server.url, channel=channel, backoff=Backoff(patience=0)) as env:
        await env.KV.get("k")
        with anyio.fail_after(60), pytest.raises((SessionClosed, ConnectionError)) as caught:
            await env.KV.put("k", value())
        assert isinstance(caught.value, SessionClosed if channel == "rpc" else AnswerLost)
        assert getattr(caught.value, "may_have_run", None) is True
        server.ended()
        with pytest.raises(Unreachable) as after:
            await env.KV.get("k")
        assert after.value.may_have_run is False


@channels
async def test_after_its_end_an_env_says_that_nothing_was_run(url: str, channel: Channel) -> None:
    async with connect_env(url, channel=channel) as env:
        await env.KV.get("k")
    with pytest.raises(RpcError) as caught:
        await env.KV.get("k")
    assert getattr(caught.value, "may_have_run", None) is False


@pytest.mark.parametrize("name", [name for name in USES if name.partition(" ")[0] not in {"dispatched", "service"}])
async def test_a_call_that_a_stopping_server_refuses_was_not_run(name: str) -> None:
    """Every facade says so, in the same words."""
    kind, use = USES[name]
    async with memory_pair(None, Nothing()) as (client, server):
        refusal = ConnectionRefusedError(STOPPED.text)
        refusal.may_have_run = False
        server.retire(refusal)
        address = ProxyAddress("http://unused.example/")
        facade = FACADES[kind](Channels("X", address, Http11Client(print), lambda: client.remote_main, "rpc"))
        with pytest.raises(ConnectionError, match="the server is shutting down") as caught:
            await use(facade)
    assert isinstance(caught.value, RpcError)
    assert getattr(caught.value, "may_have_run", None) is False


class Nothing(RpcTarget):
    """An object of which nothing is ever called."""


# The env itself


async def test_a_missing_name_says_which_there_are() -> None:
    env = Env({"CACHE": 1, "DB": 2})
    with pytest.raises(MissingBinding) as caught:
        env["CHACE"]
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == "there is no binding 'CHACE'; there are CACHE, DB"
    with pytest.raises(KeyError, match="there is no binding 'X': this env has none"):
        Env({})["X"]


async def test_a_binding_has_a_name(url: str) -> None:
    with pytest.raises(ValueError, match="a binding has a name"):
        async with connect_env(url, bindings={"": "kv_namespace"}):
            raise AssertionError("it was taken")
