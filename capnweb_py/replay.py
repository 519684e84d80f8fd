"""Replaying: applying a mapper to each item of a list, to any other value as a whole, and to None not at all.

The instructions are read as the expressions of messages are, with an importer of their own, in which ids are the
mapper's numbers. So a call begins while its instruction is evaluated: calls of one map are in the order of the items,
and in the order of the instructions for each.

Memory: what a peer gets for a few bytes is counted by the session's meter, as long as it is there.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from .deserialize import Deserializer
from .errors import LimitExceeded, ProtocolError
from .hooks import Hook
from .local import PayloadHook, hook_of, payload_hook
from .mapper import Mapper, copies_of
from .metering import Steps
from .payload import Located, Payload
from .serialize import stands_for_itself
from .stub import make_stub
from .target import CALLABLE_TYPES, RpcTarget
from .values import UNDEFINED
from .web import ReadableStream

__all__ = ["replay"]

# A value with no more parts, and no longer texts, costs less to send than the promise of it, and little more to keep.
_FEW: Final = 64
_SHORT: Final = 256


def replay(mapper: Mapper, source: PayloadHook) -> Hook:
    """The hook of what a mapper, which is disposed then, makes of a value. Calls in it may still be under way.

    Raises:
        LimitExceeded: if it is more than the session of the mapper may be asked for.
        ProtocolError: if the mapper refers to what there is not.
        UnreadableValue: as `Deserializer.read` does.
    """
    try:
        value = source.value
        if value is None or value is UNDEFINED:
            return source
        if isinstance(value, (list, tuple)):
            return PayloadHook(_map_items(mapper, source, list(value)))
        steps = _charge(mapper, 1)
        payload = _Replay(mapper).run(source)
        payload.promises = [located for located in payload.promises if not _placed(located, payload, steps)]
        return payload_hook(payload)
    except RecursionError:
        raise LimitExceeded("the maps inside one another nest deeper than can be replayed") from None
    finally:
        mapper.dispose()


def _map_items(mapper: Mapper, source: PayloadHook, items: list[Any]) -> Payload:
    results: list[Any] = []
    promises: list[Located] = []
    steps = _charge(mapper, len(items))
    step = _Replay(mapper)
    for item in items:
        payload = step.run(PayloadHook(source.part(item)))
        for located in payload.promises:
            if not _placed(located, payload, steps):
                # One that is a whole result sits in the list of the results now.
                promises.append((results, len(results), located[2]) if located[0] is payload else located)
        results.append(payload.value)
    result = Payload(results, promises)
    result.keeps = steps
    return result


def _charge(mapper: Mapper, count: int) -> Steps | None:
    """Count what it costs to apply a mapper to so many items; None if nobody counts."""
    deliveries = mapper.provenance.deliveries
    if deliveries is None or deliveries.meter is None:
        return None
    return deliveries.meter.begin_steps(count * (1 + mapper.size))


def _placed(located: Located, payload: Payload, steps: Steps | None) -> bool:
    """Put what is there already in the place of its promise, which would be sent by itself otherwise: a target or
    function, or a small value."""
    container, key, hook = located
    settled = hook.settled()
    if not isinstance(settled, PayloadHook):
        return False
    value = settled.value
    if isinstance(value, RpcTarget) or type(value) in CALLABLE_TYPES:
        value = make_stub(hook_of(value))
    else:
        parts = _parts_of_small(value)
        if parts is None or (parts and steps is not None and not steps.extend(parts)):
            return False
        if parts:
            value = copies_of(value)()
    if container is payload:
        payload.value = value
    else:
        container[key] = value
    return True


def _parts_of_small(value: Any) -> int | None:
    """How many parts a plain value has, none if it is no container. None for what is large, or not plain."""
    parts, pending = 0, [value]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind is list or kind is dict:
            parts += len(item)
            if parts > _FEW:
                return None
            pending += item.values() if kind is dict else item
        elif kind is str or kind is bytes:
            if len(item) > _SHORT:
                return None
        elif not (stands_for_itself(item) or kind is float or (item is UNDEFINED and not parts)):
            return None
    return parts


class _Replay:
    """The importer of a mapper's instructions: 0 is the input, n the result of the nth, -n the nth capture."""

    def __init__(self, mapper: Mapper) -> None:
        self.deliveries = mapper.provenance.deliveries
        self._mapper = mapper
        self._depth = mapper.provenance.depth
        self._variables: list[Hook] = []
        self._reader = (mapper.provenance.reader or Deserializer)(self, mapper.provenance.limits)

    def run(self, source: Hook) -> Payload:
        """Evaluate all instructions on an input, whose hook is taken over. Returns the value of the last."""
        self._variables = [source]
        try:
            if not self._mapper.instructions:
                raise ProtocolError("a mapper has no instructions: the last one is its result")
            *steps, result = self._mapper.copies()
            for instruction in steps:
                self._variables.append(self._evaluate(instruction))
            return self._reader.read(result, self._depth)
        finally:
            for hook in self._variables:
                hook.dispose()

    def _evaluate(self, instruction: Any) -> Hook:
        hook = self._reader.read_hook(instruction, self._depth)
        return payload_hook(self._reader.read(instruction, self._depth)) if hook is None else hook

    # Importer: what the deserializer needs.

    def exported(self, export_id: int) -> Hook:
        hooks, index = (self._variables, export_id) if export_id >= 0 else (self._mapper.captures, -export_id - 1)
        if index >= len(hooks):
            raise ProtocolError(f"a mapper refers to {export_id}, and there is no such capture or earlier instruction")
        return hooks[index]

    def import_stub(self, import_id: int) -> Hook:
        raise ProtocolError("a mapper cannot refer to exports: what it needs is captured")

    def import_promise(self, import_id: int) -> Hook:
        return self.import_stub(import_id)

    def import_writable(self, import_id: int) -> NoReturn:
        raise ProtocolError("a mapper cannot refer to streams: they are used once, and not for each item")

    def pipe_readable(self, export_id: int) -> NoReturn:
        self.import_writable(export_id)

    def import_blob(self, stream: ReadableStream[Any], media_type: str) -> Hook:
        raise AssertionError("a mapper has no streams")

    def local(self, hook: Hook) -> Hook:
        return hook
