"""Names in two languages: snake_case here, camelCase there, in calls that come and calls that go."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest
from byhand import Peer, by_hand

from capnweb_py import RpcPromise, RpcStub, RpcTarget, SessionOptions, connect, memory_pair, serve
from capnweb_py.names import camel

pytestmark = pytest.mark.anyio

CAMEL = SessionOptions(names="camel")


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("user", "user"),
        ("get_user", "getUser"),
        ("get_user_by_id", "getUserById"),
        ("getUser", "getUser"),
        ("get_URL", "getURL"),
        ("HTML_to_text", "HTMLToText"),
        ("as_json", "asJson"),
        ("sha_256", "sha256"),
        ("top_10_users", "top10Users"),
        ("x_1", "x1"),
        ("from_", "from"),
        ("a__b", "aB"),
        ("größe_ändern", "größeÄndern"),
        ("_private", "_private"),
        ("__len__", "__len__"),
        ("_", "_"),
    ],
)
def test_a_name_in_camel_case(name: str, wire: str) -> None:
    assert camel(name) == wire
    assert camel(wire) == wire


class Base(RpcTarget):
    def from_base(self) -> str:
        return "from base"


class Api(Base, names="camel"):
    def __init__(self) -> None:
        self.some_attribute = 1

    def get_user(self, user_id: int, *, max_items: int = 10, order_by: str = "name") -> Any:
        return [user_id, max_items, order_by]

    def plain(self) -> str:
        return "plain"

    async def open_ended(self, **options: Any) -> Any:
        return options

    @property
    def user_count(self) -> int:
        return 3

    @staticmethod
    def static_method(first: int = 1, *, max_items: int = 0) -> Any:
        return [first, max_items]

    @classmethod
    def of_class(cls, *, max_items: int = 0) -> Any:
        return [cls.__name__, max_items]

    def give_dict(self) -> Any:
        return {"snake_key": 1, "camelKey": 2}

    def import_(self, from_: str) -> str:
        return from_

    def give_function(self) -> Any:
        return lambda *, max_items=0: max_items

    def _get_secret(self) -> str:
        return "never"

    def dispose(self) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("getUser", [1], [[1, 10, "name"]]),
        ("getUser", [1, {"maxItems": 5, "orderBy": "id"}], [[1, 5, "id"]]),
        ("plain", [], "plain"),
        ("fromBase", [], "from base"),
        ("staticMethod", [2, {"maxItems": 5}], [[2, 5]]),
        ("staticMethod", [2], [[2, 0]]),
        ("ofClass", [{"maxItems": 5}], [["Api", 5]]),
        ("giveDict", [], {"snake_key": 1, "camelKey": 2}),
        ("import", ["there"], "there"),
    ],
)
def test_a_camel_class_is_called_by_camel_names(name: str, arguments: list[Any], result: Any) -> None:
    assert Peer(Api()).call(name, *arguments) == ["resolve", 1, result]


def test_properties_have_camel_names() -> None:
    peer = Peer(Api())
    assert peer.ask("userCount") == ["resolve", 1, 3]
    assert peer.ask("user_count") == ["resolve", 2, ["undefined"]]


@pytest.mark.parametrize(
    "name", ["get_user", "from_base", "static_method", "_get_secret", "_getSecret", "GetSecret", "dispose", "import_"]
)
def test_no_member_has_two_names(name: str) -> None:
    answer = Peer(Api()).call(name)
    assert answer == ["reject", 1, ["error", "TypeError", f"{name} is not a function"]]


@pytest.mark.parametrize("key", ["max_items", "maxitems", "unknown", "self", "_max", "userId"])
def test_no_keyword_has_two_names(key: str) -> None:
    kind, _, error = Peer(Api()).call("getUser", 1, {key: 5})
    assert (kind, error[1]) == ("reject", "TypeError")
    assert repr(key if key != "userId" else "user_id") in error[2]


async def test_keywords_that_fill_no_parameter_stay_as_they_are() -> None:
    async with memory_pair(None, Api()) as (client, _):
        assert await client.remote_main.openEnded(fooBar=1, foo_bar=2) == {"fooBar": 1, "foo_bar": 2}


async def test_a_function_that_a_camel_class_returns_is_a_value_like_any() -> None:
    async with memory_pair(None, Api()) as (client, _):
        assert await client.remote_main.giveFunction()(max_items=3) == 3


def test_an_instance_attribute_is_as_private_as_ever() -> None:
    assert "instance attribute" in Peer(Api()).ask("some_attribute")[2][2]
    assert Peer(Api()).ask("someAttribute") == ["resolve", 1, ["undefined"]]


def test_classes_below_take_the_names_over_or_back() -> None:
    class Below(Api):
        def more_of_it(self) -> str:
            return "more"

    class Back(Api, names="exact"):
        pass

    assert Peer(Below()).call("moreOfIt") == ["resolve", 1, "more"]
    assert Peer(Below()).call("fromBase") == ["resolve", 1, "from base"]
    assert Peer(Back()).call("from_base") == ["resolve", 1, "from base"]
    assert Peer(Back()).ask("fromBase") == ["resolve", 1, ["undefined"]]
    assert Peer(Base()).call("from_base") == ["resolve", 1, "from base"]


def test_a_class_that_attrs_makes_anew_keeps_its_names() -> None:
    @attrs.define
    class Slotted(RpcTarget, names="camel"):
        some_field: int = 1

        def get_field(self) -> int:
            return self.some_field

    assert Peer(Slotted()).call("getField") == ["resolve", 1, 1]
    assert "instance attribute" in Peer(Slotted()).ask("someField")[2][2]


def test_names_that_collide_are_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="Colliding: get_user and getUser are both 'getUser' in camel case: rename one"):

        class Colliding(RpcTarget, names="camel"):
            def get_user(self) -> None: ...

            def getUser(self) -> None: ...

    with pytest.raises(TypeError, match="a_b and a__b are both 'aB'"):

        class Inheriting(Base, names="camel"):
            def a_b(self) -> None: ...

            def a__b(self) -> None: ...

    with pytest.raises(TypeError, match="peers cannot reach a member named dispose: rename dispose_"):

        class Disposing(RpcTarget, names="camel"):
            def dispose_(self) -> None: ...

    with pytest.raises(ValueError, match='names is "camel" or "exact", not \'snake\''):

        class Snake(RpcTarget, names="snake"):  # type: ignore[arg-type]
            pass


# Calls that go.


def sent(peer: Peer) -> list[Any]:
    return [message[1] for message in peer.hear() if message[0] in ("push", "stream")]


async def test_a_camel_session_calls_by_camel_names() -> None:
    async with by_hand(None, CAMEL) as peer:
        peer.main.get_user(1, max_items=5, order_by="id").first_name.to_upper().dispose()
        peer.main.get_user({"max_items": 1}).dispose()
        peer.main["get_user"][0].more_of["it_is"](some_key=1).dispose()
        assert sent(peer) == [
            ["pipeline", 0, ["getUser"], [1, {"maxItems": 5, "orderBy": "id"}]],
            ["pipeline", 1, ["firstName", "toUpper"], []],
            ["pipeline", 0, ["getUser"], [{"max_items": 1}]],
            ["pipeline", 0, ["get_user", 0, "moreOf", "it_is"], [{"someKey": 1}]],
        ]


async def test_private_names_are_none_of_a_camel_stub() -> None:
    peer = Peer(None, CAMEL)
    for name in ("_private", "__wrapped__"):
        with pytest.raises(AttributeError, match=r"is no member of a stub; a remote member of that name is stub\["):
            getattr(peer.main, name)


async def test_keywords_that_collide_are_an_error_at_once() -> None:
    peer = Peer(None, CAMEL)
    with pytest.raises(TypeError, match="max_items and maxItems are both 'maxItems'"):
        peer.main.get(max_items=1, maxItems=2)
    assert peer.hear() == []


class Receiver(RpcTarget):
    def __init__(self) -> None:
        self.received: Any = None

    def take(self, value: Any) -> None:
        self.received = value


async def test_stubs_and_promises_of_a_camel_session_call_by_camel_names_wherever_they_come_from() -> None:
    async with memory_pair(Receiver(), Api(), names="camel") as (client, server):
        main = client.remote_main
        for stub in (main, main.dup(), main.give_dict().dup(), (await main.give_function())):
            promise = stub.get_user(1)
            assert promise._path == ()
            assert isinstance(promise, RpcPromise)
            assert promise.some_name._path == ("someName",)
            assert promise.dup().some_name._path == ("someName",)
            assert repr(promise.some_name).startswith("<RpcPromise: .someName of ")
            with stub.dup() as held:
                assert held.some_name._path == ("someName",)
        assert await main.give_dict() == {"snake_key": 1, "camelKey": 2}
        assert await main.get_user(1, max_items=2) == [1, 2, "name"]
        receiver = Receiver()
        await server.remote_main.take(receiver)
        taken = client.local_main.received
        assert taken.some_name._path == ("someName",)
        await server.remote_main.take({"in": [main]})
        assert client.local_main.received["in"][0].some_name._path == ("someName",)


async def test_other_sessions_call_by_exact_names() -> None:
    async with memory_pair(None, Api()) as (client, _):
        assert client.remote_main.get_user._path == ("get_user",)
        assert await client.remote_main.getUser(1, maxItems=2) == [1, 2, "name"]
    assert RpcStub(Api()).some_name._path == ("some_name",)


async def test_connections_take_names() -> None:
    async with serve(Api, "127.0.0.1", 0) as server:
        async with connect(server.url, names="camel") as main:
            assert await main.get_user(1, max_items=2) == [1, 2, "name"]
            assert await main.user_count == 3
        async with connect(server.url, main=Api) as api:
            assert await api.get_user(1) == [1, 10, "name"]
        async with connect(server.url, main=Api, names="exact") as api:
            with pytest.raises(TypeError, match="get_user is not a function"):
                await api.get_user(1)
        async with connect(server.url, options=CAMEL) as main:
            assert await main.from_base() == "from base"
        with pytest.raises(ValueError, match='names is "camel" or "exact"'):
            async with connect(server.url, names="snake"):  # type: ignore[call-overload]
                pass


async def test_a_server_calls_its_clients_by_camel_names() -> None:
    class Listener(RpcTarget, names="camel"):
        def on_change(self, *, new_value: int) -> int:
            return new_value + 1

    class Server(RpcTarget):
        async def listen(self, listener: RpcStub) -> Any:
            return await listener.on_change(new_value=1)

    async with serve(Server, "127.0.0.1", 0, options=CAMEL) as server, connect(server.url) as main:
        with anyio.fail_after(60):
            assert await main.listen(Listener()) == 2


class User(RpcTarget, names="camel"):
    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def first_name(self) -> str:
        return self._name

    def say_hello(self, *, to_whom: str) -> str:
        return f"{self._name} greets {to_whom}"


class Users(RpcTarget, names="camel"):
    def list_users(self) -> Any:
        return [User("Ada"), User("Grace")]

    def full_name(self, name: str, *, family_name: str) -> str:
        return f"{name} {family_name}"


async def test_maps_call_by_camel_names() -> None:
    async with memory_pair(None, Users(), names="camel") as (client, _):
        main = client.remote_main
        rows = main.list_users().map(
            lambda user: {
                "first_name": user.first_name,
                "hello": user.say_hello(to_whom="all"),
                "full_name": main.full_name(user.first_name, family_name="X"),
                "again": user.dup().first_name,
                "exact": user["firstName"],
                "inner": user.map(lambda same: same.first_name),
            }
        )
        assert (await rows)[1] == {
            "first_name": "Grace",
            "hello": "Grace greets all",
            "full_name": "Grace X",
            "again": "Grace",
            "exact": "Grace",
            "inner": "Grace",
        }
        with pytest.raises(TypeError):
            main.list_users().map(lambda user: user.first_name + "!")

        async def asynchronous(user: Any) -> Any:
            return user.first_name

        with pytest.raises(TypeError):
            main.list_users().map(asynchronous)
