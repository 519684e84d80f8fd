"""SQL as text: where one statement of several ends, and which statements certainly only read.

Nothing here parses SQL: strings, quoted names and comments are told from the rest, which is enough for both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from .d1 import MAX_SQL_BYTES, MAX_STATEMENTS, NO_STATEMENT, D1Failure, Statement

__all__ = ["only_reads", "pieces", "quoted", "split", "without_blanks"]

# SQLite's tokens (sqlite.org/lang_expr.html, lang_comment.html) as far as a semicolon or a keyword can hide in them.
# One that does not end goes on to the end of the text.
_TOKEN: Final = re.compile(
    r"""(?P<comment>--[^\n]*|/\*(?:.*?\*/|.*\Z))"""
    r"""|(?P<quoted>'(?:[^']++|'')*+(?:'|\Z)|"(?:[^"]++|"")*+(?:"|\Z)|`(?:[^`]++|``)*+(?:`|\Z)|\[[^\]]*+(?:\]|\Z))"""
    r"""|(?P<variable>[$@#:](?:[\w$\x80-\U0010ffff]|::)+(?:\([^\s)]*\)?)?)"""
    r"""|(?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)"""
    r"""|(?P<end>;)|(?P<other>[^\s])""",
    re.DOTALL,
)

_TOO_LONG: Final = "statement too long: SQLITE_TOOBIG"

# The statements that only read, by their first word. PRAGMA has rules of its own.
_READING: Final = frozenset({"SELECT", "VALUES", "WITH", "EXPLAIN"})
# What makes one that begins with WITH, or follows EXPLAIN, write. REPLACE is also a function, before a parenthesis.
_WRITING: Final = frozenset({"INSERT", "UPDATE", "DELETE"})

# Pragmas that tell something, with or without a name in parentheses (sqlite.org/pragma.html).
_TELLING: Final = frozenset(
    {
        "DATA_VERSION",
        "FOREIGN_KEY_CHECK",
        "FOREIGN_KEY_LIST",
        "INDEX_INFO",
        "INDEX_LIST",
        "INDEX_XINFO",
        "PAGE_SIZE",
        "QUICK_CHECK",
        "TABLE_INFO",
        "TABLE_LIST",
        "TABLE_XINFO",
    }
)


def split(sql: str) -> Iterator[str]:
    """The statements of a text, each without its semicolon. White space alone is none; a comment alone is one."""
    start = 0
    reader = _Statement()
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "comment":
            continue
        if reader.ends_with(match):
            yield sql[start : match.start()]
            start, reader = match.end(), _Statement()
    if sql[start:].strip():
        yield sql[start:]


class _Statement:
    """Watches for the end of a statement. The body of a trigger has semicolons of its own: it goes on to the END that
    stands right between two (sqlite.org/c3ref/complete.html)."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._is_trigger = False
        # What the last two tokens were, as far as it matters.
        self._last = ("", "")

    def ends_with(self, token: re.Match[str]) -> bool:
        """Whether the next token is the semicolon at the end."""
        text = token[0].upper()
        over = text == ";" and (not self._is_trigger or self._last == (";", "END"))
        self._last = (self._last[1], text)
        if len(self._first) < 4 and text not in {"EXPLAIN", "TEMP", "TEMPORARY"}:
            self._first.append(text)
            self._is_trigger = self._first[:2] == ["CREATE", "TRIGGER"]
        return over


def pieces(sql: str) -> list[str]:
    """The statements of a text, which has at least one. What follows a NUL is none, as for SQLite.

    Raises:
        D1Failure: there is none, or the text is too long.
    """
    encoded = sql.encode("utf-8", "replace")
    if len(encoded) > MAX_SQL_BYTES:
        raise D1Failure(_TOO_LONG)
    text, nul, _rest = encoded.decode().partition("\0")
    found = [*split(text), *([""] if nul else [])]
    if not found:
        raise D1Failure(NO_STATEMENT)
    return [found[0], *(piece.lstrip() for piece in found[1:])]


def _is_blank(sql: str) -> bool:
    """Whether there are only blank lines, and comments with something blank before them, as D1 drops them."""
    lines = [line.strip() for line in sql.splitlines()]
    return not any(lines) or (sql[0].isspace() and all(not line or line.startswith("--") for line in lines))


def without_blanks(statements: Sequence[Statement]) -> list[Statement]:
    """The statements in which there is something.

    Raises:
        D1Failure: there is none, or there are too many, or one is too long.
    """
    if len(statements) > MAX_STATEMENTS:
        raise D1Failure(f"a request has at most {MAX_STATEMENTS} statements, not {len(statements)}")
    if any(len(statement.sql) > MAX_SQL_BYTES for statement in statements):
        raise D1Failure(_TOO_LONG)  # before anybody looks at it
    found = [statement for statement in statements if not _is_blank(statement.sql)]
    if not found:
        raise D1Failure("No SQL statements detected.")
    return found


def only_reads(sql: str) -> bool:
    """Whether every statement of a text certainly only reads. In doubt it is said to write."""
    return all(_one_only_reads(statement) for statement in split(sql))


def _one_only_reads(statement: str) -> bool:
    tokens = [match for match in _TOKEN.finditer(statement) if match.lastgroup != "comment"]
    if not tokens:
        return True
    first = tokens[0][0].upper()
    if first == "PRAGMA":
        return _tells(statement, tokens)
    if first not in _READING:
        return False
    if first in {"SELECT", "VALUES"}:
        return True
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        word = token[0].upper()
        if token.lastgroup != "word":
            continue
        if word in _WRITING or (word == "REPLACE" and (after is None or after[0] != "(")):
            return False
    return first == "WITH" or _explains_a_query(tokens)


def _explains_a_query(tokens: list[re.Match[str]]) -> bool:
    words = [token[0].upper() for token in tokens[1:4]]
    subject = words[2:] if words[:2] == ["QUERY", "PLAN"] else words
    return subject[:1] in (["SELECT"], ["VALUES"], ["WITH"])


def _tells(statement: str, tokens: list[re.Match[str]]) -> bool:
    names = [token[0].upper() for token in tokens if token.lastgroup == "word"][1:]
    return bool(names) and names[0] in _TELLING and "=" not in (token[0] for token in tokens)


def quoted(name: str) -> str:
    """A name, in quotes."""
    return '"' + name.replace('"', '""') + '"'
