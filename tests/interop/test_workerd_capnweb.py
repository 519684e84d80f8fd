"""npm capnweb inside a real workerd, with a service behind our proxy server: maps, streams and web types.

Miniflare's own client of remote bindings has an older capnweb, and test_workerd.py goes by way of it. Here the Worker
brings the current one, and opens the RPC channel by itself. What it does is in capnweb_worker.mjs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import httpx2
import pytest
from proxying import serving

from .runtime import DEADLINE
from .test_workerd import MODULE, workerd

CONFIG: Final = f"""
[bindings.FORMS]
type = "service"
target = "{MODULE}:Forms"
"""


@attrs.frozen
class CapnwebWorker:
    """A running Worker, and the proxy that it talks to."""

    url: str
    proxy: str

    def run(self, scenario: str, *, settles: bool = True) -> Any:
        """Run a scenario of capnweb_worker.mjs; returns its result. One that throws, or keeps something, fails."""
        answer = httpx2.post(self.url + scenario, json={"proxy": self.proxy}, timeout=DEADLINE).json()
        assert "result" in answer, answer["thrown"]
        assert not settles or answer["stats"] == {"imports": 1, "exports": 1, "living": 0}
        return answer["result"]


@pytest.fixture(scope="module")
def worker(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CapnwebWorker]:
    config = tmp_path_factory.mktemp("workerd-capnweb") / "capnweb.toml"
    config.write_text(CONFIG)
    with serving(config) as server, workerd(node, server.url, script="capnweb_worker.mjs") as worker:
        yield CapnwebWorker(worker.url, server.url)


def test_maps(worker: CapnwebWorker) -> None:
    # npm capnweb releases no stub that a map has captured.
    assert worker.run("maps", settles=False) == {
        "people": [{"id": 1, "who": "Ada", "by": 11}, {"id": 2, "who": "Bob", "by": 13}],
        "nested": [[14, 16], [19]],
        "nothing": None,
        "single": ["x"],
        "failed": {"name": "Error", "message": "none of 1", "code": 7},
    }


def test_readable_streams_both_ways(worker: CapnwebWorker) -> None:
    assert worker.run("readable") == {"total": 1_000_000, "counted": list(range(200))}


def test_a_cancelled_stream_ends_its_source(worker: CapnwebWorker) -> None:
    assert worker.run("cancelled") == {"first": {"done": False, "value": 0}, "closed": 1}


def test_the_error_of_a_stream(worker: CapnwebWorker) -> None:
    assert worker.run("failing") == {"name": "RangeError", "message": "out of bytes"}


def test_a_stream_that_the_worker_writes(worker: CapnwebWorker) -> None:
    assert worker.run("writable") == [{"n": [1]}, "two", "closed"]


def test_capabilities_in_chunks(worker: CapnwebWorker) -> None:
    assert worker.run("capabilities") == 42


def test_web_types_of_the_worker(worker: CapnwebWorker) -> None:
    assert worker.run("web") == [
        ["url", "https://example.com/p?q=1"],
        ["headers", [["a", "1"], ["b", "2, 3"]]],
        ["blob", "text/plain", "some text"],
        [
            "request", "PUT", "https://example.com/a?b=c",
            [["content-type", "text/plain;charset=UTF-8"], ["x-one", "1"]], "asked",
        ],
        ["response", 201, [["content-type", "text/plain;charset=UTF-8"], ["x-two", "2"]], "answered"],
    ]  # fmt: skip


def test_web_types_come_back(worker: CapnwebWorker) -> None:
    assert worker.run("webBack") == {
        "url": ["URL", "https://example.com/p"],
        "headers": ["Headers", ["a", "1"]],
        "blob": ["Blob", "text/plain", "text"],
        "response": ["Response", 202, "whole"],
    }


def test_typed_arrays(worker: CapnwebWorker) -> None:
    assert worker.run("arrays") == [
        ["Uint8Array", "1,2"],
        ["Float64Array", "1.5,-2"],
        ["BigInt64Array", "5"],
        ["ArrayBuffer", "[object ArrayBuffer]"],
    ]


def test_errors_and_dates(worker: CapnwebWorker) -> None:
    assert worker.run("errors") == {
        "one": ["TypeError", "bad", 5, "RangeError", "why"],
        "group": ["AggregateError", "several", ["RangeError: one"]],
        "date": "Invalid Date",
    }
