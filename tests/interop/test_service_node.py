"""Dispatch namespaces and entrypoints of a running proxy, used by npm capnweb on Node: what dispatch.mjs reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from proxying import serving

from .node import report_of

CONFIG: Final = """
[bindings.ADMIN]
type = "service"
target = "tests.chat"
entrypoint = "Admin"
props = { realm = "all" }

[bindings.DISPATCH]
type = "dispatch_namespace"

[bindings.DISPATCH.services]
tenant = { target = "tests.chat:Tenant", props = { plan = "free" } }
plain = { target = "tests.chat:Chat" }
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config: Path = tmp_path_factory.mktemp("dispatch") / "capnweb.toml"
    config.write_text(CONFIG)
    with serving(config) as server:
        yield server.url.replace("http", "ws", 1)


@pytest.fixture(scope="module", params=["json", "cbor"])
def report(request: pytest.FixtureRequest, node: str, url: str) -> dict[str, Any]:
    return report_of(node, "dispatch.mjs", url, codec=request.param)


def test_a_service_named_in_the_query(report: dict[str, Any]) -> None:
    assert report["hello"] == "Hello, World, from a tenant!"
    options = {"limits": {"cpuMs": 5}}
    assert report["given"] == {"props": {"plan": "free"}, "args": {"name": "ä"}, "options": options}


def test_a_name_that_nothing_has(report: dict[str, Any]) -> None:
    assert report["nobody"] == report["unknown"] == {"name": "Error", "message": "Worker not found."}


def test_a_call_on_what_a_get_gives_is_one_round_trip(report: dict[str, Any]) -> None:
    assert (report["pipelined"], report["roundTrips"]) == ("Hello, World!", 1)


def test_an_entrypoint_with_props(report: dict[str, Any]) -> None:
    assert report["admin"] == "admin of all"


def test_options_that_are_none_are_refused(report: dict[str, Any]) -> None:
    assert (report["broken"], report["misplaced"]) == (400, 400)
