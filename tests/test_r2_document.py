"""The examples of docs/bindings/r2.md run, in the order in which they stand."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from proxying import ROOT, serving

from capnweb_py.remote import connect_env

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_the_examples_run(tmp_path: Path, channel: Any) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/bindings/r2.md").read_text(), re.DOTALL)
    config = tmp_path / "capnweb.toml"
    config.write_text(f'[server]\nstate_dir = "{tmp_path}/state"\n[bindings.ASSETS]\ntype = "r2_bucket"\n')
    with serving(config) as server:
        async with connect_env(server.url, channel=channel) as env:
            names: dict[str, Any] = {"env": env}
            for example in examples:
                code = compile(example, "r2.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                running = eval(code, names)
                if inspect.isawaitable(running):
                    await running
