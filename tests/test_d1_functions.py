"""SQL's functions of D1 that are not SQLite's own: they answer as SQLite's do, and in time."""

from __future__ import annotations

import math
from typing import Any, Final

import apsw
import hypothesis
import pytest
from hypothesis import strategies as st

from proxy_server.stores.d1_functions import install

CALLS: Final = {
    "instr": "instr(?1, ?2)",
    "replace": "replace(?1, ?2, ?3)",
    "trim": "trim(?1, ?2)",
    "ltrim": "ltrim(?1, ?2)",
    "rtrim": "rtrim(?1, ?2)",
    "unhex": "unhex(?1, ?2)",
}

# Pieces that overlap, are of several bytes, end a text for C, or are digits for unhex().
TEXTS: Final = st.lists(st.sampled_from(["a", "b", "aa", "ab", "ü", "€", "\0", " ", "4", "41", "c3"]), max_size=6).map(
    "".join
)
VALUES: Final = st.one_of(
    TEXTS,
    TEXTS,
    TEXTS.map(str.encode),
    st.none(),
    st.integers(-50, 50),
    st.sampled_from([0.5, -1.0, 1e300, math.inf]),
)

SIZE: Final = 1_999_000


@pytest.fixture(scope="module")
def ours() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    install(connection)
    return connection


@pytest.fixture(scope="module")
def sqlites() -> apsw.Connection:
    return apsw.Connection(":memory:")


@pytest.mark.parametrize("name", CALLS)
@hypothesis.settings(max_examples=300)
@hypothesis.given(values=st.tuples(VALUES, VALUES, VALUES))
def test_each_answers_as_sqlites_own(
    ours: apsw.Connection, sqlites: apsw.Connection, name: str, values: tuple[Any, Any, Any]
) -> None:
    sql = f"SELECT hex({CALLS[name]}), typeof({CALLS[name]}), ?1, ?2, ?3"
    expected = sqlites.execute(sql, values).fetchall()
    try:
        assert ours.execute(sql, values).fetchall() == expected
    except UnicodeError:  # what is cut inside of a character is no text for Python
        hypothesis.assume(False)


@pytest.mark.parametrize(
    ("call", "values", "result"),
    [
        ("length(trim(?1, ?2))", ["a" * SIZE, "b" * SIZE + "a"], 0),
        ("length(ltrim(?1, ?2))", ["a" * SIZE, "b" * SIZE + "a"], 0),
        ("length(rtrim(?1, ?2))", ["a" * SIZE, "b" * SIZE + "a"], 0),
        ("instr(?1, ?2)", ["a" * SIZE, "a" * (SIZE // 2) + "b"], 0),
        ("instr(?1, ?2)", [b"a" * SIZE, b"a" * (SIZE // 2) + b"b"], 0),
        ("length(replace(?1, ?2, ''))", ["a" * SIZE, "a" * (SIZE // 2) + "b"], SIZE),
        ("length(unhex(?1, ?2))", ["-" * SIZE + "41", "x" * SIZE + "-"], 1),
    ],
)
def test_two_long_values_are_no_matter_of_hours(
    ours: apsw.Connection, call: str, values: list[Any], result: int
) -> None:
    assert ours.execute(f"SELECT {call}", values).get == result


@pytest.mark.parametrize(
    ("call", "values"),
    [
        ("replace(?1, 'a', ?1)", ["a" * SIZE]),
        ("trim(?1, ?2)", [b"a" * SIZE, "b" * SIZE]),
        ("instr(?1, ?2)", ["a" * SIZE, b"a" * SIZE]),
    ],
)
def test_what_would_be_too_large_or_take_too_long_is_refused(
    ours: apsw.Connection, call: str, values: list[Any]
) -> None:
    with pytest.raises(apsw.TooBigError, match="too big"):
        ours.execute(f"SELECT {call}", values).fetchall()


def test_indexes_and_generated_columns_may_use_them(ours: apsw.Connection) -> None:
    ours.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    ours.execute("CREATE TABLE t (a, b AS (replace(a, 'x', 'y')) STORED); CREATE INDEX i ON t (trim(a, '-'))")
    ours.execute("INSERT INTO t VALUES ('-x-')")
    assert ours.execute("SELECT b FROM t WHERE trim(a, '-') = 'x'").fetchall() == [("-y-",)]
