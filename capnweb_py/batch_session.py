"""A session in which each side speaks once: an HTTP request and its response.

Messages, tables and rules are those of session.py. Here is what follows from there being no later: what cannot be
asked for any more fails at once, and what has not settled is rejected. Sans-I/O, as all sessions are.
"""

from __future__ import annotations

from typing import Any

from .errors import RpcError, fresh
from .hooks import ErrorHook, Hook, Path
from .imports import Import
from .payload import Payload
from .session import Message, RpcSession, _Export

__all__ = ["BatchSession"]


class BatchSession(RpcSession):
    """One side of a batch. The client calls `last_messages`, then both sides `input_ended` when the peer has spoken."""

    # Why the peer can be asked for nothing more; None as long as it can.
    _unanswerable: BaseException | None = None
    # Whether all that this side says has been said.
    _mute = False

    @property
    def has_calls(self) -> bool:
        """Whether calls wait to be sent."""
        return any(isinstance(item, Import) for item in self._outbox)

    @property
    def settled(self) -> bool:
        """Whether nothing waits to be sent, to be answered, or to end."""
        return not (self._outbox or self._to_resolve or self._unanswered or self.deliveries.in_progress)

    def last_messages(self, late: BaseException) -> list[Message]:
        """All that this side says. What the program wants of the peer after that fails with `late`.

        There is no later in which a value can be asked for. So the peer is asked for the results of all calls that
        somebody still holds, but for those that other calls are built on: they are on the way to something else, and
        their values come only if they have been awaited.
        """
        self._release_collected()
        for item in self._outbox:
            if isinstance(item, Import) and item.hooks and not item.pipelined:
                item.pulled = True
        messages: list[Message] = []
        while self._outbox or self._to_resolve:
            messages += self.messages_to_send()
            if not self._outbox and not self._to_resolve:
                self._reject_unsettled()
        self._unanswerable = late
        self._mute = True
        return messages

    def _reject_unsettled(self) -> None:
        error = RpcError("a promise that was passed in a batch had not settled when it was sent: await it first")
        for export_id, export in list(self._exports.items()):
            if export.resolving and not export.answered:
                self._send_answer(export_id, export, "reject", error, None)

    def input_ended(self, unanswered: BaseException, late: BaseException) -> None:
        """The peer says nothing more. What goes on here goes on.

        Args:
            unanswered: what everything that waits for the peer fails with.
            late: what everything fails with that is asked of it from now on.
        """
        self._unanswerable = late
        for entry in list(self._imports.values()):
            if entry.pulled and entry.resolution is None:
                # Should the call still wait to be written, it goes without being pulled.
                entry.pulled = False
                self._resolve_import(entry, ErrorHook(unanswered))

    def send_call(self, target: Import, path: Path, arguments: Payload | None) -> Hook:
        if self._mute:
            assert self._unanswerable is not None, "it is set with the last messages"
            # Raised now: a call that nobody awaits would be lost without a word.
            raise fresh(self._unanswerable)
        return super().send_call(target, path, arguments)

    def send_pull(self, entry: Import) -> None:
        if entry.pulled:
            return
        if self._unanswerable is not None:
            self._resolve_import(entry, ErrorHook(self._unanswerable))
            return
        super().send_pull(entry)
        self._host.hurry()

    def _try_answer(self, export_id: int, export: _Export, hook: Hook) -> None:
        if not export.answered:
            super()._try_answer(export_id, export, hook)

    def _send(self, item: Any) -> None:
        if not self._mute:
            super()._send(item)
