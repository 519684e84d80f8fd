"""JSON with comments and trailing commas, as Wrangler's files are written in."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["parse_jsonc"]

_COMMENT_OR_STRING = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA_OR_STRING = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])')


def parse_jsonc(text: str) -> Any:
    """The value of a JSON document that may have comments and trailing commas.

    Raises:
        json.JSONDecodeError: if it is malformed. Lines and columns are those of the document.
    """
    text = _COMMENT_OR_STRING.sub(_blank_unless_string, text)
    return json.loads(_TRAILING_COMMA_OR_STRING.sub(_blank_unless_string, text))


def _blank_unless_string(match: re.Match[str]) -> str:
    """What is cut out leaves blanks and its line breaks behind, so that errors keep their place."""
    token = match[0]
    return token if token.startswith('"') else re.sub(r"[^\n]", " ", token)
