"""The other peers: RPC libraries for Python that do some of the workloads. Two small programs for each are here."""

from __future__ import annotations

from typing import Final

import attrs

from ..sides import Side, python_side, require

__all__ = ["PEERS", "Peer", "peer_side"]


@attrs.frozen
class Peer:
    """A library.

    Attributes:
        name: what the tables call it.
        package: what it is imported as.
        programs: the beginning of the names of its programs.
        workloads: those that it can do.
    """

    name: str
    package: str
    programs: str
    workloads: tuple[str, ...]


_CALLS: Final = ("sequential", "concurrent100", "concurrent1000", "record50")

PEERS: Final = (
    Peer("py-capnweb", "capnweb", "py_capnweb", _CALLS),
    Peer("grpc.aio", "grpc", "grpc", (*_CALLS, "echo1MiB")),
    Peer("rpyc", "rpyc", "rpyc", (*_CALLS, "echo1MiB")),
)


def peer_side(peer: Peer) -> Side:
    """Its programs. Raises Missing if it is not installed."""
    require(peer.package, f"the comparison with {peer.name}")
    return python_side(f"peers.{peer.programs}_")
