"""The facade of D1 against the proxy Worker that Wrangler deploys, with Miniflare's simulator of D1 behind it.

That Worker passes requests on to the binding as they are: it has the simulator's service as its binding, to be fetched
from (runtime.mjs, "raw"), as a deployed one has D1's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
from d1_facade import CHECKS

from capnweb_py.bindings.d1 import D1Database, D1Error
from capnweb_py.remote import connect_env

from .runtime import cloudflare_proxy

pytestmark = pytest.mark.anyio


@pytest.fixture
def proxy_url(node: str) -> Iterator[str]:
    """The connection string of that Worker, with an empty database."""
    with cloudflare_proxy(node, d1Databases={"DB": "db"}) as url:
        yield url


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_facade(proxy_url: str, check: Callable[[D1Database], Awaitable[None]]) -> None:
    async with connect_env(proxy_url, bindings={"DB": "d1"}) as env:
        await check(env.DB)


async def test_there_is_no_dump(proxy_url: str) -> None:
    async with connect_env(proxy_url, bindings={"DB": "d1"}) as env:
        with pytest.raises(D1Error, match=r"^D1_DUMP_ERROR: Status \+ 404$"):
            await env.DB.dump()
