"""Awaiting many promises at once, on either event loop, without a task for each."""

from __future__ import annotations

from typing import Any, TypeVar

from .errors import fresh
from .loops import clear_frames_later, wait_settled
from .payload import Placement, Settling
from .stub import RpcPromise, hook_to_pull

__all__ = ["gather"]

T = TypeVar("T")


async def gather(*promises: RpcPromise[T]) -> list[T]:
    """The values of promises, in the order of the promises: what `Promise.all` is in JavaScript.

    Calls have been made before anyone awaits them, so that no task is needed for each, as `asyncio.gather` makes.
    (Measured with 1,000 calls in flight, compiled: 89,000 calls a second, and 60,000 with `asyncio.gather`.)

        first, second = await gather(api.hello("World"), api.hello("Python"))

    The first that fails ends it, with that promise's error; the others are let go of. So they are if it is cancelled.

    Raises:
        TypeError: if one of them is no promise, before any is awaited.
    """
    values: list[Any] = [None] * len(promises)
    settling = Settling(len(promises))
    placements: list[Placement] = []
    promise = placement = None
    try:
        for index, promise in enumerate(promises):
            if not isinstance(promise, RpcPromise):
                raise TypeError(
                    f"gather(*promises) awaits promises of calls and members, and argument {index} is a"
                    f" {type(promise).__name__}: what else is to be awaited is for a task group"
                )
        for index, promise in enumerate(promises):
            placement = Placement((values, index, hook_to_pull(promise)), settling, None, None)
            placements.append(placement)
            placement()
            if settling.done:
                break
        if placements and not settling.done:
            await wait_settled(settling)
        if settling.error is not None:
            raise fresh(settling.error)
    except BaseException as error:
        for placement in placements:
            placement.give_up()
        # Whoever keeps the exception keeps this frame, and must not keep the promises.
        del promises, promise, placements, placement, values, settling
        if not isinstance(error, Exception):
            clear_frames_later(error)
        raise
    return values
