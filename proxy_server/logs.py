"""What the server writes to standard error: lines for people, or JSON objects, and in neither a secret or a value.

What comes from outside begins no line of its own and speaks to no terminal: in lines for people, whatever is not
printable is escaped, and each line of a traceback is indented. And whoever can reach the port must not fill a disk with
what uvicorn has to say of each request.

What an exception says may hold what the program works with. So of an exception of the server's own logs there is its
type alone, unless everything is logged that helps to find an error (the level "debug").
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TypeAlias

from proxy_server.refusals import MAX_LINES, WINDOW

__all__ = ["LEVELS", "JsonFormatter", "RedactingFormatter", "Seldom", "log_to_stderr"]

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

# The levels, by the names that they have on the command line.
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# The loggers whose exceptions are told by their type. What a program's own loggers say is the program's matter.
_OWN: Final = ("proxy_server", "capnweb_py", "uvicorn")

# What records may have more, as dicts: of a call, and of a request that was refused.
_EXTRAS: Final = ("call", "refused")

# Of uvicorn's: it calls every handshake that was refused incomplete; and the command line says why nothing was started.
_NO_NEWS: Final = frozenset(
    {"ASGI callable returned without completing handshake.", "Application startup failed. Exiting."}
)


def log_to_stderr(secret: str, *, level: str = "warning", as_json: bool = False) -> None:
    """Write what is logged, from a level on, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(secret) if as_json else RedactingFormatter(secret))
    logging.basicConfig(level=LEVELS[level], handlers=[handler])
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    logging.getLogger("uvicorn.error").addFilter(Seldom())


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of uvicorn is worth a line."""
    return record.msg not in _NO_NEWS


class Seldom(logging.Filter):
    """Lets pass MAX_LINES of one message within WINDOW seconds. The next one says how many there would have been.

    Args:
        clock: what time it is, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        # By message, before its arguments are in it: since when, and how many.
        self._counted: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        since, count = self._counted.get(record.msg, (now, 0))
        left_out = 0
        if now - since >= WINDOW:
            since, count, left_out = now, 0, max(0, count - MAX_LINES)
        self._counted[record.msg] = since, count + 1
        if left_out:
            record.msg = f"{record.msg} ({left_out} more were left out)"
        return count < MAX_LINES


class RedactingFormatter(logging.Formatter):
    """A line for people, in which the secret never appears, whoever logs it."""

    def __init__(self, secret: str) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self._secret = secret

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info and record.exc_info[0] is not None and not _tells_all(record):
            text = f"{record.getMessage().rstrip()}: {record.exc_info[0].__name__}"
            record = logging.makeLogRecord(
                {**vars(record), "msg": text, "args": None, "exc_info": None, "exc_text": None}
            )
        return super().format(record).replace(self._secret, "<secret>")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _printable(record.message.rstrip())
        return super().formatMessage(record)

    def formatException(self, ei: _ExcInfo) -> str:
        return "\n".join(f"  {_printable(line)}" for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object in a line: time, level, logger and message, and what the record of a failed call, or of a
    refusal, has more."""

    def __init__(self, secret: str) -> None:
        super().__init__()
        self._secret = secret

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for extra in _EXTRAS:
            if isinstance(value := getattr(record, extra, None), dict):
                line[extra] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            if _tells_all(record):
                line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str).replace(self._secret, "<secret>")


def _printable(text: str) -> str:
    """A text with what is not printable in the way of Python's literals."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _tells_all(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] not in _OWN or logging.getLogger().isEnabledFor(logging.DEBUG)
