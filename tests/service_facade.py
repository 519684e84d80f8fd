"""What the facade of a service does, wherever the service is: checks that are run over each way to one.

They take an env whose bindings SVC and OTHER are `Service` of services.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest

from capnweb_py import RemoteError, RpcStub
from capnweb_py.remote import Env
from capnweb_py.web import Request

__all__ = ["CHECKS"]


async def calls_callbacks_and_returned_objects(env: Env) -> None:
    assert await env.SVC.hello("World", greeting="Hei") == "Hei, World!"
    assert await env.SVC["hello"]("World") == "Hello, World!"
    assert await env.SVC.motto == "all is reachable that is meant to be"
    assert await env.SVC.call_each([1, 2], lambda number: number * 2) == [2, 4]
    counter = await env.SVC.make_counter(3)
    assert await counter.increment(4) == 7
    assert await env.SVC.make_counter(1).twin().increment() == 2
    assert await env.SVC.value_of(counter) == 7


async def an_object_goes_from_one_binding_to_another(env: Env) -> None:
    counter = await env.SVC.make_counter(5)
    assert await env.OTHER.value_of(counter) == 5


async def a_service_is_passed_as_the_stub_that_it_stands_for(env: Env) -> None:
    motto = "all is reachable that is meant to be"
    assert await env.OTHER.motto_of(env.SVC) == motto, "before its session is open"
    assert await env.OTHER.motto_of(env.SVC) == motto
    assert await env.SVC.motto_of(env.SVC) == motto, "to its own binding"
    assert await env.OTHER.call_each(["a"], env.SVC.hello) == ["Hello, a!"]
    received = await RpcStub(lambda given: given["services"])({"services": [env.SVC, env.SVC]})
    assert await received[0].motto == motto
    for stub in received:
        stub.dispose()
    assert await env.SVC.hello("World") == "Hello, World!", "who was given it let go of a stub of his own"


async def what_is_private_is_not_reachable(env: Env) -> None:
    with pytest.raises(TypeError, match="_secret is not a function"):
        await env.SVC["_secret"]()


async def errors_of_a_service(env: Env) -> None:
    with pytest.raises(ValueError, match="a ValueError on purpose"):
        await env.SVC.fail("ValueError")
    with pytest.raises(RemoteError, match="an OutOfStock on purpose") as caught:
        await env.SVC.fail("OutOfStock")
    assert (caught.value.name, caught.value.props) == ("OutOfStock", {"code": 7, "detail": {"left": 0}})
    with pytest.raises(TypeError, match="no_such_method is not a function"):
        await env.SVC.no_such_method()


async def a_request_arrives_as_it_was_made(env: Env) -> None:
    request = Request(
        "https://a.example/x%20y?q=1&q=2",
        method="PATCH",
        headers=[("X-One", "1"), ("x-list", "one"), ("x-list", "two"), ("MF-Binding", "OTHER")],
        body="ü",
    )
    response = await env.SVC.fetch(request)
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    seen = await response.json()
    assert (seen["method"], seen["url"], seen["body"]) == ("PATCH", "https://a.example/x%20y?q=1&q=2", "ü")
    pairs = [(name, value) for name, value in seen["headers"] if name != "content-type"]
    assert pairs == [("x-one", "1"), ("x-list", "one"), ("x-list", "two"), ("mf-binding", "OTHER")]


async def responses_come_as_they_are(env: Env) -> None:
    cookies = await env.SVC.fetch("https://a.example/cookies", headers={"accept": "*/*"})
    assert cookies.headers.get_all("set-cookie") == ["a=1; Path=/", "b=2"]
    redirect = await env.SVC.fetch("https://a.example/redirect")
    assert (redirect.status, redirect.headers["location"]) == (302, "https://elsewhere.example/")
    failed = await env.SVC.fetch("https://a.example/fail", method="POST")
    assert (failed.status, await failed.text()) == (500, "no answer today")
    teapot = await env.SVC.fetch("https://a.example/teapot")
    assert (teapot.status, teapot.headers["content-length"]) == (418, str(len(await teapot.bytes())))


async def the_response_streams(env: Env) -> None:
    """Its last chunk is made after the first one was read."""
    response = await env.SVC.fetch("https://a.example/drip")
    assert response.body is not None
    chunks = aiter(response.body)
    assert await anext(chunks) == b"first"
    await env.SVC.fetch("https://a.example/go-on")
    assert [chunk async for chunk in chunks] == [b"last"]


async def the_request_streams(env: Env) -> None:
    """Its last chunk is made after the first one has arrived."""
    arrived: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        arrived.append(await (await env.SVC.fetch("https://a.example/arrived")).text())
        yield b"last"

    response = await env.SVC.fetch("https://a.example/upload", method="POST", body=body())
    assert (await response.text(), arrived) == ("firstlast", ["first"])


async def an_error_of_the_requests_body_is_the_callers(env: Env) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError("nothing more today")

    with pytest.raises(LookupError, match="nothing more today"):
        await env.SVC.fetch("https://a.example/", method="POST", body=body())


async def the_body_of_a_request_is_closed_at_the_end(env: Env) -> None:
    closed: list[bool] = []

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1000)
        finally:
            closed.append(True)

    response = await env.SVC.fetch("https://a.example/duplex", method="POST", body=body())
    assert response.body is not None
    assert await anext(aiter(response.body))
    await response.body.aclose()
    assert closed == [True]


async def a_body_that_fails_is_no_whole_body(env: Env) -> None:
    response = await env.SVC.fetch("https://a.example/cut")
    with pytest.raises(ConnectionError, match=r"the response of the binding 'SVC'.* broke off"):
        await response.bytes()


CHECKS: Final[tuple[Callable[[Env], Awaitable[None]], ...]] = (
    calls_callbacks_and_returned_objects,
    an_object_goes_from_one_binding_to_another,
    a_service_is_passed_as_the_stub_that_it_stands_for,
    what_is_private_is_not_reachable,
    errors_of_a_service,
    a_request_arrives_as_it_was_made,
    responses_come_as_they_are,
    the_response_streams,
    the_request_streams,
    an_error_of_the_requests_body_is_the_callers,
    the_body_of_a_request_is_closed_at_the_end,
    a_body_that_fails_is_no_whole_body,
)
