"""The option `metadataFilter` of `hosted.list()`: which images have metadata of these values.

The rules are those of Cloudflare's documentation, "Manage hosted images with Workers", section "Filter by custom
metadata". A filter that breaks one is refused: it never lets everything through.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from proxy_server.bindings.images_input import is_text
from proxy_server.imaging.errors import BAD_OPTION, ImagingError
from proxy_server.imaging.fields import shown
from proxy_server.stores.images import Condition, Scalar

__all__ = ["MAX_CONDITIONS", "MAX_FIELD_LENGTH", "MAX_LEVELS", "MAX_VALUES", "conditions_of"]

MAX_CONDITIONS: Final = 5
MAX_LEVELS: Final = 5
MAX_FIELD_LENGTH: Final = 100
# In the array of an `in`.
MAX_VALUES: Final = 10

_FIELD: Final = re.compile(r"\w+(?:\.\w+)*", re.ASCII)
_COMPARISONS: Final = ("gt", "gte", "lt", "lte")


def conditions_of(value: object) -> tuple[Condition, ...]:
    """The conditions of a filter, all of which an image has to meet.

    Args:
        value: the option, as a peer gave it: {"status": "active", "priority": {"gte": 2, "lte": 5}}.

    Raises:
        ImagingError: 9401, it is none, or has too many conditions.
    """
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise _wrong("", f"must be an object, not {shown(value)}")
    conditions = tuple(condition for field, wanted in value.items() for condition in _of_field(field, wanted))
    if len(conditions) > MAX_CONDITIONS:
        raise _wrong("", f"has {len(conditions)} conditions; at most {MAX_CONDITIONS} are allowed")
    return conditions


def _of_field(field: object, wanted: object) -> list[Condition]:
    if not isinstance(field, str) or not _FIELD.fullmatch(field):
        raise _wrong("", f"has the field {shown(field)}: letters, digits and _ make a name, and dots part levels")
    path = tuple(field.split("."))
    if len(path) > MAX_LEVELS or len(field) > MAX_FIELD_LENGTH:
        raise _wrong(
            "",
            f"has the field {shown(field)}: at most {MAX_LEVELS} levels and {MAX_FIELD_LENGTH} characters are allowed",
        )
    if not isinstance(wanted, Mapping):
        return [Condition(path, "in", (_scalar(field, wanted),))]
    if not wanted:
        raise _wrong(f".{field}", "has no condition")
    return [_condition(field, path, operator, operand) for operator, operand in wanted.items()]


def _condition(field: str, path: tuple[str, ...], operator: object, operand: object) -> Condition:
    where = f"{field}.{operator}"
    if operator == "eq":
        return Condition(path, "in", (_scalar(where, operand),))
    if operator == "in":
        values = tuple(_scalar(where, item) for item in operand) if isinstance(operand, list) else ()
        same = all(isinstance(item, str) for item in values) or all(type(item) is float for item in values)
        if not 1 <= len(values) <= MAX_VALUES or not same:
            raise _wrong(f".{where}", f"must be an array of 1 to {MAX_VALUES} strings, or as many numbers")
        return Condition(path, "in", values)
    for comparison in _COMPARISONS:
        if operator == comparison:
            number = _scalar(where, operand)
            if type(number) is not float:
                raise _wrong(f".{where}", f"must be a number, not {shown(operand)}")
            return Condition(path, comparison, (number,))
    valid = ", ".join(("eq", "in", *_COMPARISONS))
    raise _wrong(f".{field}", f"has the unknown operator {shown(operator)}; valid are {valid}")


def _scalar(where: str, value: object) -> Scalar:
    """A value to compare with; numbers are JavaScript's."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and is_text(value):
        return value
    if isinstance(value, int | float) and abs(value) < 2**1000 and math.isfinite(value):
        return float(value)
    raise _wrong(f".{where}", f"must be a string, a number, true or false, not {shown(value)}")


def _wrong(where: str, problem: str) -> ImagingError:
    return ImagingError(BAD_OPTION, f"list.metadataFilter{where} {problem}")
