"""What a binding does not do because of what was asked of it: the base of such errors, and what callers by RPC get."""

from __future__ import annotations

__all__ = ["Declined", "Error"]


class Declined(Exception):
    """A binding does not do what was asked, and says why.

    Attributes:
        status: the HTTP status that says so. Below 500 it is an answer like any other; from 500 on, what the binding
            stands on has failed.
    """

    status: int = 400


class Error(Exception):
    """What the runtime throws as an Error, by which name it travels.

    It is raised while a Declined is handled, which stays its context: so a log can tell that nothing has failed.

    Args:
        text: the message.
        attributes: what travels with it.
    """

    def __init__(self, text: str, **attributes: object) -> None:
        super().__init__(text)
        vars(self).update(attributes)
