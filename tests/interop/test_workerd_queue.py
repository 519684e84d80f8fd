"""Queues of a real workerd: one script with our proxy behind env.QUEUE, and with Miniflare's own simulator, compared.

Miniflare leaves out its option of a remote queue: queue_ways.mjs makes the binding of the same parts, Miniflare's client
of remote bindings behind a queue binding of workerd's. Consumers in Python get what the simulator gives a Worker's queue().
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
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
from .runtime import Worker, cloudflare_proxy, workerd

SCRIPT: Final = "queue_worker.mjs"
PLUGIN: Final = {"package": str(HERE / "queue_ways.mjs"), "name": "queue-ways"}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

BODIES: Final = (
    "text bytes words json default null capitals numbers nan strings simple nested date noDate map set bigints buffer view"
    " floats boxed holes sparse circle shared error"
).split()


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
    names = [name for name in BODIES]
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
