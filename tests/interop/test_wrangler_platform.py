"""Wrangler's own `getPlatformProxy` and `platform_env`, over the same files: the same variables, and no binding that is
passed over in silence. It is the newer Wrangler of package.json: with older ones, files do not change what `vars` says
where secrets are required.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from proxy_server import platform_env

from .node import HERE

pytestmark = pytest.mark.anyio

# Quotes, comments, escapes and references as people write them.
TRICKY: Final = r"""
# comment
A=plain value # comment
B="double # no comment" # comment
C='single ${A} $A'
D=`back "tick" 'x'`
E=
export F=exported
G = spaced
H="new\nline \t tab \" quote"
I=${A}-x
J=$B
K=hash#inside
L="multi
line"
M: colon
N=${NOPE:-default}
O=\${A}
P="${A}"
Q=a=b=c
R='it''s'
CACHE=no binding
"""
VARIABLES: Final = """{
    "name": "worker",
    "compatibility_date": "2026-01-01",
    "kv_namespaces": [{"binding": "CACHE", "id": "0123"}],
    "vars": {"A": "config", "Z": {"list": [1, null, true]}},
    "env": {"staging": {"vars": {"A": "staging"}}},
}"""
SECRETS: Final = """{
    "name": "worker",
    "compatibility_date": "2026-01-01",
    "vars": {"A": "config"},
    "secrets": {"required": ["TOKEN", "OF_THE_PROCESS"]},
}"""
# Of each kind that Wrangler has a local form of.
BINDINGS: Final = """{
    "name": "worker",
    "compatibility_date": "2026-01-01",
    "kv_namespaces": [{"binding": "CACHE", "id": "0123"}],
    "r2_buckets": [{"binding": "ASSETS", "bucket_name": "assets"}],
    "d1_databases": [{"binding": "DB", "database_name": "app", "database_id": "89ab"}],
    "queues": {"producers": [{"binding": "JOBS", "queue": "jobs"}]},
    "send_email": [{"name": "MAIL"}],
    "images": {"binding": "IMAGES"},
    "version_metadata": {"binding": "VERSION"},
    "analytics_engine_datasets": [{"binding": "EVENTS", "dataset": "events"}],
    "durable_objects": {"bindings": [{"name": "COUNTER", "class_name": "Counter", "script_name": "other"}]},
    "secrets_store_secrets": [{"binding": "SECRET", "store_id": "s", "secret_name": "n"}],
    "ratelimits": [{"name": "RATE", "namespace_id": "1", "simple": {"limit": 1, "period": 10}}],
    "hyperdrive": [{"binding": "HYPER", "id": "h", "localConnectionString": "postgres://u:p@127.0.0.1:5432/db"}],
    "pipelines": [{"binding": "PIPE", "pipeline": "p"}],
    "vars": {"A": 1},
}"""

# Bindings that are plain objects to Node.
NO_VARIABLES: Final = {"IMAGES", "VERSION"}

# What lies in a project's folder, and the environment that is meant.
PROJECTS: Final[Mapping[str, tuple[Mapping[str, str], str | None]]] = {
    "dev vars": ({"wrangler.jsonc": VARIABLES, ".dev.vars": TRICKY, ".env": "A=passed over"}, None),
    "env files": ({"wrangler.jsonc": VARIABLES, ".env": TRICKY, ".env.local": "B=local\nS=${C}-$F"}, None),
    "an environment": (
        {"wrangler.jsonc": VARIABLES, ".env": "A=1\nB=1\nC=1", ".env.staging": "B=2", ".env.staging.local": "C=3"},
        "staging",
    ),
    "dev vars of an environment": (
        {"wrangler.jsonc": VARIABLES, ".dev.vars": "A=1\nB=1", ".dev.vars.staging": "B=2"},
        "staging",
    ),
    "required secrets": ({"wrangler.jsonc": SECRETS, ".env": "A=file\nTOKEN=t\nELSE=e"}, None),
    "bindings": ({"wrangler.jsonc": BINDINGS}, None),
}


@pytest.fixture(params=PROJECTS)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str | None]:
    files, environment = PROJECTS[request.param]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path / "wrangler.jsonc", environment


def wranglers(node: str, config: Path, environment: str | None) -> dict[str, Any]:
    """What getPlatformProxy gives."""
    arguments = [str(config)] if environment is None else [str(config), environment]
    home = str(config.parent)
    done = subprocess.run(
        [node, "platform.mjs", *arguments],
        cwd=HERE,
        env={**os.environ, "XDG_CONFIG_HOME": home, "WRANGLER_SEND_METRICS": "false", "OF_THE_PROCESS": "p"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    given: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return given


async def test_a_program_is_given_what_wrangler_gives_or_told_that_it_is_not(
    project: tuple[Path, str | None], node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_PROCESS", "p")
    config, environment = project
    theirs = wranglers(node, config, environment)
    async with platform_env(config, environment=environment) as env:
        values = {name: value for name, value in theirs["values"].items() if name not in NO_VARIABLES}
        assert {name: env[name] for name in values} == values
        assert set(dir(env)) - set(theirs["names"]) == set()
        for name in set(theirs["names"]) - set(dir(env)):
            with pytest.raises(RuntimeError, match=f"the binding '{name}' cannot be used here"):
                _ = env[name]
