"""An event loop that stays awake while that pays: by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from capnweb_py import RpcTarget, SessionOptions, connect, serve
from capnweb_py.loops import running_loop
from capnweb_py.transports import busy_polling as module
from capnweb_py.transports.busy_polling import BusyPolling, busy_polling

pytestmark = pytest.mark.anyio


class Api(RpcTarget):
    def twice(self, number: int) -> int:
        return 2 * number


class Loop:
    """A loop whose turns the test makes, 10 us each, and which sleeps when nothing is to be called."""

    def __init__(self) -> None:
        self.now = 0.0
        # How long it has looked in vain, in seconds.
        self.polled = 0.0
        self._ready: list[Callable[[], object]] = []
        self.polling = BusyPolling(self._ready.append, lambda: self.now)

    @property
    def awake(self) -> bool:
        return bool(self._ready)

    def pass_time(self, microseconds: int) -> None:
        """Let time pass in which nothing happens."""
        for _ in range(microseconds // 10):
            ready, self._ready[:] = self._ready[:], []
            self.now += 10e-6
            self.polled += 10e-6 if ready else 0
            for callback in ready:
                callback()

    def exchange(self, microseconds: int) -> bool:
        """Send something that is answered after some time. Returns whether the answer finds the loop awake."""
        self.polling.sent()
        self.pass_time(microseconds)
        awake = self.awake
        self.polling.heard()
        return awake


def test_a_loop_that_is_answered_soon_is_always_awake() -> None:
    loop = Loop()
    assert all(loop.exchange(100) for _ in range(1000))


def test_it_sleeps_when_nothing_comes() -> None:
    loop = Loop()
    loop.polling.sent()
    loop.pass_time(10_000)
    assert not loop.awake
    assert loop.polled == pytest.approx(1e-3, abs=20e-6)


def test_an_answer_that_takes_its_time_for_once_is_awaited() -> None:
    loop = Loop()
    assert all(loop.exchange(900 if number % 20 == 0 else 50) for number in range(1000))


@pytest.mark.parametrize("gap", [500, 900, 5_000])
def test_a_loop_that_is_answered_late_gives_it_up_but_for_a_try_now_and_then(gap: int) -> None:
    loop = Loop()
    for _ in range(100):
        loop.exchange(gap)
    loop.polled = 0
    count = 10_000
    for _ in range(count):
        loop.exchange(gap)
    assert loop.polled / count < 20e-6


def test_it_takes_to_it_again_where_it_pays_again() -> None:
    loop = Loop()
    for _ in range(1000):
        loop.exchange(5_000)
    for _ in range(200):
        loop.exchange(100)
    assert all(loop.exchange(100) for _ in range(1000))


def test_long_exchanges_pay_for_the_waits_after_them() -> None:
    loop = Loop()
    for _ in range(100):
        assert all(loop.exchange(80) for _ in range(20))
        loop.pass_time(50_000)


def test_short_exchanges_do_not() -> None:
    loop = Loop()
    for _ in range(1000):
        loop.exchange(80)
        loop.exchange(80)
        loop.polling.sent()
        loop.pass_time(50_000)
    assert loop.polled / loop.now < 0.002


def test_work_between_two_looks_is_no_waiting() -> None:
    loop = Loop()
    for _ in range(100):
        assert loop.exchange(100)
        loop.now += 0.05  # what the program does with the answer


async def test_a_session_can_do_without() -> None:
    options = SessionOptions(busy_poll=False)
    async with serve(Api, "127.0.0.1", 0, options=options) as server, connect(server.url, options=options) as api:
        assert await api.twice(21) == 42


async def test_with_one_core_the_peer_is_not_kept_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cores", lambda: 1)
    assert busy_polling(running_loop()) is None


async def test_a_loop_has_one_for_all_of_its_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cores", lambda: 2)
    assert busy_polling(running_loop()) is busy_polling(running_loop()) is not None
