"""Copying a value as if it had been sent: into expressions and back, with the hooks handed across as they are.

So a call that stays on this side behaves like one that crosses the wire, and there is one set of rules for both.
"""

from __future__ import annotations

from typing import Any, Final

from .delivery import Deliveries
from .deserialize import Deserializer
from .hooks import Hook
from .local import TargetHook
from .options import Limits
from .payload import Payload
from .serialize import Serializer
from .streams import WritableStream
from .web import Blob, ReadableStream

__all__ = ["copied"]

# As deep as can be, and any length: what never leaves this side is no peer's to refuse.
_LIMITS: Final = Limits(max_depth=400, max_bigint_digits=10**9)


def copied(payload: Payload) -> Payload:
    """A payload with a copy of the value, in which targets and functions are stubs. The original holds its targets.

    Raises:
        TypeError: if the value holds something that cannot be sent.
    """
    loopback = _Loopback()
    expression = Serializer(loopback, _LIMITS, payload).write(payload.value)
    return Deserializer(loopback, _LIMITS).read(expression)


class _Loopback:
    """Exporter and importer in one: the id of an export is where its hook waits to be imported."""

    deliveries: Deliveries | None = None

    def __init__(self) -> None:
        self._passed: list[Any] = []

    def import_id(self, hook: Hook) -> int | None:
        return None

    def export_target(self, target: Any) -> int:
        return self.export_stub(TargetHook(target))

    def export_stub(self, hook: Hook) -> int:
        return self._pass(hook)

    def export_promise(self, hook: Hook) -> int:
        return self._pass(hook)

    # A stream is read, or written, once: it is handed on as it is.

    def export_writable(self, stream: WritableStream) -> int:
        return self._pass(stream)

    def create_pipe(self, stream: ReadableStream[Any]) -> int:
        return self._pass(stream)

    def export_blob(self, blob: Blob) -> int:
        return self._pass(blob)

    def unexport(self, ids: list[int]) -> None:
        for export_id in ids:
            passed = self._passed[export_id]
            if isinstance(passed, Hook):
                passed.dispose()

    def _pass(self, passed: Any) -> int:
        self._passed.append(passed)
        return len(self._passed) - 1

    def on_send_error(self, error: BaseException) -> BaseException | None:
        return None

    def _passed_under(self, import_id: int) -> Any:
        return self._passed[import_id]

    import_stub = import_promise = import_writable = pipe_readable = _passed_under

    def import_blob(self, stream: ReadableStream[Any], media_type: str) -> Hook:
        raise AssertionError("a loopback passes a blob whole")

    def exported(self, export_id: int) -> Hook:
        raise AssertionError("a loopback imports nothing of its own")

    def local(self, hook: Hook) -> Hook:
        return hook
