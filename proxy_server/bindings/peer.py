"""A Cap'n Web peer elsewhere as a binding, or several that do the same: the main object of one is passed on, and with
it everything that it gives out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from anyio.abc import TaskGroup

from capnweb_py.client import open_session
from capnweb_py.errors import RpcError, Unreachable
from capnweb_py.lazy import LazySession
from capnweb_py.session import RpcSession
from capnweb_py.web import Request, Response
from proxy_server.bindings import BindingError
from proxy_server.bindings.replicas import Replicas
from proxy_server.bindings.upstream import forward_websocket
from proxy_server.channels.handshake import Handshake

__all__ = ["Peer"]


class Peer:
    """Answers the RPC channel with the main object of a peer, and WebSockets of fetch() with those of its URL.

    One session with each peer serves all of the binding's, which are spread over the peers. It is opened when it is
    first used, and again after it has ended.

    Args:
        urls: of the peers, ws:// or wss://.
        tasks: where the sessions are held open.
    """

    def __init__(self, urls: Sequence[str], tasks: TaskGroup) -> None:
        self._replicas = Replicas(urls)
        title = f"the peer {self._replicas.title}"
        # As many as there are peers: which one each leads to is found out when it is opened.
        self._sessions = [LazySession(self._opened, title, tasks.start_soon) for _ in urls]
        self._next = 0

    def rpc_main(self) -> object:
        session, self._next = self._sessions[self._next], (self._next + 1) % len(self._sessions)
        return session.main()

    async def fetch(self, request: Request) -> Response:
        raise BindingError(f"the peer {self._replicas.title} speaks RPC only: call methods instead of fetch()")

    async def websocket(self, handshake: Handshake) -> None:
        await forward_websocket(handshake, self._replicas)

    async def aclose(self) -> None:
        for session in self._sessions:
            await session.aclose()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[RpcSession]:
        async with AsyncExitStack() as stack:

            async def open_one(url: str) -> RpcSession:
                try:
                    return await stack.enter_async_context(open_session(url))
                except (OSError, RpcError) as error:
                    # Whatever it is: calls wait for a session that is open.
                    problem = str(error) if len(self._sessions) == 1 else f"{url}: {error}"
                    raise Unreachable(problem) from error

            yield await self._replicas.reach(open_one)
