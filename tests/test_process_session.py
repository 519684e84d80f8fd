"""Sessions with worker processes over standard input and output, on every pair of event loops."""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from capnweb_py import RpcSession, SessionClosed, open_process_session

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="stdio_session needs pipes that can be waited for"),
]

WORKER = """
    import os, signal, subprocess, sys
    import anyio
    from capnweb_py import RpcTarget, stdio_session

    class Worker(RpcTarget):
        def echo(self, value):
            return value

        async def call(self, function):
            return await function(os.getpid())

        def print_all_over(self):
            print("printed")
            sys.stdout.write("without a newline")
            os.write(1, b"past Python")
            subprocess.run(["echo", "by a child"], check=True)
            return sys.stdin.read()

        async def sleep(self):
            await anyio.sleep_forever()

        def die(self):
            os.kill(os.getpid(), signal.SIGKILL)

        def exit_in_the_middle_of_a_message(self):
            os.write(answers, bytes([1, 0, 0, 0, 100]) + b"[")
            os._exit(3)

    answers = os.dup(1)

    async def main():
        async with stdio_session(Worker(), **{arguments!r}) as session:
            await session.wait_closed()
        print("ended:", session.end)

    anyio.run(main, backend={backend!r})
"""

STUBBORN = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ignores all", file=sys.stderr, flush=True)
    while True:
        time.sleep(1)
"""


def python(program: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program)]


@pytest.fixture(params=["asyncio", "trio"])
def worker_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@asynccontextmanager
async def worker(backend: str = "asyncio", **arguments: Any) -> AsyncIterator[RpcSession]:
    """A session with a worker, whose process is gone at the end."""
    command = python(WORKER.format(arguments=arguments, backend=backend))
    with anyio.fail_after(60):
        async with open_process_session(command, **arguments) as session:
            yield session
    check_gone(session)


def pid_of(session: RpcSession) -> int:
    """The process that a session calls its peer."""
    found = re.match(r"<RpcSession process (\d+)", repr(session))
    assert found is not None
    return int(found[1])


def check_gone(session: RpcSession) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid_of(session), 0)


@pytest.mark.parametrize(
    "arguments", [{}, {"codec": "cbor"}, {"framing": "newline"}], ids=["length", "cbor", "newline"]
)
async def test_a_session_with_a_worker(
    arguments: dict[str, Any], worker_backend: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with worker(worker_backend, **arguments) as session:
        api = session.remote_main
        value = ["a", b"\n\x00", {"b": [1.5, None]}, "x" * 1_000_000]
        assert await api.echo(value) == value
        assert await api.call(lambda pid: [pid]) == [pid_of(session)]
        calls = [api.echo(index) for index in range(200)]
        assert [await call for call in calls] == [*range(200)]
    # It exits by itself, and what it prints then goes to the standard error of all.
    assert capfd.readouterr().err == "ended: the peer closed the stream\n"


async def test_what_else_a_worker_prints_goes_to_standard_error(
    worker_backend: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with worker(worker_backend) as session:
        assert await session.remote_main.print_all_over() == ""
        assert await session.remote_main.echo("still speaking") == "still speaking"
    out, err = capfd.readouterr()
    assert out == ""
    for text in ("printed\n", "without a newline", "past Python", "by a child\n"):
        assert text in err


async def test_a_worker_that_is_killed_fails_what_is_pending(worker_backend: str) -> None:
    async with worker(worker_backend) as session:
        with pytest.raises(SessionClosed, match="the process was ended by signal 9: "):
            await session.remote_main.die()
        assert session.closed


async def test_a_worker_that_dies_in_the_middle_of_a_message(worker_backend: str) -> None:
    async with worker(worker_backend) as session:
        expected = "^the process exited with code 3: the peer closed the stream in the middle of a message$"
        with pytest.raises(SessionClosed, match=expected):
            await session.remote_main.exit_in_the_middle_of_a_message()


async def test_a_worker_is_killed_in_the_middle_of_a_call() -> None:
    async with worker() as session, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(SessionClosed, match=f"the process was ended by signal {signal.SIGKILL:d}"):
                await session.remote_main.sleep()

        tasks.start_soon(call)
        pid = await session.remote_main.call(lambda pid: pid)
        os.kill(pid, signal.SIGKILL)


async def test_a_program_that_exits_at_once_says_why() -> None:
    with anyio.fail_after(60):
        async with open_process_session(python("raise SystemExit(7)")) as session:
            with pytest.raises(SessionClosed, match="the process exited with code 7: "):
                await session.remote_main.hello()


async def test_a_program_that_says_something_else_is_told_so() -> None:
    with anyio.fail_after(60):
        async with open_process_session(python("print('hello'); input()")) as session:
            await session.wait_closed()
            assert "a message begins with the byte 104" in str(session.end)


async def test_a_program_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        async with open_process_session(["no-such-program-anywhere"]):
            pass


async def test_a_process_that_ends_neither_by_itself_nor_when_it_is_told_is_killed() -> None:
    with anyio.fail_after(60):
        began = time.monotonic()
        async with open_process_session(python(STUBBORN), exit_timeout=0.1) as session:
            pass
        assert time.monotonic() - began < 10
    check_gone(session)


@pytest.mark.parametrize("error", [KeyError, None], ids=["an exception", "cancellation"])
async def test_nothing_is_left_over_however_the_context_ends(error: type[Exception] | None) -> None:
    sessions: list[RpcSession] = []
    with anyio.CancelScope() as scope:
        try:
            async with open_process_session(python(WORKER.format(arguments={}, backend="asyncio"))) as session:
                sessions.append(session)
                session.remote_main.sleep().on_broken(lambda error: None)
                assert await session.remote_main.echo(1) == 1
                if error is not None:
                    raise error
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        except KeyError:
            assert error is KeyError
    assert scope.cancelled_caught == (error is None)
    check_gone(sessions[0])


async def test_the_directory_and_the_environment_are_those_that_are_asked_for(tmp_path: Path) -> None:
    program = WORKER.format(arguments={}, backend="asyncio").replace(
        "return value", "return [os.getcwd(), os.environ['X']]"
    )
    environment = {**os.environ, "X": "y", "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    with anyio.fail_after(60):
        async with open_process_session(python(program), cwd=tmp_path, env=environment) as session:
            assert await session.remote_main.echo(1) == [str(tmp_path), "y"]


async def test_lines_of_json_make_a_worker_a_filter() -> None:
    """What a shell does: a line of input is a call, and a line of output its answer."""
    command = python(WORKER.format(arguments={"framing": "newline"}, backend="asyncio"))
    line = b'["stream",["pipeline",0,["echo"],["from a shell"]]]\n'
    with anyio.fail_after(60):
        done = await anyio.run_process(command, input=line, stderr=None)
    assert done.stdout == b'["resolve",1,"from a shell"]\n'


async def test_a_worker_takes_files_too(tmp_path: Path) -> None:
    """A file is never waited for, and ends where it ends."""
    (tmp_path / "input").write_bytes(b'["stream",["pipeline",0,["echo"],[5]]]\n')
    command = python(WORKER.format(arguments={"framing": "newline"}, backend="trio"))
    with anyio.fail_after(60), (tmp_path / "input").open("rb") as source, (tmp_path / "output").open("wb") as output:
        await anyio.run_process(command, stdin=source, stdout=output, stderr=None)
    assert (tmp_path / "output").read_bytes() == b'["resolve",1,5]\n'
