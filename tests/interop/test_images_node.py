"""The images binding of a running proxy, used by npm capnweb on Node, in both codecs: what images.mjs reports."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pictures import BLUE, RED, flat, is_like, picture_format, pixel, size
from proxying import serving

from .node import report_of, rpc_url

IMAGE, OVERLAY = flat(RED, 40, 20), flat(BLUE, 8, 8)


@pytest.fixture(scope="module")
def images_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address at which a proxy's images binding speaks RPC."""
    config: Path = tmp_path_factory.mktemp("images") / "capnweb.toml"
    config.write_text('[bindings.IMAGES]\ntype = "images"\n')
    with serving(config) as server:
        yield rpc_url(server.url, "IMAGES")


@pytest.fixture(scope="module", params=["json", "cbor"])
def report(request: pytest.FixtureRequest, node: str, images_url: str) -> dict[str, Any]:
    """What a Node client reports. With CBOR, the pictures travel raw."""
    pictures = {"image": base64.b64encode(IMAGE).decode(), "overlay": base64.b64encode(OVERLAY).decode()}
    values = report_of(node, "images.mjs", images_url, codec=request.param, given=pictures)
    assert values["forms"] == (["binary", "text"] if request.param == "cbor" else ["text"])
    return values


def test_info(report: dict[str, Any]) -> None:
    assert report["info"] == {"format": "image/png", "fileSize": len(IMAGE), "width": 40, "height": 20}


def test_a_thumbnail_with_an_overlay_is_one_round_trip(report: dict[str, Any]) -> None:
    result = report["thumbnail"]
    made = base64.b64decode(result["image"])
    assert (result["type"], picture_format(made), size(made)) == ("image/webp", "webp", (20, 10))
    assert is_like(pixel(made, 2, 2), RED)
    assert is_like(pixel(made, 18, 8), BLUE)
    assert result["roundTrips"] == 1


def test_base64_in_and_out(report: dict[str, Any]) -> None:
    made = base64.b64decode(report["base64"])
    assert (picture_format(made), size(made), pixel(made, 39, 19)) == ("png", (40, 20), RED)


@pytest.mark.parametrize(
    ("use", "operation", "code"),
    [
        ("info", "INFO", 9412),
        ("input", "TRANSFORM", 9412),
        ("option", "TRANSFORM", 9401),
        ("consumed", "TRANSFORM", 9525),
    ],
)
def test_errors_have_cloudflares_codes(report: dict[str, Any], use: str, operation: str, code: int) -> None:
    error = report["errors"][use]
    assert error["code"] == code
    assert error["message"].startswith(f"IMAGES_{operation}_ERROR {code}: ")


def test_pictures_as_streams(report: dict[str, Any]) -> None:
    result = report["streams"]
    made = base64.b64decode(result["image"])
    assert size(made) == (20, 10)
    assert is_like(pixel(made, 2, 2), RED)
    assert is_like(pixel(made, 18, 8), BLUE)
    assert result["info"] == report["info"]


def test_hosted_images(report: dict[str, Any]) -> None:
    result = report["hosted"]
    for name, kept in result["kept"].items():
        assert kept["same"]
        assert kept["details"] == kept["uploaded"]
        details = {key: value for key, value in kept["details"].items() if key != "uploaded"}
        assert details == {
            "id": f"node/{name}",
            "filename": "uploaded.jpg",
            "requireSignedURLs": False,
            "meta": {"name": name},
            "variants": ["public"],
            "draft": False,
            "creator": "node",
        }
    assert sorted(result["kept"]) == ["buffer", "bytes", "stream"]
    (first, first_is_last), (second, second_is_last) = result["pages"]
    assert sorted(first + second) == ["node/buffer", "node/bytes", "node/stream"]
    assert (len(first), first_is_last, second_is_last) == (2, False, True)
    assert result["creator"] == "me"
    assert (result["deleted"], result["missing"]) == ([True, True, True], [None, None, False])
    # npm capnweb knows the names of JavaScript's own errors.
    assert result["error"] == {"name": "Error", "message": "Image not found: node/bytes", "code": 5404}


def test_an_image_is_uploaded_and_seen_by_url(report: dict[str, Any]) -> None:
    known = {"filename": "holiday.png", "draft": False, "meta": {"by": "node"}}
    assert report["direct"] == {"status": 200, "same": True, **known}
