"""The pytest plugin: each test is a run of pytest over a project of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Final

import pytest
from proxying import ROOT

PLUGINS: Final = ("anyio.pytest_plugin", "proxy_server.pytest_plugin")

CONFIG: Final = """
    [bindings.NOTES]
    type = "notes"
    [bindings.SVC]
    type = "service"
    target = "own_service:Own"
"""
SERVICE: Final = """
    from capnweb_py import RpcTarget

    class Own(RpcTarget):
        def hello(self, name):
            return f"Hello, {name}!"
"""
# Makes the type of the tests' own binding known in the run.
CONFTEST: Final = """
    import pytest
    from notes import known_type

    @pytest.fixture(autouse=True)
    def _notes():
        with known_type():
            yield
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path / "own_service.py", SERVICE)
    write(tmp_path / "conftest.py", CONFTEST)
    write(tmp_path / "capnweb.toml", CONFIG)
    write(tmp_path / "pytest.ini", "[pytest]")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(textwrap.dedent(text))


def run(project: Path, tests: str, *, ini: str = "") -> str:
    """What pytest says of the tests of a project."""
    write(project / "test_project.py", tests)
    if ini:
        write(project / "pytest.ini", f"[pytest]\n{ini}\n")
    plugins = [argument for plugin in PLUGINS for argument in ("-p", plugin)]
    # Without the plugins of the environment that these tests run in, and without its proxy.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"}
    environment.pop("CAPNWEB_PROXY", None)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *plugins, project],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    ).stdout


def test_the_env_is_that_of_the_project_on_both_loops(project: Path) -> None:
    tests = """
        import pytest
        pytestmark = pytest.mark.anyio

        async def test_bindings(env):
            assert await env.SVC.hello("World") == "Hello, World!"
            assert dir(env) == ["NOTES", "SVC"]
    """
    assert "2 passed" in run(project, tests)


def test_stores_are_fresh_for_each_test(project: Path) -> None:
    tests = """
        import pytest
        pytestmark = pytest.mark.anyio

        @pytest.mark.parametrize("number", range(3))
        async def test_nothing_is_there_before(env, number):
            with pytest.raises(Exception, match="No such file"):
                await env.NOTES.get("one")
            await env.NOTES.put("one", "1")
            assert await env.NOTES.get("one") == "1"
    """
    assert "6 passed" in run(project, tests)
    assert not (project / ".capnweb").exists()


def test_fixtures_may_use_the_env(project: Path) -> None:
    tests = """
        import pytest
        pytestmark = pytest.mark.anyio

        @pytest.fixture
        async def noted(env):
            await env.NOTES.put("one", "1")
            return env

        async def test_it_is_the_same_env(noted, env):
            assert noted is env
            assert await env.NOTES.get("one") == "1"
    """
    assert "2 passed" in run(project, tests)


def test_a_project_may_give_services_of_its_own(project: Path) -> None:
    tests = """
        import pytest
        from capnweb_py import RpcTarget
        pytestmark = pytest.mark.anyio

        class Fake(RpcTarget):
            def hello(self, name):
                return f"No, {name}!"

        @pytest.fixture
        def capnweb_services():
            return {"SVC": Fake}

        async def test_it_is_the_fake(env):
            assert await env.SVC.hello("World") == "No, World!"
    """
    assert "2 passed" in run(project, tests)


REMOTE: Final = """
    import pytest
    pytestmark = pytest.mark.anyio

    async def test_it_is_here(env):
        await env.NOTES.put("one", "1")
"""


def test_nothing_remote_is_reached_unless_that_is_asked_for(project: Path) -> None:
    write(
        project / "capnweb.toml",
        """
        [remote]
        connection_string = "http://127.0.0.1:9/secret/"
        [bindings.NOTES]
        type = "notes"
        remote = true
        """,
    )
    assert "2 passed" in run(project, REMOTE)
    asked = run(project, REMOTE, ini="capnweb_remote = true")
    assert "2 failed" in asked
    assert "the binding 'NOTES' of the proxy at 127.0.0.1:9 cannot be reached" in asked


def test_the_configuration_may_be_named(project: Path) -> None:
    (project / "config").mkdir()
    write(
        project / "config" / "wrangler.jsonc",
        '{"env": {"staging": {"services": [{"binding": "SVC", "service": "svc"}]}},'
        ' "capnweb": {"bindings": {"SVC": {"target": "tests.services:Service"}}}}',
    )
    tests = """
        import pytest
        pytestmark = pytest.mark.anyio

        async def test_bindings(env):
            assert dir(env) == ["SVC"]
    """
    ini = "capnweb_config = config/wrangler.jsonc\ncapnweb_environment = staging"
    assert "2 passed" in run(project, tests, ini=ini)


def test_a_wrangler_file_beside_the_tests_is_found(project: Path) -> None:
    (project / "capnweb.toml").unlink()
    write(project / "wrangler.toml", '[images]\nbinding = "IMAGES"')
    tests = """
        import pytest
        pytestmark = pytest.mark.anyio

        async def test_bindings(env):
            assert dir(env) == ["IMAGES"]
    """
    assert "2 passed" in run(project, tests)


def test_a_remote_service_that_is_nothing_here_says_what_a_test_can_do(project: Path) -> None:
    (project / "capnweb.toml").unlink()
    write(project / "wrangler.jsonc", '{"services": [{"binding": "AUTH", "service": "auth", "remote": true}]}')
    tests = """
        import pytest
        pytestmark = pytest.mark.anyio

        async def test_it(env):
            await env.AUTH.hello()
    """
    said = run(project, tests)
    assert "2 failed" in said
    for remedy in (
        "capnweb_remote = true",
        'add {"capnweb": {"bindings": {"AUTH": {"target": "module:Class"}}}}',
        "in pytest the fixture capnweb_services",
    ):
        assert remedy in said
    given = """
        import pytest
        from own_service import Own
        pytestmark = pytest.mark.anyio

        @pytest.fixture
        def capnweb_services():
            return {"AUTH": Own}

        async def test_it(env):
            assert await env.AUTH.hello("World") == "Hello, World!"
    """
    assert "2 passed" in run(project, given)


def test_a_project_without_a_configuration_is_told_where_it_belongs(project: Path) -> None:
    (project / "capnweb.toml").unlink()
    said = run(project, REMOTE)
    assert "the fixture env needs a configuration: capnweb.toml, wrangler.json" in said


def test_pytest_finds_the_plugin_by_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    plugin = importlib.import_module(project["entry-points"]["pytest11"]["capnweb"])
    assert callable(plugin.pytest_addoption)


def test_a_run_that_does_not_use_the_env_imports_nothing_of_it(project: Path) -> None:
    (project / "conftest.py").unlink()
    tests = """
        import sys

        def test_nothing_was_imported():
            assert "proxy_server.platform" not in sys.modules
            assert "capnweb_py" not in sys.modules
    """
    assert "1 passed" in run(project, tests)
