"""A payload: the arguments of a call, or what a promise resolved to, on its way through the core.

Its value is either the application's own object, which is neither kept from changing nor handed to anybody else, or a
copy that belongs to the payload: what came from the wire, or what `own` made. Only a copy is delivered to an
application.

Stubs inside a payload are owned as everywhere, by reference. Targets in what a method returned are held from the time
that they are sent until the payload is disposed, so that a pipelined call finds them however early the peer releases
its stubs; whatever happened, each is released at the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .errors import RpcError, drop_tracebacks
from .hooks import ErrorHook, Hook, Pending, PromiseHook
from .loops import last_step, running_loop
from .metering import Meter
from .target import RpcTarget, has_lifecycle, parts_of, release, retain
from .values import Undefined

if TYPE_CHECKING:
    from .delivery import Deliveries

__all__ = ["ATOMS", "Located", "Payload", "Placement", "Settling", "settle"]

# What holds nothing, and need not be copied.
ATOMS: Final = (str, int, float, bytes, type(None), Undefined)

# Where a promise sits in a payload's value: the container and the key in it, and the promise's hook. The container is
# the payload itself where the promise is the whole value.
Located = tuple[Any, Any, Hook]


class Payload:
    """A value, with the promises inside it that must be replaced by what they resolve to before it is delivered."""

    __slots__ = (
        "_held",
        "_targets_known",
        "borrowed",
        "deliveries",
        "given",
        "keeps",
        "owners",
        "promises",
        "settling",
        "value",
    )

    def __init__(
        self, value: Any, promises: Sequence[Located] = (), *, borrowed: bool = False, given: bool = False
    ) -> None:
        self.value = value
        # Whether the value was returned to be sent: what it holds that must be closed is closed if it is not.
        self.given = given
        # Whether the value is the application's own.
        self.borrowed = borrowed
        self.promises: Sequence[Located] = promises
        # Who begins the call that these are the arguments of; None for a call made on this side.
        self.deliveries: Deliveries | None = None
        # The replacing of the promises, once it has begun.
        self.settling: Settling | None = None
        # What must live as long as the payload does: the hook of the whole, where the value is a part of another's.
        self.keeps: object = None
        # How many hooks share the payload; the last one disposes it.
        self.owners = 0
        # Targets in the value by their `id()`, one reference held to each, and whether all of them have been found.
        self._held: dict[int, Any] | None = None
        self._targets_known = not borrowed

    def own(self) -> None:
        """Have the payload own its value: a copy, of which targets and functions are stubs, as if it had been sent.

        Raises:
            TypeError: if the value holds something that cannot be sent.
        """
        if not self.borrowed:
            return
        # The one circle of the core, closed here: copying makes stubs, whose calls make payloads.
        from .copying import copied

        copy = copied(self)
        self._release_targets()
        self.borrowed, self._targets_known = False, True
        self.value, self.promises, self.keeps = copy.value, copy.promises, None
        if copy.promises and copy.promises[0][0] is copy:
            # The promise is the whole value, so it is the only one.
            self.promises = [(self, *copy.promises[0][1:])]

    def hold(self, target: Any) -> None:
        """Keep a target, found in the value while it was written, until the payload is disposed."""
        if not has_lifecycle(target):
            return  # the value itself holds it
        if self._held is None:
            self._held = {}
        if id(target) not in self._held:
            retain(target)
            self._held[id(target)] = target

    def targets_known(self) -> None:
        """All targets in the value are held."""
        self._targets_known = True

    def hold_targets(self) -> None:
        """Hold all targets in the value, once: a part of it is about to be handed out."""
        if not self._targets_known:
            self._targets_known = True
            if isinstance(self.value, RpcTarget):
                self.hold(self.value)
            elif not isinstance(self.value, ATOMS):
                self._hold_targets()

    def dispose(self) -> None:
        """Let go of the value. Safe to do twice."""
        # What nobody wrote and nobody asked for may be a target all the same, whose last reference this is.
        if self.keeps is None and not self._targets_known:
            self.hold_targets()
            if self.given and not isinstance(self.value, (*ATOMS, RpcTarget)):
                _close_streams(self.value)
        if self._held:
            self._release_targets()
        self.value, self.promises, self.keeps = None, (), None

    def _release_targets(self) -> None:
        held, self._held = self._held, None
        for target in held.values() if held else ():
            release(target)

    def _hold_targets(self) -> None:
        for part in _all_parts(self.value):
            if isinstance(part, RpcTarget):
                self.hold(part)


def _all_parts(value: Any) -> Iterator[Any]:
    """A value, and all that is inside it and passes by value with it, but for atoms."""
    # A loop, and every container once: the value is the application's, and may be as deep as it likes, or contain
    # itself.
    pending, seen = [value], {id(value)}
    while pending:
        part = pending.pop()
        yield part
        if not isinstance(part, RpcTarget):
            inner = [item for item in parts_of(part) if not isinstance(item, ATOMS) and id(item) not in seen]
            seen.update(map(id, inner))
            pending += inner


def _close_streams(value: Any) -> None:
    """Close the streams in a value that was to be sent and was not. Without an event loop, the collector does it."""
    for part in _all_parts(value):
        kind = type(part)  # of the type: a stub has a member of any name
        if (hasattr(kind, "__aiter__") or hasattr(kind, "give_back")) and not getattr(part, "locked", False):
            end = next((getattr(part, name) for name in ("abort", "aclose") if hasattr(kind, name)), None)
            try:
                if end is not None:
                    running_loop().spawn(partial(_close, end))
            except RuntimeError:
                return


async def _close(end: Callable[[], Awaitable[object]]) -> None:
    await last_step(end())


class Settling:
    """The replacing of the promises in one payload: under way, done, or failed with `error`."""

    __slots__ = ("_awaited_by", "_callbacks", "_left", "error")

    def __init__(self, count: int) -> None:
        self._left = count
        # None once it has settled.
        self._callbacks: dict[Callable[[], object], None] | None = {}
        self.error: BaseException | None = None
        # What cannot be done before this is.
        self._awaited_by: list[Settling] = []

    def is_awaited_by(self, other: Settling) -> bool:
        """Whether something else cannot be done before this is, or is this."""
        pending, seen = [self], {self}
        while pending:
            settling = pending.pop()
            if settling is other:
                return True
            further = [waiting for waiting in settling._awaited_by if waiting not in seen]
            seen.update(further)
            pending += further
        return False

    def await_for(self, other: Settling) -> None:
        """Have something else wait for this."""
        self._awaited_by.append(other)

    @property
    def done(self) -> bool:
        """Whether all are in place, or one has failed."""
        return self._callbacks is None

    def subscribe(self, callback: Callable[[], object]) -> None:
        if self._callbacks is None:
            callback()
        else:
            self._callbacks[callback] = None

    def unsubscribe(self, callback: Callable[[], object]) -> None:
        if self._callbacks and callback in self._callbacks:
            del self._callbacks[callback]

    def placed(self, error: BaseException | None, work: list[Callable[[], object]]) -> None:
        """One promise is in place, or has failed. The first error settles it: who waits for that is added to `work`."""
        self._left -= 1
        if self._callbacks is not None and (error is not None or not self._left):
            self.error = error
            callbacks, self._callbacks = self._callbacks, None
            self._awaited_by.clear()
            work += reversed(callbacks)


def settle(payload: Payload, meter: Meter | None = None) -> Settling | None:
    """Replace the promises in a payload that owns its value by what they resolve to, which the meter counts.

    Returns what to wait for, and whose error to raise then; None where nothing had to be replaced.
    """
    if payload.promises:
        work: list[Callable[[], object]] = []
        _begin(payload, meter, None, work)
        _do(work)
    return payload.settling


def _begin(payload: Payload, meter: Meter | None, outer: Settling | None, work: list[Callable[[], object]]) -> None:
    """Begin to replace the promises in a payload, if nobody has: what is to be done is added to `work`.

    Args:
        payload: the payload.
        meter: what counts.
        outer: what waits for it, because the payload takes the place of a promise there.
        work: see `_do`.
    """
    if payload.promises:
        promises, payload.promises = payload.promises, ()
        payload.settling = Settling(len(promises))
        if outer is not None:
            payload.settling.await_for(outer)
        for located in reversed(promises):
            work.append(Placement(located, payload.settling, payload.settling, meter))
    elif outer is not None and payload.settling is not None and not payload.settling.done:
        if outer.is_awaited_by(payload.settling):
            raise RpcError("the value contains itself: a promise in it resolves to what it is in")
        payload.settling.await_for(outer)


def _do(work: list[Callable[[], object]]) -> None:
    """Do what is there to be done, and all that follows from it, from the end.

    A loop: a peer decides how deep promises are inside what other promises resolve to.
    """
    while work:
        item = work.pop()
        if isinstance(item, Placement):
            item.step(work)
        else:
            item()


class Placement:
    """Puts what one promise resolves to where the promise is.

    To be called to begin. It has itself called when what it waits for has settled.

    Args:
        located: the promise, and its place.
        settling: what is told when it is done.
        outer: what waits for that, where a payload may turn out to contain itself.
        meter: what counts what is put there, if anything does.
    """

    __slots__ = ("_located", "_meter", "_outer", "_resolution", "_settling", "_waits_for")

    def __init__(self, located: Located, settling: Settling, outer: Settling | None, meter: Meter | None) -> None:
        # It holds the hook, and so the value, until that is in its place. None once that is done, or given up.
        self._located: Located | None = located
        self._settling = settling
        self._outer = outer
        self._meter = meter
        # What the promise resolved to, while promises in it are replaced.
        self._resolution: Payload | None = None
        self._waits_for: Pending | None = None

    def __call__(self) -> None:
        work: list[Callable[[], object]] = []
        self.step(work)
        if work:
            _do(work)

    def step(self, work: list[Callable[[], object]]) -> None:
        """Go on as far as may be. What follows from that is added to `work`."""
        located = self._located
        if located is None:
            return
        error = None
        try:
            if self._resolution is None:
                error = self._resolve(located[2])
            if error is None:
                resolution = self._resolution
                if resolution is None:
                    return
                _begin(resolution, self._meter, self._outer, work)
                inner = resolution.settling
                if inner is not None and not inner.done:
                    self._wait_for(inner)
                    return
                _put(located, resolution.value)
                error = None if inner is None else inner.error
        except Exception as raised:
            drop_tracebacks(raised)  # whose frames hold the container, and what else is in it
            error = raised
        self._located = self._resolution = self._waits_for = None
        self._settling.placed(error, work)

    def _resolve(self, hook: Hook) -> BaseException | None:
        """Take what the promise resolved to, if it has. Returns the error that it failed with.

        An error is not raised by pulling the promise: it would refer to the frames that it passed, and they to all that
        is in the value.
        """
        settled = hook.settled()
        if isinstance(settled, PromiseHook):
            settled = settled.resolved()
        if isinstance(settled, ErrorHook):
            return settled.error
        found = hook.pull()
        if not isinstance(found, Payload):
            self._wait_for(found)
            return None
        if self._meter is not None:
            self._meter.charge(found.value)
        found.own()
        self._resolution = found
        return None

    def give_up(self) -> None:
        """Wait for nothing any more, and let go of the promise."""
        waits_for = self._waits_for
        self._located = self._resolution = self._waits_for = None
        if waits_for is not None:
            waits_for.unsubscribe(self)

    def _wait_for(self, pending: Pending) -> None:
        self._waits_for = pending
        pending.subscribe(self)


def _put(located: Located, value: Any) -> None:
    container, key, _ = located
    if container.__class__ is Payload:
        container.value = value
    else:
        container[key] = value
