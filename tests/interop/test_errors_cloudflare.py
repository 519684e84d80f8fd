"""What is set up wrong, where Cloudflare's own proxy Worker is: it marks nothing, and knows no types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import anyio
import pytest

from capnweb_py import ProxyError
from capnweb_py.bindings.channels import Channel
from capnweb_py.remote import connect_env

from .runtime import cloudflare_proxy

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def url(node: str) -> Iterator[str]:
    with cloudflare_proxy(node, kvNamespaces={"KV": "kv"}, d1Databases={"DB": "db"}) as url:
        yield url


async def failure(url: str, name: str, kind: str, use: Callable[[Any], Awaitable[object]], channel: Channel) -> str:
    with anyio.fail_after(60):
        async with connect_env(url, bindings={name: kind}, channel=channel) as env:
            with pytest.raises(ProxyError) as caught:
                await use(env[name])
    return f"{caught.value.reason}: {caught.value}"


@pytest.mark.parametrize("channel", ["http", "rpc"])
@pytest.mark.parametrize(
    ("kind", "use"),
    [
        ("kv_namespace", lambda kv: kv.get("k")),
        ("r2_bucket", lambda r2: r2.get("k")),
        ("d1", lambda db: db.exec("SELECT 1")),
        ("queue", lambda queue: queue.send("x")),
        ("images", lambda images: images.info(b"x")),
        ("service", lambda service: service.hello("World")),
        ("service", lambda service: service.fetch("https://a.example/")),
    ],
)
async def test_a_name_that_the_proxy_does_not_have(
    url: str, kind: str, use: Callable[[Any], Awaitable[object]], channel: Channel
) -> None:
    told = await failure(url, "NONE", kind, use, channel)
    assert told == f"binding: the proxy at {url.split('/')[2]} has no binding 'NONE'"


WRONG: Final[list[tuple[str, str, Callable[[Any], Awaitable[object]]]]] = [
    ("KV", "r2_bucket", lambda r2: r2.get("k")),
    ("DB", "r2_bucket", lambda r2: r2.put("k", b"v")),
    ("KV", "d1", lambda db: db.exec("SELECT 1")),
    ("KV", "queue", lambda queue: queue.send("x")),
    ("KV", "images", lambda images: images.info(b"x")),
    ("DB", "kv_namespace", lambda kv: kv.put("k", "v")),
]


@pytest.mark.parametrize(("name", "kind", "use"), WRONG)
async def test_a_binding_of_another_type(
    url: str, name: str, kind: str, use: Callable[[Any], Awaitable[object]]
) -> None:
    told = await failure(url, name, kind, use, "http")
    place = f"the binding {name!r} of the proxy at {url.split('/')[2]}"
    assert told.startswith(f"type: {place} does not answer as one of the type {kind!r} does: it said HTTP ")


async def test_the_proxy_says_no_names_and_is_one_nevertheless(url: str) -> None:
    with pytest.raises(ValueError, match="does not tell which bindings it has"):
        async with connect_env(url):
            raise AssertionError("it told")
    async with connect_env(url, bindings={"KV": "kv_namespace"}) as env:
        assert await env.KV.get("nothing") is None
