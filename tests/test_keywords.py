"""Keyword arguments travel as JavaScript's options object, both ways."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from byhand import Peer

from capnweb_py import RpcTarget


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Api(RpcTarget):
    def mixed(self, a: Any, *, key: Any = None) -> Any:
        return [a, key]

    def positional(self, a: Any, b: Any = 2) -> Any:
        return [a, b]

    def many(self, *items: Any, key: Any = None) -> Any:
        return [list(items), key]

    def open_ended(self, a: Any, **rest: Any) -> Any:
        return [a, rest]

    @staticmethod
    def static(a: Any, *, key: Any = None) -> Any:
        return [a, key]

    @logged
    def wrapped(self, a: Any, *, key: Any = None) -> Any:
        return [a, key]

    def _bound(self, number: int, a: Any, b: Any = 2, *, key: Any = None) -> Any:
        return [number, a, b, key]

    @property
    def partial(self) -> Callable[..., Any]:
        return functools.partial(lambda first, a, *, key=None: [a, key], "first")

    @property
    def partial_of_method(self) -> Callable[..., Any]:
        return functools.partial(self._bound, 0, b=3)

    @property
    def partial_of_open(self) -> Callable[..., Any]:
        return functools.partial(self.many, 0)

    @property
    def function(self) -> Callable[..., Any]:
        return lambda a, *, key=None: [a, key]


def test_keywords_are_sent_as_one_dict_after_the_arguments() -> None:
    peer = Peer()
    peer.main.f(1, key=2, other="x")
    peer.main.f({"key": 1})
    assert [message[1][3] for message in peer.hear() if message[0] == "push"] == [
        [1, {"key": 2, "other": "x"}],
        [{"key": 1}],
    ]


@pytest.mark.parametrize("name", ["mixed", "static", "wrapped", "function", "partial"])
def test_a_dict_beyond_the_positional_arguments_is_the_keywords(name: str) -> None:
    assert Peer(Api()).call(name, 1, {"key": 2}) == ["resolve", 1, [[1, 2]]]


def test_a_partial_takes_keywords_for_what_it_leaves_open() -> None:
    call = Peer(Api()).call
    assert call("partial_of_method", 1)[2] == [[0, 1, 3, None]]
    assert call("partial_of_method", 1, {"key": 2})[2] == [[0, 1, 3, 2]]
    assert call("partial_of_method", 1, {"b": 4, "key": 2})[2] == [[0, 1, 4, 2]]
    assert call("partial_of_method", {"key": 2})[2] == [[0, {"key": 2}, 3, None]]
    assert call("partial_of_open", 1, {"key": 2})[2] == [[[[0, 1, {"key": 2}]], None]]
    assert "takes no keyword argument '_key'" in call("partial_of_method", 1, {"_key": 2})[2][2]
    assert "partial" not in call("partial_of_method", 1, {"_key": 2})[2][2]


def test_a_dict_that_is_a_positional_argument_stays_one() -> None:
    assert Peer(Api()).call("mixed", {"key": 2}) == ["resolve", 1, [[{"key": 2}, None]]]
    assert Peer(Api()).call("positional", 1, {"b": 3}) == ["resolve", 1, [[1, {"b": 3}]]]


def test_a_function_of_any_number_of_arguments_takes_dicts_as_they_are() -> None:
    assert Peer(Api()).call("many", 1, {"key": 2}) == ["resolve", 1, [[[[1, {"key": 2}]], None]]]


def test_open_ended_keywords_are_taken() -> None:
    assert Peer(Api()).call("open_ended", 1, {"x": 2, "y": 3}) == ["resolve", 1, [[1, {"x": 2, "y": 3}]]]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([1, {"no_such": 2}], "unexpected keyword argument 'no_such'"),
        ([1, {"a": 2}], "multiple values for argument 'a'"),
        ([1, {"self": 2}], "multiple values for argument 'self'"),
        ([], "missing 1 required positional argument: 'a'"),
        ([1, 2, 3], "takes 2 positional arguments but 4 were given"),
    ],
)
def test_arguments_that_do_not_fit_are_a_type_error(arguments: list[Any], problem: str) -> None:
    answer = Peer(Api()).call("mixed", *arguments)
    assert answer[2][:2] == ["error", "TypeError"]
    assert problem in answer[2][2]
