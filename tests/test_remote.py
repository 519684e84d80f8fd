"""The client of remote bindings: `connect_env` against a real proxy server, and servers that a program runs itself."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
import pytest
from pictures import BLUE, GREEN, RED, flat, is_like, picture_format, pixel, size
from proxying import ROOT, SECRET, serving, start

from capnweb_py import RemoteError, RpcStub, RpcTarget, SessionClosed, serve
from capnweb_py.bindings.channels import Channels, ProxyAddress
from capnweb_py.bindings.images import MAX_INPUT_BYTES, Images, ImageSource
from capnweb_py.http11 import Http11Client
from capnweb_py.remote import Env, connect_env, start_remote_proxy_session
from capnweb_py.web import Request
from proxy_server.imaging.sources import MAX_IMAGE_BYTES

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
    with anyio.fail_after(20):
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
    with pytest.raises(ConnectionError, match=f"no proxy server answers at <proxy at 127.0.0.1:{free_port}>") as caught:
        async with connect_env(f"http://127.0.0.1:{free_port}/{SECRET}/"):
            raise AssertionError("somebody answered")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["", "ws://127.0.0.1:1/", "127.0.0.1:8787", "http:///path"])
async def test_what_is_no_connection_string_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="a connection string is an http:// or https:// URL"):
        async with connect_env(text):
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
        with pytest.raises(ValueError, match=r"a binding of the type 'magic' has no facade; one of .*service"):
            async with connect_env(address, bindings={"SVC": "magic"}):
                raise AssertionError("magic is no type")


async def test_a_binding_that_the_proxy_does_not_have(url: str) -> None:
    async with connect_env(url, bindings={"NONE": "service"}) as env:
        with pytest.raises(ConnectionError, match=r"the binding 'NONE' cannot be reached: .* refused the connection"):
            await env.NONE.hello("World")
        response = await env.NONE.fetch("https://a.example/")
        assert (response.status, await response.text()) == (400, 'Binding "NONE" not found')


async def test_the_end_of_the_env_fails_what_is_pending_and_what_comes_after(url: str) -> None:
    async with connect_env(url) as env:
        pending = env.SVC.wait(lambda: None)
        await env.SVC.hello("World")
    with pytest.raises(SessionClosed):
        await pending
    with pytest.raises(SessionClosed, match="the binding 'SVC' cannot be used any more"):
        await env.SVC.hello("World")


async def test_a_server_that_dies_and_comes_back(config: Path) -> None:
    first = start(config)
    port = httpx2.URL(first.url).port
    # The second server goes on until the env is closed.
    with contextlib.ExitStack() as servers:
        async with connect_env(first.url) as env:
            counter = await env.SVC.make_counter(1)
            with pytest.raises(SessionClosed):
                await env.SVC.wait(first.process.kill)
            first.process.communicate()
            with pytest.raises(SessionClosed):
                await counter.increment()
            with pytest.raises(ConnectionError, match="the binding 'SVC' cannot be reached"):
                await env.SVC.hello("World")
            with pytest.raises(ConnectionError, match="the binding 'SVC' cannot be reached"):
                await env.SVC.fetch("https://a.example/")
            servers.enter_context(serving(config, "--port", str(port)))
            assert await env.SVC.hello("World") == "Hello, World!"
            assert (await env.SVC.fetch("https://a.example/teapot")).status == 418


# Services


async def test_calls_callbacks_and_returned_objects(env: Env) -> None:
    assert await env.SVC.hello("World", greeting="Hei") == "Hei, World!"
    assert await env.SVC["hello"]("World") == "Hello, World!"
    assert await env.SVC.motto == "all is reachable that is meant to be"
    assert await env.SVC.call_each([1, 2], lambda number: number * 2) == [2, 4]
    counter = await env.SVC.make_counter(3)
    assert await counter.increment(4) == 7
    assert await env.SVC.make_counter(1).twin().increment() == 2
    assert await env.SVC.value_of(counter) == 7


async def test_an_object_goes_from_one_binding_to_another(env: Env) -> None:
    counter = await env.SVC.make_counter(5)
    assert await env.OTHER.value_of(counter) == 5


async def test_a_service_is_passed_as_the_stub_that_it_stands_for(env: Env) -> None:
    motto = "all is reachable that is meant to be"
    assert await env.OTHER.motto_of(env.SVC) == motto, "before its session is open"
    assert await env.OTHER.motto_of(env.SVC) == motto
    assert await env.SVC.motto_of(env.SVC) == motto, "to its own binding"
    assert await env.OTHER.call_each(["a"], env.SVC.hello) == ["Hello, a!"]
    received = await RpcStub(lambda given: given["services"])({"services": [env.SVC, env.SVC]})
    assert await received[0].motto == motto
    for stub in received:
        stub.dispose()
    assert await env.SVC.hello("World") == "Hello, World!", "who was given it let go of a stub of his own"


async def test_errors_of_a_service(env: Env) -> None:
    with pytest.raises(ValueError, match="a ValueError on purpose"):
        await env.SVC.fail("ValueError")
    with pytest.raises(RemoteError, match="an OutOfStock on purpose") as caught:
        await env.SVC.fail("OutOfStock")
    assert (caught.value.name, caught.value.props) == ("OutOfStock", {"code": 7, "detail": {"left": 0}})
    with pytest.raises(TypeError, match="no_such_method is not a function"):
        await env.SVC.no_such_method()


async def test_a_request_arrives_as_it_was_made(env: Env) -> None:
    request = Request(
        "https://a.example/x%20y?q=1&q=2",
        method="PATCH",
        headers=[("X-One", "1"), ("x-list", "one"), ("x-list", "two"), ("MF-Binding", "OTHER")],
        body="ü",
    )
    response = await env.SVC.fetch(request)
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    seen = await response.json()
    assert (seen["method"], seen["url"], seen["body"]) == ("PATCH", "https://a.example/x%20y?q=1&q=2", "ü")
    pairs = [(name, value) for name, value in seen["headers"] if name != "content-type"]
    assert pairs == [("x-one", "1"), ("x-list", "one"), ("x-list", "two"), ("mf-binding", "OTHER")]


async def test_responses_come_as_they_are(env: Env) -> None:
    cookies = await env.SVC.fetch("https://a.example/cookies", headers={"accept": "*/*"})
    assert cookies.headers.get_all("set-cookie") == ["a=1; Path=/", "b=2"]
    redirect = await env.SVC.fetch("https://a.example/redirect")
    assert (redirect.status, redirect.headers["location"]) == (302, "https://elsewhere.example/")
    failed = await env.SVC.fetch("https://a.example/fail", method="POST")
    assert (failed.status, await failed.text()) == (500, "no answer today")


async def test_the_response_streams(env: Env) -> None:
    """Its last chunk is made after the first one was read."""
    response = await env.SVC.fetch("https://a.example/drip")
    assert response.body is not None
    chunks = aiter(response.body)
    assert await anext(chunks) == b"first"
    await env.SVC.fetch("https://a.example/go-on")
    assert [chunk async for chunk in chunks] == [b"last"]


async def test_the_request_streams(env: Env) -> None:
    """Its last chunk is made after the first one has arrived."""
    arrived: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        arrived.append(await (await env.SVC.fetch("https://a.example/arrived")).text())
        yield b"last"

    response = await env.SVC.fetch("https://a.example/upload", method="POST", body=body())
    assert (await response.text(), arrived) == ("firstlast", ["first"])


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


async def test_an_error_of_the_requests_body_is_the_callers(env: Env) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError("nothing more today")

    with pytest.raises(LookupError, match="nothing more today"):
        await env.SVC.fetch("https://a.example/", method="POST", body=body())


async def test_a_body_that_fails_is_no_whole_body(env: Env) -> None:
    response = await env.SVC.fetch("https://a.example/cut")
    with pytest.raises(ConnectionError, match="the response of the binding 'SVC' broke off"):
        await response.bytes()


# Images


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50):
        yield data[at : at + 50]


async def test_image_info(env: Env) -> None:
    image = flat(RED, 40, 20)
    for source in (image, bytearray(image), memoryview(image), in_pieces(image)):
        info = await env.IMAGES.info(source)
        assert (info.format, info.file_size, info.width, info.height) == ("image/png", len(image), 40, 20)
    svg = await env.IMAGES.info(b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    assert (svg.format, svg.file_size, svg.width) == ("image/svg+xml", None, None)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "avif"])
async def test_an_image_is_made_in_every_format(env: Env, kind: str) -> None:
    result = await env.IMAGES.input(flat(RED, 40, 20)).transform(width=20).output(format=f"image/{kind}")
    assert result.content_type == f"image/{kind}"
    assert (picture_format(result.data), size(result.data)) == ("heif" if kind == "avif" else kind, (20, 10))
    assert is_like(pixel(result.data, 10, 5), RED)


async def test_steps_and_drawn_images(env: Env) -> None:
    badge = env.IMAGES.input(in_pieces(flat(BLUE, 8, 8))).transform(width=4).draw(flat(GREEN, 1, 1), top=0, left=0)
    picture = (
        env.IMAGES.input(flat(RED, 40, 20)).transform(rotate=90).transform(height=20).draw(badge, right=0, bottom=0)
    )
    made = (await picture.output(format="image/png")).data
    assert size(made) == (10, 20)
    assert [pixel(made, *at) for at in ((0, 0), (5, 15), (6, 16), (7, 17))] == [RED, RED, GREEN, BLUE]


async def test_a_text_is_drawn(env: Env) -> None:
    text = env.IMAGES.text("M", size=30, color="#0000ff")
    made = await env.IMAGES.input(flat(RED, 60, 60)).draw(text, top=5, left=5).output(format="image/png")
    assert any(is_like(pixel(made.data, x, y), BLUE) for x in range(60) for y in range(60))


async def test_the_quality_of_an_output(env: Env) -> None:
    noisy = await env.IMAGES.text("noise", size=40).output(format="image/png", background="#ffffff")
    poor, good = [
        await env.IMAGES.input(noisy.data).output(format="image/jpeg", quality=quality) for quality in (5, 95)
    ]
    assert len(poor.data) < len(good.data)


async def test_a_result_in_all_its_forms(env: Env) -> None:
    result = await env.IMAGES.input(flat(RED, 4, 4)).output(format="image/png")
    streamed = b"".join([chunk async for chunk in result.image()])
    assert bytes(result) == await result.bytes() == result.data == streamed
    response = result.response(headers={"x-one": "1"})
    assert (response.headers["content-type"], response.headers["x-one"]) == ("image/png", "1")
    assert await response.bytes() == result.data


async def test_a_transformer_is_used_once(env: Env) -> None:
    picture = env.IMAGES.input(flat(RED, 4, 4))
    await picture.output(format="image/png")
    with pytest.raises(RuntimeError, match="this transformer was used already"):
        await picture.output(format="image/png")
    with pytest.raises(RuntimeError, match="this transformer was used already"):
        env.IMAGES.input(flat(RED, 4, 4)).draw(picture)


async def test_image_errors_have_cloudflares_codes(env: Env) -> None:
    with pytest.raises(RemoteError, match="IMAGES_INFO_ERROR 9412") as caught:
        await env.IMAGES.info(b"no image")
    assert caught.value.props == {"code": 9412}
    with pytest.raises(RemoteError, match=r"IMAGES_TRANSFORM_ERROR 9401: .*width must be") as caught:
        await env.IMAGES.input(flat(RED, 4, 4)).transform(width=-1).output(format="image/png")
    assert caught.value.props == {"code": 9401}
    with pytest.raises(RemoteError, match=r"IMAGES_TRANSFORM_ERROR 9401: .*unknown option") as caught:
        await env.IMAGES.input(flat(RED, 4, 4)).output(format="image/png", brightness=2)
    with pytest.raises(TypeError, match="a picture is bytes, or an async iterable of bytes, not str"):
        await env.IMAGES.info("a path")


def _zeros(count: int) -> bytes:
    return bytes(count)


async def _zeros_without_end(count: int) -> AsyncIterator[bytes]:
    """So many bytes at a time. Whoever goes on reading after the first is not done."""
    yield bytes(count)
    pytest.fail("a picture that is too large is read no further")


@pytest.mark.parametrize("make", [_zeros, _zeros_without_end])
async def test_a_picture_that_is_too_large_is_refused_as_the_binding_would_but_before_it_is_sent(
    env: Env, make: Callable[[int], ImageSource]
) -> None:
    def nothing_is_sent() -> RpcStub:
        raise AssertionError("nothing is sent")

    images = Images(Channels("IMAGES", ProxyAddress("http://127.0.0.1/"), Http11Client(print), nothing_is_sent))
    beyond = MAX_INPUT_BYTES + 1
    with pytest.raises(RemoteError) as thrown:
        await env.IMAGES.rpc.info(bytes(beyond))
    with pytest.raises(RemoteError) as caught:
        await images.info(make(beyond))
    assert (caught.value.name, str(caught.value), caught.value.props) == (
        thrown.value.name,
        str(thrown.value),
        thrown.value.props,
    )
    with pytest.raises(RemoteError) as thrown:
        await env.IMAGES.rpc.input(bytes(beyond)).output({"format": "image/png"})
    with pytest.raises(RemoteError) as caught:
        await images.input(make(beyond)).output(format="image/png")
    assert (str(caught.value), caught.value.props) == (str(thrown.value), thrown.value.props)


async def test_the_limit_of_a_picture_is_that_of_the_bytes_that_base64_stands_for(env: Env) -> None:
    assert MAX_INPUT_BYTES == MAX_IMAGE_BYTES
    largest = base64.b64encode(bytes(MAX_INPUT_BYTES))
    with pytest.raises(RemoteError, match="IMAGES_INFO_ERROR 9412"):
        await env.IMAGES.info(largest, encoding="base64")
    with pytest.raises(RemoteError, match="IMAGES_INFO_ERROR 9402"):
        await env.IMAGES.info(largest + b"AAAA", encoding="base64")


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

    with anyio.fail_after(20):
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
            response = await env.SVC.fetch("https://a.example/")
            assert (response.status, await response.text()) == (400, 'Binding "SVC" not found')
            await env.OTHER.permit("finished")
        assert outcome == ["finished"]


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
        with anyio.fail_after(20), pytest.raises(SessionClosed):
            await env.SVC.wait(parent.kill)
    # The server has its standard error from its parent: the end of that is the end of both.
    assert parent.communicate(timeout=20) == ("", "")
