"""Reason phrases of responses, of which the Workers runtime makes exceptions: "KV PUT failed: 413 Value length of ...".

ASGI has no place for one. A server that can write it says so by the extension `EXTENSION` of a request's scope, and
takes it from the key "reason" of the event that starts the response. Here is that for uvicorn.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from proxy_server.channels import REASON_PHRASES as EXTENSION
from proxy_server.channels import Receive, Scope, Send

__all__ = ["ReasonedH11"]


class _Connection(h11.Connection):
    """A connection whose next response has a reason phrase of its own.

    Attributes:
        reason: the phrase, and None for the usual one.
    """

    reason: bytes | None = None

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        if self.reason is not None and isinstance(event, h11.Response):
            event = h11.Response(status_code=event.status_code, headers=event.headers.raw_items(), reason=self.reason)
            self.reason = None
        return super().send_with_data_passthrough(event)


class ReasonedH11(H11Protocol):
    """uvicorn's HTTP/1.1, with reason phrases."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        limit = self.config.h11_max_incomplete_event_size
        connection = _Connection(h11.SERVER, *([] if limit is None else [limit]))
        self.conn = connection
        app = self.app

        async def reasoned(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_event(event: MutableMapping[str, Any]) -> None:
                if event["type"] == "http.response.start":
                    # Requests of one connection are answered one after another.
                    connection.reason = event.get("reason")
                await send(event)

            scope["extensions"] = {**scope.get("extensions", {}), EXTENSION: {}}
            await app(scope, receive, send_event)

        self.app = reasoned
