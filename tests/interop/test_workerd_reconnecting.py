"""A real workerd whose connections to the proxy are cut, or whose proxy restarts: the next use of a binding works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from proxying import SECRET, serving
from relay import Relay, relay

from . import runtime
from .runtime import Worker

CONFIG: Final = f"""
[server]
secret = "{SECRET}"
[bindings.SVC]
type = "service"
target = "tests.services:Service"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "capnweb.toml"
    path.write_text(CONFIG)
    return path


def port_of(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


@contextmanager
def workerd(node: str, between: Relay) -> Iterator[Worker]:
    url = f"http://127.0.0.1:{between.port}/{SECRET}/"
    bindings = {"SVC": {"name": "SVC", "remoteProxyConnectionString": url}}
    with runtime.workerd(node, "worker.mjs", serviceBindings=bindings) as worker:
        yield worker


def use(worker: Worker) -> None:
    """Calls, and a request."""
    worker.run("results")
    assert worker.run("fetched", binding="SVC", url="https://a.example/teapot", init={})["status"] == 418


def test_connections_that_the_network_has_cut(node: str, config: Path) -> None:
    with serving(config) as server, relay(("127.0.0.1", port_of(server.url))) as between, workerd(node, between) as it:
        use(it)
        for _ in range(2):
            between.cut()
            use(it)


def test_a_proxy_that_has_restarted(node: str, config: Path) -> None:
    with serving(config) as server, relay(("127.0.0.1", port_of(server.url))) as between, workerd(node, between) as it:
        use(it)
        server.process.kill()
        server.ended()
        assert "thrown" in it.attempt("results")
        with serving(config, "--port", str(port_of(server.url))):
            use(it)
