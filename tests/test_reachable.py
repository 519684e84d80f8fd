"""What is reachable: every sentence of the rules in target.py, asked for over a session as a peer would."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import attrs
import pytest
from byhand import Peer

from capnweb_py import RpcStub, RpcTarget

UNDEFINED = ["undefined"]


class Below(RpcTarget):
    def inherited(self) -> str:
        return "inherited"

    def overridden(self) -> str:
        return "below"

    def withdrawn(self) -> str:
        return "never"


class Mixin:
    """Not below RpcTarget: nothing of it is meant for peers."""

    def mixed_in(self) -> str:
        return "never"


@attrs.define
class Point:
    x: int
    inner: Any = None
    _private: int = 9

    def method(self) -> str:
        return "never"

    @property
    def computed(self) -> str:
        return "never"


@dataclasses.dataclass
class Size:
    width: int = 3


class Api(Below, Mixin):
    constant = "a plain class attribute"
    withdrawn = None  # type: ignore[assignment]

    class Nested:
        pass

    def __init__(self) -> None:
        self.attribute = "instance"
        self.callback = lambda: "never"
        self._hidden = "private"

    def method(self) -> str:
        return "method"

    def overridden(self) -> str:
        return "here"

    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @property
    def value(self) -> str:
        return "property"

    @functools.cached_property
    def cached(self) -> str:
        return "cached"

    @property
    def _secret(self) -> str:
        return "never"

    def __dunder(self) -> str:
        return "never"

    def dispose(self) -> None:
        pass

    @property
    def tree(self) -> dict[str, Any]:
        return {
            "items": [10, 20],
            "key": {"items": 1, "keys": 2, "0": "zero"},
            "none": None,
            "text": "text",
            "point": Point(1, {"deep": 5}),
            "size": Size(),
            "target": Below(),
        }

    def give_function(self) -> Any:
        return give


def give(number: int) -> int:
    return number + 1


give.attribute = "never"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "value"),
    [("value", "property"), ("cached", "cached")],
)
def test_properties_of_the_class_are_reachable(name: str, value: str) -> None:
    peer = Peer(Api())
    assert peer.ask(name) == ["resolve", 1, value]
    assert peer.call(name)[2] == ["error", "TypeError", f"{name} is not a function"]


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("method", "method"),
        ("inherited", "inherited"),
        ("overridden", "here"),
        ("static", "static"),
        ("of_class", "Api"),
    ],
)
def test_methods_of_the_class_and_of_bases_below_rpctarget_are_reachable(name: str, result: str) -> None:
    assert Peer(Api()).call(name) == ["resolve", 1, result]


@pytest.mark.parametrize(
    "name",
    [
        "_secret", "_hidden", "_Api__dunder", "__init__", "__class__", "__dict__", "__doc__", "_retain", "_release",
        "_RpcTarget__references", "dispose", "constant", "Nested", "withdrawn", "mixed_in", "no_such", "", "toString",
        "constructor", "__proto__", "value.real", "\ud800",
    ],
)  # fmt: skip
def test_nothing_else_of_a_target_is_reachable(name: str) -> None:
    peer = Peer(Api())
    assert peer.ask(name) == ["resolve", 1, UNDEFINED]
    assert peer.call(name) == ["reject", 2, ["error", "TypeError", f"{name or 'the value'} is not a function"]]


@pytest.mark.parametrize("name", ["attribute", "callback"])
def test_an_instance_attribute_is_an_error_that_says_why(name: str) -> None:
    peer = Peer(Api())
    for answer in (peer.ask(name), peer.call(name)):
        assert answer[0] == "reject"
        assert f"'{name}' is an instance attribute of Api, and those stay private" in answer[2][2]


def test_an_instance_attribute_hides_the_method_that_it_replaces() -> None:
    api = Api()
    api.method = lambda: "replaced"  # type: ignore[method-assign]
    assert "instance attribute" in Peer(api).call("method")[2][2]


def test_a_slot_is_an_instance_attribute() -> None:
    @attrs.define
    class Slotted(RpcTarget):
        field: int = 1

    assert "instance attribute" in Peer(Slotted()).ask("field")[2][2]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["items", 1], 20),
        (["items", 2], UNDEFINED),
        (["items", -1], UNDEFINED),
        (["items", "1"], UNDEFINED),
        (["items", "length"], UNDEFINED),
        (["items", "append"], UNDEFINED),
        (["key", "items"], 1),
        (["key", "keys"], 2),
        (["key", 0], "zero"),
        (["key", "values"], UNDEFINED),
        (["key", "__class__"], UNDEFINED),
        (["text", 0], UNDEFINED),
        (["text", "upper"], UNDEFINED),
        (["point", "x"], 1),
        (["point", "inner", "deep"], 5),
        (["point", "_private"], UNDEFINED),
        (["point", "method"], UNDEFINED),
        (["point", "computed"], UNDEFINED),
        (["point", "__attrs_attrs__"], UNDEFINED),
        (["size", "width"], 3),
        (["size", "__dataclass_fields__"], UNDEFINED),
    ],
    ids=str,
)
def test_members_of_values_are_keys_indices_and_public_fields(path: list[str | int], value: Any) -> None:
    assert Peer(Api()).ask("tree", *path) == ["resolve", 1, value]


# What JavaScript's objects have from their prototype, and Python's from their class.
INHERITED = ["toString", "hasOwnProperty", "toJSON", "then", "constructor", "__proto__", "__class__", "keys", "get"]


@pytest.mark.parametrize("name", INHERITED)
def test_a_stub_of_a_value_leads_to_its_entries_alone(name: str) -> None:
    class Vendor(RpcTarget):
        def sell(self) -> RpcStub:
            return RpcStub({"number": 123, "list": [1, 2], "function": give, "dict": {}})

    peer = Peer(Vendor())
    assert peer.call("sell") == ["resolve", 1, ["export", -1]]
    peer.say("stream", ["pipeline", -1, ["number"]])
    peer.say("stream", ["pipeline", -1, ["function"], [4]])
    for path in ([name], ["list", name], ["function", name], ["dict", name]):
        peer.say("stream", ["pipeline", -1, path])
    assert [answer[2] for answer in peer.hear()] == [123, 5, *[UNDEFINED] * 4]


@pytest.mark.parametrize("name", INHERITED)
def test_the_keys_of_a_peers_object_are_keys_and_nothing_else(name: str) -> None:
    received: list[Any] = []

    class Taker(RpcTarget):
        def take(self, value: Any) -> None:
            received.append(value)

    peer = Peer(Taker())
    peer.call("take", {name: "bad", "inner": {name: {"toString": "bad"}}})
    (value,) = received
    assert type(value) is type(value["inner"]) is dict
    assert list(value) == [name, "inner"]
    assert json.loads(json.dumps(value)) == value


def test_a_path_leads_through_values_into_targets() -> None:
    peer = Peer(Api())
    peer.say("stream", ["pipeline", 0, ["tree", "target", "inherited"], []])
    assert peer.hear() == [["resolve", 1, "inherited"]]


@pytest.mark.parametrize("path", [["none", "x"], ["no_such", "x"], ["items", 5, 0]])
def test_nothing_has_no_members(path: list[str | int]) -> None:
    answer = Peer(Api()).ask("tree", *path)
    assert answer[0] == "reject"
    assert answer[2][:2] == ["error", "TypeError"]
    assert "cannot read the property" in answer[2][2]


@pytest.mark.parametrize(
    "name", ["attribute", "__globals__", "__code__", "__call__", "__self__", "__func__", "call", "apply"]
)
@pytest.mark.parametrize("main", [give, Api().method, functools.partial(give, 1), len])
def test_a_function_has_nothing_but_the_call(main: Any, name: str) -> None:
    assert Peer(main).ask(name) == ["resolve", 1, UNDEFINED]


def test_a_function_can_be_called() -> None:
    peer = Peer(give)
    peer.say("stream", ["pipeline", 0, [], [1]])
    assert peer.hear() == [["resolve", 1, 2]]
    assert Peer(give).ask() == ["resolve", 1, ["export", -1]]


def test_a_method_passes_by_reference_when_it_is_read() -> None:
    assert Peer(Api()).ask("method") == ["resolve", 1, ["export", -1]]


def test_no_class_passes_by_reference() -> None:
    class Factory(RpcTarget):
        @property
        def made(self) -> type:
            return Api

    answer = Peer(Factory()).ask("made")
    assert answer[0] == "reject"
    assert "Api cannot be sent: pass an instance of it" in answer[2][2]


def test_a_class_attribute_that_shadows_a_member_of_a_base_takes_it_back() -> None:
    assert Peer(Api()).ask("withdrawn") == ["resolve", 1, UNDEFINED]


def test_a_mixin_before_the_target_takes_a_member_back_and_reaches_no_peer_itself() -> None:
    class Guard:
        def overridden(self) -> str:
            return "never"

    class Guarded(Guard, Below):
        pass

    class Reopened(Guarded):
        def overridden(self) -> str:
            return "again"

    assert Peer(Guarded()).ask("overridden") == ["resolve", 1, UNDEFINED]
    assert Peer(Guarded()).call("inherited") == ["resolve", 1, "inherited"]
    assert Peer(Reopened()).call("overridden") == ["resolve", 1, "again"]


def test_a_property_that_fails_is_not_looked_for_elsewhere() -> None:
    class Elusive(RpcTarget):
        @property
        def broken(self) -> str:
            raise AttributeError("broken on purpose")

        def __getattr__(self, name: str) -> str:
            if name == "dispose":
                raise AttributeError(name)
            return "never"

    assert Peer(Elusive()).ask("broken") == ["reject", 1, ["error", "AttributeError", "broken on purpose"]]
    assert Peer(Elusive()).ask("no_such") == ["resolve", 1, UNDEFINED]


def test_a_method_that_is_replaced_in_its_class_is_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(Api())
    assert peer.call("method") == ["resolve", 1, "method"]
    monkeypatch.setattr(Api, "method", lambda self: "new")
    assert peer.call("method") == ["resolve", 2, "new"]


def test_dispose_must_be_a_plain_method() -> None:
    with pytest.raises(TypeError, match=r"Bad.dispose must be a plain method"):

        class Bad(RpcTarget):
            async def dispose(self) -> None: ...
