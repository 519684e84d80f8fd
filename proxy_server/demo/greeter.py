"""The service of the demo: what a program would write of its own."""

from __future__ import annotations

from capnweb_py import RpcStub, RpcTarget

__all__ = ["Counter", "Greeter"]


class Counter(RpcTarget):
    """Passes by reference: every caller of `make_counter` holds a stub of a counter of its own."""

    def __init__(self) -> None:
        self._value = 0

    def increment(self, by: int = 1) -> int:
        """Count on, and return where it stands."""
        self._value += by
        return self._value

    @property
    def value(self) -> int:
        """Where it stands."""
        return self._value


class Greeter(RpcTarget):
    """The main object."""

    async def hello(self, name: str) -> str:
        """A greeting."""
        return f"Hello, {name}!"

    def make_counter(self) -> Counter:
        """A counter that starts at zero."""
        return Counter()

    async def count_down(self, start: int, listener: RpcStub) -> str:
        """Call the caller back with each number down to one."""
        for number in range(start, 0, -1):
            await listener(number)
        return "lift-off"
