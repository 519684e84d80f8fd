"""Where a package is not installed: whoever needs it is told which extra has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from proxying import ROOT

# Stands in for an environment without a package: importing it fails as it does there.
ABSENT: Final = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {absent!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Absent())
"""


def run(tmp_path: Path, absent: set[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in an environment where packages are absent."""
    (tmp_path / "sitecustomize.py").write_text(ABSENT.format(absent=absent))
    path = os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("module", ["capnweb_py.remote", "proxy_server.platform"])
def test_bindings_without_h11_name_the_extra(tmp_path: Path, module: str) -> None:
    ended = run(tmp_path, {"h11"}, "-c", f"import {module}")
    assert ended.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: bindings need the Python package 'h11': pip install 'capnweb-py[remote]', or [proxy] for"
        " platform_env"
    )


@pytest.mark.parametrize(("command", "extra"), [("serve", "proxy"), ("overlay", "proxy"), ("demo", "demo")])
def test_a_command_without_uvicorn_names_the_extra(tmp_path: Path, command: str, extra: str) -> None:
    ended = run(tmp_path, {"uvicorn"}, "-m", "proxy_server", command)
    assert ended.stderr == f"error: the proxy server needs the Python package 'uvicorn': install capnweb-py[{extra}]\n"
    assert ended.returncode == 2


PROGRAM: Final = """
import anyio
from proxy_server import platform_env

async def main():
    async with platform_env("capnweb.toml", connection_string="http://127.0.0.1:1/a-secret/") as env:
        await env.CACHE.put("k", "v")
        assert await env.CACHE.get("k") == "v"
        for name in ("DB", "OVER"):
            try:
                env[name]
            except RuntimeError as error:
                print(error)

anyio.run(main)
"""
CONFIG: Final = """
[bindings.CACHE]
type = "kv_namespace"
[bindings.DB]
type = "d1"
[bindings.OVER]
type = "d1"
remote = true
access = "read"
"""


def test_a_binding_whose_package_is_missing_keeps_no_program_from_starting(tmp_path: Path) -> None:
    (tmp_path / "capnweb.toml").write_text(CONFIG)
    ended = run(tmp_path, {"apsw"}, "-c", PROGRAM)
    assert ended.stderr == "capnweb.toml: not to be used here: DB, OVER: using one says why\n"
    assert ended.stdout.splitlines() == [
        f"the binding '{name}' cannot be used here: capnweb.toml: bindings.{name}.type: \"d1\" needs the Python package"
        ' "apsw": install capnweb-py[d1]'
        for name in ("DB", "OVER")
    ]
