"""Fixtures of the interop tests: Node with its packages installed, and npm capnweb servers for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .node import install, node_server, require_node


@pytest.fixture(scope="session")
def node() -> str:
    """The node program, with every package of package.json installed."""
    program = require_node()
    install()
    return program


@pytest.fixture(scope="session")
def node_url(node: str) -> Iterator[str]:
    """The URL of an npm capnweb server as most people run it: JSON, over `ws` with its defaults."""
    with node_server(node) as url:
        yield url


@pytest.fixture(scope="session")
def node_cbor_url(node: str) -> Iterator[str]:
    """The URL of an npm capnweb server that speaks CBOR wherever there are bytes."""
    with node_server(node, "--cbor") as url:
        yield url


@pytest.fixture(scope="session")
def node_all_cbor_url(node: str) -> Iterator[str]:
    """The URL of an npm capnweb server that speaks nothing but CBOR."""
    with node_server(node, "--cbor-always") as url:
        yield url
