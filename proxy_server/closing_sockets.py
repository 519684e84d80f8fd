"""uvicorn's WebSocket, which may be told to stop while its client closes it, and tells when it is closed. uvicorn's own
raises an error in the first case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN

__all__ = ["ClosingWebSocket"]


class ClosingWebSocket(WebSocketsSansIOProtocol):
    """A connection that takes the news that the server stops in any state.

    Args:
        on_lost: called when the connection is closed.
    """

    def __init__(self, *args: Any, on_lost: Callable[[], object], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent and self.conn.state is not OPEN:
            self.stop_keepalive()
            self.transport.close()
        else:
            super().shutdown()
