"""An env past the end of its block: one error from every facade, here and behind a proxy, on both channels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from proxying import SECRET, serving

from capnweb_py import Unreachable
from capnweb_py.bindings.channels import Channel
from capnweb_py.remote import Env, connect_env
from proxy_server import platform_env

pytestmark = pytest.mark.anyio

BINDINGS: Final[dict[str, dict[str, Any]]] = {
    "SVC": {"type": "service", "target": "tests.services:Service"},
    "CACHE": {"type": "kv_namespace"},
    "ASSETS": {"type": "r2_bucket"},
    "DB": {"type": "d1"},
    "JOBS": {"type": "queue"},
    "EMAIL": {"type": "send_email"},
    "IMAGES": {"type": "images"},
    "PG": {"type": "connect", "allow": ["db.example:5432"]},
    "WEB": {"type": "fetcher", "url": "http://127.0.0.1:1"},
    "DISPATCH": {"type": "dispatch_namespace", "services": {"one": {"target": "tests.services:Service"}}},
}


async def _connected(env: Env) -> None:
    async with env.PG.connect("db.example:5432"):
        raise AssertionError("there is no connection")


async def _websocket(env: Env) -> None:
    async with env.SVC.websocket("wss://a.example/"):
        raise AssertionError("there is no WebSocket")


async def _sent(env: Env) -> None:
    await env.EMAIL.send(from_="a@b.example", to="c@d.example", subject="s", text="t")


USES: Final[dict[str, tuple[str, Callable[[Env], Awaitable[object]]]]] = {
    "call": ("SVC", lambda env: env.SVC.hello("World")),
    "fetch": ("SVC", lambda env: env.SVC.fetch("https://a.example/")),
    "websocket": ("SVC", _websocket),
    "kv": ("CACHE", lambda env: env.CACHE.get("k")),
    "r2": ("ASSETS", lambda env: env.ASSETS.head("k")),
    "d1": ("DB", lambda env: env.DB.prepare("SELECT 1").all()),
    "queue": ("JOBS", lambda env: env.JOBS.send("job")),
    "pull": ("JOBS", lambda env: env.JOBS.pull()),
    "email": ("EMAIL", _sent),
    "images": ("IMAGES", lambda env: env.IMAGES.info(b"picture")),
    "hosted": ("IMAGES", lambda env: env.IMAGES.hosted.list()),
    "connect": ("PG", _connected),
    "fetcher": ("WEB", lambda env: env.WEB.fetch("https://a.example/")),
    "dispatched": ("DISPATCH", lambda env: env.DISPATCH.get("one").hello("World")),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a proxy server with all of them."""
    directory: Path = tmp_path_factory.mktemp("proxy")
    config = directory / "capnweb.toml"
    tables = "".join(
        f"[bindings.{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
        for name, table in BINDINGS.items()
    )
    config.write_text(f'[server]\nsecret = "{SECRET}"\n{tables}')
    with serving(config) as server:
        yield server.url


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"'


@pytest.fixture(params=["http", "rpc"])
def channel(request: pytest.FixtureRequest) -> Channel:
    chosen: Channel = request.param
    return chosen


@pytest.fixture(params=["local", "remote"])
async def left(request: pytest.FixtureRequest, url: str, channel: Channel, tmp_path: Path) -> Env:
    """An env whose block has ended."""
    if request.param == "remote":
        opening = connect_env(url, channel=channel)
    else:
        opening = platform_env({"bindings": BINDINGS}, state_dir=tmp_path, channel=channel)
    async with opening as env:
        return env


@pytest.mark.parametrize("use", USES)
async def test_a_use_after_the_block_says_that_the_env_has_been_left(left: Env, use: str) -> None:
    binding, using = USES[use]
    with pytest.raises(Unreachable, match=f"the binding '{binding}': its env has been left: use it inside") as caught:
        await using(left)
    assert not caught.value.may_have_run
