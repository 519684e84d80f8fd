"""The command line: what it prints where, how it stops, and that a mistake is one line and exit code 2."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import httpx2
import pytest
from proxying import ROOT, SECRET, command, serving, start

PLAIN = '[bindings.S]\ntype = "fetcher"\nurl = "http://127.0.0.1:1"\n'
FIXED = f'[server]\nsecret = "{SECRET}"\n'
STREAM = """
import anyio
from capnweb_py.target import RpcTarget
from capnweb_py.web import Response

class Endless(RpcTarget):
    def fetch(self, request):
        return Response(self._chunks())

    async def _chunks(self):
        yield b"first"
        await anyio.sleep_forever()
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "capnweb.toml"
    path.write_text(text)
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_serve_prints_the_connection_string_alone(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("serve", write(tmp_path, FIXED), "--port", "0"), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    url = process.stdout.readline().removesuffix("\n")
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith(f"/{SECRET}/")
    assert httpx2.get(url).status_code == 400
    process.terminate()
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 0


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_gracefully(tmp_path: Path, stop: signal.Signals) -> None:
    server = start(write(tmp_path, PLAIN))
    server.process.send_signal(stop)
    assert server.ended() == ("", "")
    assert server.process.returncode == 0


def test_a_response_without_end_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(STREAM)
    server = start(write(tmp_path, '[bindings.S]\ntype = "service"\ntarget = "endless:Endless"\n'))
    with httpx2.stream("GET", server.url, headers={"MF-Binding": "S"}) as response:
        assert next(response.iter_raw()) == b"first"
        server.process.terminate()
        server.process.wait(timeout=60)
    assert server.ended()[0] == ""
    assert server.process.returncode == 0


def test_the_secret_is_fresh_at_each_start(tmp_path: Path) -> None:
    config = write(tmp_path, PLAIN)
    with serving(config) as first, serving(config) as second:
        assert first.url.split("/")[3] != second.url.split("/")[3]


def test_a_server_without_bindings_says_so(tmp_path: Path) -> None:
    config = write(tmp_path, "[bindings]\n")
    server = start(config)
    server.process.terminate()
    assert server.ended()[1] == f"warning: {config} declares no bindings: there is nothing to use here\n"


def test_a_binding_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    config = write(tmp_path, '[server]\nstate_dir = "/proc/none"\n[bindings.CACHE]\ntype = "kv_namespace"\n')
    ended = run("serve", config, "--port", "0")
    assert ended.stdout == ""
    assert ended.stderr.startswith('error: the binding "CACHE" cannot be opened: ')
    assert ended.stderr.count("\n") == 1
    assert ended.returncode == 2


def test_a_mistake_in_the_configuration_is_one_line(tmp_path: Path) -> None:
    config = write(tmp_path, '[bindings.S]\ntype = "service"\ntarget = "nowhere:X"\n')
    result = run("serve", config)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f'error: {config}: bindings.S.target: "nowhere:X" cannot be imported: '
        'there is no module "nowhere" on the path or beside the file\n'
    )


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", write(tmp_path, PLAIN), "--port", str(port))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: cannot listen on 127.0.0.1 port {port}: Address already in use: "
        "choose another one with --port, or 0 for any free one\n"
    )


def test_a_host_that_is_none_is_one_line(tmp_path: Path) -> None:
    result = run("serve", write(tmp_path, PLAIN), "--host", "no host")
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot listen on no host port 8787: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    result = run("serve", write(tmp_path, PLAIN), f"--port={port}")
    assert result.returncode == 2
    assert f"'{port}' is no port: 0 to 65535 are" in result.stderr


def test_listening_for_other_machines_is_warned_about(tmp_path: Path) -> None:
    with serving(write(tmp_path, PLAIN), "--host", "0.0.0.0") as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert "warning: 0.0.0.0 can be reached from other machines" in server.said()


def test_it_serves_no_more_connections_than_the_configuration_says(tmp_path: Path) -> None:
    with serving(write(tmp_path, FIXED + "max_connections = 1\n")) as server:
        address = httpx2.URL(server.url)
        with socket.create_connection((address.host, address.port)):
            # Whether it has come to the server is not seen from here.
            while (answer := httpx2.get(server.url)).status_code == 400:
                pass
        assert answer.text == "there are max_connections = 1 connections to this server already"
        while httpx2.get(server.url).status_code == 503:
            pass


def test_it_waits_for_a_request_as_long_as_the_configuration_says(tmp_path: Path) -> None:
    with serving(write(tmp_path, FIXED + "head_timeout = 1\n")) as server:
        address = httpx2.URL(server.url)
        with socket.create_connection((address.host, address.port), timeout=60) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: a")
            assert slow.recv(1) == b""
