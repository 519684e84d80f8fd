"""`Queue.consume`: a handler that gets the messages of a real server's queues in batches, over both channels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import pytest
from proxying import SECRET, serving, start
from queues import QueueServer, own_queue, queue_server
from redis_server import redis_server

from capnweb_py.backoff import Backoff
from capnweb_py.bindings import queue_consumer
from capnweb_py.bindings.channels import Channel
from capnweb_py.bindings.queue import BatchHandler, MessageBatch, Queue, QueueError
from capnweb_py.remote import connect_env

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    with queue_server(tmp_path_factory.mktemp("queue")) as running:
        yield running


@pytest.fixture(params=["http", "rpc"])
async def queues(request: pytest.FixtureRequest, server: QueueServer) -> AsyncIterator[tuple[Queue, Queue]]:
    """A queue and its dead-letter queue, by each channel."""
    async with own_queue(server, request.param) as both:
        yield both


@pytest.fixture
def queue(queues: tuple[Queue, Queue]) -> Queue:
    return queues[0]


class Handler:
    """Keeps what it gets, and fails as often as a test has it."""

    def __init__(self, enough: int, *, failures: int = 0) -> None:
        self.batches: list[list[Any]] = []
        self.attempts: list[int] = []
        self.done = anyio.Event()
        self._enough = enough
        self._failures = failures

    async def __call__(self, batch: MessageBatch) -> None:
        self.batches.append([message.body for message in batch])
        self.attempts += [message.attempts for message in batch]
        if len(self.attempts) >= self._enough:
            self.done.set()
        if len(self.batches) <= self._failures:
            raise ValueError("this batch is not liked")


@asynccontextmanager
async def consuming(queue: Queue, handler: BatchHandler, **options: Any) -> AsyncIterator[None]:
    """Consume for the length of a block. What the handler is done with by then, the queue is told."""

    async def run() -> None:
        await queue.consume(handler, **{"batch_timeout": 0, "poll_interval": 0.02, **options})

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            yield
            tasks.cancel_scope.cancel()


async def test_what_a_handler_returns_from_is_acknowledged(queue: Queue) -> None:
    await queue.send_batch([{"body": number} for number in range(5)])
    handler = Handler(5)
    async with consuming(queue, handler, batch_size=2):
        await handler.done.wait()
    assert handler.batches == [[0, 1], [2, 3], [4]]
    assert (await queue.metrics()).backlog_count == 0


async def test_a_handler_may_be_a_plain_function(queue: Queue) -> None:
    await queue.send("x")
    done = anyio.Event()
    async with consuming(queue, lambda _batch: done.set()):
        await done.wait()
    assert (await queue.metrics()).backlog_count == 0


async def test_a_batch_waits_for_more_until_it_is_full(queue: Queue) -> None:
    handler = Handler(3)
    async with consuming(queue, handler, batch_size=3, batch_timeout=60):
        for number in range(3):
            await queue.send(number)
        await handler.done.wait()
    assert handler.batches == [[0, 1, 2]]


async def test_a_batch_that_is_not_full_comes_when_its_time_is_over(queue: Queue) -> None:
    await queue.send("alone")
    handler = Handler(1)
    async with consuming(queue, handler, batch_size=100, batch_timeout=0.05):
        await handler.done.wait()
    assert handler.batches == [["alone"]]


async def test_what_a_handler_sends_comes_to_it_later(queue: Queue) -> None:
    bodies: list[Any] = []
    done = anyio.Event()

    async def handler(batch: MessageBatch) -> None:
        bodies.extend(message.body for message in batch)
        if bodies[-1] == 3:
            done.set()
        else:
            await queue.send(bodies[-1] + 1)

    async with consuming(queue, handler):
        await queue.send(0)
        await done.wait()
    assert bodies == [0, 1, 2, 3]


async def test_a_batch_whose_handler_raises_comes_again(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    await queue.send_batch([{"body": "a"}, {"body": "b"}])
    handler = Handler(4, failures=1)
    async with consuming(queue, handler):
        await handler.done.wait()
    assert (handler.batches, handler.attempts) == ([["a", "b"], ["a", "b"]], [1, 1, 2, 2])
    assert (await queue.metrics()).backlog_count == 0
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("capnweb_py", logging.ERROR)
    assert "this batch is not liked" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_of_the_handlers_own_is_a_failure(
    queue: Queue, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.send("x")
    done = anyio.Event()
    attempts: list[int] = []

    async def handler(batch: MessageBatch) -> None:
        attempts.extend(message.attempts for message in batch)
        if len(attempts) == 2:
            done.set()
            return
        task = asyncio.ensure_future(asyncio.sleep(3600))
        task.cancel()
        await task

    async with consuming(queue, handler):
        await done.wait()
    assert attempts == [1, 2]
    assert (await queue.metrics()).backlog_count == 0
    assert "the handler raised a cancellation, and nobody has cancelled it" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("every_task", [True, False])
async def test_a_consumer_is_cancelled_by_asyncio(
    queue: Queue, anyio_backend: str, every_task: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.send("x")
    started = anyio.Event()

    async def handler(_batch: MessageBatch) -> None:
        started.set()
        await anyio.sleep_forever()

    others = asyncio.all_tasks()
    consumer = asyncio.ensure_future(queue.consume(handler, batch_timeout=0))
    await started.wait()
    if every_task:
        for task in asyncio.all_tasks() - others - {consumer}:
            task.cancel()
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert not caplog.records
    assert [message.attempts for message in await queue.pull()] == [2]


async def test_a_handler_may_empty_its_batch(queue: Queue) -> None:
    await queue.send("x")
    done = anyio.Event()

    async def handler(batch: MessageBatch) -> None:
        batch.messages.pop()
        done.set()

    async with consuming(queue, handler):
        await done.wait()
    assert (await queue.metrics()).backlog_count == 0


async def test_a_handler_of_which_a_call_runs_nothing_is_refused(queue: Queue) -> None:
    def generator(_batch: MessageBatch) -> Iterator[None]:
        yield

    async def asynchronous(_batch: MessageBatch) -> AsyncIterator[None]:
        yield

    class Called:
        def __call__(self, _batch: MessageBatch) -> Iterator[None]:
            yield

    for handler in (generator, asynchronous, Called()):
        with pytest.raises(TypeError, match="is a generator function: calling it runs nothing of it"):
            await queue.consume(handler)


async def test_what_a_handler_settles_itself_stays_so_when_it_raises(queue: Queue) -> None:
    await queue.send_batch([{"body": "kept"}, {"body": "later"}, {"body": "failed"}])
    done = anyio.Event()
    bodies: list[Any] = []

    async def handler(batch: MessageBatch) -> None:
        bodies.append([message.body for message in batch])
        if len(bodies) == 2:
            done.set()
            return
        await batch.messages[0].ack()
        await batch.messages[0].retry()  # the first of two counts
        await batch.messages[1].retry(delay_seconds=3600)
        await batch.messages[1].ack()
        raise ValueError

    async with consuming(queue, handler):
        await done.wait()
    assert bodies == [["kept", "later", "failed"], ["failed"]]
    assert (await queue.metrics()).backlog_count == 1


async def test_what_a_handler_fails_at_too_often_is_in_the_dead_letter_queue(queues: tuple[Queue, Queue]) -> None:
    queue, dead = queues
    await queue.send("hopeless")
    handler = Handler(2, failures=2)
    async with consuming(queue, handler):
        await handler.done.wait()
        while not (letters := await dead.pull()):
            pass
    assert handler.attempts == [1, 2]
    assert [message.body for message in letters] == ["hopeless"]


async def test_messages_of_a_failed_batch_come_after_the_delay(queue: Queue) -> None:
    await queue.send("x")
    handler = Handler(1, failures=1)
    async with consuming(queue, handler, retry_delay=3600):
        await handler.done.wait()
    assert len(await queue.pull()) == 0
    assert (await queue.metrics()).backlog_count == 1


async def test_as_many_batches_are_worked_off_at_a_time_as_are_allowed(queue: Queue) -> None:
    await queue.send_batch([{"body": number} for number in range(9)])
    running = most = finished = 0
    three, done = anyio.Event(), anyio.Event()

    async def handler(_batch: MessageBatch) -> None:
        nonlocal running, most, finished
        running += 1
        most = max(most, running)
        if running == 3:
            three.set()
        await three.wait()
        running -= 1
        finished += 1
        if finished == 9:
            done.set()

    async with consuming(queue, handler, batch_size=1, concurrency=3):
        await done.wait()
    assert most == 3
    assert (await queue.metrics()).backlog_count == 0


async def test_a_consumer_that_is_cancelled_gives_back_what_it_has(queue: Queue) -> None:
    await queue.send_batch([{"body": "a"}, {"body": "b"}])
    started = anyio.Event()

    async def handler(batch: MessageBatch) -> None:
        await batch.messages[0].ack()
        started.set()
        await anyio.sleep_forever()

    async with consuming(queue, handler):
        await started.wait()
    assert [(message.body, message.attempts) for message in await queue.pull()] == [("b", 2)]


async def test_a_consumer_that_is_cancelled_gives_back_a_batch_that_is_not_full(queue: Queue) -> None:
    await queue.send("x")
    held = anyio.Event()
    pull = queue.pull
    pulls = 0

    async def counted(**options: Any) -> MessageBatch:
        nonlocal pulls
        pulls += 1
        if pulls == 2:
            held.set()
        return await pull(**options)

    queue.pull = counted  # type: ignore[method-assign]
    async with consuming(queue, Handler(1), batch_size=2, batch_timeout=60):
        await held.wait()
    assert [(message.body, message.attempts) for message in await pull()] == [("x", 2)]


async def test_a_queue_that_cannot_be_consumed_is_told_at_once(queue: Queue) -> None:
    with pytest.raises(QueueError, match="visibility timeout"):
        await queue.consume(Handler(1), visibility_timeout=24 * 3600)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": 101},
        {"batch_timeout": -1},
        {"batch_timeout": 61},
        {"concurrency": 0},
        {"visibility_timeout": 0},
        {"retry_delay": -1},
        {"poll_interval": 0},
    ],
)
async def test_an_option_out_of_its_range_is_refused(queue: Queue, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"'{next(iter(options))}' must be"):
        await queue.consume(Handler(1), **options)


async def test_a_handler_is_a_function(queue: Queue) -> None:
    with pytest.raises(TypeError, match=r"^handler has to be a function of a MessageBatch, not int$"):
        await queue.consume(5)  # type: ignore[arg-type]


async def test_messages_are_not_to_come_again_while_their_batch_is_filled(queue: Queue) -> None:
    with pytest.raises(ValueError, match=r"^visibility_timeout has to be longer than batch_timeout, 5 s"):
        await queue.consume(Handler(1), visibility_timeout=1, batch_timeout=5)


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_a_consumer_goes_on_when_the_proxy_is_back(
    tmp_path: Path, channel: Channel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The proxy may be gone before it is told of the first batch: that is not waited for here.
    monkeypatch.setattr(queue_consumer, "_AGAIN", Backoff(patience=0))
    config = tmp_path / "capnweb.toml"
    config.write_text(f'[server]\nsecret = "{SECRET}"\n[bindings.QUEUE]\ntype = "queue"\n')
    first = start(config)
    handler = Handler(2)
    with contextlib.ExitStack() as servers:
        async with connect_env(first.url, channel=channel, backoff=Backoff(patience=0)) as env:
            await env.QUEUE.send("before")
            async with consuming(env.QUEUE, handler):
                while not handler.batches:
                    await anyio.lowlevel.checkpoint()
                first.process.kill()
                first.process.communicate()
                while "is not consumed for the moment" not in caplog.text:
                    await anyio.lowlevel.checkpoint()
                servers.enter_context(serving(config, "--port", str(urlsplit(first.url).port)))
                await env.QUEUE.send("after")
                await handler.done.wait()
    assert handler.batches[-1] == ["after"]
    assert caplog.text.count("is not consumed for the moment") == 1


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_what_becomes_of_a_batch_is_told_again_if_the_proxy_was_away(
    tmp_path: Path, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text(f'[server]\nsecret = "{SECRET}"\n[bindings.QUEUE]\ntype = "queue"\n')
    first = start(config)
    handled, back = anyio.Event(), anyio.Event()
    with contextlib.ExitStack() as servers:

        async def restart(_seconds: float) -> None:
            servers.enter_context(serving(config, "--port", str(urlsplit(first.url).port)))
            back.set()

        async def handler(_batch: MessageBatch) -> None:
            first.process.kill()
            first.process.communicate()
            handled.set()

        monkeypatch.setattr(queue_consumer, "_AGAIN", Backoff(sleep=restart))
        async with connect_env(first.url, channel=channel, backoff=Backoff(patience=0)) as env:
            await env.QUEUE.send("once")
            async with consuming(env.QUEUE, handler):
                await handled.wait()
                await back.wait()
                while (await env.QUEUE.metrics()).backlog_count:
                    await anyio.lowlevel.checkpoint()


async def test_a_consumer_goes_on_when_the_queues_redis_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "capnweb.toml"
    with redis_server(tmp_path) as redis:
        config.write_text(f'[bindings.QUEUE]\ntype = "queue"\nstore = "{redis.url}"\nvisibility_timeout_ms = 3600000\n')
        with serving(config) as server:
            async with connect_env(server.url) as env:
                await env.QUEUE.send_batch([{"body": "before"}, {"body": "waiting"}])
                bodies: list[Any] = []
                killed, done = anyio.Event(), anyio.Event()

                async def handler(batch: MessageBatch) -> None:
                    bodies.extend(message.body for message in batch)
                    if "waiting" not in bodies:
                        redis.kill()
                        killed.set()  # so that what becomes of this batch cannot be told
                    if "after" in bodies:
                        done.set()

                async with consuming(env.QUEUE, handler, batch_size=1):
                    await killed.wait()
                    while "is not consumed for the moment" not in caplog.text:
                        await anyio.lowlevel.checkpoint()
                    redis.start()
                    await env.QUEUE.send("after")
                    await done.wait()
                assert bodies == ["before", "waiting", "after"]
                # "before" is on lease: nobody told the queue that it is done with.
                assert (await env.QUEUE.metrics()).backlog_count == 1
    assert "the queue QUEUE was not told what became of a batch, which comes again" in caplog.text
