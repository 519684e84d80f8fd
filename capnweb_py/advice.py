"""What tells a programmer of a forgotten `await`, where nothing has failed and nothing must.

A call whose result nobody waits for is legitimate, and ends of promises have nobody to raise to: so advice is a
RuntimeWarning, as for a coroutine that was never awaited, and where the filters would make an exception of it, a line
of the log. Python shows it once for each line of code.
"""

from __future__ import annotations

import logging
import sys
import warnings

__all__ = ["advise"]

_log = logging.getLogger("capnweb_py")


def advise(text: str, stacklevel: int = 2) -> None:
    """Warn of what is probably a mistake. Never raises.

    Args:
        text: what happened, and what to write.
        stacklevel: whose line is meant, as of `warnings.warn` in the caller.
    """
    if sys.is_finalizing():
        return
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=stacklevel + 1)
    except RuntimeWarning:
        _log.warning("%s", text)
