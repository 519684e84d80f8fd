"""The compiled build of capnweb_py, made from this checkout on first use, and again when its sources changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from .sides import Missing

__all__ = ["compiled_folder"]

_ROOT: Final = Path(__file__).parent.parent
# pip installs into it; out of git.
_FOLDER: Final = Path(__file__).parent / ".compiled"
_STAMP: Final = _FOLDER / ".built-from"

# It takes about a minute, and that many times longer on a slow machine.
_TIMEOUT: Final = 1200.0


def compiled_folder(pure: bool = False) -> Path | None:
    """The folder that holds the compiled packages, built if they are not there or not from these sources; None if only
    pure Python is wanted, or if there is no C compiler, which is said on standard error.

    Raises:
        Missing: if building fails.
    """
    if pure:
        return None
    if not _has_compiler():
        print("there is no C compiler, so there is no compiled build: ours is pure Python", file=sys.stderr)
        return None
    wanted = _fingerprint()
    if not (_STAMP.is_file() and _STAMP.read_text() == wanted):
        print("building the compiled capnweb_py, which takes about a minute ...", file=sys.stderr)
        _build()
        _STAMP.write_text(wanted)
    return _FOLDER


def _has_compiler() -> bool:
    """Whether the C compiler is there that extensions for this Python are built with."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(command.split()[0]) is not None


def _build() -> None:
    shutil.rmtree(_FOLDER, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(_FOLDER), str(_ROOT)]
    environment = {**os.environ, "CAPNWEB_PY_COMPILE": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Missing(f"the compiled build took longer than {_TIMEOUT:.0f} s; --pure does without it") from error
    if done.returncode != 0:
        raise Missing(f"{done.stdout}\nthe compiled build failed, as said above; --pure does without it")


def _fingerprint() -> str:
    """Of all that the build is made from, and of the Python that it is for."""
    sources = sorted((_ROOT / "capnweb_py").rglob("*.py"))
    digest = hashlib.sha256(f"{sys.version} {sysconfig.get_platform()}".encode())
    for file in (*sources, _ROOT / "pyproject.toml", _ROOT / ".ci" / "compile.py"):
        digest.update(f"\n{file.relative_to(_ROOT)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
