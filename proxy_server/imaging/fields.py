"""Reading one JSON object of options: every value checked, every unknown key refused.

An error names the place ("transforms[2].trim.top"), the value and what would be valid. Nothing here knows
what an option is for. A key with the value null counts as absent, since Python callers write `width=None`
where JavaScript leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

import attrs

from .colors import Color, parse_color
from .errors import BAD_OPTION, ImagingError

_Choice = TypeVar("_Choice", bound=StrEnum)


@attrs.frozen
class Fields:
    """The options in one JSON object; `where` is its place in the request, for errors."""

    where: str
    values: Mapping[str, object]

    def allow(self, *valid: str) -> None:
        """Refuse any key that is not one of `valid`."""
        for key in self.values:
            if key not in valid:
                raise ImagingError(
                    BAD_OPTION,
                    f"{self.where} has the unknown option {shown(key)}; valid are {', '.join(valid)}",
                )

    def integer(self, key: str, low: int, high: int) -> int | None:
        """A whole number; 3.0 is one too, since JavaScript tells it not from 3."""
        number = self.number(key, low, high, kind="a whole number")
        if number is None or number.is_integer():
            return None if number is None else int(number)
        raise self.wrong(key, f"a whole number from {low} to {high}")

    def number(self, key: str, low: float, high: float, *, kind: str = "a number") -> float | None:
        """A finite number from `low` to `high`."""
        value = self.values.get(key)
        if value is None:
            return None
        # A bool is an int in Python, and no number in JSON. NaN and the infinities are within no bounds.
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(key, f"{kind} from {low:.12g} to {high:.12g}")
        return float(value)

    def choice(self, key: str, choices: type[_Choice]) -> _Choice | None:
        """One of the words that `choices` lists."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, str) and value in choices.__members__.values():
            return choices(value)
        raise self.wrong(key, f"one of {', '.join(choices)}")

    def flag(self, key: str) -> bool | None:
        """True or False."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self.wrong(key, "true or false")

    def color(self, key: str) -> Color | None:
        """A CSS colour."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            try:
                return parse_color(value)
            except ValueError as error:
                raise self.wrong(key, 'a CSS colour such as "#ff8800", "white" or "rgb(0 0 0 / 50%)"') from error
        raise self.wrong(key, "a CSS colour as a string")

    def nested(self, key: str) -> Fields | None:
        """The options in an object below this one, or None where the value is something else."""
        value = self.values.get(key)
        return Fields(f"{self.where}.{key}", value) if isinstance(value, Mapping) else None

    def wrong(self, key: str, valid: str) -> ImagingError:
        """The error for a value that is not valid, to raise."""
        return ImagingError(BAD_OPTION, f"{self.where}.{key} must be {valid}, not {shown(self.values[key])}")


def shown(value: object) -> str:
    """What a caller sent, short enough for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
