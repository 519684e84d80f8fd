"""HTTP batch, both sides: what one request carries, what its response brings, and what cannot be in a batch."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
from witnesses import Counter

from capnweb_py import (
    LimitExceeded,
    Limits,
    RemoteError,
    RpcError,
    RpcPromise,
    RpcStub,
    RpcTarget,
    SessionClosed,
    SessionOptions,
    WritableStream,
    gather,
    http_batch,
    http_batch_response,
)

pytestmark = pytest.mark.anyio


class Api(RpcTarget):
    def __init__(self) -> None:
        self.journal: list[Any] = []
        self.made: list[Counter] = []
        self.disposed = 0
        self.waiting = anyio.Event()

    def square(self, number: int) -> int:
        return number * number

    def echo(self, value: Any) -> Any:
        return value

    def user(self) -> dict[str, Any]:
        return {"name": "Ada", "id": 7}

    def greet(self, name: str) -> str:
        return f"Hello, {name}!"

    def fail(self) -> None:
        raise ValueError("no")

    def mark(self, tag: Any) -> None:
        self.journal.append(tag)

    async def linger(self, tag: Any) -> Any:
        self.journal.append(tag)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        self.journal.append(f"{tag} is over")
        return tag

    async def forever(self) -> None:
        self.waiting.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.journal.append("cancelled")

    def make_counter(self, count: int = 0) -> Counter:
        self.made.append(Counter(count))
        return self.made[-1]

    async def bump(self, counter: Any, by: int = 1) -> int:
        result: int = await counter.increment(by)
        return result

    async def ask(self, callback: Any) -> Any:
        return await callback(1)

    async def try_ask(self, callback: Any) -> list[str]:
        """Asks twice: while the batch is read, and when it has been."""
        problems = []
        for _ in range(2):
            try:
                await callback(1)
            except RpcError as error:
                problems.append(str(error))
        return problems

    def tell(self, callback: Any) -> dict[str, Any]:
        return {"result": callback(1)}

    async def count_to(self, end: int) -> AsyncIterator[int]:
        for number in range(end):
            await anyio.lowlevel.checkpoint()
            yield number

    def numbers(self, end: int) -> AsyncIterator[int]:
        return self.count_to(end)

    async def without_end(self) -> AsyncIterator[str]:
        while True:
            yield "x" * 1000

    def endless(self) -> AsyncIterator[str]:
        return self.without_end()

    async def add_up(self, numbers: Any) -> int:
        return sum([number async for number in numbers])

    def sink(self) -> WritableStream:
        return WritableStream(Sink(self.journal))

    async def late_sink(self) -> WritableStream:
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        return self.sink()

    async def pour(self, stream: Any) -> str:
        async with stream:
            for number in range(3):
                await stream.write(number)
        return "poured"

    def dispose(self) -> None:
        self.disposed += 1


class Sink:
    """What arrives in a stream, and how it ends."""

    def __init__(self, journal: list[Any]) -> None:
        self.journal = journal
        self.ended = anyio.Event()

    async def write(self, chunk: Any) -> None:
        self.journal.append(chunk)

    async def aclose(self) -> None:
        self.journal.append("closed")
        self.ended.set()

    async def abort(self, error: BaseException) -> None:
        self.journal.append(str(error))
        self.ended.set()


def call(name: str, *arguments: Any, target: int = 0, kind: str = "stream") -> list[Any]:
    return [kind, ["pipeline", target, [name], list(arguments)]]


def lines(*messages: Any) -> bytes:
    return b"\n".join(json.dumps(message).encode() for message in messages)


async def answers(main: Any, *messages: Any, limits: Limits | None = None) -> list[Any]:
    """What a server answers to a batch of messages."""
    options = SessionOptions(limits=limits or Limits())
    with anyio.fail_after(60):
        body = await http_batch_response(lines(*messages), main, options)
    return [json.loads(line) for line in body.splitlines()]


# The server.


async def test_calls_and_pipelines_are_answered() -> None:
    assert await answers(
        Api,
        call("square", 6),
        call("make_counter", 2, kind="push"),
        call("increment", 3, target=2),
        call("bump", ["pipeline", 2], 4, kind="push"),
        ["pull", 4],
        call("fail"),
    ) == [
        ["resolve", 1, 36],
        ["resolve", 3, 5],
        ["resolve", 4, 9],
        ["reject", 5, ["error", "ValueError", "no"]],
    ]


async def test_nothing_is_answered_with_nothing() -> None:
    assert await http_batch_response(b"", Api) == b""


async def test_blank_lines_and_carriage_returns_are_no_messages() -> None:
    body = b"\r\n" + lines(call("square", 2)) + b"\r\n\n" + lines(call("square", 3)) + b"\n"
    assert await http_batch_response(body, Api) == b'["resolve",1,4]\n["resolve",2,9]'


async def test_calls_begin_in_order() -> None:
    api = Api()
    await answers(api, call("mark", 1), call("linger", 2), call("mark", 3), call("linger", 4))
    assert [tag for tag in api.journal if isinstance(tag, int)] == [1, 2, 3, 4]


async def test_a_call_that_nobody_awaits_ends_before_the_answer() -> None:
    api = Api()
    slow = call("linger", "slow", kind="push")
    assert await answers(api, slow, call("mark", ["pipeline", 1], kind="push"), ["release", 1, 1]) == []
    assert api.journal == ["slow", "slow is over", "slow"]


async def test_a_batch_of_calls_that_nobody_awaits_ends_with_the_last() -> None:
    api = Api()
    assert await answers(api, call("linger", 1, kind="push")) == []
    assert api.journal == [1, "1 is over"]


async def test_a_call_that_waits_for_a_promise_of_this_side_ends_before_the_answer() -> None:
    class Waiting(Api):
        def later(self) -> RpcPromise:
            async def value() -> str:
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
                return "late"

            return RpcPromise(value())

    api = Waiting()
    assert await answers(api, call("later", kind="push"), call("mark", ["pipeline", 1], kind="push")) == []
    assert api.journal == ["late"]


async def test_promises_in_results_are_resolved() -> None:
    class Promising(RpcTarget):
        def promises(self) -> list[RpcPromise]:
            async def value(number: int) -> int:
                await anyio.lowlevel.checkpoint()
                return number

            return [RpcPromise(value(number)) for number in range(100)]

    first, *rest = await answers(Promising, call("promises"))
    assert first[:2] == ["resolve", 1]
    assert sorted(rest) == sorted(["resolve", -1 - number, number] for number in range(100))


async def test_a_client_cannot_be_waited_for() -> None:
    export = ["export", -1]
    said = await answers(Api, call("ask", export), call("try_ask", ["export", -2]), call("square", 3))
    assert ["resolve", 3, 9] in said
    [refused] = [message for message in said if message[:2] == ["reject", 1]]
    assert refused[2][1] == "RpcError"
    assert refused[2][2].startswith("a client that sent an HTTP batch cannot answer")
    [problems] = [message[2][0] for message in said if message[:2] == ["resolve", 2]]
    assert problems == [refused[2][2]] * 2


async def test_a_call_of_the_client_that_waits_when_the_batch_ends_is_sent_without_being_pulled() -> None:
    # It is made while the second half of the batch is still to be read, and written behind it.
    said = await answers(Api, call("ask", ["export", -1]), *(["push", number] for number in range(40)))
    assert said[:2] == [["push", ["pipeline", -1, [], [1]]], ["release", 1, 1]]
    assert not [message for message in said if message[0] in ("stream", "pull")]


async def test_a_promise_that_the_client_never_resolved_fails_its_call() -> None:
    said = await answers(Api, call("echo", ["promise", -1]), call("square", 3))
    [refused] = [message for message in said if message[:2] == ["reject", 1]]
    assert "cannot answer" in refused[2][2]


async def test_a_promise_that_the_client_resolves_later_in_the_batch_is_there() -> None:
    said = await answers(Api, call("echo", ["promise", -1]), ["resolve", -1, "late"])
    assert ["resolve", 1, "late"] in said


async def test_the_client_can_be_called_without_being_waited_for() -> None:
    assert await answers(Api, call("tell", ["export", -1])) == [
        ["push", ["pipeline", -1, [], [1]]],
        ["resolve", 1, {"result": ["pipeline", 1]}],
        ["release", 1, 1],
        ["release", -1, 1],
    ]


async def test_a_class_is_called_for_each_batch_and_everything_is_disposed() -> None:
    mains: list[Api] = []

    def new_main() -> Api:
        mains.append(Api())
        return mains[-1]

    for _ in range(2):
        await answers(new_main, call("make_counter"), call("make_counter", kind="push"))
    assert [main.disposed for main in mains] == [1, 1]
    assert [counter.disposed for main in mains for counter in main.made] == [1, 1, 1, 1]


async def test_an_instance_stays_the_callers() -> None:
    api = Api()
    for _ in range(2):
        await answers(api, call("square", 1))
    assert api.disposed == 0


async def test_what_cannot_be_served_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="derive it from RpcTarget"):
        await http_batch_response(b"", dict)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"<html>", "the message is not JSON"),
        (b"\xff", "the message is not JSON"),
        (b'{"id": 1}', "bad RPC message"),
        (b'["pull",9]', "no such entry on exports table: 9"),
    ],
)
async def test_what_is_wrong_is_said_behind_the_answers(line: bytes, reason: str) -> None:
    api = Api()
    body = b"\n".join([lines(call("square", 2)), line, lines(call("mark", "too late"))])
    answer, abort = map(json.loads, (await http_batch_response(body, api)).splitlines())
    assert answer == ["resolve", 1, 4]
    assert abort[0] == "abort"
    assert abort[1][1] == "ProtocolError"
    assert reason in abort[1][2]
    assert api.journal == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_batch_size=50), "a batch of 128 bytes is larger than max_batch_size = 50"),
        (Limits(max_batch_messages=2), "a batch of 3 messages has more than max_batch_messages = 2"),
    ],
)
async def test_a_batch_beyond_a_limit_is_not_begun(limits: Limits, reason: str) -> None:
    api = Api()
    messages = [call("mark", number) for number in range(3)]
    assert await answers(api, *messages, limits=limits) == [["abort", ["error", "LimitExceeded", reason]]]
    assert api.journal == []


async def test_limits_of_sessions_hold() -> None:
    abort = await answers(Api, call("mark", "x" * 100), limits=Limits(max_message_size=100))
    assert abort[0][1][1:] == ["LimitExceeded", "a message of 143 bytes is larger than max_message_size = 100"]
    said = await answers(Api, call("linger", 1), call("linger", 2), limits=Limits(max_calls=1))
    assert ["reject", 2, ["error", "LimitExceeded", "more than max_calls = 1 calls are in progress"]] in said


async def test_answers_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    large = "x" * 1000
    asked = [["push", large], *(["stream", ["pipeline", 1]] for _ in range(40))]
    *said, abort = await answers(Api, *asked, limits=Limits(max_batch_size=10_000))
    assert abort == [
        "abort",
        ["error", "LimitExceeded", "a batch has more than max_batch_size = 10000 bytes to send"],
    ]
    assert len(lines(*said)) <= 10_000
    assert not caplog.records


async def test_numbers_are_written_as_javascript_writes_them() -> None:
    body = await http_batch_response(lines(call("echo", 1e20)), Api)
    assert body == b'["resolve",1,100000000000000000000]'


async def test_a_large_batch_leaves_time_to_others() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await http_batch_response(lines(*(["stream", number] for number in range(3200))), Api)
        tasks.cancel_scope.cancel()
    assert turns >= 50


async def test_a_batch_that_is_cancelled_cancels_its_calls() -> None:
    api = Api()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(http_batch_response, lines(call("forever")), api)
        await api.waiting.wait()
        tasks.cancel_scope.cancel()
    assert api.journal == ["cancelled"]


async def test_a_stream_of_the_server_travels_whole() -> None:
    assert await answers(Api, call("numbers", 3)) == [
        ["pipe"],
        ["resolve", 1, ["readable", 1]],
        *(["stream", ["pipeline", 1, ["write"], [number]]] for number in range(3)),
        ["stream", ["pipeline", 1, ["close"], []]],
        ["release", 1, 1],
    ]


async def test_a_stream_without_end_is_bounded() -> None:
    *said, abort = await answers(Api, call("endless"), call("linger", 1), limits=Limits(max_batch_size=10_000))
    assert abort[1][1] == "LimitExceeded"
    assert len(lines(*said)) <= 10_000


async def test_a_stream_of_the_client_is_read_as_far_as_it_came() -> None:
    pipe = [["pipe"], ["stream", ["pipeline", 1, ["write"], [5]]], ["stream", ["pipeline", 1, ["write"], [6]]]]
    end = ["stream", ["pipeline", 1, ["close"], []]]
    said = await answers(Api, *pipe, end, call("add_up", ["readable", 1]))
    assert ["resolve", 5, 11] in said
    said = await answers(Api, *pipe, call("add_up", ["readable", 1]))
    [refused] = [message for message in said if message[:2] == ["reject", 4]]
    assert "cannot answer" in refused[2][2]


@pytest.mark.parametrize("method", ["sink", "late_sink"])
async def test_a_stream_that_the_client_could_write_later_is_aborted(method: str) -> None:
    api = Api()
    [answer, *_] = await answers(api, call(method))
    assert answer == ["resolve", 1, ["writable", -1]]
    [ended] = api.journal
    assert "cannot answer" in ended


# The client.

Handler = Callable[[httpx2.Request], Awaitable[httpx2.Response]]


class Server:
    """Answers the requests of clients, and remembers them."""

    def __init__(self, main: Any = None, handler: Handler | None = None) -> None:
        self.main = Api() if main is None else main
        self.requests: list[httpx2.Request] = []
        self._handler = handler or self._answer

    @property
    def messages(self) -> list[Any]:
        """The messages of the only request."""
        [request] = self.requests
        return [json.loads(line) for line in request.content.splitlines()]

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return await self._handler(request)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=await http_batch_response(request.content, self.main))

    @asynccontextmanager
    async def batch(self, **settings: Any) -> AsyncIterator[RpcStub]:
        transport = httpx2.MockTransport(self.handle)
        with anyio.fail_after(60):
            async with (
                httpx2.AsyncClient(transport=transport) as client,
                http_batch("http://server/key", client=client, **settings) as api,
            ):
                yield api


def answering(status: int, text: str) -> Handler:
    async def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, text=text)

    return answer


async def test_everything_before_the_first_await_is_one_request() -> None:
    server = Server()
    async with server.batch() as api:
        square = api.square(6)
        await anyio.lowlevel.checkpoint()  # nobody has awaited anything of the batch
        counter = api.make_counter(2)
        first, second = counter.increment(3), api.bump(counter, 4)
        assert await gather(square, first, second) == [36, 5, 9]
    assert server.requests[0].method == "POST"
    assert server.messages == [
        call("square", 6),
        call("make_counter", 2, kind="push"),
        call("increment", 3, target=2),
        call("bump", ["pipeline", 2], 4),
    ]


async def test_promises_that_are_held_can_be_awaited_one_after_the_other() -> None:
    server = Server()
    async with server.batch() as api:
        squares = [api.square(number) for number in range(3)]
        user = api.user()
        name = user.name
        assert [await square for square in squares] == [0, 1, 4]
        assert await name == "Ada"  # of a value that is here
    assert [kind for kind, *_ in server.messages] == ["stream"] * 4


async def test_calls_of_tasks_go_along() -> None:
    server = Server()
    async with server.batch() as api:

        async def use(number: int) -> None:
            assert await api.square(number) == number * number

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(use, number)
    assert len(server.messages) == 5


async def test_what_other_calls_are_built_on_does_not_travel_unless_it_is_awaited() -> None:
    server = Server()
    async with server.batch() as api:
        user = api.user()
        greeting = api.greet(user.name)
        assert await greeting == "Hello, Ada!"
        with pytest.raises(SessionClosed, match=r"the batch was sent without this.*open another http_batch\(\)"):
            await user
    assert [kind for kind, *_ in server.messages] == ["push", "stream"]
    server = Server()
    async with server.batch() as api:
        user = api.user()
        assert await gather(api.greet(user.name), user) == ["Hello, Ada!", {"name": "Ada", "id": 7}]
    assert [kind for kind, *_ in server.messages] == ["push", "pull", "stream"]


async def test_errors_fail_their_own_calls() -> None:
    server = Server()
    async with server.batch() as api:
        failed, spread, square = api.fail(), api.fail().any.thing(), api.square(2)
        with pytest.raises(ValueError, match="no") as caught:
            await failed
        assert isinstance(caught.value, RemoteError)
        with pytest.raises(ValueError, match="no"):
            await spread
        assert await square == 4


async def test_an_argument_that_cannot_be_sent_fails_its_call_and_leaves_the_batch() -> None:
    server = Server()
    async with server.batch() as api:
        with pytest.raises(TypeError, match="a value of the type set cannot be sent"):
            api.echo({1})
        assert await api.square(2) == 4


async def test_later_calls_fail_at_once() -> None:
    server = Server()
    async with server.batch() as api:
        counter = await api.make_counter()
        with pytest.raises(SessionClosed, match="the batch was sent without this"):
            api.square(2)
        with pytest.raises(SessionClosed, match="the batch was sent without this"):
            counter.increment()
        with pytest.raises(SessionClosed, match="the batch was sent without this"):
            await counter.value
    assert len(server.requests) == 1


async def test_calls_while_the_answer_is_under_way_fail_at_once() -> None:
    arrived, go = anyio.Event(), anyio.Event()

    async def answer(request: httpx2.Request) -> httpx2.Response:
        arrived.set()
        await go.wait()
        return httpx2.Response(200, content=await http_batch_response(request.content, Api))

    server = Server(handler=answer)
    async with server.batch() as api, anyio.create_task_group() as tasks:
        first = api.user()
        built = api.greet(first.name)
        tasks.start_soon(gather, built)
        await arrived.wait()
        with pytest.raises(SessionClosed, match="the batch was sent without this"):
            api.square(2)
        with pytest.raises(SessionClosed, match="the batch was sent without this"):
            await first
        go.set()


async def test_what_nobody_awaits_is_sent_at_the_end() -> None:
    server = Server()
    async with server.batch() as api:
        api.mark("kept")
        held = api.linger("held")
        assert not server.requests
    assert server.main.journal == ["kept", "held", "held is over"]
    assert server.messages == [call("mark", "kept", kind="push"), call("linger", "held"), ["release", 1, 1]]
    assert await held == "held"


async def test_a_batch_without_calls_is_not_sent() -> None:
    server = Server()
    async with server.batch() as api:
        _ = api.value
    assert not server.requests


async def test_an_exception_ends_a_batch_unsent() -> None:
    async def leave_by_exception() -> None:
        async with server.batch() as api:
            api.mark("never")
            raise KeyError("mine")

    server = Server()
    with pytest.raises(KeyError):
        await leave_by_exception()
    assert not server.requests


async def test_a_batch_whose_main_stub_is_disposed_is_not_sent() -> None:
    server = Server()
    async with server.batch() as api:
        call = api.square(2)
        api.dispose()
        with pytest.raises(SessionClosed, match="closed on this side"):
            await call
    assert not server.requests


async def test_leaving_gives_up_a_request_that_is_under_way() -> None:
    cancelled = anyio.Event()

    async def answer(_request: httpx2.Request) -> httpx2.Response:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    server = Server(handler=answer)
    async with server.batch() as api:
        with anyio.move_on_after(0.01):
            await api.square(2)
    assert cancelled.is_set()


async def test_a_refusal_is_told_with_status_and_text() -> None:
    server = Server(handler=answering(403, "not for you\n"))
    async with server.batch() as api:
        one, two = api.square(1), api.square(2)
        for promise in (one, two):
            with pytest.raises(RpcError, match=r"^http://server answered the batch with 403 Forbidden: not for you$"):
                await promise
        with pytest.raises(RpcError, match="403 Forbidden"):
            api.square(3)


async def test_a_refusal_that_nobody_awaits_is_raised_at_the_end() -> None:
    server = Server(handler=answering(503, ""))
    with pytest.raises(RpcError, match=r"^http://server answered the batch with 503 Service Unavailable$"):
        async with server.batch() as api:
            api.square(1)


async def test_a_server_that_is_not_there() -> None:
    with anyio.fail_after(60):
        async with http_batch("http://127.0.0.1:1/key") as api:
            with pytest.raises(
                SessionClosed, match=r"the batch did not reach http://127\.0\.0\.1:1 and back: ."
            ) as caught:
                await api.square(1)
    assert isinstance(caught.value.__cause__, httpx2.ConnectError)


async def test_an_answer_that_is_no_batch() -> None:
    server = Server(handler=answering(200, "<html>"))
    async with server.batch() as api:
        with pytest.raises(SessionClosed, match="the message is not JSON"):
            await api.square(1)
    with pytest.raises(RpcError, match="the message is not JSON"):
        async with server.batch() as api:
            api.square(1)


async def test_an_abort_fails_what_has_no_answer() -> None:
    server = Server(handler=answering(200, '["resolve",1,4]\n["abort",["error","RangeError","out of patience"]]'))
    async with server.batch() as api:
        square, other = api.square(2), api.square(3)
        assert await square == 4
        with pytest.raises(SessionClosed, match="the peer aborted the session: out of patience"):
            await other


async def test_a_call_without_an_answer() -> None:
    server = Server(handler=answering(200, ""))
    async with server.batch() as api:
        with pytest.raises(SessionClosed, match="the server ended the batch without an answer to this"):
            await api.square(1)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_batch_size=100), "larger than max_batch_size = 100"),
        (Limits(max_batch_messages=3), "more than max_batch_messages = 3"),
    ],
)
async def test_answers_have_limits(limits: Limits, reason: str) -> None:
    server = Server(handler=answering(200, '["resolve",-1,1]\n' * 100))
    async with server.batch(options=SessionOptions(limits=limits)) as api:
        with pytest.raises(RpcError, match=reason) as caught:
            await api.square(1)
    assert isinstance(caught.value, LimitExceeded) or isinstance(caught.value.__cause__, LimitExceeded)


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        while True:
            await anyio.lowlevel.checkpoint()
            yield b"x" * 50

    async def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=chunks())

    server = Server(handler=answer)
    async with server.batch(options=SessionOptions(limits=Limits(max_batch_size=200))) as api:
        with pytest.raises(LimitExceeded, match="larger than max_batch_size = 200"):
            await api.square(1)


async def test_a_function_is_called_by_the_answer() -> None:
    async def later(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return number + 20

    server = Server()
    async with server.batch() as api:
        plain, slow = api.tell(lambda number: number + 10), api.tell(later)
        assert await plain == {"result": 11}
        assert await slow == {"result": 21}


async def test_an_object_of_this_side_comes_home_behind_the_calls_that_were_made_on_it() -> None:
    server = Server()
    counter = Counter()
    async with server.batch() as api:
        promise = api.echo(counter)
        promise.increment(1)
        home = (await gather(promise))[0]
        assert home == counter
        assert await home.increment(10) == 11


async def test_a_promise_that_has_settled_can_be_passed() -> None:
    async def value() -> str:
        return "there"

    server = Server()
    async with server.batch() as api:
        passed = RpcPromise(value())
        assert await passed == "there"
        assert await api.echo(passed) == "there"


async def test_a_promise_that_has_not_settled_fails_the_call_that_it_was_passed_to() -> None:
    gate = anyio.Event()

    async def value() -> str:
        await gate.wait()
        return "late"

    server = Server()
    async with server.batch() as api:
        passed = RpcPromise(value())
        refused, square = api.echo(passed), api.square(2)
        with pytest.raises(RpcError, match="had not settled when it was sent: await it first"):
            await refused
        assert await square == 4
        gate.set()
        assert await passed == "late"


async def test_streams_travel_whole() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(100):
            await anyio.lowlevel.checkpoint()
            yield number

    server = Server()
    sink = Sink([])
    async with server.batch() as api:
        total, counted, poured = api.add_up(numbers()), api.numbers(3), api.pour(WritableStream(sink))
        assert await total == 4950
        assert [number async for number in await counted] == [0, 1, 2]
        assert await poured == "poured"
        await sink.ended.wait()
    assert sink.journal == [0, 1, 2, "closed"]
    assert len(server.requests) == 1


async def test_a_request_is_bounded() -> None:
    async def without_end() -> AsyncIterator[str]:
        while True:
            yield "x" * 1000

    server = Server()
    async with server.batch(options=SessionOptions(limits=Limits(max_batch_size=10_000))) as api:
        with pytest.raises(SessionClosed, match="more than max_batch_size = 10000 bytes to send") as caught:
            await api.add_up(without_end())
    assert isinstance(caught.value.__cause__, LimitExceeded)
    async with server.batch(options=SessionOptions(limits=Limits(max_batch_size=10_000))) as api:
        with pytest.raises(RpcError, match="more than max_batch_size = 10000 bytes to send"):
            await api.echo("x" * 10_000)
    assert not server.requests


async def test_a_stream_that_breaks_off_fails_its_reader() -> None:
    server = Server(
        handler=answering(
            200, '["pipe"]\n["stream",["pipeline",1,["write"],[7]]]\n["resolve",1,["readable",1]]\n["resolve",2,4]'
        )
    )
    async with server.batch() as api:
        promise, square = api.numbers(3), api.square(2)
        assert await square == 4
        stream = await promise
        with pytest.raises(SessionClosed, match="the server ended the batch without"):
            [number async for number in stream]


async def test_headers_are_sent() -> None:
    server = Server()
    async with server.batch(headers={"Authorization": "Bearer key", "Content-Type": "application/x-ndjson"}) as api:
        assert await api.square(2) == 4
    headers = server.requests[0].headers
    assert headers.get_list("authorization") == ["Bearer key"]
    assert headers.get_list("content-type") == ["application/x-ndjson"]


async def test_the_type_of_the_content_needs_no_preflight_and_redirects_are_followed() -> None:
    async def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/key":
            return httpx2.Response(307, headers={"location": "/key/"})
        return httpx2.Response(200, content=await http_batch_response(request.content, Api))

    server = Server(handler=answer)
    async with server.batch() as api:
        assert await api.square(2) == 4
    first, second = server.requests
    assert first.content == second.content
    assert (second.method, second.headers["content-type"]) == ("POST", "text/plain;charset=UTF-8")


@pytest.mark.parametrize("url", ["ws://server/", "server", "http:///path"])
async def test_what_is_no_url_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL that a batch can be sent to"):
        async with http_batch(url):
            pass


async def test_without_httpx2_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ImportError, match=r"pip install 'capnweb-py\[batch\]'"):
        async with http_batch("http://server/"):
            pass


async def test_errors_keep_the_path_to_themselves() -> None:
    server = Server(handler=answering(500, "no\nno"))
    async with server.batch() as api:
        with pytest.raises(RpcError) as caught:
            await api.square(1)
        assert "key" not in str(caught.value)
        assert "key" not in repr(api)
