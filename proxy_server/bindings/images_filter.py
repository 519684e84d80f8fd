"""The option `filter` of `hosted.list()`: which images have metadata of these values.

Its name is that of the Workers types, {"filter": {"metadata": {...}}}; Cloudflare's documentation, "Manage hosted
images with Workers", calls it `metadataFilter`, and has the rules ("Filter by custom metadata"). A filter that breaks
one is refused: it never lets everything through.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from proxy_server.bindings.images_input import is_text
from proxy_server.imaging.errors import BAD_OPTION, ImagingError
from proxy_server.imaging.fields import Fields, shown
from proxy_server.stores.images import Condition, Scalar

__all__ = ["MAX_CONDITIONS", "MAX_FIELD_LENGTH", "MAX_LEVELS", "MAX_VALUES", "conditions_of"]

MAX_CONDITIONS: Final = 5
MAX_LEVELS: Final = 5
MAX_FIELD_LENGTH: Final = 100
# In the array of an `in`.
MAX_VALUES: Final = 10

_FIELD: Final = re.compile(r"\w+(?:\.\w+)*", re.ASCII)
_COMPARISONS: Final = ("gt", "gte", "lt", "lte")


def conditions_of(options: Fields) -> tuple[Condition, ...]:
    """The conditions of a list's options, all of which an image has to meet.

    A filter is {"status": "active", "priority": {"gte": 2, "lte": 5}}.

    Raises:
        ImagingError: 9401, it is none, or has too many conditions; or there are two.
    """
    where, given = _given(options)
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise _wrong(where, f"must be an object, not {shown(given)}")
    conditions = tuple(condition for field, wanted in given.items() for condition in _of_field(where, field, wanted))
    if len(conditions) > MAX_CONDITIONS:
        raise _wrong(where, f"has {len(conditions)} conditions; at most {MAX_CONDITIONS} are allowed")
    return conditions


def _given(options: Fields) -> tuple[str, object]:
    """The filter of metadata, and its place in the options."""
    documented = options.values.get("metadataFilter")
    outer = options.values.get("filter")
    if outer is None:
        return f"{options.where}.metadataFilter", documented
    if documented is not None:
        raise _wrong(options.where, "has both filter and metadataFilter, which mean the same")
    if not isinstance(outer, Mapping):
        raise options.wrong("filter", "an object")
    Fields(f"{options.where}.filter", outer).allow("metadata")
    return f"{options.where}.filter.metadata", outer.get("metadata")


def _of_field(where: str, field: object, wanted: object) -> list[Condition]:
    if not isinstance(field, str) or not _FIELD.fullmatch(field):
        raise _wrong(where, f"has the field {shown(field)}: letters, digits and _ make a name, and dots part levels")
    path = tuple(field.split("."))
    if len(path) > MAX_LEVELS or len(field) > MAX_FIELD_LENGTH:
        raise _wrong(
            where,
            f"has the field {shown(field)}: at most {MAX_LEVELS} levels and {MAX_FIELD_LENGTH} characters are allowed",
        )
    inner = f"{where}.{field}"
    if not isinstance(wanted, Mapping):
        return [Condition(path, "in", (_scalar(inner, wanted),))]
    if not wanted:
        raise _wrong(inner, "has no condition")
    return [_condition(inner, path, operator, operand) for operator, operand in wanted.items()]


def _condition(field: str, path: tuple[str, ...], operator: object, operand: object) -> Condition:
    where = f"{field}.{operator}"
    if operator == "eq":
        return Condition(path, "in", (_scalar(where, operand),))
    if operator == "in":
        values = tuple(_scalar(where, item) for item in operand) if isinstance(operand, list) else ()
        same = all(isinstance(item, str) for item in values) or all(type(item) is float for item in values)
        if not 1 <= len(values) <= MAX_VALUES or not same:
            raise _wrong(where, f"must be an array of 1 to {MAX_VALUES} strings, or as many numbers")
        return Condition(path, "in", values)
    for comparison in _COMPARISONS:
        if operator == comparison:
            number = _scalar(where, operand)
            if type(number) is not float:
                raise _wrong(where, f"must be a number, not {shown(operand)}")
            return Condition(path, comparison, (number,))
    valid = ", ".join(("eq", "in", *_COMPARISONS))
    raise _wrong(field, f"has the unknown operator {shown(operator)}; valid are {valid}")


def _scalar(where: str, value: object) -> Scalar:
    """A value to compare with; numbers are JavaScript's."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and is_text(value):
        return value
    if isinstance(value, int | float) and abs(value) < 2**1000 and math.isfinite(value):
        return float(value)
    raise _wrong(where, f"must be a string, a number, true or false, not {shown(value)}")


def _wrong(where: str, problem: str) -> ImagingError:
    return ImagingError(BAD_OPTION, f"{where} {problem}")
