"""Hrana over HTTP, version 3: what libSQL servers speak (tursodatabase/libsql, docs/HRANA_3_SPEC.md).

Here is one request of it, a batch of statements in which each runs if those before it have, and its values.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import orjson

from capnweb_py.http11 import Http11Client
from capnweb_py.web import Request

from .d1 import SqlValue

__all__ = ["HranaError", "HranaResult", "run_in_transaction"]


class HranaError(Exception):
    """The server refused. `code` is its own name for the reason."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@attrs.frozen
class HranaResult:
    """What came of a statement."""

    columns: list[str]
    rows: list[list[SqlValue]]
    rows_read: int
    rows_written: int
    milliseconds: float


async def run_in_transaction(
    client: Http11Client,
    url: str,
    token: str | None,
    statements: Sequence[tuple[str, Sequence[SqlValue]]],
    *,
    begin: str,
    not_before: int | None,
    max_bytes: int,
) -> tuple[list[HranaResult], int]:
    """Run statements in one transaction, in one request.

    Args:
        client: sends it.
        url: of the server.
        token: what it asks for, where it does.
        statements: each with its values.
        begin: the statement that begins the transaction.
        not_before: the replication index that a replica has to have reached.
        max_bytes: how large the answer may be.

    Returns:
        What came of each, and the replication index after them.

    Raises:
        HranaError: a statement failed, and none of them has happened; or the server refused the request.
        ConnectionError: the server cannot be reached, or broke off: then they may have happened.
    """
    body = {"baton": None, "requests": [_batch(statements, begin, not_before), {"type": "close"}]}
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    endpoint = f"{url}/v3/pipeline"
    request = Request(endpoint, method="POST", headers=headers, body=orjson.dumps(body))
    response = await client.exchange(request, endpoint, title="the libSQL server")
    answer = bytearray()
    if response.body is not None:
        async for chunk in response.body:
            answer += chunk
            if len(answer) > max_bytes:
                await response.body.aclose()
                raise HranaError(f"the result is larger than {max_bytes} bytes: use LIMIT", "TOO_LARGE")
    if response.status != 200:
        raise HranaError(
            f"the libSQL server answered {response.status}: {answer[:200].decode(errors='replace')}", "HTTP"
        )
    return _results(orjson.loads(answer)["results"][0], len(statements))


def _batch(statements: Sequence[tuple[str, Sequence[SqlValue]]], begin: str, not_before: int | None) -> dict[str, Any]:
    wanted = {} if not_before is None else {"replication_index": str(not_before)}
    texts: list[tuple[str, Sequence[SqlValue]]] = [(begin, ()), *statements, ("COMMIT", ())]
    steps: list[dict[str, Any]] = [
        {
            "stmt": {"sql": sql, "args": [_argument(value) for value in params], **wanted},
            **({"condition": {"type": "ok", "step": number - 1}} if number else {}),
        }
        for number, (sql, params) in enumerate(texts)
    ]
    undone = {"type": "and", "conds": [{"type": "ok", "step": 0}, {"type": "not", "cond": {"type": "is_autocommit"}}]}
    steps.append({"stmt": {"sql": "ROLLBACK"}, "condition": undone})
    return {"type": "batch", "batch": {"steps": steps}}


def _results(answer: Mapping[str, Any], count: int) -> tuple[list[HranaResult], int]:
    if answer["type"] == "error":
        raise _error(answer["error"])
    batch = answer["response"]["result"]
    for error in batch["step_errors"]:
        if error is not None:
            raise _error(error)
    # The first step begins, and those after the last statement end the transaction.
    return [_result(step) for step in batch["step_results"][1 : count + 1]], int(batch["replication_index"] or 0)


def _error(error: Mapping[str, Any]) -> HranaError:
    return HranaError(error["message"], error.get("code") or "")


def _result(step: Mapping[str, Any]) -> HranaResult:
    return HranaResult(
        [column["name"] for column in step["cols"]],
        [[_value(cell) for cell in row] for row in step["rows"]],
        step["rows_read"],
        step["rows_written"],
        step["query_duration_ms"],
    )


def _argument(value: SqlValue) -> dict[str, Any]:
    if value is None:
        return {"type": "null"}
    if isinstance(value, int):
        return {"type": "integer", "value": str(value)}
    if isinstance(value, float):
        return {"type": "float", "value": value}
    if isinstance(value, str):
        return {"type": "text", "value": value}
    return {"type": "blob", "base64": base64.b64encode(value).decode()}


def _value(cell: Mapping[str, Any]) -> SqlValue:
    kind = cell["type"]
    if kind == "integer":
        return int(cell["value"])
    if kind == "float":
        # JSON has no infinity.
        return math.inf if cell["value"] is None else float(cell["value"])
    if kind == "text":
        return str(cell["value"])
    if kind == "blob":
        text: str = cell["base64"]
        return base64.b64decode(text + "=" * (-len(text) % 4))
    return None
