"""What the table of a service may say of entrypoints, props and replicas; and the services of a dispatch namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from capnweb_py import RpcTarget
from proxy_server.bindings import Binding, Declaration, parse_binding
from proxy_server.bindings.asgi import AsgiService
from proxy_server.bindings.peer import Peer
from proxy_server.bindings.upstream import Upstream
from proxy_server.tables import ConfigError, Table
from tests.chat import Admin, Chat

pytestmark = pytest.mark.anyio


def parsed(**keys: Any) -> Declaration:
    return parse_binding(Table({"type": "service", **keys}, Path("test.toml"), "bindings.S"), Path())


def mistake(**keys: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        parsed(**keys)
    return str(raised.value).removeprefix("test.toml: bindings.S")


@asynccontextmanager
async def opened(declaration: Declaration) -> AsyncIterator[Binding]:
    async with anyio.create_task_group() as tasks:
        binding = await declaration.open(tasks)
        yield binding
        await binding.aclose()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("target", ["tests.chat", "tests.chat:Chat"])
async def test_an_entrypoint_is_what_the_module_has_by_that_name(target: str) -> None:
    """Wrangler's config names a Worker, which has a default entrypoint, and maybe another one of its entrypoints."""
    async with opened(parsed(target=target, entrypoint="Admin", props={"realm": "x"})) as binding:
        main = binding.rpc_main()
        assert isinstance(main, Admin)
        assert main.role() == "admin of x"


async def test_an_entrypoint_may_be_an_asgi_application() -> None:
    async with opened(parsed(target="tests.chat", entrypoint="chat_app")) as binding:
        assert isinstance(binding, AsgiService)


async def test_each_target_has_props_of_its_own() -> None:
    async with opened(parsed(target="tests.test_service_config:Greedy", props={"list": [1]})) as binding:
        for _ in range(2):
            made: Any = binding.rpc_main()
            made.props["list"].append(2)
            assert made.props == {"list": [1, 2]}


class Greedy(RpcTarget):
    def __init__(self, *, props: dict[str, Any], args: str = "its own") -> None:
        self.props = props
        self.args = args


async def test_a_service_is_given_no_arguments_of_a_dispatch() -> None:
    async with opened(parsed(target="tests.test_service_config:Greedy")) as binding:
        made: Any = binding.rpc_main()
        assert (made.props, made.args) == ({}, "its own")


async def test_without_props_a_factory_needs_no_parameter_for_them() -> None:
    async with opened(parsed(target="tests.chat:Chat", props={})) as binding:
        assert isinstance(binding.rpc_main(), Chat)


@pytest.mark.parametrize(
    ("target", "kind"),
    [(["http://a/", "https://b/x"], Upstream), (["ws://a/", "wss://b/"], Peer), (["http://a/"], Upstream)],
)
async def test_several_urls_are_replicas(target: list[str], kind: type) -> None:
    async with opened(parsed(target=target)) as binding:
        assert type(binding) is kind


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"target": []}, ".target: at least one URL is needed here"),
        ({"target": ["http://a/", "ws://b/"]}, ".target: replicas speak the same: "),
        ({"target": ["http://a/", "tests.chat:Chat"]}, ".target: of several targets, each is a URL: "),
        ({"target": ["http://a/", "ftp://b/"]}, ".target: URLs with ftp: are not served: "),
        ({"target": ["http://a/", "http://u:p@b/"]}, ".target: a target's URL has no credentials"),
        ({"target": ["http://a/", 5]}, ".target[1]: a string is needed here, and this is an integer"),
        ({"target": 5}, ".target: a string is needed here, and this is an integer"),
        ({"target": "http://a/", "entrypoint": "X"}, ".entrypoint: a URL has none"),
        ({"target": "ws://a/", "props": {"a": 1}}, ".props: a URL has none"),
        ({"target": "tests.chat"}, '.target: "tests.chat" is no target: '),
        ({"target": "tests.chat", "entrypoint": "Admim"}, 'there is no "Admim": did you mean "Admin"?'),
        ({"target": "tests.chat:Chat", "props": {"a": 1}}, '.target: "tests.chat:Chat" takes no props'),
        ({"target": "tests.chat:chat_app", "props": {"a": 1}}, ".props: an ASGI application has no props"),
        ({"target": "tests.chat:Tenant"}, '.target: "tests.chat:Tenant" needs arguments'),
        ({"target": "tests.chat:Chat", "props": 5}, ".props: a table is needed here"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], message: str) -> None:
    assert message in mistake(**keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"services": {"a": {"target": "tests.chat:Nobody"}}}, ".services.a.target: "),
        ({"services": {"a": {"tarhet": "x"}}}, '.services.a: the key "target" is missing'),
        ({"services": {"a": 5}}, ".services.a: a table is needed here"),
        ({"servces": {}}, '.servces: unknown key: did you mean "services"?'),
    ],
)
def test_mistakes_in_a_dispatch_namespace_are_named(keys: dict[str, Any], message: str) -> None:
    assert message in mistake(type="dispatch_namespace", **keys)


async def test_a_dispatch_namespace_may_be_empty() -> None:
    async with opened(parsed(type="dispatch_namespace")) as binding:
        assert binding.rpc_main() is not None
