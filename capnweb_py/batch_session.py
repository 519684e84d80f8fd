"""A session in which each side speaks once: an HTTP request and its response.

Messages, tables and rules are those of session.py. Here is what follows from there being no later: what cannot be
asked for any more fails at once, what has not settled is rejected, and nobody acknowledges what is written into
streams. Sans-I/O, as all sessions are.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import attrs

from .codec.json import JsonCodec
from .errors import LimitExceeded, RpcError, fresh
from .hooks import ErrorHook, Hook, Path
from .imports import Import, ImportHook
from .local import PayloadHook
from .mapper import Mapper
from .options import SessionOptions
from .payload import Payload
from .session import Host, Message, RpcSession
from .streams import WritableStream
from .values import UNDEFINED
from .write_queue import WriterHook

__all__ = ["BatchSession"]


class BatchSession(RpcSession):
    """One side of a batch. The client calls `last_messages`, and both sides `input_ended` when the peer has spoken.

    Args: those of `RpcSession`, but for the codec, which is JSON.
    """

    def __init__(self, host: Host, local_main: Any, options: SessionOptions | None, name: str) -> None:
        super().__init__(host, local_main, options, _BoundedJson(self._abort_too_large), name)
        # Bytes of all messages that were written.
        self._size = 0
        # The ids of streams that are being written into the batch, and of those that sinks of this side read.
        self._pumping: set[int] = set()
        self._feeding: set[int] = set()
        # What all that waits for the peer fails with, once it has spoken, and what is asked of it from then on.
        self._unanswered_error: BaseException | None = None
        self._late_error: BaseException | None = None
        # Whether all that this side says has been said.
        self._mute = False

    @property
    def has_calls(self) -> bool:
        """Whether calls wait to be sent."""
        return any(isinstance(item, Import) for item in self._outbox)

    @property
    def pumping(self) -> bool:
        """Whether streams are being written into the batch."""
        return bool(self._pumping)

    @property
    def settled(self) -> bool:
        """Whether nothing waits to be sent, to be answered, or to end."""
        waiting = self._outbox or self._to_resolve or self._to_run or self._unanswered
        return not (waiting or self.deliveries.in_progress or self._pumping or self._feeding)

    # The client's end of speaking.

    def pull_held(self) -> None:
        """Ask for the results of calls that wait to be sent: there is no later in which to ask.

        Of all that somebody still holds, but for those that other calls are built on: they are on the way to something
        else, and their values come only if they have been awaited.
        """
        for item in self._outbox:
            if isinstance(item, Import) and item.hooks and not item.pipelined:
                item.pulled = True

    def last_messages(self, late: BaseException) -> list[Message]:
        """The rest of what this side says. What the program wants of the peer after that fails with `late`."""
        self.pull_held()
        messages = self._all_messages()
        self._reject_unsettled()
        messages += self._all_messages()
        self._late_error = late
        self._mute = True
        return messages

    def _all_messages(self) -> list[Message]:
        messages: list[Message] = []
        while self._outbox or self._to_resolve:
            messages += self.messages_to_send()
        return messages

    def _reject_unsettled(self) -> None:
        error = RpcError("a promise that was passed in a batch had not settled when it was sent: await it first")
        for export_id, export in list(self._exports.items()):
            if export.resolving and not export.answered:
                self._send_answer(export_id, export, "reject", error, None)

    # The peer's.

    def input_ended(self, unanswered: BaseException, late: BaseException) -> None:
        """The peer says nothing more. What goes on here goes on.

        Args:
            unanswered: what everything that waits for the peer fails with.
            late: what everything fails with that is asked of it from now on.
        """
        self._unanswered_error, self._late_error = unanswered, late
        for export in list(self._exports.values()):
            _break_off(export.hook, unanswered)
        for entry in list(self._imports.values()):
            if entry.pulled and entry.resolution is None:
                # Should the call still wait to be written, it goes without being pulled.
                entry.pulled = False
                self._resolve_import(entry, ErrorHook(unanswered))

    # What differs from other sessions.

    def send_call(self, target: Import, path: Path, arguments: Payload | None) -> Hook:
        # Raised now: a call that nobody awaits would be lost without a word.
        self._check_speaking()
        return super().send_call(target, path, arguments)

    def send_map(self, target: Import, path: Path, mapper: Mapper) -> Hook:
        self._check_speaking()
        return super().send_map(target, path, mapper)

    def send_pull(self, entry: Import) -> None:
        if entry.pulled:
            return
        if self._late_error is not None:
            self._resolve_import(entry, ErrorHook(self._late_error))
            return
        super().send_pull(entry)
        self._host.hurry()

    def send_stream(self, hook: Hook, path: Path, arguments: Payload) -> tuple[Hook, int | None]:
        """As if it were acknowledged at once. The size of the batch bounds it."""
        if self._own_import(hook) is not None:
            self._check_speaking()
        answer, _ = super().send_stream(hook, path, arguments)
        if isinstance(answer, ImportHook) and answer.entry is not None and answer.entry.streaming:
            self._resolve_import(answer.entry, PayloadHook(Payload(UNDEFINED)))
        return answer, None

    def export_writable(self, stream: WritableStream) -> int:
        export_id = super().export_writable(stream)
        if self._unanswered_error is not None:
            _break_off(self._exports[export_id].hook, self._unanswered_error)
        return export_id

    def _check_speaking(self) -> None:
        if self._mute:
            assert self._late_error is not None, "it is set with the last messages"
            raise fresh(self._late_error)

    def _run_streams(self) -> None:
        for stream_id, stream in self._to_run.items():
            running = self._feeding if stream_id < 0 else self._pumping
            running.add(stream_id)
            run = partial(self._run_stream, stream.run, running, stream_id)
            self._to_run[stream_id] = attrs.evolve(stream, run=run)
        super()._run_streams()

    async def _run_stream(
        self, run: Callable[[], Coroutine[Any, Any, None]], running: set[int], stream_id: int
    ) -> None:
        try:
            await run()
        finally:
            running.discard(stream_id)
            self._host.wake()

    def _send(self, item: Any) -> None:
        if not self._mute:
            super()._send(item)

    def _abort_too_large(self, size: int) -> LimitExceeded | None:
        """Count what is written. More than a body holds ends the session; the reason may go beyond it."""
        self._size += size + 1
        limit = self._limits.max_batch_size
        if self._size <= limit or self._end is not None:
            return None
        error = LimitExceeded(f"a batch has more than max_batch_size = {limit} bytes to send")
        self.abort(error)
        return error


class _BoundedJson(JsonCodec):
    """JSON that somebody counts: a peer could ask for one large result any number of times, and streams need not end.

    Args:
        count: told of the size of each message. What it returns is raised.
    """

    def __init__(self, count: Callable[[int], LimitExceeded | None]) -> None:
        self._count = count

    def encode(self, tree: Any) -> tuple[bytes, bool]:
        data, binary = super().encode(tree)
        error = self._count(len(data))
        if error is not None:
            raise error
        return data, binary


def _break_off(hook: Hook, error: BaseException) -> None:
    """End a stream that the peer was writing, unless it has closed it."""
    if isinstance(hook, WriterHook) and not hook.queue.closing:
        hook.queue.fail(error)
