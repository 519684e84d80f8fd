"""Callbacks of map() record the same instructions as in npm capnweb, byte for byte: recordings.mjs has the same table.

One shape is left out: a captured stub that is itself in the result. npm capnweb disposes it before it is sent.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import anyio
import pytest
from byhand import Peer, by_hand

from capnweb_py import UNDEFINED, BigInt, RpcPromise, RpcStub, RpcTarget

from .node import HERE

pytestmark = pytest.mark.anyio


class Target(RpcTarget):
    """Something of this side."""


def captured_after_arguments(api: RpcStub) -> RpcPromise:
    other = api.other()
    return api.list().map(lambda x: api.f(other, x))


def captured_promise(api: RpcStub) -> RpcPromise:
    name = api.name()
    return api.list().map(lambda x: x.greet(name))


def captured_once(api: RpcStub) -> RpcPromise:
    name = api.name()
    return api.list().map(lambda x: [x.greet(name), name.first, x.f(name.last)])


def captured_member(api: RpcStub) -> RpcPromise:
    config = api.config()
    return api.list().map(lambda x: [x.f(config.a.b), config.c])


def captured_stub(api: RpcStub) -> RpcPromise:
    stub = api.dup()
    return api.list().map(lambda x: [x.f(stub), stub.g(x), stub.h, x.g(stub)])


def local_stub(api: RpcStub) -> RpcPromise:
    stub = RpcStub(Target())
    return api.list().map(lambda x: [stub.add(x), x.f(stub)])


def local_function(api: RpcStub) -> RpcPromise:
    stub = RpcStub(lambda: 1)
    return api.list().map(lambda x: stub(x))


def local_promise(api: RpcStub) -> RpcPromise:
    promise = RpcPromise(anyio.sleep_forever())
    return api.list().map(lambda x: promise.add(x))


def another_session(api: RpcStub) -> RpcPromise:
    other = Peer().main
    return api.list().map(lambda x: [other.f(x), other.g(x)])


def unused_calls(api: RpcStub) -> RpcPromise:
    def callback(x: Any) -> Any:
        x.one()
        x.two()
        return UNDEFINED

    return api.list().map(callback)


def nested_of_captured(api: RpcStub) -> RpcPromise:
    others = api.others()
    return api.list().map(lambda x: others.rows.map(lambda y: [x, y]))


def nested_with_results(api: RpcStub) -> RpcPromise:
    def callback(x: Any) -> Any:
        one = x.one()
        two = api.two(one)
        return x.items.map(lambda y: [y.f(two, one), one.g(y), two])

    return api.list().map(callback)


def nested_used_by_another(api: RpcStub) -> RpcPromise:
    def callback(x: Any) -> Any:
        inner = x.items.map(lambda y: y.name)
        return [inner, x.f(inner), inner["0"], inner.map(lambda z: z)]

    return api.list().map(callback)


def three_deep(api: RpcStub) -> RpcPromise:
    stub = api.dup()
    return api.list().map(
        lambda x: x.a.map(lambda y: y.b.map(lambda z: [x, y, z, stub.f(x, y, z), api.g(z), z.f(stub)]))
    )


def same_inner_subject(api: RpcStub) -> RpcPromise:
    others = api.others()
    return api.list().map(lambda x: [others.map(lambda y: y), others.map(lambda y: [x, y]), x.f(others)])


def special_values(x: Any) -> dict[str, Any]:
    return {
        "big": BigInt(10**20),
        "inf": [float("inf"), float("-inf"), float("nan")],
        "date": datetime.fromtimestamp(1749340800, UTC),
        "bytes": b"\xfb\xff",
        "error": TypeError("why"),
        "x": x,
    }


RECORDINGS: Final[dict[str, Callable[[RpcStub], Any]]] = {
    "the item itself": lambda api: api.list().map(lambda x: x),
    "of the main object": lambda api: api.map(lambda x: x),
    "of a member": lambda api: api.team.members.map(lambda x: x.name),
    "of an index": lambda api: api.list()["0"].map(lambda x: x),
    "a constant": lambda api: api.list().map(lambda x: 7),
    "nothing": lambda api: api.list().map(lambda x: None),
    "undefined": lambda api: api.list().map(lambda x: UNDEFINED),
    "an empty list": lambda api: api.list().map(lambda x: []),
    "lists and objects": lambda api: api.list().map(lambda x: [x, [x.a, {"b": x.b.c, "c": []}], {}]),
    "special values": lambda api: api.list().map(special_values),
    "a call of the item": lambda api: api.list().map(lambda x: x.profile.name()),
    "the item called": lambda api: api.list().map(lambda x: x(1)),
    "members of results": lambda api: api.list().map(lambda x: {"id": x.id, "name": x.profile().name.first}),
    "calls on results": lambda api: api.list().map(lambda x: x.a(1).b(2).c(x.d())),
    "arguments": lambda api: api.list().map(lambda x: x.f(1, "two", [3, {"four": x.four}], None, UNDEFINED)),
    "options": lambda api: api.list().map(lambda x: x.f(x.y, width=256, by=x.z)),
    "calls that are not used": unused_calls,
    "a captured main object": lambda api: api.list().map(lambda x: api.get(x)),
    "called twice, captured twice": lambda api: api.list().map(lambda x: [api.f(x), api.g(x)]),
    "captured after what its arguments capture": captured_after_arguments,
    "a captured promise": captured_promise,
    "captured once as a value": captured_once,
    "a member of a captured promise": captured_member,
    "a captured stub": captured_stub,
    "a local stub": local_stub,
    "a local function": local_function,
    "a local promise": local_promise,
    "another session": another_session,
    "a duplicate of the item": lambda api: api.list().map(lambda x: [x.dup(), x.f(x.dup())]),
    "a duplicate of a member": lambda api: api.list().map(lambda x: [x.a.dup(), x.b.c.dup().d]),
    "nested": lambda api: api.list().map(lambda x: x.items.map(lambda y: y.name)),
    "nested, of a result": lambda api: api.list().map(lambda i: api.range(i).map(lambda j: api.range(j))),
    "nested, of a captured promise": nested_of_captured,
    "nested, with the outer item": lambda api: api.list().map(
        lambda x: x.items.map(lambda y: {"y": y, "x": x, "name": x.name, "n": x.f(y)})
    ),
    "nested, with outer results": nested_with_results,
    "nested, in one and used by another": nested_used_by_another,
    "three deep": three_deep,
    "twice the same inner subject": same_inner_subject,
    "a map of a map": lambda api: api.list().map(lambda x: x.a).map(lambda y: y.b),
    "pipelined upon": lambda api: api.f(api.list().map(lambda x: x.a)["0"].name),
}


@pytest.fixture(scope="module")
def sent_by_node(node: str) -> dict[str, list[Any]]:
    """The expressions that npm capnweb sends, by the name of the recording."""
    done = subprocess.run([node, "recordings.mjs"], cwd=HERE, capture_output=True, check=True, timeout=60)
    expressions: dict[str, list[Any]] = json.loads(done.stdout)
    return expressions


def test_both_tables_have_the_same_recordings(sent_by_node: dict[str, list[Any]]) -> None:
    assert list(sent_by_node) == list(RECORDINGS)


@pytest.mark.parametrize("name", RECORDINGS)
async def test_the_instructions_are_those_of_npm(sent_by_node: dict[str, list[Any]], name: str) -> None:
    async with by_hand() as peer:
        kept: Awaitable[Any] = RECORDINGS[name](peer.main)
        sent = [message[1] for message in peer.hear() if message[0] in ("push", "stream")]
        assert json.dumps(sent) == json.dumps(sent_by_node[name])
        del kept
