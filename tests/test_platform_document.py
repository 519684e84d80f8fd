"""docs/platform_env.md is true: its files are valid, its programs run, its table has the keys of all that is here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from proxying import ROOT

from proxy_server.config import read_document
from proxy_server.wrangler_kinds import KINDS, OTHER_KEYS

PAGE: Final = (ROOT / "docs" / "platform_env.md").read_text()
AUTH: Final = """
from capnweb_py import RpcTarget


class Auth(RpcTarget):
    async def hello(self, name):
        return f"Hello, {name}!"
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the page's Wrangler file, and the package that it names."""
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "auth.py").write_text(AUTH)
    (tmp_path / "wrangler.jsonc").write_text(blocks("jsonc")[0])
    return tmp_path


def run(project: Path, *arguments: str) -> str:
    """What a program of the project prints."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout


def test_the_first_program_runs_with_the_files_of_the_page(project: Path) -> None:
    (project / "main.py").write_text(blocks("python")[0])
    assert run(project, "main.py") == "Hello, World!\n"


def test_the_tests_of_the_page_run(project: Path) -> None:
    _, _, test, fixture = blocks("python")
    (project / "test_greeting.py").write_text(test)
    plugins = [
        argument for plugin in ("anyio.pytest_plugin", "proxy_server.pytest_plugin") for argument in ("-p", plugin)
    ]
    arguments = ("-m", "pytest", "-p", "no:cacheprovider", *plugins)
    assert "2 passed" in run(project, *arguments)
    (project / "conftest.py").write_text(fixture)
    assert "No, World!" in run(project, *arguments), "the fake is used, and the test is not for it"


def test_the_toml_file_is_valid(tmp_path: Path) -> None:
    (block,) = (text for text in blocks("toml") if "[server]" in text)
    config = tmp_path / "capnweb.toml"
    config.write_text(block)
    assert list(read_document(config).tables) == ["GREETER", "IMAGES"]


@pytest.mark.parametrize("key", [*(key for key, kind in KINDS.items() if kind.kind is not None), *OTHER_KEYS])
def test_every_key_of_which_there_is_something_here_is_named(key: str) -> None:
    assert re.search(rf"`{key}[.`]", PAGE)
