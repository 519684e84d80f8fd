"""The KV namespace of a real workerd: the same script over our proxy and over Miniflare's own simulator.

What the Worker does is in kv_worker.mjs, by the name of its scenario. The two answers are compared whole, errors with
their names and messages included. Where the simulator is not the service, a test says what ours is instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
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
    with serving(config) as server, remote(node, server.url) as running:
        yield running


def remote(node: str, connection_string: str, name: str = "KV") -> AbstractContextManager[Worker]:
    """A Worker whose KV is a binding of our proxy."""
    # Miniflare asks the proxy for a binding by the name that it has here.
    namespace = {"id": name, "remoteProxyConnectionString": connection_string}
    return workerd(node, "kv_worker.mjs", kvNamespaces={name: namespace})


@pytest.fixture(scope="module")
def simulated(node: str) -> Iterator[Worker]:
    """A Worker whose namespace is Miniflare's own."""
    with workerd(node, "kv_worker.mjs", kvNamespaces={"KV": {"id": "KV"}}) as running:
        yield running


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_worker_sees_what_it_sees_with_the_simulator(worker: Worker, simulated: Worker, scenario: str) -> None:
    assert worker.run(scenario, **SCENARIOS[scenario]) == simulated.run(scenario, **SCENARIOS[scenario])


def test_an_empty_value_has_its_metadata_in_a_bulk_read(worker: Worker, simulated: Worker) -> None:
    """This version of the simulator gives the bare value, which it takes for none; later ones are put right."""
    assert worker.run("emptyBulkValue") == {"map": [["emptyBulkValue", {"value": "", "metadata": 1}]]}
    assert simulated.run("emptyBulkValue") == {"map": [["emptyBulkValue", ""]]}


def test_a_cursor_that_is_none_is_refused(worker: Worker) -> None:
    """The simulator begins somewhere, wherever the bytes say."""
    assert worker.run("badCursor")["thrown"]["message"] == "KV GET failed: 400 Invalid cursor"


@pytest.fixture(scope="module")
def connection_string(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our proxy, with the three ways to one namespace."""
    config: Path = tmp_path_factory.mktemp("kv") / "capnweb.toml"
    config.write_text(ACCESS)
    with serving(config) as server:
        yield server.url


def test_a_worker_that_may_only_read_is_refused_its_writes(node: str, connection_string: str) -> None:
    with remote(node, connection_string, "FULL") as full, remote(node, connection_string, "READ") as reading:
        full.run("put", key="read", value="before")
        answers = reading.run("writes", key="read")
    problem = 'failed: 403 The binding "READ" is read-only: its access is "read"'
    assert {use: answers[use].get("thrown", {}).get("message") for use in ("put", "streamed", "delete")} == {
        "put": f"KV PUT {problem}",
        "streamed": f"KV PUT {problem}",
        "delete": f"KV DELETE {problem}",
    }
    assert (answers["get"], answers["after"]) == ({"value": "before"}, {"value": "before"})


def test_a_worker_with_an_overlay_changes_nothing_below(node: str, connection_string: str) -> None:
    with remote(node, connection_string, "FULL") as full:
        full.run("put", key="overlay", value="before")
        with remote(node, connection_string, "OVERLAY") as overlaid:
            answers = overlaid.run("writes", key="overlay")
        assert (answers["get"], answers["after"]) == ({"value": "before"}, {"value": None})
        assert "overlay" not in answers["list"]["names"]
        assert full.run("get", key="overlay") == "before"
