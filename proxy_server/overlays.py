"""What overlays keep in a state directory: which there are, and throwing them away.

A binding with `access = "overlay"` keeps what is written to it in a file `overlay-<type>-<name>.sqlite3` there, or in a
folder of that name without the ending. Names of bindings are written as in a URL. What a program keeps over bindings
from elsewhere is in a folder `remote` there: the proxy may have the same configuration, and overlays of its own.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import attrs

__all__ = ["OVER_REMOTE", "Overlay", "OverlayError", "clear", "found"]

# The folder of the overlays over bindings from elsewhere.
OVER_REMOTE: Final = "remote"

# Types have no hyphens; names of bindings may.
_NAME: Final = re.compile(r"overlay-([a-z0-9_]+)-(.+?)(\.sqlite3)?")

# What SQLite keeps beside a file of its own.
_BESIDE: Final = ("-wal", "-shm", "-journal")


class OverlayError(Exception):
    """An overlay cannot be thrown away, or there is none. The message is one line."""


@attrs.frozen
class Overlay:
    """One overlay.

    Attributes:
        kind: the type of the binding.
        name: of the binding.
        path: the file or the folder.
        size: in bytes, of all its files.
    """

    kind: str
    name: str
    path: Path
    size: int


def found(state_dir: Path) -> list[Overlay]:
    """The overlays in a state directory, by name.

    Raises:
        OverlayError: if there is no such directory.
    """
    try:
        entries = list(state_dir.iterdir())
        if (state_dir / OVER_REMOTE).is_dir():
            entries += (state_dir / OVER_REMOTE).iterdir()
    except OSError as error:
        advice = "name the state_dir of the configuration, by default .capnweb beside it"
        raise OverlayError(f"{state_dir}: the folder cannot be read: {error.strerror}: {advice}") from error
    overlays = []
    for path in entries:
        match = _NAME.fullmatch(path.name)
        if match is not None and bool(match[3]) == path.is_file():
            overlays.append(Overlay(match[1], unquote(match[2]), path, sum(map(_size, _files(path)))))
    return sorted(overlays, key=lambda overlay: (overlay.name, overlay.kind, overlay.path))


def clear(state_dir: Path, name: str | None = None) -> list[Overlay]:
    """Throw overlays away. Returns those that were there.

    Args:
        state_dir: where they are.
        name: of the one binding that is meant; None for all.

    Raises:
        OverlayError: if there is none of that name, or one is in use. Then none is thrown away.
    """
    overlays = [overlay for overlay in found(state_dir) if name is None or overlay.name == name]
    if name is not None and not overlays:
        raise OverlayError(f'{state_dir}: there is no overlay of a binding "{name}"')
    for overlay in overlays:
        if any(_is_open(file) for file in _files(overlay.path) if file.suffix == ".sqlite3"):
            raise OverlayError(f'{overlay.path}: the overlay of "{overlay.name}" is in use: stop what uses it first')
    for overlay in overlays:
        if overlay.path.is_dir():
            shutil.rmtree(overlay.path)
        else:
            for file in _files(overlay.path):
                file.unlink(missing_ok=True)
    return overlays


def _files(path: Path) -> list[Path]:
    """The files of an overlay."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    return [path, *(beside for ending in _BESIDE if (beside := path.with_name(path.name + ending)).exists())]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0  # it has just gone


def _is_open(file: Path) -> bool:
    """Whether somebody has a SQLite file open: in WAL mode a connection shares a lock for as long as it lasts."""
    connection = sqlite3.connect(file, timeout=0, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:
        return False  # it is none
    finally:
        connection.close()
    return False
