"""An event loop that stays awake while that pays: by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from capnweb_py import RpcTarget, SessionOptions, connect, serve
from capnweb_py.loops import running_loop
from capnweb_py.transports import busy_polling as module
from capnweb_py.transports.busy_polling import BusyPolling, busy_polling

pytestmark = pytest.mark.anyio

WINDOW = 200e-6


class Api(RpcTarget):
    def twice(self, number: int) -> int:
        return 2 * number


class Loop:
    """A loop whose turns the test makes, 10 us each, and which sleeps when nothing is to be called."""

    def __init__(self) -> None:
        self.now = 0.0
        self._ready: list[Callable[[], object]] = []
        self.polling = BusyPolling(self._ready.append, lambda: self.now)

    @property
    def awake(self) -> bool:
        return bool(self._ready)

    def turn(self) -> None:
        ready, self._ready[:] = self._ready[:], []
        self.now += 10e-6
        for callback in ready:
            callback()

    def turns(self) -> int:
        """How many turns it makes by itself."""
        count = 0
        while self.awake:
            self.turn()
            count += 1
        return count

    def lose(self) -> bool:
        """Send something that nothing answers. Returns whether the loop stayed awake for it."""
        self.polling.sent(WINDOW)
        return self.turns() > 0

    def win(self) -> bool:
        """Send something that is answered at once. Returns whether the loop was awake then."""
        self.polling.sent(WINDOW)
        awake = self.awake
        self.polling.heard()
        self.turns()
        return awake


def test_it_stays_awake_as_long_as_it_was_told() -> None:
    loop = Loop()
    loop.polling.sent(WINDOW)
    assert loop.turns() == pytest.approx(20, abs=1)


def test_what_is_sent_meanwhile_begins_the_wait_again() -> None:
    loop = Loop()
    loop.polling.sent(WINDOW)
    for _ in range(15):
        loop.turn()
    loop.polling.sent(WINDOW)
    assert loop.turns() == pytest.approx(20, abs=1)


def test_a_loop_that_is_answered_in_time_never_sleeps_through_a_wait() -> None:
    loop = Loop()
    assert all(loop.win() for _ in range(1000))


def test_a_loop_that_waits_in_vain_gives_it_up_but_for_a_try_now_and_then() -> None:
    loop = Loop()
    waits = [loop.lose() for _ in range(2000)]
    # After each loss twice as many waits are slept through as after the one before.
    assert [number for number, awake in enumerate(waits) if awake][:6] == [0, 2, 6, 14, 30, 62]
    assert sum(waits[-1024:]) == 4


def test_it_takes_to_it_again_where_it_pays_again() -> None:
    loop = Loop()
    for _ in range(2000):
        loop.lose()
    for _ in range(1000):
        loop.win()
    assert all(loop.win() for _ in range(100))


def test_a_loss_at_the_end_of_each_of_many_quick_exchanges_is_no_reason_to_give_it_up() -> None:
    loop = Loop()
    for _ in range(100):
        exchange = [loop.win() for _ in range(10)]
        assert sum(exchange) >= 9
        loop.lose()


async def test_a_session_can_do_without() -> None:
    options = SessionOptions(busy_poll=0)
    async with serve(Api, "127.0.0.1", 0, options=options) as server, connect(server.url, options=options) as api:
        assert await api.twice(21) == 42


@pytest.mark.parametrize("seconds", [-1, 0.2, "soon", None])
def test_a_window_is_a_short_time(seconds: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        SessionOptions(busy_poll=seconds)  # type: ignore[arg-type]


async def test_with_one_core_the_peer_is_not_kept_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cores", lambda: 1)
    assert busy_polling(running_loop()) is None


async def test_a_loop_has_one_for_all_of_its_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cores", lambda: 2)
    assert busy_polling(running_loop()) is busy_polling(running_loop()) is not None
