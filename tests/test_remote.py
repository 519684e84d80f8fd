"""The client of remote bindings: `connect_env` against a real proxy server, and servers that a program runs itself."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
import pytest
from pictures import RED, flat
from proxying import ROOT, SECRET, serving, start
from service_facade import CHECKS

from capnweb_py import Backoff, ProxyError, RpcTarget, SessionClosed, Unreachable, serve
from capnweb_py.remote import (
    Env,
    connect_env,
    maybe_start_or_update_remote_proxy_session,
    start_remote_proxy_session,
)

pytestmark = pytest.mark.anyio

SERVICE: Final = {"type": "service", "target": "tests.services:Service"}
APP: Final = {"type": "service", "target": "tests.services:app"}
IMAGES: Final = {"type": "images"}
CONFIG: Final = f"""
[server]
secret = "{SECRET}"
[bindings.SVC]
type = "service"
target = "tests.services:Service"
[bindings.OTHER]
type = "service"
target = "tests.services:Service"
[bindings.IMAGES]
type = "images"
"""

# What a program that embeds a server does; it is killed before its end.
PARENT: Final = """
import anyio
from capnweb_py.remote import start_remote_proxy_session

async def main():
    session = await start_remote_proxy_session({"SVC": {"type": "service", "target": "tests.services:Service"}})
    print(session.connection_string, flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("remote") / "capnweb.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def url(config: Path) -> Iterator[str]:
    """The connection string of a proxy server with all bindings."""
    with serving(config) as server:
        yield server.url


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
async def env(url: str) -> AsyncIterator[Env]:
    with anyio.fail_after(60):
        async with connect_env(url) as env:
            yield env


# Connecting


async def test_an_env_has_the_bindings_of_the_proxy(env: Env) -> None:
    assert dir(env) == ["IMAGES", "OTHER", "SVC"]
    assert "SVC" in env
    assert "NONE" not in env
    assert env["SVC"] is env.SVC
    assert (repr(env), repr(env.SVC), repr(env.IMAGES)) == (
        "<env of IMAGES, OTHER, SVC>",
        "<service SVC>",
        "<images IMAGES>",
    )


async def test_an_unknown_name_says_which_there_are(env: Env) -> None:
    with pytest.raises(AttributeError, match="there is no binding 'NONE'; there are IMAGES, OTHER, SVC"):
        _ = env.NONE
    with pytest.raises(KeyError):
        _ = env["NONE"]


async def test_the_names_of_an_env_are_what_it_has(env: Env) -> None:
    assert list(env) == ["IMAGES", "OTHER", "SVC"]
    assert "SVC" in env
    assert "NONE" not in env


async def test_sessions_are_opened_when_they_are_used_and_stay_open(url: str) -> None:
    async with connect_env(url) as env, connect_env(url) as other_env:
        made = await env.SVC.targets_made()
        assert await env.SVC.targets_made() == made
        assert await env.OTHER.targets_made() == made + 1
        assert await other_env.SVC.targets_made() == made + 2
        assert await env.SVC.targets_made() == made + 2


async def test_calls_made_before_the_session_is_open_keep_their_order(env: Env) -> None:
    seen: list[int] = []
    calls = [env.SVC.call_each([number], seen.append) for number in range(5)]
    for call in calls:
        await call
    assert seen == [0, 1, 2, 3, 4]


async def test_a_wrong_secret_is_refused(url: str) -> None:
    with pytest.raises(PermissionError, match="the secret of the connection string is missing or wrong") as caught:
        async with connect_env(url.replace(SECRET, "wrong")):
            raise AssertionError("it was let in")
    assert "wrong/" not in str(caught.value)


async def test_no_server_is_a_connection_error(free_port: int) -> None:
    with pytest.raises(ConnectionError, match=f"no proxy server answers at 127.0.0.1:{free_port}: ") as caught:
        async with connect_env(f"http://127.0.0.1:{free_port}/{SECRET}/"):
            raise AssertionError("somebody answered")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["", "ws://127.0.0.1:1/", "127.0.0.1:8787", "http:///path"])
async def test_what_is_no_connection_string_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="a connection string is an http:// or https:// URL"):
        async with connect_env(text):
            raise AssertionError("it was taken")


async def test_what_is_no_channel_is_a_value_error(url: str) -> None:
    channel: Any = "grpc"
    with pytest.raises(ValueError, match='channel=\'grpc\': "http" is valid, and "rpc"'):
        async with connect_env(url, channel=channel):
            raise AssertionError("it was taken")


class Fake(RpcTarget):
    """What a proxy of somebody else's may serve."""

    def hello(self, name: str) -> str:
        return f"Hello, {name}!"


async def test_a_proxy_that_does_not_describe_itself() -> None:
    async with serve(Fake, "127.0.0.1", 0) as server:
        address = server.url.replace("ws:", "http:")
        with pytest.raises(ValueError, match="does not tell which bindings it has"):
            async with connect_env(address):
                raise AssertionError("nobody said which bindings there are")
        async with connect_env(address, bindings={"SVC": "service"}) as env:
            assert await env.SVC.hello("World") == "Hello, World!"
        with pytest.raises(ValueError, match=r"the type 'magic' has no facade; one of .*images, .*service"):
            async with connect_env(address, bindings={"SVC": "magic"}):
                raise AssertionError("magic is no type")


async def test_a_binding_that_the_proxy_does_not_have(url: str) -> None:
    async with connect_env(url, bindings={"NONE": "service"}) as env:
        for use in (env.NONE.hello, env.NONE.fetch):
            with pytest.raises(ProxyError, match="has no binding 'NONE': it has IMAGES, OTHER, SVC") as caught:
                await use("https://a.example/")
            assert (caught.value.reason, caught.value.may_have_run) == ("binding", False)


async def test_the_end_of_the_env_fails_what_is_pending_and_what_comes_after(url: str) -> None:
    async with connect_env(url) as env:
        pending = env.SVC.wait(lambda: None)
        await env.SVC.hello("World")
    with pytest.raises(SessionClosed):
        await pending
    with pytest.raises(Unreachable, match="the binding 'SVC': its env has been left: use it inside"):
        await env.SVC.hello("World")


async def test_a_server_that_dies_and_comes_back(config: Path) -> None:
    first = start(config)
    port = httpx2.URL(first.url).port
    # The second server goes on until the env is closed.
    with contextlib.ExitStack() as servers:
        async with connect_env(first.url, backoff=Backoff(patience=0)) as env:
            counter = await env.SVC.make_counter(1)
            with pytest.raises(SessionClosed):
                await env.SVC.wait(first.process.kill)
            first.ended()
            with pytest.raises(SessionClosed):
                await counter.increment()
            with pytest.raises(ConnectionError, match=r"the binding 'SVC' of the proxy at .* cannot be reached"):
                await env.SVC.hello("World")
            with pytest.raises(ConnectionError, match=r"the binding 'SVC' of the proxy at .* cannot be reached"):
                await env.SVC.fetch("https://a.example/")
            servers.enter_context(serving(config, "--port", str(port)))
            assert await env.SVC.hello("World") == "Hello, World!"
            assert (await env.SVC.fetch("https://a.example/teapot")).status == 418


# Services


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_facade_of_a_service(env: Env, check: Callable[[Env], Awaitable[None]]) -> None:
    await check(env)


async def test_100_megabytes_there_and_back(env: Env) -> None:
    """The service sends each chunk back before it reads the next: no side holds more than a few of them."""
    piece = bytes(range(256)) * 256

    async def body() -> AsyncIterator[bytes]:
        for _ in range(1600):
            yield piece

    response = await env.SVC.fetch("https://a.example/duplex", method="POST", body=body())
    assert response.body is not None
    size = 0
    async for chunk in response.body:
        at = size % len(piece)
        assert chunk == (piece + piece)[at : at + len(chunk)]
        size += len(chunk)
    assert size == 1600 * len(piece)


# Servers of a program's own


@pytest.fixture
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets are imported from the current directory."""
    monkeypatch.chdir(ROOT)


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def waiting(env: Env, binding: str) -> AsyncIterator[list[str]]:
    """A call that runs on a binding for the length of the block, at least; what it returned is there at the end."""
    outcome: list[str] = []
    begun = anyio.Event()

    async def wait() -> None:
        outcome.append(await env[binding].wait(begun.set))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await begun.wait()
            yield outcome


@pytest.mark.usefixtures("in_project")
async def test_a_server_of_ones_own() -> None:
    session = await start_remote_proxy_session({"SVC": SERVICE})
    async with connect_env(session.connection_string) as env:
        process_id = await env.SVC.process_id()
        assert process_id != os.getpid()
    await session.dispose()
    assert not is_running(process_id)
    await session.dispose()
    with pytest.raises(RuntimeError, match="the proxy server has ended"):
        await session.update_bindings({})


@pytest.mark.usefixtures("in_project")
async def test_the_block_of_a_session_disposes_it() -> None:
    process_ids: list[int] = []

    async def fail_on_the_way() -> None:
        async with await start_remote_proxy_session({"SVC": SERVICE}) as session:
            async with connect_env(session.connection_string) as env:
                process_ids.append(await env.SVC.process_id())
            raise LookupError("on the way")

    with pytest.raises(LookupError, match="on the way"):
        await fail_on_the_way()
    assert not is_running(process_ids[0])


@pytest.mark.usefixtures("in_project")
async def test_bindings_that_do_not_change_go_on_undisturbed() -> None:
    async with await start_remote_proxy_session({"SVC": SERVICE}) as session:
        connection_string = session.connection_string
        async with connect_env(connection_string) as env, waiting(env, "SVC") as outcome:
            await session.update_bindings({"SVC": SERVICE, "IMAGES": IMAGES})
            assert session.connection_string == connection_string
            async with connect_env(connection_string) as new_env:
                assert dir(new_env) == ["IMAGES", "SVC"]
                assert (await new_env.IMAGES.info(flat(RED, 4, 4))).width == 4
            await env.SVC.permit("undisturbed")
        assert outcome == ["undisturbed"]


@pytest.mark.usefixtures("in_project")
async def test_only_what_has_changed_is_opened_again() -> None:
    async with await start_remote_proxy_session({"APP": APP}) as session, connect_env(session.connection_string) as env:
        await session.update_bindings({"APP": APP, "SVC": SERVICE})
        assert await (await env.APP.fetch("https://a.example/lifespan")).text() == "startup"
        await session.update_bindings({"APP": APP | {"kind": "asgi"}})
        assert await (await env.APP.fetch("https://a.example/lifespan")).text() == "startup startup shutdown"


@pytest.mark.usefixtures("in_project")
async def test_a_call_on_a_binding_that_is_removed_may_finish() -> None:
    async with await start_remote_proxy_session({"SVC": SERVICE, "OTHER": SERVICE}) as session:
        async with connect_env(session.connection_string) as env, waiting(env, "SVC") as outcome:
            await session.update_bindings({"OTHER": SERVICE})
            async with connect_env(session.connection_string) as new_env:
                assert dir(new_env) == ["OTHER"]
            with pytest.raises(ProxyError, match="has no binding 'SVC': it has OTHER"):
                await env.SVC.fetch("https://a.example/")
            await env.OTHER.permit("finished")
        assert outcome == ["finished"]


FORMS: Final = {"type": "service", "target": "tests.services:Forms"}


@pytest.mark.usefixtures("in_project")
async def test_the_next_call_after_a_change_is_of_the_new_binding() -> None:
    async with (
        await start_remote_proxy_session({"SVC": SERVICE}) as session,
        connect_env(session.connection_string) as env,
    ):
        assert await env.SVC.hello("World") == "Hello, World!"
        with anyio.fail_after(60):
            ended = end_of(env.SVC)
            await session.update_bindings({"SVC": FORMS})
            await ended.wait()
            assert await env.SVC.nothing() is None
            ended = end_of(env.SVC)
            await session.update_bindings({})
            await ended.wait()
        with pytest.raises(ConnectionError, match="has no binding 'SVC': it has none at all"):
            await env.SVC.nothing()


def end_of(service: Any) -> anyio.Event:
    """Set when the session that a service has now ends."""
    ended = anyio.Event()
    service._channels.rpc.on_broken(lambda _error: ended.set())
    return ended


@pytest.mark.usefixtures("in_project")
async def test_what_a_changed_binding_has_given_out_goes_on() -> None:
    async with (
        await start_remote_proxy_session({"SVC": SERVICE}) as session,
        connect_env(session.connection_string) as env,
    ):
        counter = await env.SVC.make_counter(1)
        await session.update_bindings({"SVC": FORMS})
        assert await counter.increment() == 2


@pytest.mark.usefixtures("in_project")
async def test_a_session_is_started_when_something_is_remote_and_goes_on_when_nothing_is() -> None:
    local = {"OTHER": SERVICE}
    remote = {**local, "SVC": {**SERVICE, "remote": True}}
    assert await maybe_start_or_update_remote_proxy_session(local) is None
    data = await maybe_start_or_update_remote_proxy_session(remote)
    assert data is not None
    async with data.session as session:
        url = session.connection_string
        async with connect_env(url) as env, waiting(env, "SVC") as outcome:
            assert dir(env) == ["SVC"]
            again = await maybe_start_or_update_remote_proxy_session(remote, data)
            more = {**remote, "IMAGES": {**IMAGES, "remote": True}}
            again = await maybe_start_or_update_remote_proxy_session(more, again)
            assert again is not None
            assert (again.session, again.session.connection_string) == (session, url)
            async with connect_env(url) as new_env:
                assert dir(new_env) == ["IMAGES", "SVC"]
            again = await maybe_start_or_update_remote_proxy_session(local, again)
            assert again is not None
            assert (again.session, again.remote_bindings) == (session, {})
            async with connect_env(url) as new_env:
                assert dir(new_env) == []
            await session.update_bindings({"OTHER": SERVICE})
            async with connect_env(url) as new_env:
                await new_env.OTHER.permit("undisturbed")
        assert outcome == ["undisturbed"]


# Bindings, and what the refusal of each says.
INVALID: Final[list[tuple[dict[str, Any], str]]] = [
    ({"SVC": {}}, 'bindings.SVC: the key "type" is missing'),
    ({"SVC": {"type": "magic"}}, '"magic" is no type of binding'),
    ({"IMAGES": {"type": "images", "speed": 2}}, "bindings.IMAGES.speed: unknown key"),
    ({"SVC": {"type": "service", "target": "nowhere:X"}}, 'there is no module "nowhere"'),
    ({"SVC": SERVICE, "BAD": {"type": "magic"}}, "bindings.BAD.type"),
]


@pytest.mark.usefixtures("in_project")
async def test_invalid_bindings_are_refused_and_the_old_ones_stay() -> None:
    async with await start_remote_proxy_session({"SVC": SERVICE}) as session:
        async with connect_env(session.connection_string) as env, waiting(env, "SVC") as outcome:
            for bindings, problem in INVALID:
                with pytest.raises(ValueError, match="bindings") as caught:
                    await session.update_bindings(bindings)
                assert problem in str(caught.value)
            async with connect_env(session.connection_string) as new_env:
                assert dir(new_env) == ["SVC"]
            await env.SVC.permit("still there")
        assert outcome == ["still there"]


async def test_a_target_that_is_a_program_and_exits_does_not_end_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.chdir(tmp_path)
    async with await start_remote_proxy_session({}) as session:
        with pytest.raises(ValueError, match="importing program raised SystemExit: 3"):
            await session.update_bindings({"SVC": {"type": "service", "target": "program:main"}})
        await session.update_bindings({"IMAGES": IMAGES})


@pytest.mark.usefixtures("in_project")
async def test_invalid_bindings_start_nothing() -> None:
    with pytest.raises(ValueError, match=r"bindings\.SVC\.target"):
        await start_remote_proxy_session({"SVC": {"type": "service", "target": "nowhere:X"}})


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A program with a server of its own, in one process group with it. It prints the connection string."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        yield process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def test_the_server_ends_with_its_parent(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    async with connect_env(parent.stdout.readline().strip()) as env:
        with anyio.fail_after(60), pytest.raises(SessionClosed):
            await env.SVC.wait(parent.kill)
    # The server has its standard error from its parent: the end of that is the end of both.
    assert parent.communicate(timeout=60) == ("", "")
