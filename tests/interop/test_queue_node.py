"""The queue binding used by npm capnweb from Node, as a browser would use it: the Workers API, and a consumer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from proxying import serving

from .node import report_of, rpc_url


@pytest.fixture(scope="module", params=["json", "cbor"])
def report(request: pytest.FixtureRequest, node: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a Node client reports. With CBOR, bytes travel raw."""
    config: Path = tmp_path_factory.mktemp("queue") / "capnweb.toml"
    config.write_text('[bindings.QUEUE]\ntype = "queue"\n')
    with serving(config) as server:
        return report_of(node, "queue.mjs", rpc_url(server.url, "QUEUE"), codec=request.param)


def test_messages_arrive_as_values(report: dict[str, Any]) -> None:
    assert (report["sent"], report["oldest"], report["dates"]) == (1, True, True)
    assert report["bodies"] == [{"a": [1, "ü"]}, "text", [0, 255]]
    assert report["types"] == ["json", "text", "bytes"]


def test_leases_end(report: dict[str, Any]) -> None:
    warnings = ["the queue has no message with the lease none"]
    assert report["ended"] == {"ackCount": 1, "retryCount": 2, "warnings": warnings}
    assert report["attempts"] == [2, 2]
    assert report["backlog"] == 3


def test_errors_are_those_of_the_workers_api(report: dict[str, Any]) -> None:
    errors = report["errors"]
    assert errors["undefined"] == {"name": "TypeError", "message": "Message body cannot be undefined"}
    text = 'Content Type "text" requires a value of type string, but received: number'
    assert errors["text"] == {"name": "TypeError", "message": text}
    large = "message length of 128001 bytes exceeds limit of 128000 (10204)"
    assert errors["large"] == {"name": "Error", "message": large, "code": 10204}
    assert errors["empty"] == {"name": "TypeError", "message": "sendBatch() requires at least one message"}
    assert errors["function"]["name"] == "TypeError"
