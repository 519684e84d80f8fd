"""Which processes use a folder: what a crash has left behind in it may be cleared by one that is alone there."""

from __future__ import annotations

from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:
    # Windows. Nobody knows of being alone there.
    fcntl = None  # type: ignore[assignment]

__all__ = ["InUse"]


class InUse:
    """That this process uses a folder, until `close`, or until it ends, however it does (flock(2)).

    Attributes:
        alone: whether nobody else does. Whoever comes waits then until `share` was called.
    """

    def __init__(self, folder: Path) -> None:
        self.alone = False
        self._file = (folder / "in-use").open("ab")
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.alone = True
        except BlockingIOError:
            fcntl.flock(self._file, fcntl.LOCK_SH)
        except OSError:
            # A file system without locks: nobody knows here, either.
            return

    def share(self) -> None:
        """Let others in."""
        if self.alone:
            self.alone = False
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def close(self) -> None:
        """The folder is not used any more."""
        self._file.close()
