"""The command `overlay`: what overlays keep in a state directory is listed, and thrown away while nobody uses it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy_server.cli import main


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Two overlays of files, one of a folder, and what is none."""
    for name in ("overlay-kv_namespace-CACHE.sqlite3", "overlay-d1-a%2Fb-c.sqlite3", "kv-CACHE.sqlite3"):
        with closing(sqlite3.connect(tmp_path / name)) as file:
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("CREATE TABLE t (v)")
    folder = tmp_path / "overlay-r2_bucket-ASSETS"
    (folder / "ab").mkdir(parents=True)
    (folder / "ab" / "cd").write_bytes(bytes(1000))
    (tmp_path / "overlay-r2_bucket-file").write_text("no folder")
    (tmp_path / "overlays").mkdir()
    return tmp_path


@pytest.fixture
def used(state_dir: Path) -> Iterator[None]:
    """A program has the overlay of CACHE open."""
    with closing(sqlite3.connect(state_dir / "overlay-kv_namespace-CACHE.sqlite3")) as file:
        file.execute("SELECT * FROM t").fetchall()
        yield


def overlays(state_dir: Path) -> list[str]:
    return sorted(path.name for path in state_dir.iterdir() if path.name.startswith("overlay-"))


def said(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_overlays_are_listed_with_type_binding_and_size(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overlay", "list", str(state_dir)]) == 0
    lines = said(capsys)
    assert [line[:2] for line in lines] == [["r2_bucket", "ASSETS"], ["kv_namespace", "CACHE"], ["d1", "a/b-c"]]
    assert lines[0][2] == "1000 bytes"


def test_that_of_one_binding_is_thrown_away(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overlay", "clear", str(state_dir), "a/b-c"]) == 0
    assert [line[:2] for line in said(capsys)] == [["d1", "a/b-c"]]
    assert overlays(state_dir) == [
        "overlay-kv_namespace-CACHE.sqlite3",
        "overlay-r2_bucket-ASSETS",
        "overlay-r2_bucket-file",
    ]


def test_all_are_thrown_away_and_nothing_else(state_dir: Path) -> None:
    (state_dir / "overlay-kv_namespace-CACHE.sqlite3-wal").write_bytes(b"")
    assert main(["overlay", "clear", str(state_dir)]) == 0
    assert overlays(state_dir) == ["overlay-r2_bucket-file"]
    assert (state_dir / "kv-CACHE.sqlite3").exists()


@pytest.mark.usefixtures("used")
def test_what_is_in_use_is_not_thrown_away(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = overlays(state_dir)
    assert main(["overlay", "clear", str(state_dir)]) == 2
    assert 'the overlay of "CACHE" is in use: stop what uses it first' in capsys.readouterr().err
    assert overlays(state_dir) == before


def test_a_name_that_has_none_is_an_error(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overlay", "clear", str(state_dir), "NONE"]) == 2
    assert capsys.readouterr().err == f'error: {state_dir}: there is no overlay of a binding "NONE"\n'


def test_those_over_bindings_from_elsewhere_are_among_them(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state_dir / "remote").mkdir()
    (state_dir / "overlay-kv_namespace-CACHE.sqlite3").rename(
        state_dir / "remote" / "overlay-kv_namespace-CACHE.sqlite3"
    )
    assert main(["overlay", "list", str(state_dir)]) == 0
    assert [line[0::3] for line in said(capsys)][1] == [
        "kv_namespace",
        f"{state_dir / 'remote' / 'overlay-kv_namespace-CACHE.sqlite3'}",
    ]
    assert main(["overlay", "clear", str(state_dir), "CACHE"]) == 0
    assert list((state_dir / "remote").iterdir()) == []


def test_the_usual_directory_need_not_be_named(
    state_dir: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("project"))
    assert main(["overlay", "list"]) == 2
    state_dir.rename(".capnweb")
    assert main(["overlay", "list"]) == 0
    assert main(["overlay", "clear"]) == 0
    assert overlays(Path(".capnweb")) == ["overlay-r2_bucket-file"]


def test_that_there_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overlay", "list", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"no overlays in {tmp_path}\n")


def test_a_directory_that_is_none_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overlay", "list", str(tmp_path / "none")]) == 2
    assert "the folder cannot be read: No such file" in capsys.readouterr().err
