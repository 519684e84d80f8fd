"""Who runs: the pairs of a comparison, and their names, which are the columns of the tables."""

from __future__ import annotations

import importlib.util
from typing import Final

import attrs

from .compiled import compiled_folder
from .peers import PEERS, peer_side
from .rounds import Pair
from .sides import ECHO, node_side, our_side
from .workloads import SMALL_CALLS, plan

__all__ = ["COMPILED", "ECHO_NAME", "MIXED", "NODE", "PURE", "Wanted", "choose"]

COMPILED: Final = "ours, compiled"
PURE: Final = "ours, pure"
UVLOOP: Final = "ours, uvloop"
NODE: Final = "Node"
ECHO_NAME: Final = "echo"
MIXED: Final = ("ours to Node", "Node to ours")


@attrs.frozen(kw_only=True)
class Wanted:
    """What of it is to run.

    Attributes:
        backend: our event loop, "asyncio" or "trio".
        pure: whether to do without the compiled build.
        quick: whether the workloads run less often.
        mixed: whether our ends also meet Node's.
        peers: whether the other peers run, too.
    """

    backend: str
    pure: bool
    quick: bool
    mixed: bool
    peers: bool


def choose(wanted: Wanted) -> list[Pair]:
    """The pairs, in the order of the columns. The first is the one that counts as ours.

    Raises:
        Missing: if Node or one of the peers is not installed, or the compiled build fails.
    """
    everything = plan(wanted.quick)
    node = node_side()
    peers = {peer: peer_side(peer) for peer in PEERS} if wanted.peers else {}
    # Last, because it takes long.
    compiled = compiled_folder(wanted.pure)
    pure = our_side(wanted.backend)
    best = pure if compiled is None else our_side(wanted.backend, compiled)
    pairs = [] if compiled is None else [Pair(COMPILED, best, best, everything, idle=True)]
    pairs.append(Pair(PURE, pure, pure, everything, idle=True))
    if wanted.backend == "asyncio" and importlib.util.find_spec("uvloop") is not None:
        fast = our_side("uvloop", compiled)
        pairs.append(Pair(UVLOOP, fast, fast, everything))
    pairs.append(Pair(NODE, node, node, everything, idle=True))
    pairs.append(Pair(ECHO_NAME, ECHO, ECHO, plan(wanted.quick, SMALL_CALLS)))
    for peer, side in peers.items():
        # Some are slow, and none has to warm up for long.
        pairs.append(Pair(peer.name, side, side, plan(True, peer.workloads)))
    if wanted.mixed:
        there, back = MIXED
        pairs += [Pair(there, best, node, everything), Pair(back, node, best, everything)]
    return pairs
