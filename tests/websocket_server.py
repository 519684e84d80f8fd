"""A WebSocket server in a thread, not of our making: its clients may be on any event loop, or in other processes."""

from __future__ import annotations

import json
import queue
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus

import attrs
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve


@attrs.frozen
class WebSocketServer:
    """A running server, and the path and headers of each request that it got."""

    address: str
    asked: list[tuple[str, dict[str, str]]]
    # What each WebSocket that its client ended was told: the messages, and the close code.
    heard: queue.Queue[tuple[list[str | bytes], int | None]] = attrs.field(factory=queue.Queue)


@contextmanager
def websocket_server(tls: ssl.SSLContext | None = None) -> Iterator[WebSocketServer]:
    """It says hello, echoes but on /listen, and closes after "bye". What is no handshake it answers as a request."""
    asked: list[tuple[str, dict[str, str]]] = []

    def respond(connection: ServerConnection, request: Request) -> Response | None:
        asked.append((request.path, {name.lower(): value for name, value in request.headers.raw_items()}))
        if request.headers.get("Upgrade") is None:
            return connection.respond(HTTPStatus.OK, json.dumps({"asked": request.path}))
        if request.path.endswith("/moved"):
            response = connection.respond(HTTPStatus.FOUND, "moved")
            response.headers["Location"] = "http://127.0.0.2/elsewhere"
            return response
        return connection.respond(HTTPStatus.GONE, "no session") if request.path.endswith("/gone") else None

    def talk(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):  # a client may have said all, and gone
            connection.send("hello")
        messages = []
        with suppress(ConnectionClosed):
            for message in connection:
                if message == "bye":
                    connection.close(4000, "as you wish")
                    return
                messages.append(message)
                if connection.request is None or not connection.request.path.endswith("/listen"):
                    connection.send(message)
        running.heard.put((messages, connection.close_code))

    with serve(talk, "127.0.0.1", 0, process_request=respond, ssl=tls) as server:
        running = WebSocketServer(f"127.0.0.1:{server.socket.getsockname()[1]}", asked)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()
