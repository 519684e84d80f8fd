"""Connecting to a peer: `connect` for its main object, `open_session` for the session around it, and `http_batch` for
one request."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .batch_session import BatchSession
from .codec import Codec
from .names import Naming
from .options import DEFAULT_OPTIONS, SessionOptions, with_names
from .session import RpcSession
from .stub import RpcStub
from .target import RpcTarget, naming_of
from .transports.driver import running
from .transports.http_batch import BatchDriver
from .transports.http_post import poster
from .transports.refusals import shown
from .transports.websocket import open_websocket

if TYPE_CHECKING:
    import httpx2

__all__ = ["connect", "http_batch", "open_session"]

_Main = TypeVar("_Main")


@asynccontextmanager
async def open_session(
    url: str,
    *,
    local_main: Any = None,
    options: SessionOptions | None = None,
    headers: Mapping[str, str] | None = None,
    codec: str | Codec | None = None,
    names: Naming | None = None,
    ssl: ssl_module.SSLContext | None = None,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
) -> AsyncIterator[RpcSession]:
    """Connect to a peer over WebSocket, and run a session with it until the context ends.

        async with open_session("ws://127.0.0.1:8000/") as session:
            await session.remote_main.hello("World")
            session.stats()

    What was called by then is sent before the connection closes. If the connection breaks earlier, everything pending
    on it fails with SessionClosed.

    Args:
        url: ws:// or wss://, with the host and path of the peer.
        local_main: the object that the peer gets as its `remote_main`; a target, a function, or any value that can be
            sent.
        options: limits, and what is told of errors.
        headers: more headers for the opening request, such as "Authorization".
        codec: "json", "cbor", one of your own, or None for the best that both sides speak.
        names: "camel" to call `getUser` of the peer by `get_user`, keyword arguments included; "exact" for names as
            they are; None for what `options` says. See `SessionOptions`.
        ssl: the TLS settings of a wss:// connection; None for the system's.
        open_timeout: seconds that connecting may take; None for no limit.
        ping_interval: seconds between the pings that keep an idle connection alive and notice a dead one; None for
            none.
        ping_timeout: seconds that the answer to a ping may take.

    Raises:
        OSError: if the peer cannot be reached. TimeoutError, one of them, if it does not answer in time.
        RpcError: if it refuses the connection, or does not speak the codec.
        ValueError: if the URL or the codec is none.
    """
    async with open_websocket(
        url,
        local_main,
        with_names(options, names),
        headers=headers,
        codec=codec,
        ssl=ssl,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
    ) as session:
        yield session


@overload
def connect(
    url: str,
    *,
    main: None = None,
    local_main: Any = None,
    options: SessionOptions | None = None,
    headers: Mapping[str, str] | None = None,
    codec: str | Codec | None = None,
    names: Naming | None = None,
    ssl: ssl_module.SSLContext | None = None,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
) -> AbstractAsyncContextManager[RpcStub]: ...


@overload
def connect(
    url: str,
    *,
    main: Callable[..., _Main],
    local_main: Any = None,
    options: SessionOptions | None = None,
    headers: Mapping[str, str] | None = None,
    codec: str | Codec | None = None,
    names: Naming | None = None,
    ssl: ssl_module.SSLContext | None = None,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
) -> AbstractAsyncContextManager[_Main]: ...


@asynccontextmanager
async def connect(
    url: str,
    *,
    main: Any = None,
    local_main: Any = None,
    options: SessionOptions | None = None,
    headers: Mapping[str, str] | None = None,
    codec: str | Codec | None = None,
    names: Naming | None = None,
    ssl: ssl_module.SSLContext | None = None,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
) -> AsyncIterator[Any]:
    """Connect to a peer, and yield the stub of its main object. The other arguments and errors are those of
    `open_session`.

        async with connect("ws://127.0.0.1:8000/") as api:
            await api.hello("World")

    With `main`, type checkers know the members. It is best a protocol that says what a caller sees:

        class Counter(Protocol):
            async def increment(self, by: int = 1, /) -> int: ...  # to be awaited; "/", for names travel as an object

        class Api(Protocol):
            async def hello(self, name: str) -> str: ...
            def make_counter(self) -> RpcPromise[Counter]: ...      # to be awaited, or pipelined on
            @property
            def motto(self) -> RpcPromise[str]: ...

        async with connect("ws://127.0.0.1:8000/", main=Api) as api:
            counter = await api.make_counter()                      # a Counter
            await counter.increment(5)                              # an int
            await api.make_counter().increment(5)                   # in one round trip, and typed as Any

    Python's types cannot say "the same methods, each of them to be awaited". So what is called on a promise is Any,
    unless a method is declared to return what is both: a protocol with the bases Counter and Awaitable[Counter]. And an
    `RpcTarget` class serves as its own protocol only where its methods are `async def`.

    `main` is for type checkers alone, but for one thing: the members of an RpcTarget class with names="camel" are
    called so, unless `names` says otherwise. (Its annotation is that of a callable, since mypy takes no protocol for a
    `type[T]`.)
    """
    if names is None and isinstance(main, type) and issubclass(main, RpcTarget) and naming_of(main) == "camel":
        names = "camel"
    async with open_session(
        url,
        local_main=local_main,
        options=options,
        headers=headers,
        codec=codec,
        names=names,
        ssl=ssl,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
    ) as session:
        yield session.remote_main


@asynccontextmanager
async def http_batch(
    url: str,
    *,
    options: SessionOptions | None = None,
    headers: Mapping[str, str] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    open_timeout: float | None = 10,
    client: httpx2.AsyncClient | None = None,
) -> AsyncIterator[RpcStub]:
    """Make calls in one HTTP request, and yield the stub of the server's main object to make them on.

        async with http_batch("http://127.0.0.1:8000/") as api:
            user = api.get_user("ada")
            greeting = api.greet(user.name)              # built on a result that is not here yet
            friends = api.friends(user.id)
            print(await greeting, await friends)         # one request

    The request is sent when the first promise is awaited, with all that has been called by then, and with what the
    tasks that are about to run call and await. Its response brings the values of all promises that are awaited, or
    still held: of those that other calls are built on, as `user` here, only if they were awaited in that turn
    (`gather`, a task group). Later calls fail, and so does a promise whose value was not asked for. At the end
    of the block, what was called and never awaited is sent too, unless an exception ends it.

    What the server returns by reference can be used within the batch, not after it. It can call functions and targets
    that it is handed only if it waits for no answer. Streams travel whole: one that is passed is read to its end before
    the request is sent, so it must not wait for the answer.

    Args:
        url: http:// or https://, where the server takes batches.
        options: limits, and what is told of errors.
        headers: more headers for the request, such as "Authorization".
        ssl: the TLS settings of https; None for the system's.
        open_timeout: seconds that connecting may take; None for no limit. How long the answer may take is for the
            caller to say, as with anyio.fail_after.
        client: an httpx2.AsyncClient to send the request with, which keeps connections from one batch to the next, and
            has its own `ssl` and timeouts. None for one of the batch's own.

    Raises:
        ImportError: if httpx2 is not installed: `pip install 'capnweb-py[batch]'`.
        ValueError: if the URL is none.

    What is awaited raises:
        RpcError: if the server answers with a status that is no success: it names the status and the reason.
        SessionClosed: if the server cannot be reached, or what is awaited is not in the batch.
    """
    limits = (options or DEFAULT_OPTIONS).limits
    post = poster(url, limits, headers=headers, ssl=ssl, open_timeout=open_timeout, client=client)
    driver = BatchDriver(post, limits)
    async with running(driver, BatchSession(driver, None, options, shown(url))) as session:
        yield session.remote_main
        await driver.send_unawaited()
