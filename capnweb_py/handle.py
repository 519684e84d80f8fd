"""What user code holds: a handle, of which stub.py makes stubs and promises."""

from __future__ import annotations

from .hooks import Hook, Path

__all__ = ["Handle"]


class Handle:
    """What user code holds of a hook: the part of RpcStub and RpcPromise that the rest of the core may read."""

    __slots__ = ("_hook", "_path")

    # The hook, shared by the promises of its members.
    _hook: Hook
    # The path from it to what this stands for; None for a stub, which stands for the hook itself.
    _path: Path | None
