"""The "connect" binding: raw TCP to the addresses of an allow-list, as VPC and Hyperdrive bindings have it.

Connections are asked for as "host:port", over the tunnel of channels/tcp.py or the RPC channel. fetch() sends HTTP
requests to the same addresses, as a VPC binding does. What is checked before connecting is in egress.py.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, SocketStream, TaskGroup
from anyio.streams.tls import TLSStream

from capnweb_py.web import Request, Response
from proxy_server.bindings import Binding, BindingError, Opener
from proxy_server.bindings.connect_rpc import ConnectTarget
from proxy_server.bindings.credentials import secret, tls_context
from proxy_server.bindings.fetcher import Fetcher
from proxy_server.channels import LOG
from proxy_server.channels.handshake import Handshake
from proxy_server.egress import CONNECT_TIMEOUT, AllowList, reason_of, split_address
from proxy_server.tables import Table

__all__ = ["Connect", "parse"]

# How long, in seconds, the other side may take to answer the farewell of TLS.
_FAREWELL_TIMEOUT: Final = 5.0


def parse(table: Table, _state_dir: Path) -> Opener:
    """Check the table of a binding that connects.

    Raises:
        ConfigError: if something is missing or not valid.
    """
    table.text("type")
    entries = table.texts("allow")
    with_tls = table.flag("tls")
    context = tls_context(table)
    seed = secret(table.table("connection_string")) if "connection_string" in table.written else None
    table.finish()
    if not entries:
        raise table.error('the key "allow" is missing: a list of addresses such as "db.internal:5432"')
    if context is not None and not with_tls:
        raise table.error("certificates are for TLS: add tls = true")
    try:
        allowed = AllowList.parse(entries)
    except ValueError as error:
        raise table.error(str(error), "allow") from error
    tls = context or ssl.create_default_context() if with_tls else None

    async def open_connect(tasks: TaskGroup) -> Binding:
        return Connect(allowed, tasks, tls=tls, connection_string=seed)

    return open_connect


class Connect:
    """Connects to what is allowed.

    Args:
        allowed: where to.
        tasks: where bodies of HTTP requests are sent from.
        tls: spoken on each connection from its first byte on; None is none.
        connection_string: what a database's driver needs. It is a secret.
    """

    def __init__(
        self,
        allowed: AllowList,
        tasks: TaskGroup,
        *,
        tls: ssl.SSLContext | None = None,
        connection_string: str | None = None,
    ) -> None:
        self._allowed = allowed
        self._tls = tls
        self._connection_string = connection_string
        self._fetcher = Fetcher(tasks, allowed, tls=tls)
        # Those that nobody has closed yet.
        self._connections: set[Connection] = set()

    def rpc_main(self) -> object:
        return ConnectTarget(self)

    async def fetch(self, request: Request) -> Response:
        return await self._fetcher.fetch(request)

    async def websocket(self, handshake: Handshake) -> None:
        await self._fetcher.websocket(handshake)

    async def connect(self, address: str) -> ByteStream:
        try:
            connection = await self._connect(address)
        except (BindingError, ConnectionError) as error:
            LOG.info("no connection: %s", error)
            raise
        self._connections.add(connection)
        return connection

    def connection_string(self) -> str:
        if self._connection_string is None:
            raise BindingError("this binding has no connection string: see connection_string in its configuration")
        return self._connection_string

    async def aclose(self) -> None:
        await self._fetcher.aclose()
        for connection in list(self._connections):
            await connection.aclose()

    async def _connect(self, address: str) -> Connection:
        try:
            host, port = split_address(address)
        except ValueError as error:
            raise BindingError(f"refused: {error}") from error
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                tcp = await self._allowed.connect(host, port)
                return Connection(tcp, await self._secured(tcp, host), self._connections.discard)
        except TimeoutError as error:
            raise ConnectionError(f"{address} cannot be reached: no connection after {CONNECT_TIMEOUT:g} s") from error
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            raise ConnectionError(f"{address} cannot be reached: {reason_of(error)}") from error

    async def _secured(self, tcp: SocketStream, host: str) -> ByteStream:
        if self._tls is None:
            return tcp
        try:
            return await TLSStream.wrap(tcp, hostname=host, ssl_context=self._tls, standard_compatible=False)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await tcp.aclose()
            raise


class Connection(ByteStream):
    """A connection, with TLS around it or not. With TLS, `send_eof` ends both directions.

    Args:
        tcp: the connection itself.
        stream: what is spoken over it.
        forget: called with the connection when it is closed.
    """

    def __init__(self, tcp: SocketStream, stream: ByteStream, forget: Callable[[Connection], None]) -> None:
        self._tcp = tcp
        self._stream = stream
        self._forget = forget

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        if isinstance(self._stream, TLSStream):
            with anyio.move_on_after(_FAREWELL_TIMEOUT):
                try:
                    await self._stream.unwrap()
                except anyio.BusyResourceError:
                    pass  # the farewell is sent, and who receives now gets the answer to it
                except (ssl.SSLError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                    pass  # the other side has ended it in its own way
        await self._tcp.send_eof()

    async def aclose(self) -> None:
        """Close at once. What the network has not taken yet is lost."""
        self._forget(self)
        await self._tcp.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._stream.extra_attributes
