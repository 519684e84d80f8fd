"""Redis, or Valkey, for the stores that several proxies share: one client, held open for as long as its store is."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import anyio
import coredis
from anyio.abc import TaskGroup, TaskStatus
from coredis.exceptions import RedisError

__all__ = ["RedisConnection", "check_url"]

# How long, in seconds, Redis may take to accept a connection and to answer. The client asks three times.
_TIMEOUT: Final = 5.0


def check_url(url: str) -> None:
    """Check where a Redis is.

    Raises:
        ValueError: if the URL is none. The message does not have it: there may be a password in it.
    """
    parts = urlsplit(url)
    database = parts.path.removeprefix("/") or "0"
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname or not database.isdecimal():
        raise ValueError('a store of Redis is written "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]"')


class RedisConnection:
    """A client that is connected, and connects again by itself. Made by `open`.

    Attributes:
        client: it. What it raises is a RedisError, or a TimeoutError.
    """

    def __init__(self, client: coredis.Redis[bytes]) -> None:
        self.client = client
        self._closing = anyio.Event()
        self._closed = anyio.Event()

    @classmethod
    async def open(cls, url: str, tasks: TaskGroup) -> RedisConnection:
        """Connect to a Redis.

        Args:
            url: of it, as `check_url` accepts it.
            tasks: where the client runs until `aclose`.

        Raises:
            ConnectionError: if it does not answer.
        """
        connection = cls(
            coredis.Redis.from_url(
                url, stream_timeout=_TIMEOUT, connect_timeout=_TIMEOUT, pool_timeout=_TIMEOUT, verify_version=False
            )
        )
        try:
            await tasks.start(connection._run)
        except (RedisError, ExceptionGroup) as error:
            raise ConnectionError(f"the Redis of the store does not answer: {_first(error)}") from error
        return connection

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        """Hold the client open: it has to be closed by the task that opened it."""
        try:
            async with self.client:
                await self.client.ping()
                task_status.started()
                await self._closing.wait()
        finally:
            self._closed.set()

    async def aclose(self) -> None:
        """Close the client. Nothing is asked of it any more."""
        self._closing.set()
        await self._closed.wait()


def _first(error: Exception) -> Exception:
    """An error, or the first one of a group."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
