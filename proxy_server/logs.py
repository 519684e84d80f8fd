"""What the server writes to standard error: lines for people, or JSON objects, and in neither a secret or a value.

What an exception says may hold what the program works with. So of an exception of the server's own logs there is its
type alone, unless everything is logged that helps to find an error (the level "debug").
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["LEVELS", "JsonFormatter", "RedactingFormatter", "log_to_stderr"]

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


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of uvicorn is worth a line."""
    return record.msg not in _NO_NEWS


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


def _tells_all(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] not in _OWN or logging.getLogger().isEnabledFor(logging.DEBUG)
