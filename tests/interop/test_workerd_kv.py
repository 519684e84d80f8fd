"""The KV namespace of a real workerd: the same script over our proxy and over Miniflare's own simulator.

What the Worker does is in kv_worker.mjs, by the name of its scenario. The two answers are compared whole, errors with
their names and messages included. Where the simulator is not the service, a test says what ours is instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from proxying import serving
from redis_server import redis_server

from .runtime import Worker, workerd

CONFIG: Final = """
[bindings.KV]
type = "kv_namespace"
store = "{store}"
"""

# One namespace, and two ways to it from which no change goes through.
ACCESS: Final = """
[bindings.FULL]
type = "kv_namespace"
id = "shared"

[bindings.READ]
type = "kv_namespace"
id = "shared"
access = "read"

[bindings.OVERLAY]
type = "kv_namespace"
id = "shared"
access = "overlay"
"""

SCENARIOS: Final[dict[str, dict[str, Any]]] = {
    "types": {},
    "missing": {},
    "values": {},
    "overwritten": {},
    "large": {"size": 3_000_000},
    "tooLarge": {},
    "keys": {},
    "bareKeys": {},
    "badKeys": {},
    "badValues": {},
    "metadata": {},
    "metadataLimit": {},
    "expirations": {},
    "badExpirations": {},
    "list": {},
    "pages": {},
    "moving": {},
    "badLists": {},
    "bulk": {},
    "badBulks": {},
    "largeBulk": {},
    "oddReads": {},
    "oddWrites": {},
    "oddLists": {},
    "together": {},
}


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a store."""
    if request.param == "sqlite":
        yield "sqlite:///kv.sqlite3"
    else:
        with redis_server(tmp_path_factory.mktemp("redis")) as redis:
            yield redis.url


@pytest.fixture(scope="module")
def worker(node: str, store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A Worker whose namespace is behind our proxy."""
    config: Path = tmp_path_factory.mktemp("kv") / "capnweb.toml"
    config.write_text(CONFIG.format(store=store))
    with serving(config) as server, remote(node, server.url, "KV") as running:
        yield running


def remote(node: str, connection_string: str, *names: str) -> AbstractContextManager[Worker]:
    """A Worker with bindings of our proxy."""
    # Miniflare asks the proxy for a binding by its id.
    namespaces = {name: {"id": name, "remoteProxyConnectionString": connection_string} for name in names}
    return workerd(node, "kv_worker.mjs", kvNamespaces=namespaces)


@pytest.fixture(scope="module")
def simulated(node: str) -> Iterator[Callable[[str], Any]]:
    """What a Worker answers whose namespace is Miniflare's own. Each scenario runs once, and is compared many times."""
    with workerd(node, "kv_worker.mjs", kvNamespaces={"KV": {"id": "KV"}}) as running:
        yield cache(lambda scenario: running.run(scenario, **SCENARIOS.get(scenario, {})))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_worker_sees_what_it_sees_with_the_simulator(
    worker: Worker, simulated: Callable[[str], Any], scenario: str
) -> None:
    assert worker.run(scenario, **SCENARIOS[scenario]) == simulated(scenario)


def test_an_empty_value_has_its_metadata_in_a_bulk_read(worker: Worker, simulated: Callable[[str], Any]) -> None:
    """This version of the simulator gives the bare value, which it takes for none; later ones are put right."""
    assert worker.run("emptyBulkValue") == {"map": [["emptyBulkValue", {"value": "", "metadata": 1}]]}
    assert simulated("emptyBulkValue") == {"map": [["emptyBulkValue", ""]]}


def test_a_cursor_that_is_none_is_refused(worker: Worker) -> None:
    """The simulator begins somewhere, wherever the bytes say."""
    assert worker.run("badCursor")["thrown"]["message"] == "KV GET failed: 400 Invalid cursor"


@pytest.fixture(scope="module")
def accessing(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A Worker with the three ways to one namespace."""
    config: Path = tmp_path_factory.mktemp("kv") / "capnweb.toml"
    config.write_text(ACCESS)
    with serving(config) as server, remote(node, server.url, "FULL", "READ", "OVERLAY") as running:
        yield running


def test_a_worker_that_may_only_read_is_refused_its_writes(accessing: Worker) -> None:
    accessing.run("put", binding="FULL", key="read", value="before")
    answers = accessing.run("writes", binding="READ", key="read")
    problem = 'failed: 403 The binding "READ" is read-only: its access is "read" in the configuration that serves it'
    assert {use: answers[use].get("thrown", {}).get("message") for use in ("put", "streamed", "delete")} == {
        "put": f"KV PUT {problem}",
        "streamed": f"KV PUT {problem}",
        "delete": f"KV DELETE {problem}",
    }
    assert (answers["get"], answers["after"]) == ({"value": "before"}, {"value": "before"})


def test_a_worker_with_an_overlay_changes_nothing_below(accessing: Worker) -> None:
    accessing.run("put", binding="FULL", key="overlay", value="before")
    answers = accessing.run("writes", binding="OVERLAY", key="overlay")
    assert (answers["get"], answers["after"]) == ({"value": "before"}, {"value": None})
    assert "overlay" not in answers["list"]["names"]
    assert accessing.run("get", binding="FULL", key="overlay") == "before"
