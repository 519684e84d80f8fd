"""A program and its wrangler.jsonc, with bindings that are remote, and are behind the proxy Worker that Wrangler ships:
what it is told is what its own embedded stores tell it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from wrangler_program import FILE, project, use_d1, use_kv, use_mail, use_r2

from proxy_server import platform_env

from .runtime import cloudflare_proxy

pytestmark = pytest.mark.anyio

USES: Final = (use_kv, use_r2, use_d1, use_mail)


@pytest.fixture
def url(node: str) -> Iterator[str]:
    """The connection string of that Worker, with empty stores."""
    with cloudflare_proxy(
        node,
        kvNamespaces={"CACHE": {"id": "kv"}},
        r2Buckets={"ASSETS": "assets"},
        d1Databases={"DB": "db"},
        email={"send_email": [{"name": "MAIL", "allowed_sender_addresses": ["shop@example.com"]}]},
    ) as url:
        yield url


async def told(config: Path, url: str | None = None) -> dict[str, list[Any]]:
    answers: dict[str, list[Any]] = {}
    async with platform_env(config, connection_string=url) as env:
        for use in USES:
            await use(env, answers.setdefault(use.__name__, []))
    return answers


async def test_a_program_is_told_the_same_by_cloudflares_proxy(tmp_path: Path, url: str) -> None:
    here = await told(project(tmp_path / "local"))
    there = await told(project(tmp_path / "remote", FILE.replace("false", "true")), url)
    assert not (tmp_path / "remote" / ".capnweb").exists(), "nothing of it was here"
    for part, answers in here.items():
        assert there[part] == answers
