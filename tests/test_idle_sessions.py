"""A proxy keeps no more sessions that nobody uses than it is told to."""

from __future__ import annotations

from byhand import Peer

from capnweb_py import RpcTarget
from proxy_server.idle_sessions import IdleSessions


class Api(RpcTarget):
    def make(self) -> RpcTarget:
        return Api()


class Sessions:
    """Sessions that were opened one after the other, of which there may be three."""

    def __init__(self) -> None:
        self.idle = IdleSessions(3)
        self.peers: list[Peer] = []

    def open(self, count: int = 1) -> None:
        for _ in range(count):
            self.peers.append(Peer(Api()))
            self.idle.opened(self.peers[-1].session)

    def hold(self, number: int) -> None:
        """Have a client hold something."""
        self.peers[number].say("push", ["pipeline", 0, ["make"], []])

    @property
    def closed(self) -> list[int]:
        return [number for number, peer in enumerate(self.peers) if peer.session.closed]


def test_those_that_are_idle_the_longest_are_closed() -> None:
    sessions = Sessions()
    sessions.open(3)
    assert sessions.closed == []
    sessions.open(2)
    assert sessions.closed == [0, 1]


def test_use_counts() -> None:
    sessions = Sessions()
    sessions.open(3)
    sessions.idle.used(sessions.peers[0].session)
    sessions.open()
    assert sessions.closed == [1]
    sessions.idle.used(sessions.peers[1].session)  # too late
    sessions.open()
    assert sessions.closed == [1, 2]


def test_those_whose_clients_hold_something_stay() -> None:
    sessions = Sessions()
    sessions.open(3)
    sessions.hold(0)
    sessions.hold(1)
    sessions.open()
    assert sessions.closed == [2]
    sessions.peers[0].say("release", 1, 1)
    sessions.open()
    assert sessions.closed == [2, 3]


def test_many_in_use_all_stay() -> None:
    sessions = Sessions()
    for number in range(20):
        sessions.open()
        sessions.hold(number)
    assert sessions.closed == []


def test_one_that_has_ended_by_itself_counts_no_more() -> None:
    sessions = Sessions()
    sessions.open(3)
    sessions.peers[2].session.close()
    sessions.open()
    assert sessions.closed == [2]
