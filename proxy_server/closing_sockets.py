"""uvicorn's WebSocket, which may be told to stop while its client closes it. uvicorn's own raises an error then."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN

__all__ = ["ClosingWebSocket"]


class ClosingWebSocket(WebSocketsSansIOProtocol):
    """A connection that takes the news that the server stops in any state."""

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent and self.conn.state is not OPEN:
            self.stop_keepalive()
            self.transport.close()
        else:
            super().shutdown()
