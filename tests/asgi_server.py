"""An ASGI application under uvicorn, on a free port of 127.0.0.1, in a thread: clients run on either event loop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

# Seconds that a server may take to stop.
PATIENCE = 10


@contextmanager
def asgi_server(app: Any) -> Iterator[str]:
    """Serve an application; yields the authority of its URLs, "127.0.0.1:8000"."""
    config = uvicorn.Config(app, log_config=None, ws="websockets-sansio", timeout_graceful_shutdown=PATIENCE)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            # Connections wait in the socket's line until the server accepts them.
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the server did not stop"
