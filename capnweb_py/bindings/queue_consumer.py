"""Consuming a queue in batches: when a batch is complete, and what becomes of it when its handler is done (Cloudflare
Queues documentation, "JavaScript APIs: Consumer" and "Batching, Retries and Delays").

The messages are pulled, so a consumer may run anywhere, and many may share a queue.
"""

from __future__ import annotations

import copy
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, NoReturn, Protocol, TypeAlias

import anyio
import anyio.lowlevel
import attrs
from attrs.validators import ge, gt, instance_of, le, optional

from ..backoff import Backoff
from ..errors import ProxyError, RpcError, SessionClosed
from .arguments import check
from .queue_messages import MessageBatch

__all__ = ["BatchHandler", "Consumer"]

# What works a batch off. What it returns is awaited where that can be, and not looked at.
BatchHandler: TypeAlias = Callable[[MessageBatch], object]

_log = logging.getLogger("capnweb_py")

# The first wait for an empty queue, in seconds. It doubles up to the longest.
_FIRST_WAIT: Final = 0.02

# What a queue that cannot be asked raises, or one that takes too long.
_FAILURES: Final = (ConnectionError, RpcError, TimeoutError)

# How long, in seconds, the queue may take to be told what became of a batch, also to a consumer that has to end.
_PATIENCE: Final = 15.0

# How it is told again while its proxy restarts.
_AGAIN: Final = Backoff(patience=_PATIENCE)


def _check_handler(_consumer: Consumer, _attribute: attrs.Attribute[BatchHandler], handler: Any) -> None:
    check("handler", handler, Callable, "a function of a MessageBatch")  # type: ignore[arg-type]
    for function in (handler, handler.__call__):
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"the handler {handler!r} is a generator function: calling it runs nothing of it")


class Pull(Protocol):
    """`Queue.pull`."""

    def __call__(self, *, batch_size: int, visibility_timeout: float | None) -> Awaitable[MessageBatch]: ...


@attrs.define(kw_only=True)
class Consumer:
    """One run of `Queue.consume`, which says what its arguments are."""

    name: str
    pull: Pull
    handler: BatchHandler = attrs.field(validator=_check_handler)
    batch_size: int = attrs.field(validator=[instance_of(int), ge(1), le(100)])
    batch_timeout: float = attrs.field(validator=[ge(0), le(60)])
    concurrency: int = attrs.field(validator=[instance_of(int), ge(1)])
    visibility_timeout: float | None = attrs.field(validator=optional(gt(0)))
    retry_delay: int | None = attrs.field(validator=optional(ge(0)))
    poll_interval: float = attrs.field(validator=gt(0))
    # Whether the queue has ever answered: what it raises before that is wrong with the call, and not with the moment.
    _reached: bool = attrs.field(default=False, init=False)
    # Whether it did the last time: each interruption is logged once.
    _interrupted: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self.visibility_timeout is not None and self.visibility_timeout <= self.batch_timeout:
            raise ValueError(
                f"visibility_timeout has to be longer than batch_timeout, {self.batch_timeout} s: the first message of"
                " a batch would come again before the batch is worked off"
            )

    async def run(self) -> NoReturn:
        """Collect batches, and have them worked off."""
        first = await self._collected()
        collecting = anyio.Lock()

        async def work_off(batch: MessageBatch | None = None) -> NoReturn:
            while True:
                if batch is None:
                    async with collecting:  # one batch is filled at a time
                        batch = await self._collected()
                await self._handle(batch)
                batch = None

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work_off, first)
            for _ in range(self.concurrency - 1):
                tasks.start_soon(work_off)
        raise AssertionError("none of them returns")

    async def _collected(self) -> MessageBatch:
        """The next batch: as soon as it is full, or its first message has waited for long enough."""
        batch: MessageBatch | None = None
        deadline = math.inf
        waits = self._waits()
        try:
            while batch is None or (len(batch) < self.batch_size and anyio.current_time() < deadline):
                pulled = await self._pulled(self.batch_size - (0 if batch is None else len(batch)))
                if not pulled:
                    await anyio.sleep(max(0, min(next(waits), deadline - anyio.current_time())))
                elif batch is None:
                    batch = pulled
                    deadline = anyio.current_time() + self.batch_timeout
                    waits = self._waits()
                else:
                    batch.messages += pulled.messages
        except BaseException:
            if batch is not None:
                await self._end(partial(batch.retry_all, delay_seconds=0))
            raise
        return batch

    def _waits(self) -> Iterator[float]:
        return Backoff(first=_FIRST_WAIT, longest=self.poll_interval).waits()

    async def _pulled(self, limit: int) -> MessageBatch | None:
        """What is there now; None if the queue cannot be asked."""
        try:
            batch = await self.pull(batch_size=limit, visibility_timeout=self.visibility_timeout)
        except _FAILURES as error:
            if not self._reached:
                raise
            if not self._interrupted:
                _log.warning("the queue %s is not consumed for the moment: %s", self.name, error)
            self._interrupted = True
            return None
        self._reached, self._interrupted = True, False
        return batch

    async def _handle(self, batch: MessageBatch) -> None:
        try:
            await self._call_handler(batch)
        except Exception:
            _log.exception("the handler of the queue %s failed: what it has not settled comes again", self.name)
            await self._end(partial(batch.retry_all, delay_seconds=self.retry_delay))
        except BaseException:
            await self._end(partial(batch.retry_all, delay_seconds=0))
            raise
        else:
            await self._end(batch.ack_all)

    async def _call_handler(self, batch: MessageBatch) -> None:
        given = copy.copy(batch)
        given.messages = list(batch.messages)  # the handler's own, which it may empty
        try:
            result = self.handler(given)
            if inspect.isawaitable(result):
                await result
        except anyio.get_cancelled_exc_class() as error:
            # Who cancels the consumer along with all tasks, as asyncio does at its end, gets the time to do it.
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint_if_cancelled()
            # asyncio's own, of a task that the handler waited for, say: nobody has cancelled this one.
            raise RuntimeError("the handler raised a cancellation, and nobody has cancelled it") from error

    async def _end(self, settle: Callable[[], Awaitable[None]]) -> None:
        """Tell the queue what becomes of a batch. If that fails, its messages come again when their time is over."""
        try:
            with anyio.fail_after(_PATIENCE, shield=True):
                await _AGAIN.retry(settle, _is_away)
        except _FAILURES as error:
            _log.warning("the queue %s was not told what became of a batch, which comes again: %s", self.name, error)


def _is_away(error: BaseException) -> bool:
    """Whether the queue may answer when it is told again. What it has heard already, it takes no notice of."""
    return isinstance(error, ConnectionError | SessionClosed) and not isinstance(error, ProxyError)
