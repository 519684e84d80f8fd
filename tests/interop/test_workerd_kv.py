"""The KV namespace of a real workerd: the same script over our proxy and over Miniflare's own simulator.

What the Worker does is in kv_worker.mjs, by the name of its scenario. The two answers are compared whole, errors with
their names and messages included. Where the simulator is not the service, a test says what ours is instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from proxying import serving

from .runtime import Worker, workerd

CONFIG: Final = """
[bindings.KV]
type = "kv_namespace"
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
    "together": {},
}


@pytest.fixture(scope="module")
def worker(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A Worker whose namespace is behind our proxy."""
    config: Path = tmp_path_factory.mktemp("kv") / "capnweb.toml"
    config.write_text(CONFIG)
    with serving(config) as server:
        namespaces = {"KV": {"id": "KV", "remoteProxyConnectionString": server.url}}
        with workerd(node, "kv_worker.mjs", kvNamespaces=namespaces) as running:
            yield running


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
