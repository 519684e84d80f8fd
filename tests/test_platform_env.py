"""`platform_env`: a program's bindings by its configuration, here or behind a proxy, with no change to the program."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from asgi_server import asgi_server
from notes import known_type
from pictures import RED, flat
from proxying import SECRET, serving
from service_facade import CHECKS
from services import Service, app

from capnweb_py import RemoteError, RpcError, RpcTarget, SessionClosed
from capnweb_py.bindings.channels import Channel
from capnweb_py.bindings.tunnel import TunnelError
from capnweb_py.errors import ProxyDenied, ProxyError, Unreachable
from capnweb_py.remote import Env
from capnweb_py.web import Request, Response
from capnweb_py.web_socket import WebSocket, WebSocketClosed, WebSocketRefused
from proxy_server import platform_env
from proxy_server.app import ProxyApp
from proxy_server.auth import Gate
from proxy_server.bindings import BindingError, parse_binding
from proxy_server.config import ConfigError
from proxy_server.overlays import clear, found
from proxy_server.tables import Table

pytestmark = pytest.mark.anyio

TARGET: Final = "tests.services:Service"
BINDINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "SVC": {"type": "service", "target": TARGET},
    "OTHER": {"type": "service", "target": TARGET},
    "IMAGES": {"type": "images"},
    "NOTES": {"type": "notes"},
}
SERVER: Final = """
[server]
secret = "{secret}"
state_dir = "{state_dir}"
[bindings.SVC]
type = "service"
target = "tests.services:Service"
[bindings.OTHER]
type = "service"
target = "tests.services:Service"
[bindings.IMAGES]
type = "images"
"""


@pytest.fixture(autouse=True)
def _notes() -> Iterator[None]:
    with known_type():
        yield


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a proxy server."""
    directory: Path = tmp_path_factory.mktemp("proxy")
    config = directory / "capnweb.toml"
    config.write_text(SERVER.format(secret=SECRET, state_dir=directory / "state"))
    with serving(config) as server:
        yield server.url


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


def configured(remote: bool, *names: str) -> dict[str, Any]:
    """A configuration with some of the bindings, in which one word says where they are."""
    return {"bindings": {name: {**BINDINGS[name], "remote": remote} for name in names or ("SVC", "OTHER", "IMAGES")}}


@pytest.fixture(params=[False, True], ids=["local", "remote"])
async def env(request: pytest.FixtureRequest, url: str, state_dir: Path) -> AsyncIterator[Env]:
    with anyio.fail_after(60):
        async with platform_env(configured(request.param), connection_string=url, state_dir=state_dir) as env:
            yield env


# One program, and both places


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_facade_of_a_service(env: Env, check: Callable[[Env], Awaitable[None]]) -> None:
    await check(env)


async def test_pictures(env: Env) -> None:
    result = await env.IMAGES.input(flat(RED, 40, 20)).transform(width=20).output(format="image/png")
    assert (await env.IMAGES.info(result.data)).width == 20
    with pytest.raises(RemoteError, match="IMAGES_INFO_ERROR 9412") as caught:
        await env.IMAGES.info(b"no image")
    assert caught.value.props == {"code": 9412}


@pytest.mark.parametrize("remote", [False, True])
async def test_the_end_of_the_env_fails_what_is_pending_and_what_comes_after(
    remote: bool, url: str, state_dir: Path
) -> None:
    async with platform_env(configured(remote), connection_string=url, state_dir=state_dir) as env:
        pending = env.SVC.wait(lambda: None)
        await env.SVC.hello("World")
    with pytest.raises(SessionClosed):
        await pending
    with pytest.raises(Unreachable, match="the binding 'SVC': its env has been left: use it inside"):
        await env.SVC.hello("World")


@pytest.mark.parametrize("remote", [False, True])
async def test_what_the_block_raises_comes_out_as_it_is(remote: bool, url: str, state_dir: Path) -> None:
    async def fail_on_the_way() -> None:
        async with platform_env(configured(remote), connection_string=url, state_dir=state_dir) as env:
            await env.SVC.hello("World")
            raise LookupError("on the way")

    with pytest.raises(LookupError, match="on the way"):
        await fail_on_the_way()


# Here


class Source(RpcTarget):
    """Its response never ends by itself."""

    closed = 0

    def fetch(self, _request: Request) -> Response:
        return Response(self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"chunk"
                await anyio.lowlevel.checkpoint()
        finally:
            Source.closed += 1


def with_service(service: object, state_dir: Path) -> AbstractAsyncContextManager[Env]:
    return platform_env(configured(False, "SVC"), services={"SVC": service}, state_dir=state_dir)


async def test_local_bindings_are_in_the_programs_own_process(state_dir: Path) -> None:
    made: list[RpcTarget] = []

    class Own(RpcTarget):
        def __init__(self) -> None:
            made.append(self)

    async with with_service(Own, state_dir) as env:
        assert not made, "nothing is opened before it is used"
        assert await env.SVC.nothing is not None
    assert len(made) == 1


async def test_the_body_of_a_response_that_nobody_reads_is_closed(state_dir: Path) -> None:
    Source.closed = 0
    async with with_service(Source, state_dir) as env:
        response = await env.SVC.fetch("https://a.example/")
        assert response.body is not None
        assert await anext(aiter(response.body)) == b"chunk"
        del response
        gc.collect()
        with anyio.fail_after(60):
            while not Source.closed:
                await anyio.lowlevel.checkpoint()
        kept = await env.SVC.fetch("https://a.example/")
        assert kept.body is not None
        assert await anext(aiter(kept.body)) == b"chunk"
    assert Source.closed == 2, "the end of the env closes what is still open"


async def test_a_request_lets_others_have_a_turn(state_dir: Path) -> None:
    class Plain(RpcTarget):
        def fetch(self, _request: Request) -> Response:
            return Response("now")

    turns: list[bool] = []

    async def take_a_turn() -> None:
        turns.append(True)

    async with with_service(Plain, state_dir) as env, anyio.create_task_group() as tasks:
        tasks.start_soon(take_a_turn)
        with anyio.fail_after(60):
            while not turns:
                await (await env.SVC.fetch("https://a.example/")).text()


async def test_the_body_of_a_request_that_is_cancelled_is_closed(state_dir: Path) -> None:
    closed: list[bool] = []
    begun = anyio.Event()

    class Waiting(RpcTarget):
        async def fetch(self, request: Request) -> Response:
            assert request.body is not None
            await anext(aiter(request.body))
            begun.set()
            await anyio.sleep_forever()
            raise AssertionError("it is cancelled")

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            yield b"last"
        finally:
            closed.append(True)

    async with with_service(Waiting, state_dir) as env, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(env.SVC.fetch, "https://a.example/", method="POST", body=body()))
        await begun.wait()
        tasks.cancel_scope.cancel()
    assert closed == [True]


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_data_stays_in_the_state_directory(channel: Channel, state_dir: Path) -> None:
    config = configured(False, "NOTES")
    async with platform_env(config, state_dir=state_dir, channel=channel) as env:
        await env.NOTES.put("one", "1")
    async with platform_env(config, state_dir=state_dir, channel=channel) as env:
        assert await env.NOTES.get("one") == "1"
    async with platform_env(config, state_dir=state_dir.with_name("other"), channel=channel) as env:
        with pytest.raises(Exception, match="No such file"):
            await env.NOTES.get("one")


async def test_the_state_directory_lies_beside_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.NOTES]\ntype = "notes"\nid = "here"\n')
    async with platform_env(config) as env:
        await env.NOTES.put("one", "1")
    assert (tmp_path / ".capnweb" / "here" / "one").read_text() == "1"


async def test_bindings_whose_names_end_alike_share_nothing(state_dir: Path) -> None:
    names = ("a.b", "c.b")
    config = {"bindings": {name: {"type": "kv_namespace"} for name in names}}
    async with platform_env(config, state_dir=state_dir) as env:
        await env["a.b"].put("k", "v")
        assert await env["c.b"].get("k") is None


async def test_a_binding_that_has_no_rpc_side_says_so(state_dir: Path, url: str) -> None:
    config = {"bindings": {"WEB": {"type": "service", "target": "https://a.example/"}}}
    async with platform_env(config, state_dir=state_dir) as env:
        with pytest.raises(SessionClosed, match="the peer closed the connection: 3000 upstream URLs speak HTTP only"):
            await env.WEB.hello()


async def test_what_is_no_channel_is_a_value_error(state_dir: Path) -> None:
    channel: Any = "grpc"
    with pytest.raises(ValueError, match="channel='grpc': \"http\" is valid"):
        async with platform_env(configured(False), state_dir=state_dir, channel=channel):
            raise AssertionError("it was taken")


async def test_a_binding_that_cannot_be_opened_is_named(state_dir: Path) -> None:
    await anyio.Path(state_dir).write_text("a file where a folder is needed")
    with pytest.raises(BindingError, match=r'the binding "NOTES" cannot be opened: .*(File exists|Not a directory)'):
        async with platform_env(configured(False, "NOTES"), state_dir=state_dir):
            raise AssertionError("it was opened")


# Services that the program gives


def make_service() -> Service:
    return Service()


@pytest.mark.parametrize("target", [Service, make_service, Service(), TARGET])
async def test_a_service_may_be_given(target: object, state_dir: Path) -> None:
    config = {"bindings": {"SVC": {"type": "service", "target": "nowhere:X", "remote": True}}}
    async with platform_env(config, services={"SVC": target}, state_dir=state_dir) as env:
        assert await env.SVC.hello("World") == "Hello, World!"


async def test_an_asgi_application_may_be_given(state_dir: Path) -> None:
    async with with_service(app, state_dir) as env:
        assert (await (await env.SVC.fetch("https://a.example/lifespan")).text()).endswith("startup")


async def test_what_is_given_must_be_declared(state_dir: Path) -> None:
    with pytest.raises(ConfigError, match='services: the configuration declares no service "SVCE": did you mean "SVC"'):
        async with platform_env(configured(False, "SVC"), services={"SVCE": Service}):
            raise AssertionError("it was taken")
    with pytest.raises(
        ConfigError, match=r'bindings\.NOTES: a target is given for it, and it is no service but a "notes"'
    ):
        async with platform_env(configured(False, "NOTES"), services={"NOTES": Service}):
            raise AssertionError("it was taken")


async def test_what_is_given_must_be_something_that_can_be_served(state_dir: Path) -> None:
    with pytest.raises(ConfigError, match="an instance of int"):
        async with platform_env(configured(False, "SVC"), services={"SVC": 1}):
            raise AssertionError("it was taken")


# Elsewhere


async def test_nothing_is_asked_of_a_proxy_before_a_remote_binding_is_used(state_dir: Path) -> None:
    config = configured(True) | {"remote": {"connection_string": "http://127.0.0.1:9/secret/"}}
    async with platform_env(config, services={"SVC": Service}, state_dir=state_dir) as env:
        assert await env.SVC.hello("World") == "Hello, World!"
        with pytest.raises(ConnectionError, match=r"the binding 'OTHER' of the proxy at .* cannot be reached"):
            await env.OTHER.hello("World")


async def test_where_the_proxy_is_an_argument_says_before_the_environment_before_the_configuration(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = {"remote": {"connection_string": "nowhere"}}
    monkeypatch.setenv("CAPNWEB_PROXY", "nowhere either")
    async with platform_env(configured(True) | nowhere, connection_string=url) as env:
        assert await env.SVC.hello("World") == "Hello, World!"
    monkeypatch.setenv("CAPNWEB_PROXY", url)
    async with platform_env(configured(True) | nowhere) as env:
        assert await env.SVC.hello("World") == "Hello, World!"
    monkeypatch.delenv("CAPNWEB_PROXY")
    async with platform_env(configured(True) | {"remote": {"connection_string": url}}) as env:
        assert await env.SVC.hello("World") == "Hello, World!"


async def test_a_connection_string_that_is_none_is_an_error_that_names_who_said_it(
    monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    remote = {**configured(True), "remote": {"connection_string": "localhost:8787"}}
    with pytest.raises(ValueError, match=r"^configuration: remote.connection_string: a connection string is an http"):
        await opened_once(remote, state_dir)
    monkeypatch.setenv("CAPNWEB_PROXY", "localhost:8787")
    with pytest.raises(ValueError, match=r"^the environment variable CAPNWEB_PROXY: a connection string is an http"):
        await opened_once(remote, state_dir)
    with pytest.raises(ValueError, match=r"^the argument connection_string: a connection string is an http"):
        await opened_once(remote, state_dir, connection_string="localhost:8787")


async def opened_once(configuration: dict[str, Any], state_dir: Path, **arguments: Any) -> None:
    async with platform_env(configuration, state_dir=state_dir, **arguments):
        raise AssertionError("it was taken")


async def test_a_remote_binding_without_a_proxy_says_how_to_name_one(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CAPNWEB_PROXY", raising=False)
    config = configured(True, "SVC")
    config["bindings"]["NOTES"] = BINDINGS["NOTES"]
    async with platform_env(config, state_dir=state_dir) as env:
        await env.NOTES.put("one", "1")
        assert dir(env) == ["NOTES"], "the others work"
        with pytest.raises(RuntimeError, match=r"'SVC' cannot be used here: .* it is remote, .* CAPNWEB_PROXY"):
            _ = env.SVC
    assert "configuration: not to be used here: SVC: using one says why" in caplog.text


async def test_the_target_of_a_remote_service_is_not_imported(url: str) -> None:
    config = {"bindings": {"SVC": {"type": "service", "target": "nowhere:X", "remote": True}}}
    async with platform_env(config, connection_string=url) as env:
        assert await env.SVC.hello("World") == "Hello, World!"


async def test_a_program_that_may_reach_nothing_has_local_bindings(state_dir: Path) -> None:
    config = configured(True, "NOTES", "SVC")
    async with platform_env(config, remote=False, state_dir=state_dir) as env:
        await env.NOTES.put("one", "1")
        assert await env.NOTES.get("one") == "1"
        assert await env.SVC.hello("World") == "Hello, World!"


async def test_access_to_a_remote_binding_is_kept_to_by_what_lies_over_it(state_dir: Path) -> None:
    table = Table({"type": "notes"}, Path("capnweb.toml"), "bindings.NOTES")
    served = ProxyApp({"NOTES": parse_binding(table, state_dir)}, Gate(SECRET))
    with asgi_server(served) as authority:
        url = f"http://{authority}/{SECRET}/"
        async with platform_env(configured(True, "NOTES"), connection_string=url) as env:
            await env.NOTES.put("one", "1")
        config = {"bindings": {"NOTES": {"type": "notes", "remote": True, "access": "read"}}}
        async with platform_env(config, connection_string=url) as env:
            assert await env.NOTES.get("one") == "1"
            with pytest.raises(RuntimeError, match="these notes are to be read only"):
                await env.NOTES.put("one", "2")


async def test_access_that_a_type_does_not_have_is_refused(url: str) -> None:
    config = {"bindings": {"IMAGES": {"type": "images", "remote": True, "access": "read"}}}
    with pytest.raises(ConfigError, match='"read" is no access to a binding of the type "images": valid: full'):
        async with platform_env(config, connection_string=url):
            raise AssertionError("it was opened")


# Wrangler's files


def write(directory: Path, document: dict[str, Any]) -> Path:
    path = directory / "wrangler.jsonc"
    path.write_text(json.dumps(document))
    return path


async def test_a_wrangler_file_gives_an_env(tmp_path: Path, url: str) -> None:
    path = write(
        tmp_path,
        {
            "name": "worker",
            "images": {"binding": "IMAGES"},
            "services": [
                {"binding": "SVC", "service": "svc", "remote": True},
                {"binding": "AUTH", "service": "auth"},
                {"binding": "OWN", "service": "own"},
                {"binding": "NONE", "service": "none"},
            ],
            "browser": {"binding": "BROWSER"},
            "capnweb": {"bindings": {"AUTH": {"target": TARGET}}},
        },
    )
    async with platform_env(path, connection_string=url, services={"OWN": Service}) as env:
        assert (await env.IMAGES.info(flat(RED, 4, 4))).width == 4
        for name in ("SVC", "AUTH", "OWN"):
            assert await env[name].hello("World") == "Hello, World!"
        assert dir(env) == ["AUTH", "IMAGES", "OWN", "SVC"]
        with pytest.raises(RuntimeError, match=r"the binding 'NONE' cannot be used here: .* names a Worker"):
            _ = env.NONE
        with pytest.raises(
            RuntimeError, match=r"the binding 'BROWSER' cannot be used here: browser: .* no counterpart"
        ):
            _ = env["BROWSER"]
        with pytest.raises(AttributeError, match="there is no binding 'ELSE'"):
            _ = env.ELSE


async def test_the_environment_of_a_wrangler_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"env": {"staging": {"images": {"binding": "IMAGES"}}}})
    async with platform_env(path) as env:
        assert dir(env) == []
    async with platform_env(path, environment="staging") as env:
        assert dir(env) == ["IMAGES"]


STORES: Final[Mapping[str, Any]] = {
    "kv_namespaces": [{"binding": "CACHE", "id": "0123"}],
    "d1_databases": [{"binding": "DB", "database_id": "4567"}],
    "queues": {
        "producers": [{"binding": "JOBS", "queue": "jobs"}],
        "consumers": [{"queue": "jobs", "max_retries": 2}],
    },
    "send_email": [{"name": "MAIL"}],
}


def stores(directory: Path, *, remote: bool = False, access: str | None = None) -> Path:
    """A Wrangler file with bindings of stores."""
    document = json.loads(json.dumps(STORES))
    for binding in (*document["kv_namespaces"], *document["d1_databases"], *document["queues"]["producers"]):
        binding["remote"] = remote
    if access is not None:
        document["capnweb"] = {"bindings": {name: {"access": access} for name in ("CACHE", "DB")}}
    directory.mkdir(exist_ok=True)
    return write(directory, document)


async def use_stores(env: Env) -> None:
    await env.CACHE.put("k", "v")
    assert await env.CACHE.get("k") == "v"
    await env.DB.exec("CREATE TABLE IF NOT EXISTS t (a)")
    assert (await env.DB.prepare("INSERT INTO t VALUES (?1) RETURNING a").bind(3).all()).results == [{"a": 3}]
    await env.JOBS.send({"number": 1})


@pytest.fixture
def stores_url(tmp_path: Path) -> Iterator[str]:
    with serving(stores(tmp_path / "server")) as server:
        yield server.url


async def test_what_is_elsewhere_may_be_for_reading_alone(tmp_path: Path, stores_url: str) -> None:
    config = stores(tmp_path / "full", remote=True)
    async with platform_env(config, connection_string=stores_url) as env:
        await use_stores(env)
    config = stores(tmp_path / "read", remote=True, access="read")
    async with platform_env(config, connection_string=stores_url) as env:
        assert await env.CACHE.get("k") == "v"
        assert await env.DB.prepare("SELECT a FROM t").first("a") == 3
        refusal = 'The binding "{}" is read-only: its access is "read" in the configuration of the program that uses it'
        with pytest.raises(RpcError, match=refusal.format("CACHE")):
            await env.CACHE.put("k", "w")
        with pytest.raises(RpcError, match=refusal.format("DB")):
            await env.DB.exec("DELETE FROM t")


async def test_what_is_written_over_something_elsewhere_stays_here(tmp_path: Path, stores_url: str) -> None:
    plain = stores(tmp_path / "full", remote=True)
    async with platform_env(plain, connection_string=stores_url) as env:
        await use_stores(env)
    over = stores(tmp_path / "overlay", remote=True, access="overlay")
    async with platform_env(over, connection_string=stores_url) as env:
        await env.CACHE.put("k", "w")
        await env.CACHE.put("mine", "1")
        assert await env.CACHE.get("k") == "w"
    async with platform_env(over, connection_string=stores_url) as env:
        assert await env.CACHE.get("mine") == "1", "it is there the next time"
    async with platform_env(plain, connection_string=stores_url) as env:
        assert (await env.CACHE.get("k"), await env.CACHE.get("mine")) == ("v", None)
    kept = found(tmp_path / "overlay" / ".capnweb")
    assert ("kv_namespace", "CACHE") in [(overlay.kind, overlay.name) for overlay in kept]
    clear(tmp_path / "overlay" / ".capnweb")
    async with platform_env(over, connection_string=stores_url) as env:
        assert (await env.CACHE.get("k"), await env.CACHE.get("mine")) == ("v", None)


STORE_TYPES: Final = {"CACHE": "kv_namespace", "ASSETS": "r2_bucket", "DB": "d1"}
READS: Final[Mapping[str, Callable[[Env], Awaitable[object]]]] = {
    "get": lambda env: env.CACHE.get("k"),
    "keys": lambda env: env.CACHE.list(),
    "head": lambda env: env.ASSETS.head("k"),
    "object": lambda env: env.ASSETS.get("k"),
    "objects": lambda env: env.ASSETS.list(),
    "query": lambda env: env.DB.prepare("SELECT 1").all(),
    "exec": lambda env: env.DB.exec("SELECT 1"),
}


async def unanswered(url: str, access: str, channel: Channel, state_dir: Path) -> dict[str, tuple[Any, ...]]:
    """What reads of stores raise that are remote, and who says so."""
    tables = {name: {"type": kind, "remote": True, "access": access} for name, kind in STORE_TYPES.items()}
    said: dict[str, tuple[Any, ...]] = {}
    async with platform_env({"bindings": tables}, connection_string=url, channel=channel, state_dir=state_dir) as env:
        for name, read in READS.items():
            with pytest.raises(ConnectionError) as raised:
                await read(env)
            error: Any = raised.value
            said[name] = (type(error), str(error), error.may_have_run, getattr(error, "reason", None))
    return said


@pytest.mark.parametrize("channel", ["http", "rpc"])
@pytest.mark.parametrize("access", ["read", "overlay"])
async def test_a_proxy_that_does_not_answer_is_told_through_what_lies_over_a_remote_binding(
    url: str, access: str, channel: Channel, state_dir: Path
) -> None:
    cases = {
        "its secret is another": (url.replace(SECRET, "x" * len(SECRET)), ProxyDenied, "secret"),
        "it has no such binding": (url, ProxyError, "binding"),
        "it is not there": ("http://127.0.0.1:1/secret/", Unreachable, None),
    }
    for case, (string, kind, reason) in cases.items():
        plain = await unanswered(string, "full", channel, state_dir)
        assert {(said[0], said[2], said[3]) for said in plain.values()} == {(kind, False, reason)}, case
        assert await unanswered(string, access, channel, state_dir) == plain, case


# What else a binding has, in the program's own process


def with_target(target: str, **more: Any) -> dict[str, Any]:
    return {"bindings": {"SVC": {"type": "service", "target": target, **more}}}


@pytest.mark.parametrize("target", ["tests.chat:Chat", "tests.chat:chat_app"])
async def test_websockets_of_a_local_service(target: str) -> None:
    async with platform_env(with_target(target)) as env:
        async with env.SVC.websocket("https://a.example/echo", subprotocols=["other", "chat"]) as chat:
            assert chat.subprotocol == "chat"
            for message in ("text", b"\x00\xff"):
                await chat.send(message)
                assert await chat.receive() == message
            with pytest.raises(TypeError, match="a message is a str or bytes, not int"):
                await chat.send(1)
            with pytest.raises(ValueError, match="no code to close"):
                await chat.close(999)
        async with env.SVC.websocket("https://a.example/farewell") as chat:
            assert [message async for message in chat] == ["bye"]
            assert (chat.close_code, chat.close_reason) == (4001, "enough")
            with pytest.raises(WebSocketClosed, match="closed: 4001 enough"):
                await chat.send("too late")


@pytest.mark.parametrize("target", ["tests.chat:Chat", "tests.chat:chat_app"])
async def test_a_local_service_hears_how_a_websocket_was_closed(target: str) -> None:
    async with platform_env(with_target(target)) as env:
        async with env.SVC.websocket("https://a.example/watch") as chat:
            await chat.close(4002, "done")
        assert await (await env.SVC.fetch("https://a.example/watched")).json() == [4002, "done"]
        async with env.SVC.websocket("https://a.example/watch"):
            pass
        assert await (await env.SVC.fetch("https://a.example/watched")).json() == [1000, ""]


@pytest.mark.parametrize("target", ["tests.chat:Chat", "tests.chat:chat_app"])
async def test_a_local_service_may_refuse_a_websocket(target: str) -> None:
    async with platform_env(with_target(target)) as env:
        with pytest.raises(WebSocketRefused, match=r"the binding 'SVC' answered .* the status 403") as raised:
            async with env.SVC.websocket("https://a.example/refuse"):
                raise AssertionError("it is refused")
        assert await raised.value.response.text() == "members only"


async def test_a_slow_reader_holds_up_a_local_service() -> None:
    held_up = anyio.Event()

    async def flood(chat: WebSocket) -> None:
        with anyio.CancelScope() as scope:
            tasks.start_soon(stop_when_all_wait, scope)
            while True:
                await chat.send(bytes(1000))

    async def stop_when_all_wait(scope: anyio.CancelScope) -> None:
        await anyio.wait_all_tasks_blocked()
        held_up.set()
        scope.cancel()

    async with (
        platform_env(with_target("tests.chat:Chat")) as env,
        env.SVC.websocket("https://a.example/echo") as chat,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(flood, chat)
        with anyio.fail_after(60):
            await held_up.wait()


async def test_a_local_dispatch_namespace() -> None:
    services = {"a": {"target": "tests.chat:Chat"}, "b": {"target": TARGET}}
    config = {"bindings": {"DISPATCH": {"type": "dispatch_namespace", "services": services}}}
    async with platform_env(config) as env:
        assert await env.DISPATCH.get("a").hello("World") == "Hello, World!"
        assert await env.DISPATCH.get("b").make_counter(1).increment() == 2
        assert (await env.DISPATCH.get("b").fetch("https://a.example/teapot")).status == 418
        async with env.DISPATCH.get("a").websocket("https://a.example/echo") as chat:
            await chat.send("x")
            assert await chat.receive() == "x"
        with pytest.raises(Exception, match="Worker not found"):
            await env.DISPATCH.get("none").hello("World")


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_a_local_binding_of_raw_tcp(channel: Channel) -> None:
    async def shout(stream: SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data.upper())

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, shout)
        address = f"127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        config = {"bindings": {"DB": {"type": "connect", "allow": [address]}}}
        async with platform_env(config, channel=channel) as env:
            async with env.DB.connect(address) as stream:
                await stream.send(b"hello")
                assert await stream.receive() == b"HELLO"
            with pytest.raises(TunnelError):
                async with env.DB.connect("127.0.0.1:1") as stream:
                    await stream.receive()
        tasks.cancel_scope.cancel()
