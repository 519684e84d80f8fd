"""The images binding on a real server that loses something: renders lose their clients, or clients lose the server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import httpx2
import pytest
from anyio import to_thread
from pictures import RED, flat
from proxying import Server, serving

from capnweb_py import SessionClosed
from capnweb_py.remote import connect_env
from proxy_server.bindings.images_renderer import MAX_RENDERS

pytestmark = pytest.mark.anyio

# Each render takes six seconds of one core, and there are more of them than the server works on at a time. The picture
# is quick to send and to decode: only what is done to it takes long.
RENDERS: Final = 3 * MAX_RENDERS
BLURS: Final = 4
SMALL: Final = flat(RED)
LARGE: Final = flat(RED, 4000, 4000)

# In seconds: how long what happens at once may take on a machine that is busy with other things.
PROMPT: Final = 10.0

Render = Callable[[str], Awaitable[object]]


async def over_rpc(url: str) -> None:
    async with connect_env(url) as env:
        slow = env.IMAGES.input(LARGE)
        for _ in range(BLURS):
            slow = slow.transform(blur=8)
        await slow.output(format="image/png")


async def over_http(url: str) -> None:
    async with httpx2.AsyncClient(timeout=None) as client:
        fields = {"transforms": json.dumps([{"imageIndex": 0, "blur": 8}] * BLURS), "output_format": "image/png"}
        form = client.build_request("POST", "https://images.example/transform", files={"image": LARGE}, data=fields)
        wrapping = {"MF-Binding": "IMAGES", "MF-URL": str(form.url), "MF-Header-content-type": ""}
        wrapping["MF-Header-content-type"] = form.headers["content-type"]
        await client.post(url, content=form.read(), headers=wrapping)


@asynccontextmanager
async def busy(server: Server, render: Render) -> AsyncIterator[None]:
    """A server that has work for minutes, whose clients leave at the end of the block."""
    async with anyio.create_task_group() as tasks:
        for _ in range(RENDERS):
            tasks.start_soon(_render, render, server.url)
        async with connect_env(server.url) as env:
            while True:
                with anyio.move_on_after(0.5) as patience:
                    await env.IMAGES.info(SMALL)
                if patience.cancelled_caught:
                    break  # no place is free: not even for this
        yield
        tasks.cancel_scope.cancel()


async def _render(render: Render, url: str) -> None:
    try:
        await render(url)
    except (httpx2.HTTPError, OSError, RuntimeError):
        return  # the server was stopped


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "capnweb.toml"
    path.write_text('[server]\ndrain_timeout = 0\n[bindings.IMAGES]\ntype = "images"\n')
    return path


@pytest.mark.parametrize("render", [over_rpc, over_http])
async def test_clients_that_go_away_stop_their_renders(config: Path, render: Render) -> None:
    with serving(config) as server:
        async with busy(server, render):
            pass
        with anyio.fail_after(PROMPT):
            async with connect_env(server.url) as env:
                assert (await env.IMAGES.info(SMALL)).width == 20


async def test_a_server_that_is_told_to_stop_waits_for_no_render(config: Path) -> None:
    with serving(config) as server:
        async with busy(server, over_http):
            server.process.terminate()
            assert await to_thread.run_sync(server.process.wait, PROMPT) == 0


async def test_a_server_that_is_killed_loses_no_image_that_it_acknowledged(config: Path) -> None:
    """And keeps none in part: what it lists is whole."""
    picture = flat(RED) + bytes(300_000)
    acknowledged: list[str] = []
    enough = anyio.Event()

    async def upload(name: str) -> None:
        async with connect_env(server.url) as env:
            try:
                for number in range(1000):
                    kept = await env.IMAGES.hosted.upload(picture, id=f"{name}/{number}")
                    acknowledged.append(kept.id)
                    if len(acknowledged) == 20:
                        enough.set()
            except (SessionClosed, OSError):
                return  # the server was killed
        raise AssertionError("the server lived on")

    with anyio.fail_after(60):
        with serving(config) as server:
            async with anyio.create_task_group() as tasks:
                for name in "abcd":
                    tasks.start_soon(upload, name)
                await enough.wait()
                server.process.kill()
        with serving(config) as again:
            async with connect_env(again.url) as env:
                listed = [image.id for image in (await env.IMAGES.hosted.list(limit=1000)).images]
                assert set(acknowledged) <= set(listed)
                for image_id in listed:
                    stream = await env.IMAGES.hosted.image(image_id).bytes()
                    assert b"".join([piece async for piece in stream]) == picture
