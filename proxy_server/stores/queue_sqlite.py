"""Queues in SQLite: all queues of one file are one table, so that a message is moved to another queue in one step."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy_server.stores.queue import Clock, Delivered, Metrics, NewMessage, QueueRules, Retry, Settled, wall_clock
from proxy_server.stores.sqlite import SqliteFile

__all__ = ["SqliteQueue"]

# `due` is when a message may be delivered next, on lease or not; `stored` is when it came into this queue. Totals are
# kept as messages come and go: counting them all would make each send as slow as the backlog is long.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    id TEXT NOT NULL,
    sent INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS messages_id ON messages (queue, id);
CREATE INDEX IF NOT EXISTS messages_due ON messages (queue, due);
CREATE INDEX IF NOT EXISTS messages_attempts ON messages (queue, attempts);
CREATE INDEX IF NOT EXISTS messages_stored ON messages (queue, stored);
CREATE INDEX IF NOT EXISTS messages_sent ON messages (queue, sent);
CREATE TABLE IF NOT EXISTS totals (queue TEXT PRIMARY KEY, count INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS messages_came AFTER INSERT ON messages BEGIN
    INSERT INTO totals VALUES (new.queue, 1, length(new.body))
        ON CONFLICT (queue) DO UPDATE SET count = count + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS messages_went AFTER DELETE ON messages BEGIN
    UPDATE totals SET count = count - 1, bytes = bytes - length(old.body) WHERE queue = old.queue;
END;
CREATE TRIGGER IF NOT EXISTS messages_moved AFTER UPDATE OF queue ON messages BEGIN
    UPDATE totals SET count = count - 1, bytes = bytes - length(old.body) WHERE queue = old.queue;
    INSERT INTO totals VALUES (new.queue, 1, length(new.body))
        ON CONFLICT (queue) DO UPDATE SET count = count + 1, bytes = bytes + excluded.bytes;
END;
"""


class SqliteQueue:
    """One queue of a file. Made by `open`."""

    def __init__(self, file: SqliteFile, rules: QueueRules, clock: Clock) -> None:
        self._file = file
        self._rules = rules
        self._clock = clock

    @classmethod
    async def open(cls, path: Path, rules: QueueRules, clock: Clock = wall_clock) -> SqliteQueue:
        """Open a queue in a file, which is made where it is not there.

        Raises:
            OSError: if the file's folder cannot be made.
            sqlite3.Error: if the file cannot be opened, or is no database.
        """
        return cls(await SqliteFile.open(path, _SCHEMA), rules, clock)

    async def send(self, messages: Sequence[NewMessage]) -> Metrics:
        now = self._clock()
        rows = [
            (secrets.token_hex(16), now + message.delay * 1000, message.content_type, message.body)
            for message in messages
        ]

        def insert(connection: sqlite3.Connection) -> Metrics:
            connection.executemany(
                "INSERT INTO messages (queue, sent, stored, attempts, id, due, content_type, body)"
                " VALUES (?, ?, ?, 0, ?, ?, ?, ?)",
                [(self._rules.name, now, now, *row) for row in rows],
            )
            return self._measured(connection)

        return await self._file.run(insert)

    async def pull(self, limit: int, visibility: int) -> list[Delivered]:
        now = self._clock()

        def lease(connection: sqlite3.Connection) -> list[Delivered]:
            self._forget_old(connection, now)
            self._bury(connection, now)
            rows = connection.execute(
                "UPDATE messages SET due = ?, attempts = attempts + 1 WHERE sequence IN"
                " (SELECT sequence FROM messages WHERE queue = ? AND due <= ? ORDER BY due, sequence LIMIT ?)"
                " RETURNING sequence, id, sent, attempts, body, content_type",
                (now + visibility, self._rules.name, now, limit),
            ).fetchall()
            return [
                Delivered(name, f"{name}.{attempts}", sent, attempts, body, content_type)
                for _, name, sent, attempts, body, content_type in sorted(rows)
            ]

        return await self._file.run(lease)

    async def settle(self, acks: Sequence[str], retries: Sequence[Retry]) -> Settled:
        now = self._clock()

        def end_leases(connection: sqlite3.Connection) -> Settled:
            acked = [lease for lease in acks if self._delete(connection, lease)]
            retried = [retry.lease for retry in retries if self._give_back(connection, retry, now)]
            self._bury(connection, now)
            done = {*acked, *retried}
            asked = [*acks, *(retry.lease for retry in retries)]
            return Settled(len(acked), len(retried), tuple(lease for lease in asked if lease not in done))

        return await self._file.run(end_leases)

    async def metrics(self) -> Metrics:
        return await self._file.read(self._measured)

    async def aclose(self) -> None:
        await self._file.aclose()

    def _delete(self, connection: sqlite3.Connection, lease: str) -> bool:
        name = lease.partition(".")[0]
        deleted = connection.execute("DELETE FROM messages WHERE queue = ? AND id = ?", (self._rules.name, name))
        return deleted.rowcount > 0

    def _give_back(self, connection: sqlite3.Connection, retry: Retry, now: int) -> bool:
        name, _, attempts = retry.lease.partition(".")
        updated = connection.execute(
            "UPDATE messages SET due = CASE WHEN attempts > ? THEN ? ELSE ? END"
            " WHERE queue = ? AND id = ? AND attempts = ?",
            (self._rules.max_retries, now, now + retry.delay * 1000, self._rules.name, name, attempts),
        )
        return updated.rowcount > 0

    def _bury(self, connection: sqlite3.Connection, now: int) -> None:
        """Take away what is due, and was delivered as often as it may be."""
        # By this index only messages on their last lease are looked at, however many others are due.
        by = "INDEXED BY messages_attempts"
        where = "queue = ? AND due <= ? AND attempts > ?"
        values = (self._rules.name, now, self._rules.max_retries)
        if self._rules.dead_letter_queue is None:
            connection.execute(f"DELETE FROM messages {by} WHERE {where}", values)
        else:
            connection.execute(
                f"UPDATE messages {by} SET queue = ?, stored = ?, due = ?, attempts = 0 WHERE {where}",
                (self._rules.dead_letter_queue, now, now, *values),
            )

    def _forget_old(self, connection: sqlite3.Connection, now: int) -> None:
        connection.execute(
            "DELETE FROM messages WHERE queue = ? AND stored <= ?",
            (self._rules.name, now - self._rules.retention * 1000),
        )

    def _measured(self, connection: sqlite3.Connection) -> Metrics:
        name = self._rules.name
        total = connection.execute("SELECT count, bytes FROM totals WHERE queue = ?", (name,)).fetchone() or (0, 0)
        oldest = connection.execute("SELECT coalesce(min(sent), 0) FROM messages WHERE queue = ?", (name,)).fetchone()
        return Metrics(*total, *oldest)
