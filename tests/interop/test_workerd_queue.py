"""Queues of a real workerd: one script with our proxy behind env.QUEUE, and with Miniflare's own simulator, compared.

Miniflare has no option for a remote queue: queue_ways.mjs makes the binding of the same parts, Miniflare's client of
remote bindings behind a queue binding of workerd's. What the simulator gives a Worker's queue() is what Python pulls.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from proxying import serving

from capnweb_py import UNDEFINED, RemoteError, TypedArray
from capnweb_py.bindings.queue import QueueError, QueueMessage
from capnweb_py.remote import connect_env
from capnweb_py.values import INVALID_DATE, BigInt

from .node import HERE
from .runtime import DEADLINE, Worker, cloudflare_proxy, workerd

SCRIPT: Final = "queue_worker.mjs"
PLUGIN: Final = {"package": str(HERE / "queue_ways.mjs"), "name": "queue-ways"}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# The names of bodies in queue_worker.mjs.
# fmt: off
BODIES: Final = (
    "text", "bytes", "words", "json", "default", "null", "capitals", "numbers", "nan", "strings", "simple",
    "nested", "date", "noDate", "map", "set", "bigints", "buffer", "view", "floats", "boxed", "holes",
    "sparse", "circle", "shared", "error",
)
# fmt: on


def remote(name: str, connection_string: str) -> dict[str, Any]:
    return {"name": name, "type": "remote", "plugin": PLUGIN, "options": {"connectionString": connection_string}}


@pytest.fixture(scope="module")
def connection_string(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config: Path = tmp_path_factory.mktemp("queue") / "capnweb.toml"
    config.write_text('[bindings.QUEUE]\ntype = "queue"\n')
    with serving(config) as server:
        yield server.url


@pytest.fixture(scope="module")
def ours(node: str, connection_string: str) -> Iterator[Worker]:
    with workerd(node, SCRIPT, unsafeBindings=[remote("QUEUE", connection_string)]) as worker:
        yield worker


@pytest.fixture(scope="module")
def simulated(node: str) -> Iterator[Worker]:
    consumers = {"jobs": {"maxBatchSize": 100, "maxBatchTimeout": 0}}
    with workerd(node, SCRIPT, queueProducers={"QUEUE": "jobs"}, queueConsumers=consumers) as worker:
        yield worker


def shown(value: Any, seen: tuple[Any, ...] = ()) -> Any:
    """A value as queue_worker.mjs shows it."""
    if value is UNDEFINED:
        return {"undefined": True}
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return {"number": "NaN" if value != value else "Infinity"}
    if isinstance(value, BigInt):
        return {"bigint": str(value)}
    if value is INVALID_DATE:
        return {"date": None}
    if isinstance(value, datetime):
        return {"date": round((value - EPOCH).total_seconds() * 1000)}
    if isinstance(value, RemoteError):
        return {"error": [value.name, value.message]}
    if isinstance(value, bytes):
        return {"bytes": list(value)}
    if isinstance(value, TypedArray):
        return {"array": [value.kind, value.tolist()]}
    for index, outer in enumerate(seen):
        if outer is value:
            return {"seen": index}
    inside = (*seen, value)
    if isinstance(value, dict):
        return {"object": [[str(key), shown(item, inside)] for key, item in value.items()]}
    if isinstance(value, list):
        return [shown(item, inside) for item in value]
    if isinstance(value, set):
        return {"set": [shown(item, inside) for item in value]}
    return value


def pulled(connection_string: str) -> list[QueueMessage]:
    """All messages that are there, acknowledged."""

    async def pull() -> list[QueueMessage]:
        messages: list[QueueMessage] = []
        async with connect_env(connection_string) as env:
            while batch := await env.QUEUE.pull(batch_size=100):
                await batch.ack_all()
                messages += batch.messages
        return messages

    return anyio.run(pull)


def test_a_consumer_in_python_gets_what_one_in_a_worker_gets(
    ours: Worker, simulated: Worker, connection_string: str
) -> None:
    names = BODIES
    for name in names:
        assert ours.run("send", body=name) == simulated.run("send", body=name) == "number"
    expected = {
        name: message["body"] for name, message in zip(names, simulated.run("received", count=len(names)), strict=True)
    }
    # A Map and a Set are shown in one way by both; in Python, a Map is a dict.
    expected["map"] = {"object": [[str(key), value] for key, value in expected["map"]["map"]]}
    got = {name: shown(message.body) for name, message in zip(names, pulled(connection_string), strict=True)}
    assert sorted(got["set"].pop("set"), key=str) == sorted(expected["set"].pop("set"), key=str)
    assert got == expected


# What the runtime refuses by itself, and what a queue takes: the same with both.
SAME: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "undefined": ("sendNothing", {}),
    "text of a number": ("sendAs", {"body": 1, "contentType": "text"}),
    "bytes of a string": ("sendAs", {"body": "x", "contentType": "bytes"}),
    "an unknown content type": ("sendAs", {"body": "x", "contentType": "xml"}),
    "a function in json": ("unserializable", {"contentType": "json"}),
    "a function in v8": ("unserializable", {"contentType": "v8"}),
    "a circle in json": ("circleInJson", {}),
    "an empty batch": ("sendBatchAs", {"messages": []}),
    "a batch with undefined": ("sendBatchOfNothing", {}),
    "a batch with an unknown content type": ("sendBatchAs", {"messages": [{"body": "x", "contentType": "xml"}]}),
    "a batch that is none": ("sendBatchAs", {"messages": 5}),
    "a delay that is no number": ("sendLater", {"delaySeconds": "soon"}),
    "the largest message": ("sendLarge", {"size": 128_000}),
    "the longest delay": ("sendLater", {"delaySeconds": 86_400}),
    "the largest batch": ("sendManyLarge", {"count": 100, "size": 2560}),
    "a batch with a delay": ("sendBatch", {"names": ["text", "json"], "options": {"delaySeconds": 3600}}),
}


@pytest.mark.parametrize("case", SAME)
def test_the_runtime_sees_no_difference(ours: Worker, simulated: Worker, case: str) -> None:
    scenario, arguments = SAME[case]
    assert ours.attempt(scenario, **arguments) == simulated.attempt(scenario, **arguments)


def test_odd_arguments_make_no_difference_but_for_json_that_is_none(ours: Worker, simulated: Worker) -> None:
    got, expected = ours.run("oddSends"), simulated.run("oddSends")
    # Of a function the runtime sends the text "undefined", as JSON. The simulator reads bodies and fails at this one.
    # Here they are kept as they came, and their consumer learns that it cannot be read.
    for name in ("body function", "body symbol"):
        assert got.pop(name) is None
        assert expected.pop(name) == {"name": "Error", "message": "Unknown Internal Error (15000)"}
    assert got == expected


# What the queue itself refuses. The simulator refuses it too, but does not say why: its answer has none of the headers
# from which the runtime takes the number and the cause (Cloudflare's documentation, "Queues: Error codes").
REFUSED: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "a message too large": (
        "sendLarge",
        {"size": 128_001},
        "message length of 128001 bytes exceeds limit of 128000 (10204)",
    ),
    "a message in a batch too large": (
        "sendBatchAs",
        {"messages": [{"body": "x" * 128_001, "contentType": "text"}, {"body": "x"}]},
        "message in batch has length 128001 bytes which exceeds single message size limit of 128000 (10204)",
    ),
    "too many messages": (
        "sendManyLarge",
        {"count": 101, "size": 1},
        "batch message count of 101 exceeds limit of 100 (10206)",
    ),
    "a batch too large": (
        "sendManyLarge",
        {"count": 3, "size": 100_000},
        "batch size of 300000 bytes exceeds limit of 256000 (10205)",
    ),
    "a delay too long": (
        "sendLater",
        {"delaySeconds": 86_401},
        "message delay 86401 is invalid: a whole number of seconds from 0 to 86400 is one (10203)",
    ),
    "a delay below zero": (
        "sendLater",
        {"delaySeconds": -1},
        "message delay -1 is invalid: a whole number of seconds from 0 to 86400 is one (10203)",
    ),
    "a batch's delay too long": (
        "sendBatchAs",
        {"messages": [{"body": "x"}], "options": {"delaySeconds": 86_401}},
        "batch delay 86401 is invalid: a whole number of seconds from 0 to 86400 is one (10202)",
    ),
    "a delay too long in a batch": (
        "sendBatchAs",
        {"messages": [{"body": "x", "delaySeconds": 86_401}]},
        "message delay 86401 is invalid: a whole number of seconds from 0 to 86400 is one (10203)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_queue_refuses_has_its_cause_and_cloudflares_number(ours: Worker, simulated: Worker, case: str) -> None:
    scenario, arguments, text = REFUSED[case]
    assert ours.attempt(scenario, **arguments) == {"thrown": {"name": "Error", "message": text}}
    answer = simulated.attempt(scenario, **arguments)
    assert answer == {"thrown": {"name": "Error", "message": "Unknown Internal Error (15000)"}}


def test_metrics_tell_what_is_stored(node: str, tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.QUEUE]\ntype = "queue"\n')
    with serving(config) as server, workerd(node, SCRIPT, unsafeBindings=[remote("QUEUE", server.url)]) as worker:
        assert worker.run("counts") == {"backlogCount": 0, "backlogBytes": 0, "oldest": None}
        worker.run("sendBatchAs", messages=[{"body": "abc", "contentType": "text"}] * 2)
        counts = worker.run("counts")
        assert (counts["backlogCount"], counts["backlogBytes"]) == (2, 6)
        oldest = pulled(server.url)[0].timestamp
        assert counts["oldest"] == round((oldest - EPOCH).total_seconds() * 1000)


def test_a_worker_before_the_error_codes_sees_the_status(node: str, connection_string: str) -> None:
    bindings = [remote("QUEUE", connection_string)]
    with workerd(node, SCRIPT, unsafeBindings=bindings, compatibilityDate="2026-03-01") as worker:
        thrown = worker.attempt("sendLater", delaySeconds=-1)["thrown"]
        assert thrown == {"name": "Error", "message": "Queue send failed: Bad Request"}
        # The phrase of a status is that of the HTTP server, which has had several for this one.
        thrown = worker.attempt("sendManyLarge", count=101, size=1)["thrown"]
        assert thrown["message"] == f"Queue sendBatch failed: {HTTPStatus(413).phrase}"


# Cloudflare's proxy worker. Where it is deployed, its queue binding is a fetcher that speaks the queue's protocol; here
# it is a service binding to the simulator of the queue.


@pytest.fixture(scope="module")
def cloudflare(node: str) -> Iterator[str]:
    consumer = {"jobs": {"maxBatchSize": 100, "maxBatchTimeout": 60}}
    raw = {"name": "QUEUE", "type": "service", "plugin": PLUGIN, "options": {"queue": "jobs"}}
    with cloudflare_proxy(
        node, unsafeBindings=[raw], queueProducers={"PRODUCER": "jobs"}, queueConsumers=consumer
    ) as url:
        yield url


@pytest.mark.anyio
async def test_the_facade_sends_through_cloudflares_proxy(cloudflare: str) -> None:
    async with connect_env(cloudflare, bindings={"QUEUE": "queue"}) as env:
        before = (await env.QUEUE.metrics()).backlog_count
        await env.QUEUE.send({"id": 1})
        await env.QUEUE.send_batch([{"body": "a", "content_type": "text"}, {"body": b"b", "content_type": "bytes"}])
        with anyio.fail_after(DEADLINE):  # the simulator answers before the messages are in its queue
            while (after := await env.QUEUE.metrics()).backlog_count < before + 3:
                pass
        assert after.oldest_message_timestamp is not None
        with pytest.raises(QueueError, match=r"^Unknown Internal Error \(15000\)$"):
            await env.QUEUE.send("x" * 128_001, content_type="text")


@pytest.mark.anyio
async def test_cloudflares_proxy_has_no_consumers(cloudflare: str) -> None:
    async with connect_env(cloudflare, bindings={"QUEUE": "queue"}) as env:
        with pytest.raises(QueueError, match="the queue 'QUEUE' has no consumers here: its proxy only sends to it"):
            await env.QUEUE.pull()
