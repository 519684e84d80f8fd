"""R2 from a real workerd: the same script with our proxy behind env.BUCKET, and with Miniflare's own simulator.

What a Worker does is in r2_worker.mjs, by the name of its scenario. The two answers are compared as they are; where ours is
another on purpose, DIFFERENCES says what is there and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from proxying import serving

from .runtime import Worker, workerd

SCRIPT: Final = "r2_worker.mjs"

SCENARIOS: Final = [
    "nothing",
    "roundTrip",
    "plain",
    "values",
    "readers",
    "metadataFromHeaders",
    "replaced",
    "keys",
    "badKeys",
    "ranges",
    "rangeHeaders",
    "conditionalGets",
    "conditionalHeaders",
    "conditionalPuts",
    "checksums",
    "metadataLimits",
    "badPuts",
    "deletes",
    "listing",
    "pages",
    "include",
    "nothingIncluded",
    "badLists",
    "large",
    "leftUnread",
    "multipart",
    "multipartOrder",
    "multipartOnePart",
    "multipartReplacedPart",
    "multipartErrors",
    "unevenParts",
    "multipartReplaces",
    "concurrently",
]

MIB: Final = 1024 * 1024


@pytest.fixture(scope="module")
def ours(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A Worker whose bucket is behind our proxy."""
    config: Path = tmp_path_factory.mktemp("r2") / "capnweb.toml"
    config.write_text(f'[server]\nstate_dir = "{config.parent}/state"\n[bindings.BUCKET]\ntype = "r2_bucket"\n')
    with serving(config) as server:
        bucket = {"BUCKET": {"id": "BUCKET", "remoteProxyConnectionString": server.url}}
        with workerd(node, SCRIPT, r2Buckets=bucket) as worker:
            yield worker


@pytest.fixture(scope="module")
def simulated(node: str) -> Iterator[Worker]:
    """A Worker whose bucket is Miniflare's own."""
    with workerd(node, SCRIPT, r2Buckets={"BUCKET": "bucket"}) as worker:
        yield worker


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_as_the_simulator(scenario: str, ours: Worker, simulated: Worker) -> None:
    values = {"size": 20 * MIB} if scenario == "large" else {}
    assert ours.attempt(scenario, **values) == simulated.attempt(scenario, **values)
