"""The session: the import and export tables, and the messages of the protocol. Sans-I/O.

Everything that changes a table lives here. A session is fed messages (`receive`), yields messages
(`messages_to_send`), and is told when the connection is gone (`connection_lost`). It awaits nothing, owns no loop and
reads no clock: what it needs from outside its `Host` hands in. Whatever a peer sends, `receive` returns: a broken
rule aborts the session, with a reason for the peer.

Ids (protocol, section "Imports and exports"): the side that imports counts up from 1 for the results of its calls,
the side that exports counts down from -1 for what it passes by reference; 0 is the main object. No id is ever used
again.

What a call travels as is decided when its message is written: a call that was awaited by then and that no other
expression refers to goes as a "stream" message, which the peer answers and forgets by itself: two messages. Any other
goes as a "push", followed by "pull" and "release" as needed. Messages are written once per turn of the host's loop.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

import attrs

from .blobs import BlobReader
from .codec import JSON, Codec, CodecError
from .codec.json import weight
from .delivery import Deliveries
from .deserialize import DESERIALIZERS
from .errors import (
    CallNotSent,
    LimitExceeded,
    ProtocolError,
    RpcError,
    SessionClosed,
    UnreadableValue,
    drop_tracebacks,
    text_of,
)
from .handle import Handle
from .hooks import DISPOSED, ErrorHook, Hook, Path, Pending, PromiseHook
from .imports import Import, ImportHook
from .local import PayloadHook, TargetHook, hook_of, payload_hook, result_hook
from .loops import wait_settled
from .mapper import Mapper
from .metering import Meter
from .options import DEFAULT_OPTIONS, SessionOptions
from .outflow import Outflow
from .payload import Payload
from .serialize import serializer_for, stands_for_itself
from .streams import PipeStream, RemoteSink, WritableStream, feed, pump
from .stub import RpcStub, make_stub, stub_classes
from .web import Blob, ReadableStream
from .write_queue import Unread, WriteQueue, WriterHook

__all__ = ["ABORTED", "BATCH", "COMPILED", "MUCH", "Host", "Message", "RpcSession", "SessionStats"]

_log = logging.getLogger("capnweb_py")

# Whether this is the compiled build (see README, section "Install it").
COMPILED: Final = not __file__.endswith(".py")

# The data of a message, and whether it is binary (else it is UTF-8 text).
Message = tuple[bytes, bool]

# How many messages come together before the first of them are sent, where there are many: the peer works on these while
# this side makes the next. (Measured with 1,000 calls in flight: 26,000 calls a second without, 40,000 with it.)
BATCH: Final = 32

# The same in bytes of answers; and in bytes of calls since the peer last said anything, with which it is to begin. What
# is counted is what is written as text ahead of its message. (Measured with 50 records of 1 KB in flight: 17,600 a
# second without, 19,300 with both.)
MUCH: Final = 8 * 1024
_MUCH_CALLED: Final = 16 * 1024

# How many bytes of answers are written before they are sent, and wait before no more calls begin. A peer may have one
# large value answered any number of times, which takes no memory until it is written.
_MOST_AHEAD: Final = 1024 * 1024

# The length from which a text that is an answer counts among these.
_LONG: Final = 1024

# The close code of a WebSocket whose session was aborted, as npm capnweb gives it.
ABORTED: Final = 3000


class Host(Protocol):
    """What a session needs of whatever runs it."""

    def wake(self) -> None:
        """Messages wait, or the session has ended: look soon. Called in the session's own thread."""

    def hurry(self) -> None:
        """Somebody waits for the answers to all calls that wait to be sent: nothing is gained by collecting more of
        them."""

    def send_now(self) -> None:
        """Much waits to be sent, more may follow, and the peer has said nothing for a while: it can begin with what
        there is. A host that sends at once calls `messages_to_send` before this returns."""

    def rest(self) -> None:
        """Much was done for what the peer has sent: others are to have their turn before its next message."""

    def wake_from_anywhere(self) -> None:
        """The same as `wake`, called from any thread, and from inside the garbage collector."""

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> object:
        """Run a coroutine function in a task that is cancelled when the session ends."""

    def now(self) -> float:
        """A clock that never goes back, in seconds."""


@attrs.frozen
class SessionStats:
    """How many entries the tables of a session have, the main object included: 1 and 1 when nothing is referred to."""

    imports: int
    exports: int


class _Export:
    """One entry of the export table."""

    __slots__ = ("answered", "count", "hook", "readable", "released_when_answered", "resolving", "waiting", "watched")

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        # How many times the peer has been told of the id, less what it has released.
        self.count = 1
        # Whether the peer gets the resolution as soon as it is there, and whether it has got it.
        self.resolving = False
        self.answered = False
        # Whether the entry goes with its answer: the result of a "stream" message.
        self.released_when_answered = False
        # What was written into a pipe, until its readable end is referred to.
        self.readable: WriteQueue | None = None
        # What the answer waits for, and what to take back there if nobody waits for the answer any more.
        self.waiting: tuple[Pending, Callable[[], object]] | None = None
        # Who is to be told how the call ends whose result this is.
        self.watched: Callable[[BaseException | None], object] | None = None

    def ended(self, error: BaseException | None) -> None:
        """The call has its answer, or nobody wants it any more."""
        watched, self.watched = self.watched, None
        if watched is not None:
            watched(error)

    def stop_waiting(self) -> None:
        """Nobody is to be told of the value any more."""
        waiting, self.waiting = self.waiting, None  # which refers back to this entry
        if waiting is not None:
            pending, callback = waiting
            pending.unsubscribe(callback)


class _Pipe(_Export):
    """The entry of a stream that the peer has made, to write into it."""

    __slots__ = ()


@attrs.frozen
class _Stream:
    """A stream that an expression was made for.

    Attributes:
        run: the coroutine function to be run for it once the expression is whole.
        give_back: undoes the sending.
    """

    run: Callable[[], Coroutine[Any, Any, None]]
    give_back: Callable[[], object]


class RpcSession:
    """One side of a connection.

    Args:
        host: what runs it.
        local_main: the object that the peer's main stub stands for: a target or function, or any value that can be
            sent.
        options: see `SessionOptions`.
        codec: how messages are written.
        name: what the session calls its peer in a repr, usually a URL.
        releases_streams: whether both sides take a "release" of the result of a "stream" message, to cancel the call
            with: an extension of this project's (see protocol.md, section "Cancellation").
    """

    __slots__ = (
        "__weakref__", "_aborted", "_answers_taken", "_begun", "_blobs", "_called", "_codec", "_collected", "_decided",
        "_drained", "_embargo", "_end", "_exports", "_host", "_imports", "_letting_go", "_limits", "_local_main",
        "_main", "_meter", "_name", "_next_export", "_next_import", "_next_pushed", "_next_watcher", "_options",
        "_outbox", "_outflow", "_pipes", "_reader", "_releases_streams", "_serializer", "_to_resolve", "_to_run",
        "_told", "_unanswered", "_undecided", "_unread", "_watchers", "_writing", "ahead", "answered_bytes",
        "congested", "deliveries", "holding", "woke",
    )  # fmt: skip

    def __init__(
        self,
        host: Host,
        local_main: Any = None,
        options: SessionOptions | None = None,
        codec: Codec = JSON,
        name: str = "peer",
        *,
        releases_streams: bool = False,
    ) -> None:
        self._host = host
        self._options = options or DEFAULT_OPTIONS
        self._limits = self._options.limits
        self._codec = codec
        self._serializer = serializer_for(codec)
        self._name = name
        self._releases_streams = releases_streams
        self._local_main = local_main
        # Why the session ended; None while it lasts.
        self._end: BaseException | None = None
        # Whether it ended in a way that the peer was or is to be told of by the close code ABORTED.
        self._aborted = False
        main = ErrorHook(RpcError("this connection has no main object")) if local_main is None else hook_of(local_main)
        self._exports: dict[int, _Export] = {0: _Export(main)}
        self._next_pushed = 1  # the id of the peer's next call
        # How many entries are streams that the peer has made.
        self._pipes = 0
        self._next_export = -1
        self._imports: dict[int, Import] = {0: Import(self, 0)}
        self._next_import = 1
        # Messages to be written: trees, and the entries of calls, whose kind is decided on writing.
        self._outbox: list[Any] = []
        # How many of these calls have neither been awaited nor been referred to, and how many have been awaited.
        self._undecided = 0
        self._decided = 0
        # Promises exported by what waits in the outbox. Their resolutions follow it. None where there are none: an
        # empty deque takes more than half a kibibyte.
        self._to_resolve: deque[int] | None = None
        # What waits to be disposed of while something is; None while nothing is.
        self._letting_go: list[Hook] | None = None
        # Streams that have been sent and do not run yet, by the ids that they were sent under.
        self._to_run: dict[int, _Stream] = {}
        # What Python has collected, on whatever thread: entries whose hooks are gone, and what else is to be called.
        self._collected: list[Import | Callable[[], None]] = []
        # Whether the host has been told that there is some.
        self._told = False
        # Callbacks of `on_broken` in the order of their registration, by a number of their own.
        self._watchers: dict[int, Callable[[BaseException], object]] = {}
        self._next_watcher = 0
        # While the resolution of a promise is read through which calls have gone: what holds back calls on the hooks
        # that lead back here, until the calls that the peer forwards have arrived. See `local`.
        self._embargo: list[tuple[PromiseHook, Hook]] | None = None
        # How many answers the peer waits for, and who waits for that to become none.
        self._unanswered = 0
        self._drained: list[PromiseHook] = []
        # Bytes of answers written so far.
        self.answered_bytes = 0
        # Set by the host while the connection takes nothing more: then promises that were passed wait to be resolved.
        self.congested = False
        # Bytes of answers in the outbox, of which short ones are not counted.
        self.ahead = 0
        # Bytes of calls since the peer last said anything, and whether it was sent some of them to begin with.
        self._called = 0
        self._begun = False
        # Whether messages are being written: what is called by application code that this runs waits for the next time.
        self._writing = False
        # Bytes of answers written until the connection last took everything.
        self._answers_taken = 0
        # Whether answers wait until it has taken more: then nothing is to be read that asks for others.
        self.holding = False
        # Whether a message has settled what somebody waits for, who is about to go on. Reset by the host.
        self.woke = False
        self._meter = Meter(self._limits.max_copied, self._limits.max_map_steps, host.rest)
        self._unread = Unread(self._limits.max_unread, self._meter)
        self._outflow = Outflow(self._limits.max_unsent)
        spawn = host.spawn
        self._blobs = BlobReader(spawn, self._limits.max_blob_size)
        self.deliveries = Deliveries(
            spawn,
            result_hook,
            self._limits.max_calls,
            self._meter,
            max_running=self._limits.max_running,
            keep_tracebacks=self._options.on_send_error is not None,
        )
        self._reader = DESERIALIZERS[codec.encoding_level](self, self._limits, self._options.names)
        self._main = make_stub(_MainHook(self._imports[0]), stub_classes(self._options.names)[0])

    # What applications use.

    @property
    def remote_main(self) -> RpcStub:
        """The stub of the peer's main object. Disposing it closes the session."""
        return self._main

    @property
    def name(self) -> str:
        """What the session calls its peer."""
        return self._name

    @property
    def local_main(self) -> Any:
        """The object that the peer's `remote_main` stands for."""
        return self._local_main

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        return self._end is not None

    @property
    def end(self) -> BaseException | None:
        """Why the session ended, or None while it lasts."""
        return self._end

    def stats(self) -> SessionStats:
        """How many entries the tables have."""
        self._release_collected()
        return SessionStats(imports=len(self._imports), exports=len(self._exports))

    async def drain(self) -> None:
        """Wait until the peer has the answers to all calls that it made and waits for.

        Raises:
            SessionClosed: if the session ends before.
        """
        while self._unanswered and self._end is None:
            promise = PromiseHook()
            self._drained.append(promise)
            await wait_settled(promise)
        if self._end is not None:
            raise SessionClosed(f"the session ended: {text_of(self._end)}") from self._end

    async def wait_closed(self) -> None:
        """Wait until the session has ended, on whichever side and for whatever reason: see `end`."""
        if self._end is None:
            ended = PromiseHook()
            self._main.on_broken(lambda _error: ended.settle(DISPOSED))
            await wait_settled(ended)

    def retire(self, error: BaseException) -> None:
        """Take no more calls on the main object: they fail with an error. What runs goes on, and so do calls on what it
        has given out."""
        export = self._exports.get(0)
        if export is not None and not isinstance(export.hook, _RetiredHook):
            export.hook = _RetiredHook(error, export.hook)

    def close(self) -> None:
        """End the session without a complaint. Pending calls fail with SessionClosed, exports are disposed."""
        self._finish(SessionClosed("the session was closed on this side"))

    def abort(self, error: BaseException) -> None:
        """End the session because of an error, which the peer receives as the reason."""
        if self._end is not None:
            return
        self._aborted = True
        self._outbox.append(["abort", self._written_error(error)])
        self._finish(error)

    def __repr__(self) -> str:
        return f"<RpcSession {self._name}{' (closed)' if self._end is not None else ''}>"

    # What the host uses.

    @property
    def aborted(self) -> bool:
        """Whether the connection is to be closed as aborted, with `end` as the reason."""
        return self._aborted

    def receive(self, data: bytes | str, binary: bool = False) -> None:
        """Take one message of the peer's. Never raises: what breaks the protocol aborts the session."""
        if self._end is not None:
            return
        self._called, self._begun = 0, False
        self._meter.renew()
        self._unread.message_size = len(data)
        try:
            if len(data) > self._limits.max_message_size:
                raise LimitExceeded(
                    f"a message of {len(data)} bytes is larger than max_message_size = {self._limits.max_message_size}"
                )
            message = self._codec.decode(data, binary)
            kind = message[0] if type(message) is list and message else None
            handle = _HANDLERS.get(kind) if type(kind) is str else None
            if handle is None or not handle(self, message):
                raise ProtocolError(f"bad RPC message: {ascii(message)[:200]}")
        except (ProtocolError, LimitExceeded) as error:
            self.abort(error)
        except CodecError as error:
            self.abort(ProtocolError(str(error)))
        except RecursionError:
            self.abort(LimitExceeded("the message nests deeper than can be read"))
        except Exception as error:
            _log.exception("%r failed on a message of its peer", self)
            self.abort(RpcError(f"internal error: {type(error).__name__}"))

    def messages_to_send(self, *, hurried: bool = False) -> list[Message]:
        """The messages that have come together since the last time. To be sent in order.

        Args:
            hurried: the first call that nothing has been done with yet, and what follows it, is left for the next time.

        So is what follows `max_unsent` bytes of answers that the connection has not taken: any number of calls may end
        at once with one large value, which takes no memory until it is written. An abort goes before them.
        """
        if self._writing:
            return []
        self._writing = True
        try:
            return self._written(hurried)
        finally:
            self._writing = False

    def _written(self, hurried: bool) -> list[Message]:
        if self._collected:
            self._release_collected()
        if self._to_resolve:
            self._resolve_exported()
        if self._to_run:
            self._run_streams()
        messages: list[Message] = []
        if not self.congested:
            self._answers_taken = self.answered_bytes
            self._outflow.taken()
        outbox, self._outbox = self._outbox, []
        self.ahead = 0
        self.holding = False
        self._decided = 0
        if not hurried:
            self._undecided = 0
        try:
            for position, item in enumerate(outbox):
                if item.__class__ is Import:
                    if hurried and not item.pulled and not item.pipelined:
                        self._outbox = outbox[position:]
                        break
                    for tree in self._write_call(item):
                        messages.append(self._codec.encode(tree))
                elif item.__class__ is tuple:
                    messages.append(item)
                    self._outflow.write(len(item[0]))
                elif self._too_much_unsent and self._end is None:
                    self._hold(outbox[position:])
                    break
                elif not (self._too_much_unsent and self._aborted) or item[0] == "abort":
                    message = self._codec.encode(item)
                    if item[0] == "resolve" or item[0] == "reject":
                        self.answered_bytes += len(message[0])
                    messages.append(message)
        except Exception as error:  # the codec is the application's own, and the peers would lose count of their calls
            if self._end is None:  # else the codec has ended it, since it has no room for more
                _log.exception("%r cannot write a message", self)
            self.abort(RpcError(f"the codec {self._codec.name!r} failed to write a message: {text_of(error)}"))
            return messages + self._written(hurried=False)  # which are the abort, if that can be written
        if self.deliveries.full or (messages and self._too_much_unsent):
            self._begin_no_more_than_taken()
        if self._outflow.full and not self.congested:
            self._host.wake()
        return messages

    def _begin_no_more_than_taken(self) -> None:
        """Have calls begin if the connection has taken enough of the answers, and otherwise not: the peer may never
        read what they would return."""
        full = self.deliveries.full = self.holding or self._too_much_unsent
        if not full:
            self.deliveries.go_on()
        elif not self.congested:
            self._host.wake()

    @property
    def unfinished(self) -> bool:
        """Whether the last `messages_to_send` has left something, and the connection would take more."""
        left = self._outbox or self._to_resolve or self.deliveries.full or self._outflow.full
        return self._end is None and not self.congested and bool(left)

    @property
    def _too_much_unsent(self) -> bool:
        """Whether the connection has enough answers to take already."""
        return self.answered_bytes - self._answers_taken > self._limits.max_unsent

    def _hold(self, outbox: list[Any]) -> None:
        """Leave messages to be written when the connection has taken those before them."""
        self._outbox, self.holding = outbox, True
        calls = [item for item in outbox if isinstance(item, Import)]
        self._undecided = sum(not call.pulled and not call.pipelined for call in calls)
        if not self.congested:
            self._host.wake()

    def _resolve_exported(self) -> None:
        """Resolve promises that were exported, some at a time: the resolution of one can export any number of
        others."""
        if self.congested or self._end is not None or self._to_resolve is None:
            return
        for _ in range(min(len(self._to_resolve), BATCH)):
            export_id = self._to_resolve.popleft()
            if export_id in self._exports:
                self._answer(export_id)
        if self._to_resolve:
            self._host.wake_from_anywhere()
        else:
            self._to_resolve = None

    @property
    def undecided(self) -> int:
        """How many calls wait to be sent that nothing has been done with yet: written now, each costs more messages."""
        return self._undecided

    def connection_lost(self, cause: BaseException | None, reason: str = "the connection was lost") -> None:
        """The connection is gone. Fails what is pending, and disposes what was exported."""
        self._outbox.clear()
        error = SessionClosed(reason)
        error.__cause__ = cause
        self._finish(error, self._unsent_calls())

    # Ending.

    def _unsent_calls(self) -> set[int]:
        """The ids of calls that were not written, and are not made on the result of one that was."""
        unsent: set[int] = set()
        for import_id, entry in self._imports.items():
            expression = None if entry.expression is None else entry.expression[0]
            if expression is not None and (expression[1] <= 0 or expression[1] in unsent):
                unsent.add(import_id)
        return unsent

    def _finish(self, error: BaseException, unsent: set[int] | None = None) -> None:
        if self._end is not None:
            return
        self._end = error
        failure = ErrorHook(_closed_error(error))
        not_sent = ErrorHook(_not_sent(failure.error))
        gone = _GoneHook(failure.error, not_sent)
        imports, self._imports = self._imports, {}
        exports, self._exports = self._exports, {}
        watchers, self._watchers = self._watchers, {}
        self._collected.clear()
        self._outflow.end()
        self._guarded(self.deliveries.close)
        for callback in watchers.values():
            self._call_watcher(callback, failure.error)
        for entry in imports.values():
            if entry.resolution is None:
                stub = not_sent if unsent and entry.id in unsent else gone if entry.id <= 0 else failure
                self._guarded(partial(entry.resolve, stub))
        for export in exports.values():
            if isinstance(export.hook, WriterHook) and not export.hook.queue.closing:
                export.hook.queue.fail(failure.error)  # what is there to its end can still be read
            self._guarded(partial(export.ended, failure.error if export.resolving else None))
            self._guarded(export.stop_waiting)
            self._guarded(export.hook.dispose)
        self._guarded(self._run_streams)  # which have failed by now, and close what they read or write
        self._guarded(self._answered_all)
        self._host.wake()

    def _guarded(self, step: Callable[[], object]) -> None:
        """Take one step of the end, whose failure must not keep the others from being taken."""
        try:
            step()
        except Exception:
            _log.exception("%r did not end as it should", self)

    def _call_watcher(self, callback: Callable[[BaseException], object], error: BaseException) -> None:
        try:
            callback(error)
        except Exception:
            # It has nobody to tell, and the others must still be called.
            _log.exception("a callback of on_broken() failed")

    # Messages from the peer (protocol, section "Top-level messages").

    def _on_push(self, message: list[Any]) -> bool:
        if len(message) != 2:
            return False
        self._push(message[1])
        return True

    def _on_stream(self, message: list[Any]) -> bool:
        if len(message) != 2:
            return False
        export_id = self._push(message[1])
        if export_id is not None:
            self._exports[export_id].released_when_answered = True
            self._answer(export_id)
        return True

    def _on_pipe(self, message: list[Any]) -> bool:
        if len(message) != 1:
            return False
        export_id = self._next_pushed
        self._next_pushed += 1
        self._check_exports()
        if self._pipes >= self._limits.max_streams:
            raise LimitExceeded(f"more than max_streams = {self._limits.max_streams} streams of the peer are in use")
        self._pipes += 1
        queue = WriteQueue(self._unread)
        self._exports[export_id] = export = _Pipe(WriterHook(queue))
        export.readable = queue
        return True

    def _push(self, expression: Any) -> int | None:
        """Evaluate what the peer pushed, under the next id of its count; None if that has ended the session."""
        export_id = self._next_pushed
        self._next_pushed += 1
        self._check_exports()
        on_call = self._options.on_call
        watched = None if on_call is None or self._is_write(expression) else on_call(_called_name(expression))
        hook = self._evaluate(expression)
        if self._end is not None:
            hook.dispose()
            if watched is not None:
                watched(_closed_error(self._end))
            return None
        self._exports[export_id] = export = _Export(hook)
        export.watched = watched
        return export_id

    def _is_write(self, expression: Any) -> bool:
        """Whether what is pushed is a chunk of a stream, or its end."""
        if type(expression) is not list or len(expression) < 2 or type(expression[1]) is not int:
            return False
        export = self._exports.get(expression[1])
        return export is not None and isinstance(export.hook, WriterHook)

    def _evaluate(self, expression: Any) -> Hook:
        """The hook of an expression's value."""
        if expression.__class__ is not list and stands_for_itself(expression):
            return PayloadHook(Payload(expression))
        try:
            hook = self._reader.read_hook(expression)
            if hook is not None:
                return hook
            payload = self._reader.read(expression)
        except UnreadableValue as error:
            drop_tracebacks(error)  # whose frames hold what was read of the value
            return ErrorHook(error)
        return payload_hook(payload)

    def _on_pull(self, message: list[Any]) -> bool:
        if len(message) != 2 or type(message[1]) is not int:
            return False
        self._export(message[1])
        self._answer(message[1])
        return True

    def _on_resolve(self, message: list[Any]) -> bool:
        if len(message) != 3 or type(message[1]) is not int:
            return False
        entry = self._resolvable(message[1])
        if entry is None:
            # Released already. What the peer exported for it is released with it.
            self._evaluate(message[2]).dispose()
        else:
            self._resolve_import(entry, self._evaluate_resolution(entry, message[2]))
        return True

    def _on_reject(self, message: list[Any]) -> bool:
        if len(message) != 3 or type(message[1]) is not int:
            return False
        entry = self._resolvable(message[1])
        error = self._read_error(message[2])
        if entry is not None:
            self._resolve_import(entry, ErrorHook(error))
        return True

    def _read_error(self, expression: Any) -> BaseException:
        try:
            payload = self._reader.read(expression)
        except UnreadableValue as error:
            drop_tracebacks(error)
            return error
        if isinstance(payload.value, BaseException):
            return payload.value
        # JavaScript can throw anything. Only text can be quoted, whatever it is.
        thrown = repr(payload.value[:1000]) if isinstance(payload.value, str) else type(payload.value).__name__
        return RpcError(f"the peer threw something that is no error: {thrown}")

    def _on_release(self, message: list[Any]) -> bool:
        if len(message) != 3 or type(message[1]) is not int or type(message[2]) is not int or message[2] < 0:
            return False
        if self._outbox:
            # The peer waits for what is there already, and for nothing that this leads to.
            self._host.hurry()
        if self._releases_streams and 0 < message[1] < self._next_pushed and message[1] not in self._exports:
            return True  # the answer of a stream message, which released it, was on its way
        self._release_export(message[1], message[2])
        return True

    def _on_abort(self, message: list[Any]) -> bool:
        if len(message) != 2:
            return False
        reason = self._read_error(message[1])
        error = SessionClosed(f"the peer aborted the session: {reason}")
        error.__cause__ = reason
        self._outbox.clear()
        self._finish(error, self._unsent_calls())
        return True

    def _resolvable(self, import_id: int) -> Import | None:
        """The entry that a resolution is for, or None if it has been released. It is for nothing else."""
        entry = self._imports.get(import_id)
        if import_id == 0 or import_id >= self._next_import or (entry is not None and entry.expression is not None):
            raise ProtocolError(f"no such import id: {import_id}")
        return entry

    # The export table.

    def _export(self, export_id: int) -> _Export:
        export = self._exports.get(export_id)
        if export is None:
            raise ProtocolError(f"no such entry on exports table: {export_id}")
        return export

    def _check_exports(self) -> None:
        if len(self._exports) >= self._limits.max_exports:
            raise LimitExceeded(
                f"more than max_exports = {self._limits.max_exports} entries of the export table are in use"
            )

    def _release_export(self, export_id: int, count: int) -> None:
        export = self._export(export_id)
        if count > export.count:
            raise ProtocolError(f"refcount of {export_id} would go negative: {export.count} < {count}")
        export.count -= count
        if export.count == 0:
            del self._exports[export_id]
            if export.__class__ is _Pipe:
                self._pipes -= 1
            export.ended(None)
            if export.resolving and not export.answered:
                self._count_answered()  # nobody waits for it any more
                export.stop_waiting()
            export.hook.dispose()

    def _answer(self, export_id: int) -> None:
        """Send the resolution of an export, once, when it is there."""
        export = self._exports[export_id]
        if not export.resolving:
            export.resolving = True
            self._unanswered += 1
            self._try_answer(export_id, export, export.hook)

    def _try_answer(self, export_id: int, export: _Export, hook: Hook) -> None:
        export.waiting = None
        if self._end is not None:
            return
        if self._exports.get(export_id) is not export:
            return  # the peer has released it meanwhile
        settled = hook.settled()
        if isinstance(settled, ErrorHook):
            self._send_answer(export_id, export, "reject", settled.error, None)
            return
        try:
            resolution = hook.pull()
            inner = self._inner_promise(resolution) if isinstance(resolution, Payload) else None
        except Exception as error:
            self._send_answer(export_id, export, "reject", error, None)
            return
        if not isinstance(resolution, Payload):
            callback = partial(self._try_answer, export_id, export, hook)
            export.waiting = resolution, callback
            resolution.subscribe(callback)
            return
        if inner is not None:
            # The value is just another promise: the peer learns nothing from being told so.
            self._try_answer(export_id, export, inner)
            return
        self._send_answer(export_id, export, "resolve", resolution.value, resolution)

    def _inner_promise(self, resolution: Payload) -> Hook | None:
        """The promise that a resolution is, unless it is the peer's own."""
        value = resolution.value
        if not isinstance(value, Handle) or value._path is None:
            return None
        hook = value._hook.settled()
        if self._own_import(hook) is not None:
            return None
        return hook.get(value._path) if value._path else hook

    def _send_answer(self, export_id: int, export: _Export, kind: str, value: Any, holder: Payload | None) -> None:
        try:
            if stands_for_itself(value):
                expression = value
                if value.__class__ is str and len(value) >= _LONG:
                    self.ahead += len(value)
            else:
                writer = self._serializer(self, self._limits, holder)
                expression = writer.write(value, "the result")
                if self.ahead < _MOST_AHEAD:
                    expression, size = writer.packed(expression)
                    self.ahead += size or weight(expression)
        except Exception as error:
            # It is the method that is at fault, whose own log is where its author looks.
            _log.info("the result of a call of the peer's could not be sent: %s", text_of(error))
            kind, value, expression = "reject", error, self._written_error(error)
        self._send([kind, export_id, expression])
        if self.ahead >= _MOST_AHEAD and self._outbox:
            self.deliveries.full = True
        export.answered = True
        export.ended(value if kind == "reject" else None)
        self._count_answered()
        if export.released_when_answered:
            self._release_export(export_id, 1)

    def _written_error(self, error: BaseException) -> Any:
        """The expression of an error, which can always be sent, if need be as another."""
        try:
            return self._serializer(self, self._limits).write(error)
        except Exception:
            _log.exception("an error of the type %s could not be sent", type(error).__name__)
            return ["error", "Error", "an error occurred that could not be sent"]

    def _count_answered(self) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            self._answered_all()

    def _answered_all(self) -> None:
        waiting, self._drained = self._drained, []
        for promise in waiting:
            promise.settle(DISPOSED)

    # Exporter: what the serializer needs.

    def import_id(self, hook: Hook) -> int | None:
        entry = self._own_import(hook)
        if entry is None:
            return None
        self._refer_to(entry)
        return entry.id

    def send_as_push(self, entry: Import) -> None:
        """Have a call that is not written yet written as a push, whose result can be released at any time."""
        if not self._releases_streams:
            self._refer_to(entry)

    def _refer_to(self, entry: Import) -> None:
        """Another expression names the entry, or its owner may release it early: it must be sent as a push."""
        if entry.expression is not None and not entry.pulled and not entry.pipelined:
            self._undecided -= 1
        entry.pipelined = True

    def _own_import(self, hook: Hook) -> Import | None:
        """The entry of a hook, if the peer knows it by its id."""
        entry = hook.entry if isinstance(hook, ImportHook) else None
        if entry is None or entry.session is not self or entry.streaming or entry.resolution is not None:
            return None
        return entry

    def export_target(self, target: Any) -> int:
        return self.export_stub(TargetHook(target))

    def export_stub(self, hook: Hook) -> int:
        if self._end is not None:
            hook.dispose()
            raise _closed_error(self._end)
        try:
            self._check_exports()
        except LimitExceeded:
            hook.dispose()
            raise
        export_id = self._next_export
        self._next_export -= 1
        self._exports[export_id] = _Export(hook)
        return export_id

    def export_promise(self, hook: Hook) -> int:
        export_id = self.export_stub(hook)
        if self._to_resolve is None:
            self._to_resolve = deque()
        self._to_resolve.append(export_id)
        return export_id

    def export_writable(self, stream: WritableStream) -> int:
        sink = stream.take()
        try:
            if isinstance(sink, RemoteSink):
                # Of another peer, or this one's own: calls of it are passed on, and flow control is from end to end.
                export_id = self.export_stub(sink.hook.dup())
                run = partial(_dispose, sink.hook)
            else:
                queue = WriteQueue(self._unread)
                export_id = self.export_stub(WriterHook(queue))
                run = partial(feed, queue, sink)
        except Exception:
            stream.give_back()
            raise
        self._to_run[export_id] = _Stream(run, stream.give_back)
        return export_id

    def create_pipe(self, stream: ReadableStream[Any]) -> int:
        if self._end is not None:
            raise _closed_error(self._end)
        self._check_imports()
        chunks = stream.take()
        entry = self._new_result()
        self._send(["pipe"])
        sink = RemoteSink(ImportHook(entry), self.send_stream, self._outflow, self._host.now)

        def give_back() -> None:
            stream.give_back()
            sink.hook.dispose()

        self._to_run[entry.id] = _Stream(partial(pump, stream, chunks, sink), give_back)
        return entry.id

    def export_blob(self, blob: Blob) -> int:
        return self.create_pipe(blob.stream())

    def _run_streams(self) -> None:
        streams, self._to_run = self._to_run, {}
        for stream in streams.values():
            self._host.spawn(stream.run)

    def unexport(self, ids: list[int]) -> None:
        for export_id in ids:
            stream = self._to_run.pop(export_id, None)
            if stream is not None:
                stream.give_back()
            if self._to_resolve and export_id in self._to_resolve:
                self._to_resolve.remove(export_id)
            if export_id < 0 and export_id in self._exports:  # a pipe is an import, and its own to release
                self._release_export(export_id, 1)

    def on_send_error(self, error: BaseException) -> BaseException | None:
        hook = self._options.on_send_error
        if hook is None:
            return None
        try:
            return hook(error)
        except Exception:
            # What it was to hide must not be sent because it failed.
            _log.exception("on_send_error failed")
            return RpcError("an error occurred")

    # Importer: what the deserializer needs. `deliveries` is an attribute.

    def import_stub(self, import_id: int) -> Hook:
        entry = self._imports.get(import_id)
        if entry is None or import_id >= 0:
            return ImportHook(self._new_import(import_id))
        entry.remote_count += 1
        return ImportHook(entry)

    def import_promise(self, import_id: int) -> Hook:
        if import_id in self._imports:
            raise ProtocolError(f"a promise was exported under the id {import_id}, which is in use")
        entry = self._new_import(import_id)
        entry.pulled = True
        return ImportHook(entry)

    def import_writable(self, import_id: int) -> WritableStream:
        return WritableStream(RemoteSink(self.import_stub(import_id), self.send_stream, self._outflow, self._host.now))

    def pipe_readable(self, export_id: int) -> ReadableStream[Any]:
        export = self._export(export_id)
        if export.readable is None:
            raise ProtocolError(f"{export_id} is no pipe, or its readable end was referred to before")
        queue, export.readable = export.readable, None
        return PipeStream(queue, self.call_later)

    def import_blob(self, stream: ReadableStream[Any], media_type: str) -> Hook:
        return self._blobs.read(stream, media_type)

    def _new_import(self, import_id: int) -> Import:
        if import_id >= 0:
            raise ProtocolError(f"what a peer exports has a negative id, not {import_id}")
        self._check_imports()
        entry = self._imports[import_id] = Import(self, import_id)
        return entry

    def _check_imports(self) -> None:
        if len(self._imports) >= self._limits.max_imports:
            raise LimitExceeded(
                f"more than max_imports = {self._limits.max_imports} entries of the import table are in use"
            )

    def exported(self, export_id: int) -> Hook:
        return self._export(export_id).hook

    def local(self, hook: Hook) -> Hook:
        """What to hand out for a hook that leads back to this side.

        Calls that were pipelined on a promise travel by way of the peer. When the promise turns out to be an object
        of this side, a call made then must not overtake them: it waits until the peer has answered a message sent
        after its resolution, by which time all that it forwarded has arrived.
        """
        if self._embargo is None:
            return hook
        promise = PromiseHook()
        self._embargo.append((promise, hook))
        return promise

    # The import table.

    def _evaluate_resolution(self, entry: Import, expression: Any) -> Hook:
        if not entry.pipelined:
            return self._evaluate(expression)
        embargo: list[tuple[PromiseHook, Hook]] = []
        self._embargo = embargo
        try:
            hook = self._evaluate(expression)
        finally:
            self._embargo = None
        if embargo:
            marker = self._call(None)
            # Awaited, and counted as held: its answer means nothing, but it must arrive.
            marker.hooks = 1
            self.send_pull(marker)
            marker.subscribe(lambda: self.deliveries.in_turn(partial(_lift, embargo)))
        return hook

    def _resolve_import(self, entry: Import, resolution: Hook) -> None:
        self._imports.pop(entry.id, None)
        if not entry.hooks:
            # It was let go of while the answer was under way, or read.
            resolution.dispose()
            return
        if not entry.streaming:
            self._send(["release", entry.id, entry.remote_count])
        settled = resolution.settled()
        if isinstance(settled, ImportHook) and settled.entry is entry:
            resolution = ErrorHook(RpcError("the promise resolves to itself"))
        for number in entry.brittle or ():
            self._watch_on(number, resolution)
        if entry.awaited:
            self.woke = True
        entry.resolve(resolution)

    def send_call(self, target: Import, path: Path, arguments: Payload | None) -> Hook:
        """Call a member of what the peer holds under an entry, or get it where there are no arguments.

        Raises:
            TypeError: if the arguments cannot be sent.
            LimitExceeded: if there are too many imports or exports already.
        """
        expression: list[Any] = ["pipeline", target.id, list(path)]
        self._check_imports()
        much = False
        if arguments is not None:
            values = arguments.value
            # Most calls carry a few texts and numbers. (Saves 0.9 of 6 us.)
            plain = all(map(stands_for_itself, values))
            if plain:
                expression.append(values)
            else:
                much = self._called >= _MUCH_CALLED
                writer = self._serializer(self, self._limits)
                written, size = writer.packed(writer.write_arguments(values))
                expression.append(written)
                self._called += size
        self._refer_to(target)
        entry = self._call(expression)
        # Nobody here has forgotten what a peer had called, and the peer chose the name that a warning would tell.
        entry.forwarded = arguments is not None and arguments.deliveries is not None
        hook = ImportHook(entry)
        # Not in the midst of writing something whose promises and streams wait for it to be sent.
        if much and not self._begun and not self._to_resolve and not self._to_run:
            self._begun = True
            self._host.send_now()
        return hook

    def send_map(self, target: Import, path: Path, mapper: Mapper) -> Hook:
        """Have the peer apply a mapper, which is taken over, to a member of what it holds under an entry.

        Raises:
            TypeError: if what it captured cannot be sent.
            LimitExceeded: if there are too many imports or exports already.
        """
        try:
            self._check_imports()
            captures = self._serializer(self, self._limits).write_arguments(
                [make_stub(hook) for hook in mapper.captures]
            )
            self._refer_to(target)
            return ImportHook(self._call(["remap", target.id, list(path), captures, mapper.instructions]))
        finally:
            mapper.dispose()

    def send_stream(self, hook: Hook, path: Path, arguments: Payload) -> tuple[Hook, int | None]:
        """Call a member of what a hook stands for, with an answer that tells only that it is done.

        Returns the hook of the answer, and the size of the message in bytes; None if nothing was sent to the peer.
        Raises as `send_call` does.
        """
        target = self._own_import(hook)
        if target is None:
            return hook.call(path, arguments), None
        self._check_imports()
        writer = self._serializer(self, self._limits)
        written, _ = writer.packed(writer.write_arguments(arguments.value))
        message = self._codec.encode(["stream", ["pipeline", target.id, list(path), written]])
        entry = self._new_result()
        entry.pulled = entry.streaming = True
        self._send(message)
        self._outflow.send(len(message[0]))
        return ImportHook(entry), len(message[0])

    def _call(self, expression: Any) -> Import:
        """Send an expression to be evaluated."""
        entry = self._new_result([expression])
        self._undecided += 1
        self._send(entry)
        return entry

    def _new_result(self, expression: list[Any] | None = None) -> Import:
        """The entry of what is sent next, under the next id of this side's count."""
        entry = Import(self, self._next_import, expression)
        self._next_import += 1
        self._imports[entry.id] = entry
        return entry

    def _write_call(self, entry: Import) -> list[Any]:
        """The messages of a call, by what has become of it until now."""
        (expression,), entry.expression = entry.expression, None
        if entry.pulled and not entry.pipelined and entry.hooks:
            entry.streaming = True
            return [["stream", expression]]
        if entry.pulled and entry.hooks:
            return [["push", expression], ["pull", entry.id]]
        return [["push", expression]]

    def send_pull(self, entry: Import) -> None:
        """Ask the peer for the value of a promise, once."""
        if entry.pulled:
            return
        entry.pulled = True
        if entry.expression is None:
            self._send(["pull", entry.id])
            return
        if not entry.pipelined:
            self._undecided -= 1
            self._decided += 1
        if not self._undecided or self._decided >= BATCH:
            self._host.hurry()

    def unhook(self, entry: Import) -> None:
        """A hook on an entry is gone."""
        entry.hooks -= 1
        if entry.hooks:
            return
        if entry.resolution is not None:
            self._let_go(entry.resolution)
            return
        for number in entry.brittle or ():
            self._watchers.pop(number, None)
        # The peer forgets the result of a stream message by itself, and may have done so already.
        if not entry.streaming or self._releases_streams:
            self._imports.pop(entry.id, None)
            self._send(["release", entry.id, entry.remote_count])
        if entry.awaited:
            entry.resolve(ErrorHook(RpcError("the promise was disposed before its value arrived")))

    def _let_go(self, resolution: Hook) -> None:
        """Dispose what an entry has resolved to. That may be another entry, and a peer decides how many there are in
        line."""
        if self._letting_go is not None:
            self._letting_go.append(resolution)
            return
        self._letting_go = [resolution]
        try:
            while self._letting_go:
                self._letting_go.pop().dispose()
        finally:
            self._letting_go = None

    def call_later(self, collected: Import | Callable[[], None]) -> None:
        """A hook on an entry, or something else, was collected, on any thread: act when the session's own turn comes.

        Args:
            collected: the entry, or what is to be called.
        """
        if self._end is None:
            self._collected.append(collected)
            if not self._told:
                self._told = True
                self._host.wake_from_anywhere()

    def _release_collected(self) -> None:
        """Release what has been collected: in the messages that are sent next, behind all that anybody waits for."""
        self._told = False  # before the first look: what other threads add from here on is told again
        while self._collected:
            batch = self._collected[:]
            del self._collected[: len(batch)]  # in one step: other threads append at any time
            for collected in batch:
                if isinstance(collected, Import):
                    self.unhook(collected)
                else:
                    collected()

    def watch(self, entry: Import, callback: Callable[[BaseException], object]) -> None:
        """Have `callback` called when the session ends, or what the entry resolves to breaks."""
        number = self._next_watcher
        self._next_watcher += 1
        self._watchers[number] = callback
        entry.register(number)

    def _watch_on(self, number: int, resolution: Hook) -> None:
        """Have a callback watch what its promise has resolved to."""
        settled = resolution.settled()
        entry = settled.entry if isinstance(settled, ImportHook) else None
        if entry is not None and entry.session is self:
            # Under its old number: callbacks are called in the order in which they were registered.
            entry.register(number)
        elif (callback := self._watchers.pop(number, None)) is not None:
            resolution.on_broken(partial(self._call_watcher, callback))

    # The outbox.

    def _send(self, item: Any) -> None:
        """Queue a message."""
        if self._end is not None:
            return
        if not self._outbox:
            self._host.wake()
        self._outbox.append(item)


class _GoneHook(ErrorHook):
    """On what a peer had exported before the session ended: what is called on it now is not sent."""

    __slots__ = ("_not_sent",)

    def __init__(self, error: BaseException, not_sent: ErrorHook) -> None:
        super().__init__(error)
        self._not_sent = not_sent

    def call(self, path: Path, arguments: Payload) -> Hook:
        return self._not_sent

    def map(self, path: Path, mapper: Mapper) -> Hook:
        return self._not_sent.map(path, mapper)

    def get(self, path: Path, deliveries: Deliveries | None = None) -> Hook:
        return self._not_sent if path else self


class _RetiredHook(ErrorHook):
    """On a main object that takes no more calls. What it stands for is let go of at the end of the session."""

    __slots__ = ("_failure", "_retired")

    def __init__(self, error: BaseException, retired: Hook) -> None:
        super().__init__(error)
        # What others hold, who let go of it earlier.
        self._failure = ErrorHook(error)
        self._retired = retired

    def call(self, path: Path, arguments: Payload) -> Hook:
        return self._failure

    def map(self, path: Path, mapper: Mapper) -> Hook:
        return self._failure.map(path, mapper)

    def get(self, path: Path, deliveries: Deliveries | None = None) -> Hook:
        return self._failure

    def dup(self) -> Hook:
        return self._failure

    def dispose(self) -> None:
        self._retired.dispose()


class _MainHook(ImportHook):
    """On the peer's main object. Letting go of it explicitly closes the session; losing sight of it does not."""

    __slots__ = ()

    def dispose(self) -> None:
        if self.entry is not None:
            self.entry.session.close()
        super().dispose()

    def __del__(self) -> None:
        """The session holds its main object for as long as it lasts."""


async def _dispose(hook: Hook) -> None:
    hook.dispose()


def _lift(embargo: list[tuple[PromiseHook, Hook]]) -> None:
    """Let calls through to the hooks that an embargo held back."""
    for promise, hook in embargo:
        promise.settle(hook)


def _called_name(expression: Any) -> str:
    """What a peer calls: the name of the member, "" for the thing itself, or "map"."""
    if type(expression) is not list or not expression:
        return ""
    if expression[0] == "remap":
        return "map"
    path = expression[2] if expression[0] == "pipeline" and len(expression) > 2 else None
    return str(path[-1]) if type(path) is list and path and type(path[-1]) in (str, int) else ""


def _not_sent(failure: BaseException) -> CallNotSent:
    """What calls fail with that were not sent before a session's end."""
    error = CallNotSent(text_of(failure))
    error.__cause__ = failure.__cause__
    return error


def _closed_error(end: BaseException) -> SessionClosed:
    """What calls fail with after a session's end."""
    if isinstance(end, SessionClosed):
        return end
    error = SessionClosed(f"the session was aborted: {text_of(end)}")
    error.__cause__ = end
    return error


_HANDLERS: Final[dict[str, Callable[[RpcSession, list[Any]], bool]]] = {
    "push": RpcSession._on_push,
    "stream": RpcSession._on_stream,
    "pipe": RpcSession._on_pipe,
    "pull": RpcSession._on_pull,
    "resolve": RpcSession._on_resolve,
    "reject": RpcSession._on_reject,
    "release": RpcSession._on_release,
    "abort": RpcSession._on_abort,
}
