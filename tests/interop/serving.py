"""Our server with the Api of api.py, one World for each server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from capnweb_py import serve

from .api import World


@asynccontextmanager
async def serve_world() -> AsyncIterator[str]:
    """Serve a new World on a free port; yields the URL."""
    world = World()
    async with serve(world.new_main, "127.0.0.1", 0) as server:
        world.server = server
        yield server.url
