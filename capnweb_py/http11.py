"""A client of HTTP/1.1 whose request and response stream at the same time, as fetch() in the Workers runtime does.

h11 knows the protocol, anyio the sockets; here they meet, on both event loops. An exchange reads its response in the
task of whoever reads it, and sends its request's body in a task of the client's. No redirect is followed, no cookie
kept, no content decoded, no proxy asked, and no header added beyond what a connection needs.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import string
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias, TypeVar
from urllib.parse import quote, urlsplit

import anyio
import anyio.lowlevel
import attrs
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream

from .backoff import Backoff, Reached, passes
from .errors import AnswerLost, Unreachable
from .loops import Spawn
from .web import Headers, ReadableStream, Request, Response, Url

try:
    import h11
except ModuleNotFoundError as error:
    needed = "bindings need the Python package 'h11': pip install 'capnweb-py[remote]', or [proxy] for platform_env"
    raise ModuleNotFoundError(needed, name=error.name) from None

__all__ = ["CONNECT_TIMEOUT", "Connector", "Http11Client", "os_reason"]

# Opens a connection to a host and a port. It may refuse to: an exception that is no OSError comes out as it is.
Connector: TypeAlias = Callable[[str, int], Awaitable[SocketStream]]

_Result = TypeVar("_Result")

_log = logging.getLogger("capnweb_py")

# How long, in seconds, connecting may take, TLS included. How long an answer may take is for its reader to say.
CONNECT_TIMEOUT: Final = 10.0

# Of connections that wait for their next request: how many, and for how long, in seconds. Servers close them after
# 5 s (uvicorn, Node) or more: to give up a little earlier spares requests that would meet the closing half-way.
MAX_IDLE_CONNECTIONS: Final = 20
MAX_IDLE_TIME: Final = 4.0

# The most that is read or, of a body in memory, written at a time, in bytes.
CHUNK_SIZE: Final = 65536

# What describes a connection or the framing on it (RFC 9110, section 7.6.1; RFC 9112, section 6) is the client's to
# say, as in the Fetch standard ("forbidden request-header").
_OWN_HEADERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

# RFC 9110, section 9.2.2: only these may be sent again by themselves when a connection is lost.
_IDEMPOTENT_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT"})

# RFC 9110, section 8.6: with these, the length of no body is told.
_METHODS_WITH_CONTENT: Final = frozenset({"PATCH", "POST", "PUT"})

# The Fetch standard's "null body statuses".
_BODILESS_STATUSES: Final = frozenset({204, 205, 304})

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Http11Client:
    """Sends requests, each over a connection of its own for as long as it lasts; idle ones are used again.

    `async with client:` closes it at the end of the block.

    Args:
        spawn: starts the tasks that send bodies. They end with `aclose`, which its tasks must outlive.
        tls: for https; by default, the system's certificate authorities are trusted.
        connector: opens the connections; by default, to every host.
        backoff: how a server is reached again that was there before; by default, one attempt is all.
    """

    def __init__(
        self,
        spawn: Spawn,
        *,
        tls: ssl.SSLContext | None = None,
        connector: Connector = anyio.connect_tcp,
        backoff: Backoff | None = None,
    ) -> None:
        self._spawn = spawn
        self._tls = tls
        self._connector = connector
        self._reached = Reached(backoff or Backoff(patience=0))
        # The one that became idle last is at the end, and is used first.
        self._idle: list[_Connection] = []
        self._exchanges: set[_Exchange] = set()
        # Exchanges whose responses were collected unread, in whichever thread: closed by the next request.
        self._abandoned: deque[_Exchange] = deque()
        self._closed = False

    async def exchange(
        self, request: Request, url: str, *, title: str | None = None, keep_unsent: bool = False
    ) -> Response:
        """Send a request, and return its response as soon as its head is there.

        The response may begin, and end, before the request's body is sent: the rest goes on being sent until it ends
        or the server closes the connection. Closing the response's body, or cancelling one that reads it, ends all of
        the exchange. The request's body is closed at the end in any case. With HEAD, the response's body is empty.

        A request that loses an idle connection before anything of a response has come is sent again, once and over a
        new connection, if its method is idempotent and its body, if it has one, is in memory.

        Args:
            request: its method, headers and body are sent. Headers that describe a connection or the framing of a body
                are left out: Host follows from the URL, and a body without a length is sent in chunks.
            url: where to, http or https. It may hold a secret: no error names more of it than host and port.
            title: what errors call the server; by default, its host and port.
            keep_unsent: leave the request's body as it is when Unreachable is raised, so that it can go elsewhere.

        Raises:
            Unreachable: if there is no connection. It is a ConnectionError, and nothing was sent.
            ValueError: if the URL or the request cannot be sent, or the body is not as long as it says.
            AnswerLost: if the connection is lost before the response is there, or the response is not valid. It is a
                ConnectionError. Reading the body raises it if it breaks off.
            Exception: whatever the request's body raises: here, or where the response is read. And what a connector
                raises that is no OSError.
        """
        body = _Body(request)
        try:
            self._check_open()
            origin = _Origin.of(url)
            head = _head(request, origin, url, body.length)
            title = title or str(origin)
            while self._abandoned:
                await self._abandoned.popleft().aclose()
            reused = self._take_idle(origin)
            if reused is not None:
                try:
                    return await self._exchange(request, head, body, reused, title)
                except _Stale as lost:
                    body.start_again()
                    return await self._exchange_again(request, head, body, origin, title, lost)
            return await self._exchange(request, head, body, await self._new_connection(origin, title), title)
        except Unreachable:
            if keep_unsent:
                body.give_back()
            else:
                await body.aclose()
            raise
        except BaseException:
            await body.aclose()
            raise

    async def reach(
        self,
        url: str,
        attempt: Callable[[], Awaitable[_Result]],
        may_pass: Callable[[BaseException], bool] = passes,
    ) -> _Result:
        """Reach a server by other means than a request of this client's, and wait for it just as for a connection.

        Args:
            url: of the server, http or https.
            attempt, may_pass: as of `Reached.reach`.
        """
        return await self._reach(_Origin.of(url), attempt, may_pass)

    async def aclose(self) -> None:
        """End all exchanges, and close all connections: reading what is left of a response fails."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            for exchange in list(self._exchanges):
                await exchange.aclose()
            while self._idle:
                await self._idle.pop().close()

    async def __aenter__(self) -> Http11Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _exchange_again(
        self, request: Request, head: h11.Request, body: _Body, origin: _Origin, title: str, lost: _Stale
    ) -> Response:
        try:
            connection = await self._new_connection(origin, title)
        except Unreachable as error:
            # The first attempt may have arrived.
            raise AnswerLost(str(error)) from lost
        return await self._exchange(request, head, body, connection, title)

    async def _exchange(
        self, request: Request, head: h11.Request, body: _Body, connection: _Connection, title: str
    ) -> Response:
        exchange = _Exchange(self, connection, title)
        self._exchanges.add(exchange)
        try:
            await exchange.send(head, body)
            return await exchange.response(request.method)
        except BaseException:
            await exchange.aclose()
            raise

    def spawn_upload(self, exchange: _Exchange, head: h11.Request, body: _Body) -> None:
        """Start the task that sends a request with its body."""
        self._spawn(partial(exchange.upload, head, body))

    def abandon(self, exchange: _Exchange) -> None:
        """Nobody will read the response. Called by the garbage collector, in any thread."""
        self._abandoned.append(exchange)

    def forget(self, exchange: _Exchange) -> None:
        """An exchange is over."""
        self._exchanges.discard(exchange)

    async def give_back(self, connection: _Connection) -> None:
        """Keep a connection for the next request, or close it if it is good for none."""
        if connection.recycle() and not self._closed:
            self._idle.append(connection)
            if len(self._idle) > MAX_IDLE_CONNECTIONS:
                await self._idle.pop(0).close()
        else:
            await connection.close()

    def _take_idle(self, origin: _Origin) -> _Connection | None:
        for connection in reversed(self._idle):
            if connection.origin == origin and connection.is_alive():
                self._idle.remove(connection)
                return connection
        return None

    async def _new_connection(self, origin: _Origin, title: str) -> _Connection:
        return await self._reach(origin, partial(self._connect, origin, title))

    async def _reach(
        self,
        origin: _Origin,
        attempt: Callable[[], Awaitable[_Result]],
        may_pass: Callable[[BaseException], bool] = passes,
    ) -> _Result:
        """One that was there before is waited for: it may be about to start again."""
        return await self._reached.reach(origin, attempt, lambda error: not self._closed and may_pass(error))

    async def _connect(self, origin: _Origin, title: str) -> _Connection:
        await self._drop_stale()
        if origin.scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                connection = await _connected(origin, self._tls, self._connector)
        except TimeoutError as error:
            raise Unreachable(f"{title} cannot be reached: no connection after {CONNECT_TIMEOUT:g} s") from error
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            raise Unreachable(f"{title} cannot be reached: {os_reason(error)}") from error
        try:
            self._check_open()
        except ConnectionError:
            await connection.close()
            raise
        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise Unreachable("nothing can be sent any more: the client is closed")

    async def _drop_stale(self) -> None:
        # Found and taken out in one step: requests that come during a wait look here, too.
        while (stale := next((one for one in self._idle if not one.is_alive()), None)) is not None:
            self._idle.remove(stale)
            await stale.close()


class _Stale(ConnectionError):
    """An idle connection was lost before anything of a response came, and the request can be sent again."""


class _Body:
    """The body of a request on its way: closed at the end, and sent again only if it is in memory.

    Raises:
        RuntimeError: if it is a stream that is being read already.
    """

    def __init__(self, request: Request) -> None:
        self._data = request.buffered
        self._stream = request.body if self._data is None else None
        self._chunks: AsyncIterator[bytes] | None = None if self._stream is None else aiter(self._stream)
        # How much of the data has been sent.
        self._at = 0
        self.length = _length(request)
        self.empty = self._stream is None and not self._data
        self.replayable = self._stream is None and request.method in _IDEMPOTENT_METHODS

    def start_again(self) -> None:
        self._at = 0

    def give_back(self) -> None:
        """Nothing was read: the request can be sent elsewhere."""
        if self._stream is not None:
            self._stream.give_back()

    async def next_chunk(self) -> bytes | None:
        """The next piece; None at the end. Raises TypeError if the stream yields something else, and what it raises."""
        if self._chunks is not None:
            chunk = await anext(self._chunks, None)
            # A str or an int has no buffer, and is refused.
            return chunk if chunk is None or isinstance(chunk, bytes) else bytes(memoryview(chunk))
        data = self._data or b""
        chunk = data[self._at : self._at + CHUNK_SIZE]
        self._at += len(chunk)
        return chunk or None

    async def aclose(self) -> None:
        if self._stream is not None:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()


class _Exchange:
    """One request and its response, on a connection that is theirs until both have ended.

    Args:
        client: gets the connection back.
        connection: on which nothing else happens.
        title: what errors call the server.
    """

    def __init__(self, client: Http11Client, connection: _Connection, title: str) -> None:
        self._client = client
        self._connection = connection
        self._title = title
        # Entered by the task that sends the body, and cancelled to stop it.
        self._sending = anyio.CancelScope()
        # Set when nothing more is sent.
        self._sent = anyio.Event()
        # Whether the request can be sent again if this connection turns out to have been closed.
        self._replayable = False
        # What kept the body from being sent; it is for the reader to hear.
        self._failure: Exception | None = None
        # Whether the response has been received to its end.
        self._complete = False
        # Whether the connection has been given back, or closed.
        self._over = False

    async def send(self, head: h11.Request, body: _Body) -> None:
        """Send a request without a body, or see to it that one with a body is being sent."""
        self._replayable = body.replayable and self._connection.used
        if not body.empty:
            self._client.spawn_upload(self, head, body)
            return
        self._sent.set()
        await self._write(head, h11.EndOfMessage())

    async def upload(self, head: h11.Request, body: _Body) -> None:
        """Send a request and its body. What fails in that is kept, and the reader woken."""
        try:
            with self._sending:
                try:
                    await self._send_body(head, body)
                finally:
                    await body.aclose()
        except BaseException as error:
            if isinstance(error, Exception):
                self._failure = error
            await self._connection.close()
            if self._failure is None:
                raise
            if self._complete:
                _log.warning("a request's body failed after its response from %s", self._title, exc_info=error)
        finally:
            self._sent.set()
        if self._complete:
            await self._retire()

    async def _send_body(self, head: h11.Request, body: _Body) -> None:
        sent = await self._write(head)
        try:
            while sent and (chunk := await body.next_chunk()) is not None:
                sent = await self._write(h11.Data(data=chunk))
            if sent:
                await self._write(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise ValueError(f"the request's body does not have the length that it declares: {error}") from error

    async def _write(self, *events: h11.Event) -> bool:
        """Send events. Returns whether the server takes them: if not, reading tells why, or has its response."""
        try:
            await self._connection.send(*events)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True

    async def response(self, method: str) -> Response:
        """Wait for the head of the response.

        Raises: as `Http11Client.exchange`, and _Stale.
        """
        event = await self._next_event()
        while isinstance(event, h11.InformationalResponse):
            event = await self._next_event()
        if not isinstance(event, h11.Response):
            # The end of a connection on which nothing of the request has been written yet is no error to h11.
            raise self._lost("it closed the connection")
        try:
            response = self._parsed(event, method)
        except ValueError as error:
            raise AnswerLost(f"the response of {self._title} is not valid: {error}") from error
        if method == "HEAD" or response.body is None or response.body.length == 0:
            await self._end_without_body()
        return response

    def _parsed(self, head: h11.Response, method: str) -> Response:
        headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
        status_text = bytes(head.reason).decode("latin-1")
        if head.status_code in _BODILESS_STATUSES:
            return Response(status=head.status_code, status_text=status_text, headers=headers)
        if "transfer-encoding" in headers:
            # RFC 9112, section 6.3: the length beside it is wrong, and whoever passes the response on removes it.
            headers.pop("content-length", None)
        length = None if method == "HEAD" else headers.get("content-length")
        body = ReadableStream(_ResponseBody(self, self._client), length=None if length is None else int(length))
        return Response(body, status=head.status_code, status_text=status_text, headers=headers)

    async def _end_without_body(self) -> None:
        """Let the connection go on to its next request, unless the server sends a body where there is none."""
        if self._connection.received_end():
            await self._completed()
        else:
            await self.aclose()

    async def next_chunk(self) -> bytes | None:
        """The next piece of the response's body; None at its end.

        Raises: as reading a body of `Http11Client.exchange`.
        """
        if self._complete:
            return None
        try:
            event = await self._next_event()
            while isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
                event = await self._next_event()
        except BaseException:
            await self.aclose()
            raise
        await self._completed()
        return None

    async def _completed(self) -> None:
        self._complete = True
        if self._connection.all_sent:
            # The task that has sent the last of the request may be a step behind. Give it that step: otherwise a
            # request that follows at once would need another connection.
            await anyio.lowlevel.cancel_shielded_checkpoint()
        if self._sent.is_set():
            await self._retire()

    async def _next_event(self) -> h11.Event:
        try:
            return await self._connection.next_event()
        except h11.RemoteProtocolError as error:
            if self._connection.at_end:
                raise self._lost("it closed the connection") from error
            raise AnswerLost(f"the response of {self._title} is not valid: {error}") from error
        except anyio.BrokenResourceError as error:
            raise self._lost(os_reason(error)) from error
        except anyio.ClosedResourceError:
            raise self._failure or self._lost("the connection has been closed here") from None

    def _lost(self, reason: str) -> ConnectionError:
        if self._connection.heard:
            return AnswerLost(f"the response of {self._title} broke off: {reason}")
        problem = f"{self._title} cannot be reached: {reason} before it answered"
        return _Stale(problem) if self._replayable else AnswerLost(problem)

    async def _retire(self) -> None:
        """Give the connection back. The exchange is over."""
        if not self._over:
            self._over = True
            self._client.forget(self)
            await self._client.give_back(self._connection)

    async def aclose(self) -> None:
        """End the exchange, wherever it is: what is not sent stays unsent, and the connection is closed."""
        if self._over:
            return
        self._over = True
        self._sending.cancel()
        with anyio.CancelScope(shield=True):
            await self._connection.close()
            await self._sent.wait()
        self._client.forget(self)

    @property
    def unread(self) -> bool:
        """Whether somebody has to read on, or close the response."""
        return not self._over and not self._complete


class _ResponseBody:
    """The body of a response. Its reader drives the exchange; when it is closed or collected, the exchange ends."""

    def __init__(self, exchange: _Exchange, client: Http11Client) -> None:
        self._exchange = exchange
        self._client = client

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._exchange.next_chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        await self._exchange.aclose()

    def __del__(self) -> None:
        if self._exchange.unread:
            self._client.abandon(self._exchange)


@attrs.frozen
class _Origin:
    """Whom a connection leads to. `str()` is what may be said of it."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> _Origin:
        """The origin of a URL. Raises ValueError if it is none of http or https."""
        parts = urlsplit(Url(url).href)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"requests go to http: and https: URLs, not to one of {parts.scheme}:")
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode("ascii")
        return cls(parts.scheme, host, _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port)

    @property
    def authority(self) -> str:
        """The value of the header Host (RFC 9110, section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return self.authority


class _Connection:
    """A socket, TLS around it where the origin asks for it, and the state of the protocol on it.

    One task may send while another one receives.
    """

    def __init__(self, origin: _Origin, tcp: SocketStream, stream: ByteStream) -> None:
        self.origin = origin
        # Whether this is not its first request.
        self.used = False
        # Whether anything has been received since the request.
        self.heard = False
        # Whether the server has closed its side.
        self.at_end = False
        self._tcp = tcp
        self._stream = stream
        self._protocol = h11.Connection(h11.CLIENT)
        self._idle_since = 0.0

    async def send(self, *events: h11.Event) -> None:
        """Send events in one piece, waiting while the server does not take it.

        Raises:
            h11.LocalProtocolError: if they may not be sent now.
            anyio.BrokenResourceError, anyio.ClosedResourceError: if the connection is lost, or closed.
        """
        data = b"".join(self._protocol.send(event) or b"" for event in events)
        if data:
            await self._stream.send(data)

    async def next_event(self) -> h11.Event:
        """The next event of the response.

        Raises:
            h11.RemoteProtocolError: if it is none, or the server has closed the connection too early.
            anyio.BrokenResourceError, anyio.ClosedResourceError: if the connection is lost, or closed.
        """
        while not isinstance(event := self._protocol.next_event(), h11.Event):
            await self._receive()
        return event

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive(CHUNK_SIZE)
        except anyio.EndOfStream:
            self.at_end = True
            data = b""
        else:
            self.heard = True
        self._protocol.receive_data(data)

    def received_end(self) -> bool:
        """Whether a response that was begun has no body, and has ended."""
        try:
            return isinstance(self._protocol.next_event(), h11.EndOfMessage)
        except h11.RemoteProtocolError:
            return False

    @property
    def all_sent(self) -> bool:
        """Whether all of the request has been handed to the socket."""
        return self._protocol.our_state in {h11.DONE, h11.MUST_CLOSE}

    def recycle(self) -> bool:
        """Make ready for the next request. Returns whether there can be one."""
        protocol = self._protocol
        if protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE or protocol.trailing_data[0]:
            return False
        protocol.start_next_cycle()
        self.used, self.heard, self._idle_since = True, False, anyio.current_time()
        return True

    def is_alive(self) -> bool:
        """Whether an idle connection can be used. One that has something to read has been closed by the server."""
        recent = anyio.current_time() - self._idle_since < MAX_IDLE_TIME
        return recent and not _readable(self._tcp.extra(SocketAttribute.raw_socket))

    async def close(self) -> None:
        """Close the socket at once, without the farewells of TLS. Who waits on it is woken."""
        with anyio.CancelScope(shield=True):
            await self._tcp.aclose()


async def _connected(origin: _Origin, tls: ssl.SSLContext | None, connector: Connector) -> _Connection:
    tcp = await connector(origin.host, origin.port)
    if origin.scheme == "http":
        return _Connection(origin, tcp, tcp)
    try:
        stream = await TLSStream.wrap(tcp, hostname=origin.host, ssl_context=tls)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await tcp.aclose()
        raise
    return _Connection(origin, tcp, stream)


def _readable(raw_socket: socket.socket) -> bool:
    """Whether reading from a socket would not wait. One that is closed counts."""
    descriptor = raw_socket.fileno()
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def os_reason(error: BaseException) -> str:
    """What lies behind an error, in the words of the operating system where there are some."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__


def _length(request: Request) -> int | None:
    """How many bytes the request's body has; None if it has no length, or there is no body."""
    if request.buffered is not None:
        return len(request.buffered)
    if request.body is None or request.body.length is not None:
        return None if request.body is None else request.body.length
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdigit() else None


def _head(request: Request, origin: _Origin, url: str, length: int | None) -> h11.Request:
    """The head of a request. Raises ValueError if HTTP/1.1 cannot carry it."""
    headers = [("host", origin.authority)]
    headers += [pair for pair in request.headers.pairs() if pair[0] not in _OWN_HEADERS]
    if length is not None:
        headers.append(("content-length", str(length)))
    elif request.body is not None:
        headers.append(("transfer-encoding", "chunked"))
    elif request.method in _METHODS_WITH_CONTENT:
        headers.append(("content-length", "0"))
    try:
        return h11.Request(
            method=request.method,
            target=_target(url),
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers],
        )
    except h11.LocalProtocolError as error:
        raise ValueError(f"the request cannot be sent: {error}") from error


def _target(url: str) -> str:
    """The request's target (RFC 9112, section 3.2.1), in ASCII."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return quote(target, safe=string.punctuation)
