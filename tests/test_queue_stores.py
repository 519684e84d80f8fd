"""What every store of queues does, with SQLite and with a real Redis. Time is what the test says it is."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import anyio
import attrs
import pytest
from coredis.exceptions import RedisError
from redis_server import redis_server

from proxy_server.stores import redis as redis_store
from proxy_server.stores.queue import Delivered, NewMessage, QueueRules, QueueStore, Retry
from proxy_server.stores.queue_redis import RedisQueue
from proxy_server.stores.queue_sqlite import SqliteQueue

pytestmark = pytest.mark.anyio

MINUTE: Final = 60_000
DAY: Final = 24 * 60 * MINUTE
# Names of queues are used once: one Redis serves all tests.
NUMBERS: Final = iter(range(1_000_000))


@attrs.define
class FakeClock:
    """A clock that stands until it is moved."""

    now: int = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


@attrs.frozen
class Stores:
    """Opens queues of one store."""

    clock: FakeClock
    open_queue: Callable[[QueueRules], Awaitable[QueueStore]]
    name: str

    async def queue(
        self, name: str = "", *, max_retries: int = 3, dead: str | None = None, retention: int = 4 * 86_400
    ) -> QueueStore:
        dead_letter_queue = None if dead is None else self.name + dead
        return await self.open_queue(QueueRules(self.name + name, max_retries, dead_letter_queue, retention))


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.fixture(params=["sqlite", "redis"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    clock = FakeClock()
    opened: list[QueueStore] = []
    async with anyio.create_task_group() as tasks:

        async def open_queue(rules: QueueRules) -> QueueStore:
            if request.param == "sqlite":
                opened.append(await SqliteQueue.open(tmp_path / "queues.sqlite3", rules, clock))
            else:
                opened.append(await RedisQueue.open(request.getfixturevalue("redis_url"), rules, tasks, clock))
            return opened[-1]

        yield Stores(clock, open_queue, f"queue{next(NUMBERS)}")
        for queue in opened:
            await queue.aclose()


def texts(*bodies: str, delay: int = 0) -> list[NewMessage]:
    return [NewMessage(body.encode(), "text", delay) for body in bodies]


def bodies(messages: list[Delivered]) -> list[str]:
    return [message.body.decode() for message in messages]


async def test_what_is_sent_is_pulled_in_order_and_whole(stores: Stores) -> None:
    queue = await stores.queue()
    await queue.send([NewMessage(b"\0\xff", "bytes"), NewMessage(b"", "text"), NewMessage(b"{}", "json")])
    first, second, third = await queue.pull(10, MINUTE)
    assert (first.body, first.content_type, first.attempts, first.timestamp) == (
        b"\0\xff",
        "bytes",
        1,
        stores.clock.now,
    )
    assert [(message.body, message.content_type) for message in (second, third)] == [(b"", "text"), (b"{}", "json")]
    assert len({first.id, second.id, third.id, first.lease, second.lease, third.lease}) == 6


async def test_a_pull_takes_no_more_than_it_asks_for(stores: Stores) -> None:
    queue = await stores.queue()
    await queue.send(texts("a", "b", "c"))
    assert bodies(await queue.pull(2, MINUTE)) == ["a", "b"]
    assert bodies(await queue.pull(2, MINUTE)) == ["c"]
    assert await queue.pull(2, MINUTE) == []


async def test_a_send_that_redis_is_asked_for_again_is_done_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with anyio.create_task_group() as tasks:
        queue = await RedisQueue.open(redis_url, QueueRules(f"queue{next(NUMBERS)}", 3), tasks)
        monkeypatch.setattr("secrets.token_hex", lambda _size: "the same id")
        assert (await queue.send(texts("a"))).count == 1
        assert (await queue.send(texts("a"))).count == 1
        await queue.aclose()


async def test_a_redis_that_does_not_answer_hangs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "_TIMEOUT", 0.3)
    with redis_server(tmp_path) as redis:
        async with anyio.create_task_group() as tasks:
            queue = await RedisQueue.open(redis.url, QueueRules("queue", 3), tasks)
            redis.process.send_signal(signal.SIGSTOP)
            with anyio.fail_after(60), pytest.raises((RedisError, TimeoutError)):
                await queue.send(texts("meanwhile"))
            redis.process.send_signal(signal.SIGCONT)
            await queue.send(texts("after"))
            assert bodies(await queue.pull(10, MINUTE))[-1] == "after"
            await queue.aclose()


async def test_two_consumers_never_have_the_same_message(stores: Stores) -> None:
    queue, same = await stores.queue(), await stores.queue()
    await queue.send(texts(*map(str, range(20))))
    pulled: list[str] = []

    async def consume(consumer: QueueStore) -> None:
        while batch := await consumer.pull(3, MINUTE):
            pulled.extend(bodies(batch))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume, queue)
        tasks.start_soon(consume, same)
    assert sorted(pulled, key=int) == [str(number) for number in range(20)]


async def test_an_acknowledged_message_never_comes_again(stores: Stores) -> None:
    queue = await stores.queue()
    await queue.send(texts("a", "b"))
    first, _ = await queue.pull(2, MINUTE)
    settled = await queue.settle([first.lease], [])
    assert (settled.acked, settled.retried, settled.unknown) == (1, 0, ())
    stores.clock.now += DAY
    assert bodies(await queue.pull(2, MINUTE)) == ["b"]


async def test_a_message_that_is_not_acknowledged_comes_again_when_its_lease_ends(stores: Stores) -> None:
    queue = await stores.queue()
    await queue.send(texts("a"))
    first = (await queue.pull(1, MINUTE))[0]
    stores.clock.now += MINUTE - 1
    assert await queue.pull(1, MINUTE) == []
    stores.clock.now += 1
    again = (await queue.pull(1, MINUTE))[0]
    assert (again.id, again.attempts, again.timestamp) == (first.id, 2, first.timestamp)


async def test_a_delayed_message_comes_when_it_is_due(stores: Stores) -> None:
    queue = await stores.queue()
    await queue.send([*texts("later", delay=60), *texts("now")])
    assert bodies(await queue.pull(5, MINUTE)) == ["now"]
    stores.clock.now += MINUTE - 1
    assert bodies(await queue.pull(5, DAY)) == []
    stores.clock.now += 1
    late = await queue.pull(5, MINUTE)
    assert "later" in bodies(late)
    assert next(message for message in late if message.body == b"later").attempts == 1


async def test_a_retry_comes_at_once_or_after_its_delay(stores: Stores) -> None:
    queue = await stores.queue()
    await queue.send(texts("a"))
    first = (await queue.pull(1, DAY))[0]
    settled = await queue.settle([], [Retry(first.lease)])
    assert (settled.acked, settled.retried, settled.unknown) == (0, 1, ())
    second = (await queue.pull(1, DAY))[0]
    assert second.attempts == 2
    await queue.settle([], [Retry(second.lease, 60)])
    assert await queue.pull(1, DAY) == []
    stores.clock.now += MINUTE
    assert (await queue.pull(1, DAY))[0].attempts == 3


async def test_a_lease_that_ran_out_still_acknowledges(stores: Stores) -> None:
    queue = await stores.queue()
    await queue.send(texts("a"))
    first = (await queue.pull(1, MINUTE))[0]
    stores.clock.now += MINUTE
    second = (await queue.pull(1, MINUTE))[0]
    assert (await queue.settle([first.lease], [])).acked == 1
    assert (await queue.settle([second.lease], [])).unknown == (second.lease,)
    stores.clock.now += DAY
    assert await queue.pull(1, MINUTE) == []


async def test_a_lease_that_ran_out_gives_back_nothing_that_somebody_else_has(stores: Stores) -> None:
    queue = await stores.queue()
    await queue.send(texts("a"))
    first = (await queue.pull(1, MINUTE))[0]
    stores.clock.now += MINUTE
    await queue.pull(1, MINUTE)
    assert (await queue.settle([], [Retry(first.lease)])).unknown == (first.lease,)
    assert await queue.pull(1, MINUTE) == []


@pytest.mark.parametrize("lease", ["", ".", "1.2.3", "-", "+", "0-1.1", "'; DROP TABLE messages; --", "9" * 400])
async def test_what_is_no_lease_ends_none(stores: Stores, lease: str) -> None:
    queue = await stores.queue()
    await queue.send(texts("a"))
    await queue.pull(1, MINUTE)
    assert (await queue.settle([lease], [Retry(lease)])).unknown == (lease, lease)
    assert (await queue.metrics()).count == 1


async def test_a_message_goes_to_the_dead_letter_queue_after_its_last_lease(stores: Stores) -> None:
    queue, dead = await stores.queue(max_retries=1, dead="-dead"), await stores.queue("-dead")
    await queue.send(texts("a"))
    first = (await queue.pull(1, MINUTE))[0]
    stores.clock.now += MINUTE
    assert (await queue.pull(1, MINUTE))[0].attempts == 2
    stores.clock.now += MINUTE
    assert await queue.pull(1, MINUTE) == []
    buried = (await dead.pull(1, MINUTE))[0]
    assert (buried.id, buried.body, buried.timestamp, buried.attempts) == (first.id, b"a", first.timestamp, 1)
    assert ((await queue.metrics()).count, (await dead.metrics()).count) == (0, 1)


async def test_a_last_retry_goes_to_the_dead_letter_queue_at_once(stores: Stores) -> None:
    queue, dead = await stores.queue(max_retries=0, dead="-dead"), await stores.queue("-dead")
    await queue.send(texts("a"))
    only = (await queue.pull(1, MINUTE))[0]
    assert (await queue.settle([], [Retry(only.lease, 600)])).retried == 1
    assert bodies(await dead.pull(1, MINUTE)) == ["a"]


async def test_without_a_dead_letter_queue_what_failed_too_often_is_deleted(stores: Stores) -> None:
    queue = await stores.queue(max_retries=0)
    await queue.send(texts("a"))
    await queue.pull(1, MINUTE)
    stores.clock.now += MINUTE
    assert await queue.pull(1, MINUTE) == []
    assert (await queue.metrics()).count == 0


async def test_metrics_tell_of_everything_that_is_not_acknowledged(stores: Stores) -> None:
    queue = await stores.queue()
    empty = await queue.metrics()
    assert (empty.count, empty.bytes, empty.oldest) == (0, 0, 0)
    sent = await queue.send([*texts("abc", "de"), *texts("f", delay=60)])
    began = stores.clock.now
    assert (sent.count, sent.bytes, sent.oldest) == (3, 6, began)
    first = (await queue.pull(1, MINUTE))[0]
    assert (await queue.metrics()).count == 3
    await queue.settle([first.lease], [])
    stores.clock.now += 5
    left = await queue.send(texts("g"))
    assert (left.count, left.bytes, left.oldest) == (3, 4, began)


async def test_what_is_older_than_the_retention_is_gone(stores: Stores) -> None:
    queue = await stores.queue(retention=60)
    await queue.send([*texts("old"), *texts("old and late", delay=50)])
    stores.clock.now += MINUTE - 1
    await queue.send(texts("new"))
    stores.clock.now += 1
    assert bodies(await queue.pull(5, MINUTE)) == ["new"]
    assert (await queue.metrics()).count == 1


async def test_queues_of_one_store_do_not_mix(stores: Stores) -> None:
    one, two = await stores.queue("-1"), await stores.queue("-2")
    await one.send(texts("a"))
    first = (await one.pull(1, MINUTE))[0]
    assert await two.pull(1, MINUTE) == []
    assert (await two.settle([first.lease], [])).acked == 0
    assert (await two.metrics()).count == 0


async def test_a_queue_that_is_opened_again_has_its_messages_and_leases(stores: Stores) -> None:
    before = await stores.queue()
    await before.send(texts("a", "b"))
    leased = (await before.pull(1, MINUTE))[0]
    after = await stores.queue()
    assert bodies(await after.pull(5, MINUTE)) == ["b"]
    assert (await after.settle([leased.lease], [])).acked == 1
