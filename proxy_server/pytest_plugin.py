"""The pytest plugin: a fixture `env` with the bindings of the project, their stores fresh for each test.

    @pytest.mark.anyio
    async def test_it_is_cached(env):
        await env.CACHE.put("k", "v")

It is loaded in every run of pytest where this package is installed, so nothing is imported here that is not needed
then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

__all__ = ["capnweb_services", "env", "pytest_addoption"]

# Where a configuration is looked for beside the root directory: ours first, then in Wrangler's own order.
_NAMES: Final = ("capnweb.toml", "wrangler.json", "wrangler.jsonc", "wrangler.toml")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings."""
    parser.addini(
        "capnweb_config",
        f"the configuration whose bindings the fixture env has, relative to the root directory ({', '.join(_NAMES)})",
    )
    parser.addini("capnweb_environment", "the environment of a Wrangler file")
    parser.addini(
        "capnweb_remote", "whether bindings that are declared remote are so in tests too", type="bool", default=False
    )


@pytest.fixture
def capnweb_services() -> Mapping[str, object]:
    """By the names of service bindings, what they are in tests. To be overridden."""
    return {}


@pytest.fixture
async def env(
    anyio_backend: object,  # which has the plugin of anyio run this
    capnweb_services: Mapping[str, object],
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Any]:
    """The bindings of the project, each with an empty store of this test's own.

    Bindings that are declared remote are local ones here, unless `capnweb_remote = true`.
    """
    from proxy_server.platform import platform_env

    async with platform_env(
        _configuration(pytestconfig),
        environment=pytestconfig.getini("capnweb_environment") or None,
        state_dir=tmp_path_factory.mktemp("capnweb"),
        services=capnweb_services,
        remote=pytestconfig.getini("capnweb_remote"),
    ) as bindings:
        yield bindings


def _configuration(pytestconfig: pytest.Config) -> Path:
    named: str = pytestconfig.getini("capnweb_config")
    if named:
        return pytestconfig.rootpath / named
    for name in _NAMES:
        path = pytestconfig.rootpath / name
        if path.exists():
            return path
    raise pytest.UsageError(
        f"the fixture env needs a configuration: {', '.join(_NAMES)} beside {pytestconfig.rootpath}, or one that "
        "capnweb_config in pytest's own configuration names"
    )
