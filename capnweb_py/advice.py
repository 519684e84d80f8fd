"""What tells a programmer of a forgotten `await`, where nothing has failed and nothing must.

A call whose result nobody waits for is legitimate, and ends of promises have nobody to raise to: so advice is a
RuntimeWarning, as for a coroutine that was never awaited, and where the filters would make an exception of it, a line
of the log. Python shows it once for each line of code.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Final

__all__ = ["advise"]

_log = logging.getLogger("capnweb_py")

# Modules whose names begin so are this package's.
_PACKAGE: Final = f"{__package__}."


def advise(text: str) -> None:
    """Warn of what is probably a mistake, in the line outside of this package that has led here. Never raises.

    Args:
        text: what happened, and what to write.
    """
    if sys.is_finalizing():
        return
    level, frame = 1, sys._getframe()
    while frame.f_globals.get("__name__", "").startswith(_PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=level)
    except RuntimeWarning:
        _log.warning("%s", text)
