"""A real PostgreSQL on loopback for tests: Debian's, with a data directory of its own, under a user without rights."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

USER: Final = "tester"
PASSWORD: Final = "only-for-tests"

# Seconds that it may take to stop.
PATIENCE: Final = 60


@attrs.frozen
class Postgres:
    """A server with the user and the database "tester", who needs PASSWORD over TCP."""

    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connection_string(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@{self.address}/{USER}"


def _programs() -> Path:
    """Where initdb and postgres are. Without them the test is skipped, or fails where they must be there (CI=true)."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    problem = "these tests need PostgreSQL: apt-get install postgresql"
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server for the length of a block."""
    programs = _programs()
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    # It refuses to run as root.
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        unprivileged = pwd.getpwnam("postgres")
        account = {"user": unprivileged.pw_uid, "group": unprivileged.pw_gid, "extra_groups": []}
        os.chown(directory, unprivileged.pw_uid, unprivileged.pw_gid)
    password = directory / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    data = directory / "data"
    try:
        initdb = [programs / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "-N"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=directory, **account)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        settings = ["listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=off"]
        options = [part for setting in settings for part in ("-c", setting)]
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *options],
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            env={**os.environ, "LC_ALL": "C"},
            **account,
        )
        try:
            _wait_until_ready(server)
            subprocess.run(
                [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", USER, USER],
                check=True,
                env={**os.environ, "PGPASSWORD": PASSWORD},
            )
            yield Postgres(port)
        finally:
            # "Fast shutdown": it ends its connections.
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=PATIENCE)
    finally:
        shutil.rmtree(directory)


def _wait_until_ready(server: subprocess.Popen[str]) -> None:
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "ready to accept connections" in line:
            return
    pytest.fail(f"PostgreSQL did not start: {''.join(said)}")
