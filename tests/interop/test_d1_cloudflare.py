"""The facade of D1 against the proxy Worker that Wrangler deploys, with Miniflare's simulator of D1 behind it.

That Worker passes requests on to the binding as they are, which is a "raw" one in deployment. Miniflare knows no raw
bindings: so d1_adapter.mjs, in a workerd of its own, offers the simulator's HTTP protocol, and is the Worker's binding
as an external service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import urlsplit

import pytest
from d1_facade import CHECKS

from capnweb_py.bindings.d1 import D1Database, D1Error
from capnweb_py.remote import connect_env

from .runtime import cloudflare_proxy, workerd

pytestmark = pytest.mark.anyio


@pytest.fixture
def proxy_url(node: str) -> Iterator[str]:
    """The connection string of that Worker, with an empty database."""
    with workerd(node, "d1_adapter.mjs", d1Databases={"DB": "db"}) as adapter:
        service = {"external": {"address": urlsplit(adapter.url).netloc, "http": {}}}
        with cloudflare_proxy(node, serviceBindings={"DB": service}) as url:
            yield url


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_facade(proxy_url: str, check: Callable[[D1Database], Awaitable[None]]) -> None:
    async with connect_env(proxy_url, bindings={"DB": "d1"}) as env:
        await check(env.DB)


async def test_there_is_no_dump(proxy_url: str) -> None:
    async with connect_env(proxy_url, bindings={"DB": "d1"}) as env:
        with pytest.raises(D1Error, match=r"^D1_DUMP_ERROR: Status \+ 404$"):
            await env.DB.dump()
