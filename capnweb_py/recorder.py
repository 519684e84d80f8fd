"""Recording: from a callback of `.map()` to a mapper. The callback runs once, at once, on placeholders.

While it runs, calls of its thread are written down, whatever they are made on. What comes from outside the callback is
captured: it gets a negative number, the input of the callback is 0, and the result of the nth instruction is n. The
instructions are those that npm capnweb records for the same callback: every call on a captured stub captures it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from .delivery import Deliveries
from .handle import Handle
from .hooks import Hook, Path, Pending
from .mapper import Mapper, Provenance
from .operators import ABSTRACT
from .options import Limits
from .payload import Payload
from .serialize import Serializer
from .streams import WritableStream
from .threads import recording
from .web import Blob, ReadableStream

__all__ = ["record"]

_LIMITS: Final = Limits()


def record(subject: Hook, path: Path, callback: Callable[[Any], Any], placeholder: Callable[[Hook], Any]) -> Hook:
    """Record a callback, and apply it to a member of the subject. Returns the hook of the result's promise.

    Args:
        subject: the hook of what is mapped.
        path: from it to the member.
        callback: what is done with each item.
        placeholder: makes of a hook what the callback is given.

    Raises:
        TypeError: if the callback, or its result, is something that cannot be recorded. What the callback raises comes
            out as it is. Nothing was sent then.
    """
    outer = recording.current
    target = 0 if outer is None else outer.number_of(subject)
    recorder = Recorder(outer)
    recording.current = recorder
    try:
        instructions = recorder.run(callback, placeholder)
    except BaseException:
        recorder.dispose()
        raise
    finally:
        recording.current = outer
    if outer is not None:
        captures = [["import", number] for number in recorder.captured_numbers]
        return outer.add(["remap", target, list(path), captures, instructions])
    return subject.map(path, Mapper(recorder.captured_hooks, instructions, Provenance(_LIMITS)))


class Recorder:
    """Writes one callback down. It is an Exporter, to which everything is the peer's own, and nothing can be exported.

    Args:
        outer: the recorder of the callback that this one is inside of.
    """

    def __init__(self, outer: Recorder | None) -> None:
        self._outer = outer
        self._instructions: list[Any] = []
        # What was captured: hooks of our own, or inside another callback the numbers that it has for them.
        self.captured_hooks: list[Hook] = []
        self.captured_numbers: list[int] = []
        # The numbers of what was captured and is not to be captured again.
        self._known: dict[Hook, int] = {}

    def run(self, callback: Callable[[Any], Any], placeholder: Callable[[Hook], Any]) -> list[Any]:
        """Run the callback. Returns the instructions."""
        result = callback(placeholder(Variable(self, 0)))
        if hasattr(type(result), "__await__") and not isinstance(result, Handle):
            if isinstance(result, Coroutine):
                result.close()
            raise TypeError(
                "the callback of map() cannot be async: it is recorded, and runs on the other side. Make it a plain "
                "function that awaits nothing; promises in its result are replaced by their values there"
            )
        self._instructions.append(Serializer(self, _LIMITS).write(result, "the result of the callback of map()"))
        return self._instructions

    def call(self, hook: Hook, path: Path, arguments: list[Any]) -> Hook:
        """Write down a call. Returns the hook of its result.

        Raises:
            TypeError: if the arguments cannot be passed.
        """
        # The arguments first, as their captures are numbered before that of what is called.
        expressions = Serializer(self, _LIMITS).write_arguments(arguments)
        return self.add(["pipeline", self.number_of(hook, anew=True), list(path), expressions])

    def get(self, hook: Hook, path: Path) -> Hook:
        """Write down that a member is got. Returns its hook."""
        return self.add(["pipeline", self.number_of(hook, anew=True), list(path)])

    def add(self, instruction: list[Any]) -> Hook:
        """Write down an instruction. Returns the hook of its result."""
        self._instructions.append(instruction)
        return Variable(self, len(self._instructions))

    def number_of(self, hook: Hook, *, anew: bool = False) -> int:
        """The number of what a hook stands for. What comes from outside is captured.

        Args:
            hook: of a placeholder, or of anything else.
            anew: capture it even if it was captured before.
        """
        if isinstance(hook, Variable):
            if hook.recorder is self:
                return hook.index
            anew = False
        if not anew and hook in self._known:
            return self._known[hook]
        if self._outer is None:
            self.captured_hooks.append(hook.dup())
        else:
            self.captured_numbers.append(self._outer.number_of(hook, anew=anew))
        number = -len(self.captured_hooks or self.captured_numbers)
        if not anew:
            self._known[hook] = number
        return number

    def runs(self) -> bool:
        """Whether the callback runs now, or one inside it, in this thread."""
        running = recording.current
        while running is not None and running is not self:
            running = running._outer
        return running is self

    def dispose(self) -> None:
        """Let go of what was captured."""
        for hook in self.captured_hooks:
            hook.dispose()

    # Exporter: what the serializer needs.

    def import_id(self, hook: Hook) -> int | None:
        return self.number_of(hook)

    def export_target(self, target: Any) -> int:
        raise TypeError(
            f"{target!r} cannot be passed inside a callback of map(), which runs on the other side. "
            "Make an RpcStub of it before map(), and pass that"
        )

    def export_stub(self, hook: Hook) -> int:
        raise AssertionError("a recorder captures every hook")

    def export_promise(self, hook: Hook) -> int:
        return self.export_stub(hook)

    def export_writable(self, stream: WritableStream | ReadableStream[Any]) -> int:
        raise TypeError("a stream cannot be passed inside a callback of map(): it is used once, and not for each item")

    def create_pipe(self, stream: ReadableStream[Any]) -> int:
        return self.export_writable(stream)

    def export_blob(self, blob: Blob) -> int:
        raise TypeError("a Blob cannot be passed inside a callback of map(): it is sent once, and not for each item")

    def unexport(self, ids: list[int]) -> None:
        """Nothing has been exported."""

    def on_send_error(self, error: BaseException) -> BaseException | None:
        return None


class Variable(Hook):
    """Of a placeholder: the input of a callback that is recorded, or the result of one of its instructions."""

    __slots__ = ("index", "recorder")

    def __init__(self, recorder: Recorder, index: int) -> None:
        self.recorder = recorder
        self.index = index

    def check_in_use(self) -> None:
        """Raise TypeError unless the callback that the placeholder belongs to runs."""
        if not self.recorder.runs():
            raise TypeError(f"a placeholder of a callback of map() was used after, or outside of, it: {ABSTRACT}")

    def call(self, path: Path, arguments: Payload) -> Hook:
        raise self._misuse("called outside of it")

    def map(self, path: Path, mapper: Mapper) -> Hook:
        mapper.dispose()
        raise self._misuse("mapped outside of it")

    def get(self, path: Path, deliveries: Deliveries | None = None) -> Hook:
        self.check_in_use()
        return recording.current.get(self, path) if path and recording.current is not None else self

    def dup(self) -> Hook:
        self.check_in_use()
        return self

    def pull(self) -> Payload | Pending:
        raise self._misuse("awaited")

    def dispose(self) -> None:
        """A placeholder holds nothing."""

    def on_broken(self, callback: Callable[[BaseException], object]) -> None:
        raise self._misuse("watched")

    def _misuse(self, use: str) -> TypeError:
        return TypeError(f"a placeholder of a callback of map() cannot be {use}: {ABSTRACT}")

    def __repr__(self) -> str:
        return f"the result of step {self.index}" if self.index else "each item"
