"""What the server writes to standard error: nobody from outside writes a line of its own, or fills a disk."""

from __future__ import annotations

import json
import logging
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from proxying import SECRET, serving

from proxy_server.logs import JsonFormatter, RedactingFormatter, Seldom

FORGED = "evil\nCRITICAL proxy_server: the disk is on fire \x1b[2J\r\x85\u2028\u202e:80"
ESCAPED = r"evil\nCRITICAL proxy_server: the disk is on fire \x1b[2J\r\x85\u2028\u202e:80"


def record(message: str, *arguments: object, logger: str = "proxy_server") -> logging.LogRecord:
    return logging.LogRecord(logger, logging.WARNING, "", 0, message, arguments, None)


def test_what_is_not_printable_is_escaped() -> None:
    line = RedactingFormatter(SECRET).format(record("no connection: %s", FORGED))
    assert line == f"WARNING proxy_server: no connection: {ESCAPED}"


def test_what_is_printable_is_written_as_it_is() -> None:
    line = RedactingFormatter(SECRET).format(record("the queue %s", "für Zoë, 猫 'x' \\"))
    assert line == "WARNING proxy_server: the queue für Zoë, 猫 'x' \\"


def test_a_traceback_has_no_line_that_could_be_a_record() -> None:
    failed = record("it failed", logger="a_program")
    try:
        raise ValueError(FORGED)
    except ValueError:
        failed.exc_info = sys.exc_info()
    first, *others = RedactingFormatter(SECRET).format(failed).split("\n")
    assert first == "WARNING a_program: it failed"
    assert all(line.startswith("  ") and line.isprintable() for line in others)


def test_an_object_is_one_line() -> None:
    line = JsonFormatter(SECRET).format(record("no connection: %s", FORGED))
    assert line.isprintable()
    assert json.loads(line)["message"] == f"no connection: {FORGED}"


def test_one_message_comes_ten_times_in_a_minute() -> None:
    now = 0.0
    seldom = Seldom(lambda: now)
    assert [seldom.filter(record("invalid: %s", number)) for number in range(13)] == [True] * 10 + [False] * 3
    assert seldom.filter(record("another"))
    now = 60.0
    later, next_one = record("invalid: %s", 13), record("invalid: %s", 14)
    assert seldom.filter(later)
    assert seldom.filter(next_one)
    assert [later.getMessage(), next_one.getMessage()] == ["invalid: 13 (3 more were left out)", "invalid: 14"]


@pytest.mark.parametrize(
    "request_",
    [
        b"\x1b[31mnonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close, upgrade\r\nupgrade: h2c\r\n\r\n",
    ],
    ids=["invalid", "upgrade"],
)
def test_a_stranger_writes_ten_lines(tmp_path: Path, request_: bytes) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.KV]\ntype = "kv_namespace"\n')
    with serving(config) as server:
        address = urlsplit(server.url)
        for _ in range(25):
            with socket.create_connection((address.hostname, address.port), timeout=10) as client:
                client.sendall(request_)
                assert client.recv(100).startswith(b"HTTP/1.1 40")
    lines = server.said().splitlines()
    assert len([line for line in lines if "uvicorn" in line]) == 10
    assert all(line.isprintable() for line in lines)
