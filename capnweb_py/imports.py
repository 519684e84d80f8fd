"""The import side of a session: entries of its table, and the hooks that stubs hold on them.

An entry is what the peer exported, or the promise of a call's result. The table holds entries; hooks hold their
entry, and count on it: when the last hook is gone the session releases the entry. Python may collect a hook at any
time and on any thread, so a collected hook only tells the session, which acts in its own time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .advice import advise
from .hooks import DISPOSED, Hook, Path, Pending, PromiseHook
from .mapper import Mapper
from .payload import Payload

if TYPE_CHECKING:
    from .delivery import Deliveries
    from .session import RpcSession

__all__ = ["Import", "ImportHook"]


class Import:
    """One entry of the import table."""

    __slots__ = (
        "_callback", "_further", "brittle", "expression", "forwarded", "hooks", "id", "line", "pipelined", "pulled",
        "remote_count", "resolution", "session", "streaming",
    )  # fmt: skip

    def __init__(self, session: RpcSession, import_id: int, expression: Any = None) -> None:
        self.session = session
        self.id = import_id
        # The expression of the call that this is the result of, alone in a list, until it is written. None from then
        # on, and for what the peer exported.
        self.expression = expression
        # Whether it is a call that the peer made on what it exports itself, by way of this side.
        self.forwarded = False
        # How many hooks there are on this entry.
        self.hooks = 0
        # How many times the peer has introduced the id: what the release must say.
        self.remote_count = 1
        # Whether the peer has been asked for the value, or sends it unasked.
        self.pulled = False
        # Whether another expression names the id, or it may be released early: then it must be sent as a push.
        self.pipelined = False
        # Whether the call went as a stream message: the peer forgets the id by itself, and knows it in no expression.
        self.streaming = False
        # What waits for the resolution of a streaming entry, in order: the peer cannot be asked.
        self.line: PromiseHook | None = None
        # What the peer resolved it to.
        self.resolution: Hook | None = None
        # Called when it resolves, in order: the first, which is mostly the only one, and the others.
        self._callback: Callable[[], object] | None = None
        self._further: dict[Callable[[], object], None] | None = None
        # The registrations of `on_broken` in the session that belong to this entry.
        self.brittle: list[int] | None = None

    def subscribe(self, callback: Callable[[], object]) -> None:
        if self.resolution is not None:
            callback()
        elif self._callback is None and not self._further:
            self._callback = callback
        else:
            if self._further is None:
                self._further = {}
            self._further[callback] = None

    def unsubscribe(self, callback: Callable[[], object]) -> None:
        if self._callback == callback:
            self._callback = None
        elif self._further and callback in self._further:
            del self._further[callback]

    @property
    def awaited(self) -> bool:
        """Whether anything waits for it to resolve."""
        return self._callback is not None or bool(self._further)

    def register(self, number: int) -> None:
        """Have a registration of `on_broken` belong to this entry."""
        if self.brittle is None:
            self.brittle = []
        self.brittle.append(number)

    @property
    def forgotten(self) -> bool:
        """Whether a call whose last hook is collected was dropped where it was made, with nothing done to its result.

        Later, when it has been written, nobody can tell: then its promise was kept for a while, for whatever reason.
        """
        unused = self.hooks == 1 and not self.pulled and not self.pipelined and not self.forwarded
        # A call has four parts: "pipeline", the id, the path and the arguments. A member has no arguments.
        return unused and self.expression is not None and len(self.expression[0] or ()) == 4

    def resolve(self, resolution: Hook) -> None:
        """Settle to what the peer resolved it to, or to the error that ended the session."""
        self.resolution = resolution
        first, self._callback = self._callback, None
        further, self._further = self._further, None
        if first is not None:
            first()
        for callback in further or ():
            callback()


class ImportHook(Hook):
    """On an entry of the import table."""

    __slots__ = ("__weakref__", "_entry")

    def __init__(self, entry: Import) -> None:
        entry.hooks += 1
        # None once disposed.
        self._entry: Import | None = entry

    def call(self, path: Path, arguments: Payload) -> Hook:
        entry = self._entry
        if entry is not None and entry.resolution is None and not entry.streaming:
            return entry.session.send_call(entry, path, arguments)
        return self._ask(path, arguments)

    def map(self, path: Path, mapper: Mapper) -> Hook:
        entry = self._entry
        if entry is None:
            mapper.dispose()
            return DISPOSED
        hook = self._beyond(entry)
        return entry.session.send_map(entry, path, mapper) if hook is None else hook.map(path, mapper)

    def get(self, path: Path, deliveries: Deliveries | None = None) -> Hook:
        entry = self._entry
        if not path and entry is not None and (entry.id > 0 or entry.pulled):
            return self.dup()  # it is a promise already
        return self._ask(path, None, deliveries)

    def _ask(self, path: Path, arguments: Payload | None, deliveries: Deliveries | None = None) -> Hook:
        entry = self._entry
        if entry is None:
            return DISPOSED
        hook = self._beyond(entry)
        if hook is None:
            return entry.session.send_call(entry, path, arguments)
        return hook.get(path, deliveries) if arguments is None else hook.call(path, arguments)

    def _beyond(self, entry: Import) -> Hook | None:
        """Where what is asked of the entry goes instead of to the peer; None while it does go to the peer."""
        return self._line(entry) if entry.streaming else entry.resolution

    def _line(self, entry: Import) -> Hook:
        """Where calls on a streaming entry line up, and behind which later ones follow."""
        if entry.line is None:
            line = entry.line = PromiseHook()
            # Who waits in line needs the entry, whoever else lets go of it.
            holder = self.dup()

            def settle() -> None:
                assert entry.resolution is not None, "subscribers are called on resolution"
                line.settle(entry.resolution.dup())
                holder.dispose()

            entry.subscribe(settle)
        return entry.line

    def dup(self) -> Hook:
        return DISPOSED if self._entry is None else ImportHook(self._entry)

    def pull(self) -> Payload | Pending:
        entry = self._entry
        if entry is None:
            return DISPOSED.pull()
        # A loop, for a peer decides how many promises resolve to the next. A stub is a value, and not looked behind.
        while entry.resolution is not None:
            following = entry.resolution
            if not isinstance(following, ImportHook) or following._entry is None:
                return following.pull()
            entry = following._entry
        entry.session.send_pull(entry)
        return entry

    def make_releasable(self) -> None:
        if self._entry is not None:
            self._entry.session.send_as_push(self._entry)

    def successor(self) -> Hook | None:
        return None if self._entry is None else self._entry.resolution

    def identity(self) -> object:
        return self if self._entry is None else self._entry

    @property
    def entry(self) -> Import | None:
        """The entry, or None once disposed."""
        return self._entry

    def dispose(self) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.session.unhook(entry)

    def __del__(self) -> None:
        entry = self._entry
        if entry is not None and entry.resolution is None:
            if entry.forgotten:
                name = ".".join(map(str, entry.expression[0][2]))
                advise(
                    f"the call {name}() was made, but nobody waits for its result, or its error: write `await` before"
                    " it, or `.dispose()` behind it if neither matters",
                )
            entry.session.call_later(entry)

    def on_broken(self, callback: Callable[[BaseException], object]) -> None:
        entry = self._entry
        if entry is None:
            DISPOSED.on_broken(callback)
        elif entry.resolution is not None:
            entry.resolution.on_broken(callback)
        else:
            entry.session.watch(entry, callback)

    def __repr__(self) -> str:
        entry = self._entry
        if entry is None:
            return repr(DISPOSED)
        if entry.id <= 0:
            return f"the main object of {entry.session.name}" if not entry.id else f"{entry.id} of {entry.session.name}"
        return f"result {entry.id} of {entry.session.name}, {'pending' if entry.pulled else 'not awaited'}"
