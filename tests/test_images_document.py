"""docs/bindings/images.md is true: its examples run, one after another, and its numbers are those of the code."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from pictures import BLUE, RED, flat
from proxying import serving

from capnweb_py.remote import connect_env
from proxy_server.bindings.images_hosted import DEFAULT_PAGE, MAX_PAGE
from proxy_server.bindings.images_options import (
    MAX_CREATOR_LENGTH,
    MAX_FILENAME_LENGTH,
    MAX_HOSTED_BYTES,
    MAX_ID_LENGTH,
    MAX_META_BYTES,
)
from proxy_server.bindings.multipart import MAX_FORM_BYTES
from proxy_server.imaging.encoding import MAX_AVIF_PIXELS
from proxy_server.imaging.errors import _STATUS
from proxy_server.imaging.options import MAX_OPERATIONS, MAX_SIDE
from proxy_server.imaging.picture import MAX_FRAMES, MAX_PIXELS
from proxy_server.imaging.rendering import MAX_SOURCES
from proxy_server.imaging.sources import MAX_IMAGE_BYTES

pytestmark = pytest.mark.anyio

ROOT: Final = Path(__file__).parents[1]
TEXT: Final = (ROOT / "docs" / "bindings" / "images.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A proxy with the document's own configuration."""
    config: Path = tmp_path_factory.mktemp("document") / "capnweb.toml"
    config.write_text(blocks("toml")[0])
    with serving(config) as server:
        yield server.url


async def test_the_examples_run(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.jpg").write_bytes(flat(RED, 40, 20))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"connection_string": url, "anyio": anyio, "jpeg": flat(RED, 400, 200), "png": flat(BLUE)}
    names["picture"] = names["jpeg"]
    with anyio.fail_after(60):
        async with connect_env(url) as env:
            for block in blocks("python"):
                # The first one connects by itself, and its env ends with it.
                names["env"] = env
                code = compile(block, "images.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                result = eval(code, names)
                if inspect.iscoroutine(result):
                    await result
    assert names["made"].content_type == "image/avif"
    assert names["info"].width == 400


def test_the_limits() -> None:
    rows = re.findall(r"^\| (.*) \|$", TEXT.partition("\n## Limits\n")[2].partition("\n\nHeaders")[0], re.MULTILINE)
    numbers = [int(number.replace(",", "")) for row in rows for number in re.findall(r"\d[\d,]*", row)]
    assert numbers == [
        *(MAX_IMAGE_BYTES, MAX_HOSTED_BYTES, MAX_SIDE, MAX_PIXELS, MAX_FRAMES, MAX_SOURCES, MAX_FORM_BYTES),
        *(MAX_OPERATIONS, MAX_AVIF_PIXELS, MAX_META_BYTES, MAX_ID_LENGTH, MAX_FILENAME_LENGTH, MAX_CREATOR_LENGTH),
        *(MAX_PAGE, DEFAULT_PAGE),
    ]


def test_the_statuses() -> None:
    rows = re.findall(r"^\| (9\d{3}) \| (\d{3}) \|", TEXT, re.MULTILINE)
    assert {int(code): int(status) for code, status in rows} == _STATUS
