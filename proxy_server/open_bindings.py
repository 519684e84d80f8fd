"""The bindings that are open: which there are, who uses each, and when one that was replaced is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from capnweb_py.session import RpcSession
from proxy_server.bindings import Binding, Declaration, open_binding
from proxy_server.channels import LOG
from proxy_server.draining import close_when_idle

__all__ = ["OpenBinding", "OpenBindings"]


class OpenBinding:
    """A binding that is open, and how many sessions and requests use it."""

    def __init__(self, declared: Declaration, binding: Binding) -> None:
        self.declared = declared
        self._binding = binding
        self._users = 0
        self._retired = False
        self.sessions: set[RpcSession] = set()

    def opened(self, session: RpcSession) -> None:
        """A session has been opened."""
        self.sessions.add(session)
        session.remote_main.on_broken(lambda _error: self.sessions.discard(session))

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Binding]:
        """Use the binding. The last user of one that has been retired closes it."""
        self._users += 1
        try:
            yield self._binding
        finally:
            self._users -= 1
            if self._retired and not self._users:
                with anyio.CancelScope(shield=True):
                    await self._binding.aclose()

    async def retire(self, *, at_once: bool = False) -> None:
        """Close the binding when nobody uses it any more, or now: then nobody may be about to."""
        if at_once or not self._users:
            await self._binding.aclose()
        else:
            self._retired = True


class OpenBindings:
    """The bindings of an application, by name. There are none before the first `replace`."""

    def __init__(self) -> None:
        self._open: dict[str, OpenBinding] = {}

    def __len__(self) -> int:
        return len(self._open)

    def get(self, name: str) -> OpenBinding | None:
        """The binding of a name, if there is one."""
        return self._open.get(name)

    def kinds(self) -> dict[str, str]:
        """Of which types they are."""
        return {name: binding.declared.kind for name, binding in self._open.items()}

    async def replace(self, bindings: Mapping[str, Declaration], tasks: TaskGroup) -> None:
        """Have these bindings, and no others. What was declared in the same words stays open, with all that runs on it.

        A binding that is changed or removed goes on for the requests that it has, and for the sessions in which
        something runs or whose clients hold something of it, and is closed after them. Other sessions are closed: the
        next one of the same client is with what there is then.

        Args:
            bindings: what is declared, by name.
            tasks: for what the bindings do, and for the sessions that are closed.

        Raises:
            BindingError: if one cannot be opened. Then nothing has changed.
        """
        changed = {
            name: declared
            for name, declared in bindings.items()
            if name not in self._open or self._open[name].declared != declared
        }
        opened: dict[str, OpenBinding] = {}
        try:
            for name, declared in changed.items():
                opened[name] = OpenBinding(declared, await open_binding(name, declared.open, tasks))
        except BaseException:
            with anyio.CancelScope(shield=True):
                for binding in opened.values():
                    await binding.retire(at_once=True)
            raise
        replaced = [binding for name, binding in self._open.items() if name in changed or name not in bindings]
        # The new ones first: closing an old one may take its time, and a request must find one of the two.
        self._open = {name: opened.get(name) or self._open[name] for name in bindings}
        await _retire(replaced)
        for binding in replaced:
            for session in binding.sessions:
                tasks.start_soon(close_when_idle, session)

    async def aclose(self) -> None:
        """Close them all, whoever uses them."""
        with anyio.CancelScope(shield=True):
            retired, self._open = self._open, {}
            await _retire(retired.values(), at_once=True)


async def _retire(retired: Iterable[OpenBinding], *, at_once: bool = False) -> None:
    for binding in retired:
        try:
            await binding.retire(at_once=at_once)
        except Exception:
            LOG.exception("a binding of the type %s did not close as it should", binding.declared.kind)
