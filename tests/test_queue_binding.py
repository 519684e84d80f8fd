"""The queue binding: its facade over both channels of a real server, its requests, RPC methods and configuration."""

from __future__ import annotations

import base64
import itertools
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from documents import DOCUMENTS, run_examples
from proxying import Reply, fetch, http_scope, proxy, serving, start
from queues import QueueServer, own_queue, queue_server
from redis_server import redis_server

from capnweb_py import UNDEFINED, RemoteError, TypedArray, memory_pair
from capnweb_py.bindings.channels import Channel
from capnweb_py.bindings.queue import Queue, QueueError, QueueMessage, SendRequest
from capnweb_py.remote import connect_env
from capnweb_py.web import Request
from proxy_server.app import ProxyApp
from proxy_server.bindings import parse_binding
from proxy_server.bindings.queue import parse
from proxy_server.stores.queue import Clock
from proxy_server.tables import ConfigError, Table

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


# The facade, over both channels


async def test_bodies_of_every_content_type_arrive_as_they_were(queue: Queue) -> None:
    before = datetime.now(UTC)
    await queue.send({"id": 1, "list": [1, 2.5, None, "ü"]})
    await queue.send("grüße \U0001f600", content_type="text")
    await queue.send(b"\0\xff", content_type="bytes")
    await queue.send(TypedArray("Uint16Array", b"\1\0\2\0"), content_type="bytes")
    await queue.send(None)
    await queue.send({1: {"ä", UNDEFINED}}, content_type="v8")
    batch = await queue.pull(batch_size=10)
    assert [(message.content_type, message.body) for message in batch] == [
        ("json", {"id": 1, "list": [1, 2.5, None, "ü"]}),
        ("text", "grüße \U0001f600"),
        ("bytes", b"\0\xff"),
        ("bytes", b"\1\0\2\0"),
        ("json", None),
        ("v8", {1: {"ä", UNDEFINED}}),
    ]
    assert all(message.attempts == 1 for message in batch)
    assert before - timedelta(seconds=1) < batch.messages[0].timestamp < datetime.now(UTC) + timedelta(seconds=1)


async def test_a_batch_is_of_requests_or_dicts(queue: Queue) -> None:
    metrics = await queue.send_batch([SendRequest("a", "text"), {"body": b"bc", "content_type": "bytes"}, {"body": 1}])
    assert (metrics.backlog_count, metrics.backlog_bytes) == (3, 4)
    assert [message.body for message in await queue.pull()] == ["a", b"bc", 1]


async def test_metrics(queue: Queue) -> None:
    empty = await queue.metrics()
    assert (empty.backlog_count, empty.backlog_bytes, empty.oldest_message_timestamp) == (0, 0, None)
    sent = await queue.send("abc", content_type="text")
    assert sent == await queue.metrics()
    assert (sent.backlog_count, sent.backlog_bytes) == (1, 3)
    assert sent.oldest_message_timestamp == (await queue.pull()).messages[0].timestamp


async def test_what_is_acknowledged_is_gone(queue: Queue) -> None:
    await queue.send_batch([{"body": number} for number in range(5)])
    batch = await queue.pull(batch_size=5, visibility_timeout=3600)
    await batch.messages[0].ack()
    await batch.messages[1].retry()
    await batch.ack_all()
    assert [(message.body, message.attempts) for message in await queue.pull()] == [(1, 2)]
    assert (await queue.metrics()).backlog_count == 1


async def test_what_is_given_back_comes_again(queue: Queue) -> None:
    await queue.send_batch([{"body": number} for number in range(3)])
    batch = await queue.pull(visibility_timeout=3600)
    assert (len(batch), repr(batch)) == (3, f"<batch of 3 messages of {batch.queue}>")
    await batch.messages[0].retry(delay_seconds=3600)
    await batch.retry_all()
    await batch.retry_all()  # nothing is left to give back
    assert [message.body for message in await queue.pull()] == [1, 2]


async def test_what_fails_too_often_is_in_the_dead_letter_queue(queues: tuple[Queue, Queue]) -> None:
    queue, dead = queues
    await queue.send("x", content_type="text")
    for _ in range(2):
        await (await queue.pull()).retry_all()
    assert len(await queue.pull()) == 0
    assert [(message.body, message.attempts) for message in await dead.pull()] == [("x", 1)]


async def test_what_is_delayed_is_not_there_yet(queue: Queue) -> None:
    await queue.send("later", delay_seconds=3600)
    await queue.send_batch([{"body": "much later"}, {"body": "now", "delay_seconds": 0}], delay_seconds=86_400)
    assert [message.body for message in await queue.pull()] == ["now"]


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (1, "text", 'Content Type "text" requires a value of type string, but received: number'),
        (None, "text", 'Content Type "text" requires a value of type string, but received: object'),
        (True, "text", 'Content Type "text" requires a value of type string, but received: boolean'),
        (print, "text", 'Content Type "text" requires a value of type string, but received: function'),
        ("x", "bytes", 'Content Type "bytes" requires a value of type ArrayBufferView, but received: string'),
        ("x", "xml", "Unsupported queue message content type: xml"),
        (UNDEFINED, "json", "Message body cannot be undefined"),
        ({1, 2}, "json", 'Content Type "json" requires a value that JSON has a form for'),
        (object(), "v8", 'Content Type "v8" has no form for a value of the type object'),
        (datetime(2026, 1, 1), "v8", "a datetime without a time zone is no point in time"),  # noqa: DTZ001
    ],
)
async def test_a_body_that_is_not_of_its_content_type(queue: Queue, body: Any, content_type: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        await queue.send(body, content_type=content_type)
    with pytest.raises(TypeError, match=text):
        await queue.send_batch([{"body": "fine"}, {"body": body, "content_type": content_type}])
    assert (await queue.metrics()).backlog_count == 0


async def test_an_empty_batch_is_refused(queue: Queue) -> None:
    with pytest.raises(TypeError, match=r"^sendBatch\(\) requires at least one message$"):
        await queue.send_batch([])


async def test_limits_are_errors_with_cloudflares_numbers(queue: Queue) -> None:
    await queue.send("x" * 128_000, content_type="text")
    with pytest.raises(
        QueueError, match=r"^message length of 128001 bytes exceeds limit of 128000 \(10204\)$"
    ) as large:
        await queue.send("x" * 128_001, content_type="text")
    assert large.value.code == 10204
    with pytest.raises(QueueError, match=r"^batch message count of 101 exceeds limit of 100 \(10206\)$"):
        await queue.send_batch([{"body": 1}] * 101)
    with pytest.raises(QueueError, match=r"^batch size of 300000 bytes exceeds limit of 256000 \(10205\)$"):
        await queue.send_batch([{"body": b"x" * 100_000, "content_type": "bytes"}] * 3)
    for delay in (-1, 86_401):
        with pytest.raises(QueueError, match=rf"^message delay {delay} is invalid: .* \(10203\)$"):
            await queue.send("x", delay_seconds=delay)
        with pytest.raises(QueueError, match=rf"^message delay {delay} is invalid: .* \(10203\)$"):
            await queue.send_batch([{"body": "x", "delay_seconds": delay}])
        with pytest.raises(QueueError, match=rf"^batch delay {delay} is invalid: .* \(10202\)$"):
            await queue.send_batch([{"body": "x"}], delay_seconds=delay)
    with pytest.raises(QueueError, match=r"^batch size 101 is invalid: a whole number from 1 to 100 is one \(10207\)$"):
        await queue.pull(batch_size=101)
    with pytest.raises(QueueError, match=r"^visibility timeout 43200001 is invalid"):
        await queue.pull(visibility_timeout=43_200.001)
    assert (await queue.metrics()).backlog_count == 1


async def test_a_body_that_python_cannot_read_is_there_as_bytes(queue: Queue) -> None:
    # Nobody sends such a thing but by hand.
    await queue._channels.fetch(_message_request(b"{", "json"))
    await queue._channels.fetch(_message_request(b"\xff\x0fR\x22\x01a\x00", "v8"))
    broken, foreign = await queue.pull()
    with pytest.raises(ValueError, match="Expecting property name"):
        _ = broken.body
    with pytest.raises(ValueError, match="the tag 'R' of V8's format"):
        _ = foreign.body
    assert (broken.raw, foreign.raw[:3]) == (b"{", b"\xff\x0fR")


def _message_request(body: bytes, content_type: str) -> Request:
    return Request("https://fake-host/message", method="POST", headers={"x-msg-fmt": content_type}, body=body)


async def test_the_examples_of_the_documentation_run(tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.QUEUE]\ntype = "queue"\n')
    done: list[Any] = []

    class TryLater(Exception):
        pass

    async def work(body: Any) -> None:
        done.append(body)
        if body == "late":
            raise TryLater

    with serving(config) as server:
        async with connect_env(server.url) as env:
            await env.QUEUE.send("late")
        page = DOCUMENTS / "bindings" / "queue.md"
        assert await run_examples(page, connection_string=server.url, work=work, TryLater=TryLater) == 2
        async with connect_env(server.url) as env:
            assert (await env.QUEUE.metrics()).backlog_count == 4  # the late one, and three with a delay
    assert done == ["late", {"id": 1}, b"\x00\x01"]


# HTTP requests by hand


@asynccontextmanager
async def embedded(directory: Path, clock: Clock | None = None, **table: Any) -> AsyncIterator[ProxyApp]:
    """The application with one queue, over a file in a directory."""
    declared = Table(table, Path("capnweb.toml"), "bindings.QUEUE")
    async with proxy(QUEUE=parse(declared, directory) if clock is None else parse(declared, directory, clock)) as app:
        yield app


async def post(app: ProxyApp, path: str, body: bytes | Any, **headers: str) -> Reply:
    wrapped = [("mf-url", f"https://fake-host{path}"), ("transfer-encoding", "chunked")]
    wrapped += [(f"mf-header-{name.replace('_', '-')}", value) for name, value in headers.items()]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await fetch(app, http_scope("QUEUE", method="POST", headers=wrapped), data)


async def test_a_consumer_speaks_cloudflares_rest_calls(tmp_path: Path) -> None:
    async with embedded(tmp_path, lambda: 1_700_000_000_123, queue="jobs") as app:
        await post(app, "/message", b'{"a":1}', x_msg_fmt="json")
        await post(app, "/message", b"hi", x_msg_fmt="text")
        answer = json.loads((await post(app, "/messages/pull", {"visibility_timeout": 6000, "batch_size": 50})).body)
        assert (answer["success"], answer["errors"], answer["messages"]) == (True, [], [])
        first, second = answer["result"]["messages"]
        assert answer["result"]["message_backlog_count"] == 2
        assert (base64.b64decode(first["body"]), second["body"]) == (b'{"a":1}', "hi")
        assert first["metadata"]["CF-Content-Type"] == "json"
        assert (first["timestamp_ms"], first["attempts"]) == (1_700_000_000_123, 1)
        ended = {"acks": [{"lease_id": first["lease_id"]}], "retries": [{"lease_id": second["lease_id"]}]}
        answer = json.loads((await post(app, "/messages/ack", ended)).body)
        assert answer["result"] == {"ackCount": 1, "retryCount": 1, "warnings": []}
        answer = json.loads((await post(app, "/messages/ack", {"acks": ended["acks"]})).body)
        assert answer["result"]["warnings"] == [f"the queue has no message with the lease {first['lease_id']}"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/nothing", b"", {}, 404, "10207"),
        ("/message", b"x", {"x_msg_fmt": "xml"}, 400, "10203"),
        ("/message", b"x", {"x_msg_fmt": "\x7f", "x_msg_delay_secs": "1"}, 400, "10203"),
        ("/message", b"x", {"x_msg_delay_secs": "1.5"}, 400, "10203"),
        ("/message", b"x", {"x_msg_delay_secs": "9" * 5000}, 400, "10203"),
        ("/message", b"x" * 1_000_001, {}, 413, "10204"),
        ("/batch", b"{", {}, 400, "10208"),
        ("/batch", b"[" * 100_000, {}, 400, "10208"),
        ("/batch", [], {}, 400, "10207"),
        ("/batch", {}, {}, 400, "10207"),
        ("/batch", {"messages": [1]}, {}, 400, "10207"),
        ("/batch", {"messages": [{}]}, {}, 400, "10207"),
        ("/batch", {"messages": [{"body": "?"}]}, {}, 400, "10207"),
        ("/batch", {"messages": [{"body": "", "delaySecs": True}]}, {}, 400, "10203"),
        ("/batch", {"messages": [{"body": "", "contentType": ["json"]}]}, {}, 400, "10203"),
        ("/messages/pull", {"batch_size": 0}, {}, 400, "10207"),
        ("/messages/pull", {"batch_size": "5"}, {}, 400, "10207"),
        ("/messages/pull", {"visibility_timeout_ms": 0}, {}, 400, "10207"),
        ("/messages/ack", {"acks": {}}, {}, 400, "10207"),
        ("/messages/ack", {"acks": [{}]}, {}, 400, "10207"),
        ("/messages/ack", {"retries": [{"lease_id": "x", "delay_seconds": -1}]}, {}, 400, "10203"),
    ],
)
async def test_a_malformed_request_is_refused(
    tmp_path: Path, path: str, body: Any, headers: dict[str, str], status: int, code: str
) -> None:
    async with embedded(tmp_path) as app:
        reply = await post(app, path, body, **headers)
        assert (reply.status, reply.header("cf-queues-error-code")) == (status, code)
        assert reply.header("cf-queues-error-cause")


async def test_a_body_without_end_is_not_read(tmp_path: Path) -> None:
    async with embedded(tmp_path) as app:
        reply = await post(app, "/message", b"x" * 1_000_001)
        assert reply.body == b"message length of over 1000000 bytes exceeds limit of 128000"


async def test_delays_and_time_outs_of_the_configuration(tmp_path: Path) -> None:
    times = iter([0, 0, 10_000, 10_000, 14_999, 15_000, 15_000, 35_000, 35_001])
    async with embedded(
        tmp_path, lambda: next(times), delivery_delay=10, retry_delay=20, visibility_timeout_ms=5000
    ) as app:
        await post(app, "/message", b"x", x_msg_fmt="text")  # at 0

        async def pulled() -> list[Any]:
            answer = json.loads((await post(app, "/messages/pull", {})).body)
            messages: list[Any] = answer["result"]["messages"]
            return messages

        assert await pulled() == []  # at 0
        assert len(await pulled()) == 1  # at 10
        assert await pulled() == []  # at 10
        assert await pulled() == []  # at 14.999
        lease = (await pulled())[0]["lease_id"]  # at 15
        await post(app, "/messages/ack", {"retries": [{"lease_id": lease}]})  # at 15
        assert len(await pulled()) == 1  # at 35


# RPC without a facade


async def test_rpc_bodies_are_values(tmp_path: Path) -> None:
    async with embedded(tmp_path) as app, memory_pair(None, _main(app)) as (client, _):
        stub = client.remote_main
        sent = await stub.send({"a": [1, "ü"]}, {})
        assert sent["metadata"]["metrics"]["backlogCount"] == 1
        await stub.sendBatch([{"body": "t", "contentType": "text"}, {"body": b"b", "contentType": "bytes"}])
        assert [message["body"] for message in (await stub.pull())["messages"]] == [{"a": [1, "ü"]}, "t", b"b"]


def _main(app: ProxyApp) -> Any:
    opened = app._open.get("QUEUE")
    assert opened is not None
    return opened._binding.rpc_main()


@pytest.mark.parametrize(
    ("method", "arguments", "name", "text"),
    [
        ("send", [], "TypeError", "Message body cannot be undefined"),
        ("send", [1, 2], "TypeError", "send() takes its options as an object, not as int"),
        ("send", [1, {"delaySeconds": "1"}], "Error", "message delay 1 is invalid"),
        ("sendBatch", [5], "TypeError", "sendBatch() takes an array of objects, each with a body"),
        ("sendBatch", [[]], "TypeError", "sendBatch() requires at least one message"),
        ("sendBatch", [[{}]], "TypeError", "Message body cannot be undefined"),
        ("pull", [{"batchSize": 1.5}], "Error", "batch size 1.5 is invalid"),
        ("ack", [{"acks": 1}], "Error", '"acks" is no array of objects'),
        ("ack", [{"acks": [{"leaseId": 1}]}], "Error", '"leaseId" is no string'),
    ],
)
async def test_rpc_errors(tmp_path: Path, method: str, arguments: list[Any], name: str, text: str) -> None:
    async with embedded(tmp_path) as app, memory_pair(None, _main(app)) as (client, _):
        with pytest.raises(RemoteError) as caught:
            await client.remote_main[method](*arguments)
        assert (caught.value.name, caught.value.message[: len(text)]) == (name, text)


# What survives


@pytest.fixture(params=["sqlite", "redis"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "capnweb.toml"
    if request.param == "sqlite":
        path.write_text('[bindings.QUEUE]\ntype = "queue"\n')
        yield path
    else:
        with redis_server(tmp_path) as redis:
            path.write_text(f'[bindings.QUEUE]\ntype = "queue"\nstore = "{redis.url}"\n')
            yield path


async def test_no_acknowledged_send_is_lost_when_the_proxy_is_killed(config: Path) -> None:
    acknowledged: set[int] = set()
    server = start(config)

    async def send(queue: Queue, first: int) -> None:
        for number in itertools.count(first, 4):
            try:
                await queue.send(number)
            except ConnectionError:
                return
            acknowledged.add(number)
            if len(acknowledged) == 40:
                server.process.send_signal(signal.SIGKILL)

    async with connect_env(server.url) as env, anyio.create_task_group() as tasks:
        for first in range(4):
            tasks.start_soon(send, env.QUEUE, first)
    server.ended()
    with serving(config) as again:
        async with connect_env(again.url) as env:
            stored: set[int] = set()
            while batch := (await env.QUEUE.pull(batch_size=100)).messages:
                stored |= {message.body for message in batch}
    assert len(acknowledged) >= 40
    assert acknowledged <= stored


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_a_redis_that_is_killed_fails_calls_and_loses_nothing(tmp_path: Path, channel: Channel) -> None:
    config = tmp_path / "capnweb.toml"
    with redis_server(tmp_path) as redis:
        config.write_text(f'[bindings.QUEUE]\ntype = "queue"\nstore = "{redis.url}"\n')
        with serving(config) as server:
            async with connect_env(server.url, channel=channel) as env:
                await env.QUEUE.send("before")
                redis.kill()
                for call in (env.QUEUE.send("meanwhile"), env.QUEUE.pull(), env.QUEUE.metrics()):
                    with anyio.fail_after(60), pytest.raises(QueueError, match=r"^Unknown Internal Error \(15000\)$"):
                        await call
                redis.start()
                await env.QUEUE.send("after")
                assert [message.body for message in await env.QUEUE.pull()] == ["before", "after"]


async def test_no_acknowledged_send_or_ack_is_lost_when_redis_is_killed(tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    sent: set[int] = set()
    acked: set[int] = set()
    with redis_server(tmp_path) as redis:
        config.write_text(f'[bindings.QUEUE]\ntype = "queue"\nstore = "{redis.url}"\n')

        async def send(queue: Queue, first: int) -> None:
            for number in itertools.count(first, 4):
                try:
                    await queue.send(number)
                except QueueError:
                    return
                sent.add(number)
                if len(sent) == 40:
                    redis.kill()

        async def ack(messages: Iterator[QueueMessage]) -> None:
            for message in messages:
                try:
                    await message.ack()
                except QueueError:
                    return
                acked.add(message.body)
                if len(acked) == 20:
                    redis.kill()

        with serving(config) as server:
            async with connect_env(server.url) as env:
                async with anyio.create_task_group() as tasks:
                    for first in range(4):
                        tasks.start_soon(send, env.QUEUE, first)
                redis.start()
                messages: list[QueueMessage] = []
                while batch := (await env.QUEUE.pull(batch_size=100, visibility_timeout=3600)).messages:
                    messages += batch
                assert sent <= {message.body for message in messages}
                waiting = iter(messages)
                async with anyio.create_task_group() as tasks:
                    for _ in range(4):
                        tasks.start_soon(ack, waiting)
                redis.start()
                assert len(acked) >= 20
                assert (await env.QUEUE.metrics()).backlog_count <= len(messages) - len(acked)


# Configuration


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"max_retries": 101}, "bindings.QUEUE.max_retries: 101 is out of range: 0 to 100 are valid"),
        ({"delivery_delay": 86_401}, "bindings.QUEUE.delivery_delay: 86401 is out of range"),
        ({"message_retention_period": 59}, "bindings.QUEUE.message_retention_period: 59 is out of range"),
        ({"dead_letter_queue": "QUEUE"}, "bindings.QUEUE.dead_letter_queue: a queue cannot be its own"),
        ({"store": "kafka://x"}, "bindings.QUEUE.store: stores with kafka: are not known here"),
        ({"store": "sqlite://x"}, 'bindings.QUEUE.store: a store of SQLite is written "sqlite:///FILE"'),
        ({"store": "redis://x/y"}, 'bindings.QUEUE.store: a store of Redis is written "redis://'),
        ({"colour": "red"}, "bindings.QUEUE.colour: unknown key"),
    ],
)
async def test_a_configuration_that_is_not_valid(tmp_path: Path, table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_binding(Table({"type": "queue", **table}, Path("capnweb.toml"), "bindings.QUEUE"), tmp_path)
    assert f"capnweb.toml: {problem}" in str(caught.value)


async def test_a_store_that_does_not_answer_keeps_the_server_from_starting(tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.QUEUE]\ntype = "queue"\nstore = "redis://127.0.0.1:1/0"\n')
    with pytest.raises(AssertionError, match='the binding "QUEUE" cannot be opened'):
        start(config)
