"""Hosted images and drafts as rows of a SQLite database: each function is one piece of work on its connection.

An image has the name of its file in its row; a draft has none yet, and is in a table of its own. No id is in both.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from typing import Final

from proxy_server.stores.images import Changes, Condition, Draft, HostedImage, Selection

__all__ = [
    "SCHEMA",
    "change",
    "find",
    "find_draft",
    "find_file",
    "has_file",
    "insert",
    "insert_draft",
    "known_signing_key",
    "promote",
    "remove",
    "search",
    "signing_key",
]

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY,
    uploaded INTEGER NOT NULL,
    filename TEXT NOT NULL,
    require_signed_urls INTEGER NOT NULL,
    meta TEXT NOT NULL,
    creator TEXT,
    file TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS images_in_order ON images (uploaded, id);
CREATE TABLE IF NOT EXISTS drafts (
    id TEXT PRIMARY KEY,
    uploaded INTEGER NOT NULL,
    filename TEXT,
    require_signed_urls INTEGER NOT NULL,
    meta TEXT NOT NULL,
    creator TEXT,
    ticket TEXT NOT NULL UNIQUE,
    expires INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS signing (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL) STRICT;
"""

_OPERATORS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

_COLUMNS: Final = "id, uploaded, filename, require_signed_urls, meta, creator"

_KEY_BYTES: Final = 32

_Row = tuple[str, int, str | None, int, str, str | None]


def insert(connection: sqlite3.Connection, image: HostedImage, file_name: str) -> bool:
    """Add an image, if its id is free."""
    if _is_drafted(connection, image.id):
        return False
    statement = f"INSERT INTO images ({_COLUMNS}, file) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
    return connection.execute(statement, (*_row(image), file_name)).rowcount == 1


def insert_draft(connection: sqlite3.Connection, draft: Draft) -> bool:
    """Add a draft, if its id is free."""
    taken = connection.execute("SELECT 1 FROM images WHERE id = ?", (draft.image.id,)).fetchone() is not None
    if taken or _is_drafted(connection, draft.image.id):
        return False
    statement = f"INSERT INTO drafts ({_COLUMNS}, ticket, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    connection.execute(statement, (*_row(draft.image), draft.ticket, draft.expires))
    return True


def _is_drafted(connection: sqlite3.Connection, image_id: str) -> bool:
    """Whether an id is that of a draft. Those that have expired make room."""
    connection.execute("DELETE FROM drafts WHERE expires <= ?", (_now(),))
    return connection.execute("SELECT 1 FROM drafts WHERE id = ?", (image_id,)).fetchone() is not None


def find_draft(connection: sqlite3.Connection, ticket: str) -> HostedImage | None:
    """The draft of a ticket."""
    query = f"SELECT {_COLUMNS} FROM drafts WHERE ticket = ? AND expires > ?"
    return _image(connection.execute(query, (ticket, _now())).fetchone(), draft=True)


def promote(
    connection: sqlite3.Connection, ticket: str, filename: str, uploaded: int, file_name: str
) -> HostedImage | None:
    """Make the draft of a ticket an image."""
    if find_draft(connection, ticket) is None:
        return None
    connection.execute(
        "INSERT INTO images SELECT id, ?, ?, require_signed_urls, meta, creator, ? FROM drafts WHERE ticket = ?",
        (uploaded, filename, file_name, ticket),
    )
    promoted = connection.execute("DELETE FROM drafts WHERE ticket = ? RETURNING id", (ticket,)).fetchall()
    return find(connection, promoted[0][0])


def find(connection: sqlite3.Connection, image_id: str) -> HostedImage | None:
    """An image or a draft."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM images WHERE id = ?", (image_id,)).fetchone()
    if row is not None:
        return _image(row)
    query = f"SELECT {_COLUMNS} FROM drafts WHERE id = ? AND expires > ?"
    return _image(connection.execute(query, (image_id, _now())).fetchone(), draft=True)


def find_file(connection: sqlite3.Connection, image_id: str) -> str | None:
    """The name of an image's file."""
    found = connection.execute("SELECT file FROM images WHERE id = ?", (image_id,)).fetchone()
    return None if found is None else found[0]


def has_file(connection: sqlite3.Connection, file_name: str) -> bool:
    """Whether a file is that of an image."""
    return connection.execute("SELECT 1 FROM images WHERE file = ?", (file_name,)).fetchone() is not None


def change(connection: sqlite3.Connection, image_id: str, changes: Changes) -> HostedImage | None:
    """Change an image or a draft."""
    assignments: dict[str, object] = {}
    if changes.require_signed_urls is not None:
        assignments["require_signed_urls"] = int(changes.require_signed_urls)
    if changes.meta is not None:
        assignments["meta"] = _json(changes.meta)
    if changes.creator is not None:
        assignments["creator"] = changes.creator
    if assignments:
        settings = ", ".join(f"{column} = ?" for column in assignments)
        for table in ("images", "drafts"):
            connection.execute(f"UPDATE {table} SET {settings} WHERE id = ?", (*assignments.values(), image_id))
    return find(connection, image_id)


def remove(connection: sqlite3.Connection, image_id: str) -> tuple[bool, str | None]:
    """Remove an image or a draft. Whether there was one, and the name of its file."""
    gone = connection.execute("DELETE FROM images WHERE id = ? RETURNING file", (image_id,)).fetchall()
    if gone:
        return True, gone[0][0]
    drafts = connection.execute("DELETE FROM drafts WHERE id = ? AND expires > ?", (image_id, _now())).rowcount
    return drafts == 1, None


def search(connection: sqlite3.Connection, selection: Selection) -> list[HostedImage]:
    """Some of the images."""
    conditions: list[str] = []
    values: list[object] = []
    if selection.after is not None:
        conditions.append(f"(uploaded, id) {'<' if selection.newest_first else '>'} (?, ?)")
        values += [selection.after.uploaded, selection.after.id]
    if selection.creator is not None:
        conditions.append("creator = ?")
        values.append(selection.creator)
    for condition in selection.conditions:
        clause, operands = _clause(condition)
        conditions.append(clause)
        values += operands
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    order = "DESC" if selection.newest_first else "ASC"
    query = f"SELECT {_COLUMNS} FROM images {where} ORDER BY uploaded {order}, id {order} LIMIT ?"
    rows = connection.execute(query, (*values, selection.limit)).fetchall()
    return [image for row in rows if (image := _image(row)) is not None]


def signing_key(connection: sqlite3.Connection) -> bytes:
    """The key of this database, which is made when it is first asked for."""
    connection.execute("INSERT OR IGNORE INTO signing VALUES (1, ?)", (secrets.token_bytes(_KEY_BYTES),))
    key: bytes = connection.execute("SELECT key FROM signing").fetchone()[0]
    return key


def known_signing_key(connection: sqlite3.Connection) -> bytes | None:
    """The key of this database, if it was made."""
    found = connection.execute("SELECT key FROM signing").fetchone()
    return None if found is None else found[0]


def _image(row: _Row | None, *, draft: bool = False) -> HostedImage | None:
    if row is None:
        return None
    image_id, uploaded, filename, require_signed_urls, meta, creator = row
    return HostedImage(image_id, uploaded, filename, bool(require_signed_urls), json.loads(meta), creator, draft)


def _row(image: HostedImage) -> _Row:
    signed = int(image.require_signed_urls)
    return image.id, image.uploaded, image.filename, signed, _json(image.meta), image.creator


def _clause(condition: Condition) -> tuple[str, list[object]]:
    """A condition as SQL, and the values of its placeholders."""
    path = "".join(["$", *(f'."{name}"' for name in condition.path)])
    first = condition.values[0]
    if isinstance(first, bool):
        return "json_type(meta, ?) = ?", [path, "true" if first else "false"]
    types = "('text')" if isinstance(first, str) else "('integer', 'real')"
    comparison = f"IN ({', '.join('?' * len(condition.values))})"
    if condition.operator != "in":
        comparison = f"{_OPERATORS[condition.operator]} ?"
    clause = f"json_type(meta, ?) IN {types} AND json_extract(meta, ?) {comparison}"
    return clause, [path, path, *condition.values]


def _json(meta: object) -> str:
    return json.dumps(meta, separators=(",", ":"))


def _now() -> int:
    return time.time_ns() // 1_000_000
