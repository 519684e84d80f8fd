"""The d1 binding of a running proxy, used by npm capnweb on Node, in both codecs: what d1.mjs reports."""

from __future__ import annotations

from typing import Any

import pytest
from proxying import serving

from .node import report_of, rpc_url


@pytest.fixture(scope="module", params=["json", "cbor"])
def report(request: pytest.FixtureRequest, node: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a Node client reports of an empty database."""
    folder = tmp_path_factory.mktemp("d1")
    config = folder / "capnweb.toml"
    config.write_text(f'[server]\nstate_dir = "{folder}"\n[bindings.DB]\ntype = "d1"\n')
    with serving(config) as server:
        return report_of(node, "d1.mjs", rpc_url(server.url, "DB"), codec=request.param)


def test_a_chain_of_calls_is_one_round_trip(report: dict[str, Any]) -> None:
    assert report["chain"] == {"results": [{"a": 1, "b": "x"}], "changes": 0, "roundTrips": 1}


def test_a_batch_of_statements_that_were_never_awaited_is_one_round_trip(report: dict[str, Any]) -> None:
    rows = [{"b": "first"}, {"b": "one"}, {"b": [0, 255]}]
    assert sorted(report["batch"].pop("rows"), key=str) == sorted(rows, key=str)
    assert report["batch"] == {"changes": [1, 1, 0], "roundTrips": 1}


def test_rows_by_every_method(report: dict[str, Any]) -> None:
    assert report["exec"]["count"] == 2
    assert report["first"] == [{"a": 1, "b": "first"}, "first", None]
    assert report["raw"] == [["a", "a"], [1, 1], [2, 2], [3, 3]]
    assert report["types"] == {"a": "real", "b": "null", "c": 1}
    assert report["dump"] == "SQLite format 3"


def test_an_integer_beyond_a_double_is_a_number(report: dict[str, Any]) -> None:
    assert float(report["large"]) == 2.0**63


def test_sessions(report: dict[str, Any]) -> None:
    assert report["session"] == {"before": None, "bookmark": "string", "rows": [["session"]]}


def test_the_runtimes_own_query(report: dict[str, Any]) -> None:
    assert report["query"] == {
        "success": True,
        "data": {"kind": "raw", "columns": ["a", "a"], "rows": [[1, 2]]},
        "failed": {"success": False, "message": 'near "SELEC": syntax error at offset 0: SQLITE_ERROR'},
    }


@pytest.mark.parametrize(
    ("use", "prefix", "text"),
    [
        ("table", "D1_ERROR: ", "no such table: missing: SQLITE_ERROR"),
        (
            "unique",
            "D1_ERROR: ",
            "UNIQUE constraint failed: t.b: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)",
        ),
        ("undefined", "D1_TYPE_ERROR: ", "Type 'undefined' not supported for value 'undefined'"),
        ("bigint", "D1_TYPE_ERROR: ", "Type 'bigint' not supported for value '1'"),
        ("object", "D1_TYPE_ERROR: ", "Type 'object' not supported for value '[object Object]'"),
        (
            "exec",
            "D1_EXEC_ERROR: ",
            'Error in line 1: SELECT 1: near "SELEC": syntax error at offset 0: SQLITE_ERROR',
        ),
    ],
)
def test_errors_have_the_runtimes_texts(report: dict[str, Any], use: str, prefix: str, text: str) -> None:
    assert report["errors"][use] == {"name": "Error", "message": prefix + text, "cause": text}


def test_a_column_that_is_not_there(report: dict[str, Any]) -> None:
    error = report["errors"]["column"]
    assert (error["message"], error["cause"]) == ("D1_COLUMN_NOTFOUND: Column not found (c)", "Column not found")


def test_a_batch_is_of_statements_of_this_binding(report: dict[str, Any]) -> None:
    assert report["errors"]["stranger"]["name"] == "TypeError"


def test_what_failed_has_not_happened(report: dict[str, Any]) -> None:
    assert report["rows"] == 4
