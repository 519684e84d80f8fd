"""Renders that nobody waits for any more, on a real server: their clients went away, or the server is told to stop."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import httpx2
import pytest
import pyvips
from anyio import to_thread
from pictures import RED, flat
from proxying import Server, serving

from capnweb_py.remote import connect_env
from proxy_server.bindings.images_renderer import MAX_RENDERS

pytestmark = pytest.mark.anyio

# Each takes six seconds of one core, and there are more of them than the server works on at a time.
RENDERS: Final = 3 * MAX_RENDERS
BLURS: Final = 4
SMALL: Final = flat(RED)

# In seconds: how long what happens at once may take on a machine that is busy with other things, and how long requests
# may go on when a server is told to stop (proxy_server.cli).
PROMPT: Final = 10.0
GRACE: Final = 5.0

Render = Callable[[str, bytes], Awaitable[object]]


async def over_rpc(url: str, picture: bytes) -> None:
    async with connect_env(url) as env:
        slow = env.IMAGES.input(picture)
        for _ in range(BLURS):
            slow = slow.transform(blur=8)
        await slow.output(format="image/png")


async def over_http(url: str, picture: bytes) -> None:
    async with httpx2.AsyncClient(timeout=None) as client:
        fields = {"transforms": json.dumps([{"imageIndex": 0, "blur": 8}] * BLURS), "output_format": "image/png"}
        form = client.build_request("POST", "https://images.example/transform", files={"image": picture}, data=fields)
        wrapping = {"MF-Binding": "IMAGES", "MF-URL": str(form.url), "MF-Header-content-type": ""}
        wrapping["MF-Header-content-type"] = form.headers["content-type"]
        await client.post(url, content=form.read(), headers=wrapping)


@asynccontextmanager
async def busy(server: Server, render: Render) -> AsyncIterator[None]:
    """A server that has work for minutes, whose clients leave at the end of the block."""
    noise: bytes = pyvips.Image.gaussnoise(4000, 4000).cast("uchar").jpegsave_buffer(Q=50)
    async with anyio.create_task_group() as tasks:
        for _ in range(RENDERS):
            tasks.start_soon(_render, render, server.url, noise)
        async with connect_env(server.url) as env:
            while True:
                with anyio.move_on_after(0.5) as patience:
                    await env.IMAGES.info(SMALL)
                if patience.cancelled_caught:
                    break  # no place is free: not even for this
        yield
        tasks.cancel_scope.cancel()


async def _render(render: Render, url: str, picture: bytes) -> None:
    try:
        await render(url, picture)
    except (httpx2.HTTPError, OSError, RuntimeError):
        return  # the server was stopped


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "capnweb.toml"
    path.write_text('[bindings.IMAGES]\ntype = "images"\n')
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
            assert await to_thread.run_sync(server.process.wait, GRACE + PROMPT) == 0
