"""A Cap'n Web peer elsewhere as a binding: its main object is passed on, and with it everything that it gives out."""

from __future__ import annotations

from anyio.abc import TaskGroup

from capnweb_py.lazy import LazySession
from capnweb_py.web import Request, Response
from proxy_server.bindings import BindingError

__all__ = ["Peer"]


class Peer:
    """Answers the RPC channel with the main object of a peer. It has no HTTP side.

    One session with the peer serves all of the binding's. It is opened when it is first used, and again after it has
    ended.

    Args:
        url: of the peer, ws:// or wss://.
        tasks: where the session is held open.
    """

    def __init__(self, url: str, tasks: TaskGroup) -> None:
        self._url = url
        self._session = LazySession(url, f"the peer {url}", tasks.start_soon)

    def rpc_main(self) -> object:
        return self._session.main()

    async def fetch(self, request: Request) -> Response:
        raise BindingError(f"the peer {self._url} speaks RPC only: call methods instead of fetch()")

    async def aclose(self) -> None:
        await self._session.aclose()
