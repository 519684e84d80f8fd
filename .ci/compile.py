"""The build hook of the compiled wheel: `CAPNWEB_PY_COMPILE=1 pip install .`

mypyc translates the hot modules, as they stand, into C extensions, which lie beside their sources in the wheel. Without
the variable this does nothing, and the wheel is pure Python. (hatch-mypyc does the same, and leaves the extensions in
the checkout, where they hide later changes of the sources.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_VARIABLE = "CAPNWEB_PY_COMPILE"

# The program that does it, in a process of its own: setuptools and mypyc want the command line and the folder.
_PROGRAM = """
import sys
from mypyc.build import mypycify
from setuptools import setup

files = sys.argv[1:]
extensions = mypycify(files, opt_level="3", debug_level="0")
setup(name="capnweb_py", packages=[], ext_modules=extensions, script_args=["build_ext", "--inplace"])
"""


class CompilingHook(BuildHookInterface[Any]):
    """Adds the extensions to a wheel that is built to be installed."""

    def dependencies(self) -> list[str]:
        return self.config["needs"] if os.environ.get(_VARIABLE) else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build them. An editable install has none: its sources are there to be changed."""
        if not self._asked(version):
            return
        self._folder = Path(tempfile.mkdtemp())
        shutil.copytree(Path(self.root, "capnweb_py"), self._folder / "capnweb_py")
        shutil.copy(Path(self.root, "pyproject.toml"), self._folder)
        subprocess.run([sys.executable, "-c", _PROGRAM, *self.config["modules"]], cwd=self._folder, check=True)
        for extension in [*self._folder.glob("*.so"), *self._folder.glob("capnweb_py/**/*.so")]:
            build_data["force_include"][str(extension)] = str(extension.relative_to(self._folder))
        build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written."""
        if self._asked(version):
            shutil.rmtree(self._folder)

    def _asked(self, version: str) -> bool:
        return version != "editable" and bool(os.environ.get(_VARIABLE))
