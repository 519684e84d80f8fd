"""env.IMAGES of a real workerd, with our proxy behind it and with Miniflare's own images service.

One script, images_worker.mjs, runs with both. The service of Miniflare is the oracle for hosted images, for what it
checks. It checks little: what Cloudflare's documentation refuses and it does not is in REFUSED, with the page that says
so. For pictures it is none: it knows no option but a size and a rotation, and its errors are those of its image
library, with the stack of Node.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pictures import RED, bomb, flat, packed, pixel, scanned, size
from proxying import serving

from .runtime import Worker, workerd

SCRIPT: Final = "images_worker.mjs"
IMAGE: Final = flat(RED, 40, 20)
PNG: Final = {"format": "image/png"}


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


IMAGE_TEXT: Final = base64_of(IMAGE)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a proxy of ours."""
    config: Path = tmp_path_factory.mktemp("images") / "capnweb.toml"
    config.write_text('[bindings.IMAGES]\ntype = "images"\n[bindings.RAW]\ntype = "images"\n')
    with serving(config) as server:
        yield server.url


@pytest.fixture(scope="module")
def ours(node: str, url: str) -> Iterator[Worker]:
    """A Worker whose env.IMAGES is behind our proxy; env.RAW is an images binding as well, without the API of one."""
    images = {"binding": "IMAGES", "remoteProxyConnectionString": url}
    raw = {"name": "RAW", "remoteProxyConnectionString": url}
    with workerd(node, SCRIPT, images=images, serviceBindings={"RAW": raw}) as worker:
        yield worker


@pytest.fixture(scope="module")
def simulated(node: str) -> Iterator[Worker]:
    """A Worker whose env.IMAGES is Miniflare's own."""
    with workerd(node, SCRIPT, images={"binding": "IMAGES"}) as worker:
        yield worker


@pytest.fixture(scope="module")
def simulated_raw(node: str) -> Iterator[Worker]:
    """A Worker whose env.RAW is the service behind Miniflare's own."""
    with workerd(node, SCRIPT, raw=True, images={"binding": "RAW"}) as worker:
        yield worker


# Hosted images


@pytest.mark.parametrize(
    ("scenario", "arguments"),
    [
        ("uploadAndDetails", {"options": {"id": "a/path of/ü.png", "filename": "x.png", "creator": "me"}}),
        ("uploadAndDetails", {"options": {"id": "b", "metadata": {"k": [1, None, {"d": "ü"}]}}}),
        ("ids", {}),
        ("missing", {}),
        ("update", {}),
        ("list", {}),
    ],
)
def test_hosted_images_are_as_in_miniflare(
    ours: Worker, simulated: Worker, scenario: str, arguments: dict[str, Any]
) -> None:
    answer = ours.run(scenario, image=IMAGE_TEXT, **arguments)
    assert answer == simulated.run(scenario, image=IMAGE_TEXT, **arguments)
    assert answer


def test_the_list_is_what_was_asked_for(ours: Worker) -> None:
    """That two runtimes agree says little if both are empty."""
    answer = ours.run("list", image=IMAGE_TEXT)
    assert [page["ids"] for page in answer["twos"]] == [["list/a", "list/b"], ["list/c", "list/d"], ["list/e"]]
    assert [page["complete"] for page in answer["twos"]] == [False, False, True]
    assert [page["ids"] for page in answer["descending"]] == [["list/e", "list/d", "list/c"], ["list/b", "list/a"]]
    assert [page["ids"] for page in answer["creator"]] == [["list/a", "list/b"], ["list/c"]]
    assert answer["empty"] == [{"ids": [], "complete": True, "more": False}]


def test_large_images_stream_both_ways(ours: Worker, simulated: Worker) -> None:
    answer = ours.run("large", image=IMAGE_TEXT, padding=3_000_000)
    assert answer == {"same": True, "pieces": True, "first": True, "deleted": True}
    assert simulated.run("large", image=IMAGE_TEXT, padding=3_000_000) == answer


def test_images_come_in_streams_and_in_base64(ours: Worker, simulated: Worker) -> None:
    """The capnweb that Miniflare bundles for remote bindings knows no ArrayBuffer: it fails before it reaches us."""
    answer = ours.run("uploadForms", image=IMAGE_TEXT)
    unknown = {"thrown": {"name": "TypeError", "message": "Cannot serialize value: [object ArrayBuffer]"}}
    kept = {"value": True}
    assert answer == {"arrayBuffer": unknown, "pieces": kept, "base64": kept, "base64ArrayBuffer": unknown}
    assert simulated.run("uploadForms", image=IMAGE_TEXT) == dict.fromkeys(answer, kept)


def test_hosted_images_are_found_by_their_metadata(ours: Worker) -> None:
    """An option that is newer than the service of this Miniflare."""
    wanted = {"metadataFilter": {"nested.number": {"gte": 1, "lt": 3}}}
    found = ours.run("filtered", image=IMAGE_TEXT, options=wanted)
    assert sorted(found) == ["filtered/1", "filtered/2"]


def test_an_image_is_uploaded_and_seen_without_the_binding(ours: Worker) -> None:
    """This workerd is older than the two methods of `env.IMAGES.hosted`, which are called as that does it."""
    options = {"id": "direct", "metadata": {"k": 1}, "creator": "me", "expiresIn": 600}
    known = {"id": "direct", "meta": {"k": 1}, "creator": "me", "requireSignedURLs": False, "variants": ["public"]}
    assert ours.run("directUpload", image=IMAGE_TEXT, options=options) == {
        "draft": {**known, "draft": True, "uploaded": True},
        "uploaded": 200,
        "success": True,
        "again": 404,
        "details": {**known, "draft": False, "uploaded": True, "filename": "holiday.png"},
        "shown": True,
        "deleted": True,
    }


def test_a_hosted_image_is_transformed(ours: Worker) -> None:
    answer = ours.run("transformHosted", image=IMAGE_TEXT)
    made = base64.b64decode(answer["image"])
    assert (answer["type"], size(made), pixel(made, 5, 2)) == ("image/png", (10, 5), RED)


# What Cloudflare's documentation does not allow, and Miniflare does: the scenario, its arguments, and the error.
REFUSED: Final[list[tuple[str, dict[str, Any], str]]] = [
    # "Limits and formats": what can be uploaded, and how large.
    ("upload", {"image": base64_of(b"no image")}, "IMAGES_UPLOAD_ERROR 9412: The input is not an image"),
    ("upload", {"image": base64_of(b"")}, "IMAGES_UPLOAD_ERROR 9412: The input is not an image"),
    ("upload", {"image": base64_of(IMAGE[:60])}, "IMAGES_UPLOAD_ERROR 9516: The PNG image is corrupt or cut short"),
    ("upload", {"padding": 10_000_000}, "IMAGES_UPLOAD_ERROR 9402: The image is too large: at most 10"),
    # "Upload via custom path", and the schema of the REST API.
    ("upload", {"options": {"id": "/x"}}, "IMAGES_UPLOAD_ERROR 9401: upload.id must be a path that"),
    (
        "upload",
        {"options": {"id": "2cdc28f0-017a-49c4-9ed7-87056c839010"}},
        "IMAGES_UPLOAD_ERROR 9401: upload.id must be something else than a UUID",
    ),
    ("upload", {"options": {"id": 5}}, "IMAGES_UPLOAD_ERROR 9401: upload.id must be a string"),
    ("upload", {"options": {"metadata": [1]}}, "IMAGES_UPLOAD_ERROR 9401: upload.metadata must be an object"),
    ("upload", {"options": {"wrong": 1}}, "IMAGES_UPLOAD_ERROR 9401: upload has the unknown option 'wrong'"),
    # "Manage hosted images with Workers".
    (
        "upload",
        {"options": {"id": "x", "requireSignedURLs": True}},
        "IMAGES_UPLOAD_ERROR 9401: upload.requireSignedURLs can't be true for an image with a custom id",
    ),
    (
        "updating",
        {"options": {"requireSignedURLs": True}},
        "IMAGES_UPDATE_ERROR 9401: update.requireSignedURLs can't be true for an image with a custom id",
    ),
    ("listing", {"options": {"limit": 0}}, "IMAGES_LIST_ERROR 9401: list.limit must be a whole number from 1 to 1000"),
    ("listing", {"options": {"cursor": "x"}}, "IMAGES_LIST_ERROR 9401: list.cursor must be the cursor of a page"),
    ("listing", {"options": {"sortOrder": "up"}}, "IMAGES_LIST_ERROR 9401: list.sortOrder must be one of asc, desc"),
]


@pytest.mark.parametrize(("scenario", "arguments", "message"), REFUSED)
def test_what_cloudflare_does_not_allow_is_refused(
    ours: Worker, simulated: Worker, scenario: str, arguments: dict[str, Any], message: str
) -> None:
    thrown = ours.run(scenario, **{"image": IMAGE_TEXT, **arguments})["thrown"]
    assert thrown["name"] == "Error"
    assert thrown["message"].startswith(message)
    assert "value" in simulated.run(scenario, **{"image": IMAGE_TEXT, **arguments}), "Miniflare refuses it, too"


def test_ids_have_up_to_1024_characters(ours: Worker, simulated: Worker) -> None:
    """In Miniflare 512 bytes, as many as a key of its KV namespace has."""
    longest, beyond = ({"id": "x" * length} for length in (1024, 1025))
    assert ours.run("upload", image=IMAGE_TEXT, options=longest)["value"]["id"] == longest["id"]
    refusal = ours.run("upload", image=IMAGE_TEXT, options=beyond)["thrown"]["message"]
    assert refusal.startswith("IMAGES_UPLOAD_ERROR 9401: upload.id must be a string of 1 to 1024 characters")
    assert "length limit of 512" in simulated.run("upload", image=IMAGE_TEXT, options=longest)["thrown"]["message"]


def test_metadata_of_more_than_1024_bytes_is_refused_by_both(ours: Worker, simulated: Worker) -> None:
    large = {"metadata": {"k": "x" * 1100}}
    assert "at most 1024 are allowed" in ours.run("upload", image=IMAGE_TEXT, options=large)["thrown"]["message"]
    assert "exceeds limit of 1024" in simulated.run("upload", image=IMAGE_TEXT, options=large)["thrown"]["message"]


def test_an_id_is_given_once(ours: Worker, simulated: Worker) -> None:
    """The REST API answers 409 with this number and these words. Miniflare replaces the first image."""
    first, second = ours.run("uploadTwice", image=IMAGE_TEXT)
    assert first["value"]["id"] == "twice"
    assert second["thrown"]["message"] == "IMAGES_UPLOAD_ERROR 5409: Resource already exists: twice"
    assert "value" in simulated.run("uploadTwice", image=IMAGE_TEXT)[1]


# What a Worker sees of pictures that are refused


def test_pictures_that_both_understand(ours: Worker, simulated: Worker) -> None:
    info = ours.run("info", image=IMAGE_TEXT)
    assert info == simulated.run("info", image=IMAGE_TEXT)
    assert info["value"] == {"format": "image/png", "fileSize": len(IMAGE), "width": 40, "height": 20}
    for worker in (ours, simulated):
        made = worker.run("output", image=IMAGE_TEXT, steps=[{"rotate": 90}, {"width": 5, "height": 10}], output=PNG)
        picture = base64.b64decode(made["value"]["image"])
        assert (made["value"]["type"], size(picture), pixel(picture, 2, 5)) == ("image/png", (5, 10), RED)


@pytest.mark.parametrize(
    ("image", "padding", "code", "message"),
    [
        (b"", 0, 9412, "The input is not an image, expected one of: JPEG, PNG, WebP, GIF or AVIF"),
        (b"no image", 0, 9412, "The input is not an image, expected one of: JPEG, PNG, WebP, GIF or AVIF"),
        (b"BM" + bytes(30), 0, 9520, "Unsupported image type BMP, expected one of: JPEG, PNG, WebP, GIF or AVIF"),
        (IMAGE[:60], 0, 9516, "The PNG image is corrupt or cut short: no header"),
        (IMAGE, 20_000_000, 9402, "The image is too large: at most 20000000 bytes are allowed"),
    ],
)
def test_what_is_no_picture(ours: Worker, image: bytes, padding: int, code: int, message: str) -> None:
    given = {"image": base64_of(image), "padding": padding}
    answers = {"INFO": ours.run("info", **given), "TRANSFORM": ours.run("output", **given, output=PNG)}
    for operation, answer in answers.items():
        thrown = {"name": "Error", "code": code, "message": f"IMAGES_{operation}_ERROR {code}: {message}"}
        assert answer == {"thrown": thrown}


@pytest.mark.parametrize(
    ("image", "code", "message"),
    [
        (flat(RED, 200, 200)[:-40], 9516, "The PNG image is corrupt or cut short: it can't be decoded"),
        (scanned(3_000), 9516, "The JPEG image is corrupt or cut short: it can't be decoded"),
        (packed(b"IDAT", 64)[:-1000], 9516, "The PNG image is corrupt or cut short: it can't be decoded"),
        (bomb(12_001, 1), 9413, "The image is too large: 12001x1, but the maximum dimension is 12000"),
        (bomb(12_000, 12_000), 9413, "The images of this request have 144000000 pixels"),
    ],
)
def test_pictures_that_are_corrupt_or_bombs(ours: Worker, image: bytes, code: int, message: str) -> None:
    """Their headers are read before anything else: `info` may well answer."""
    thrown = ours.run("output", image=base64_of(image), output=PNG)["thrown"]
    assert (thrown["name"], thrown["code"]) == ("Error", code)
    assert thrown["message"].startswith(f"IMAGES_TRANSFORM_ERROR {code}: {message}")
    drawn = [{"image": base64_of(image), "options": {"top": 0}}]
    assert ours.run("output", image=IMAGE_TEXT, drawn=drawn, output=PNG)["thrown"]["code"] == code
    if code == 9413:
        upload = ours.run("upload", image=base64_of(image))["thrown"]["message"]
        assert upload.startswith("IMAGES_UPLOAD_ERROR 9413")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": [{"width": "x"}]}, "transforms[0].width must be a whole number from 1 to 12000, not 'x'"),
        ({"steps": [{"width": 1}, {"wdith": 1}]}, "transforms[1] has the unknown option 'wdith'"),
        ({"output": {"format": "image/tiff"}}, "output.format must be one of image/jpeg, image/png, image/webp"),
        ({"output": {}}, "output.format must be one of image/jpeg, image/png, image/webp"),
        ({"output": {"format": "image/png", "quality": 0}}, "output.quality must be a whole number from 1 to 100"),
        ({"output": {"format": "image/png", "anim": "no"}}, "output.anim must be true or false, not 'no'"),
        (
            {"drawn": [{"image": IMAGE_TEXT, "options": {"top": 0, "bottom": 0}}]},
            "transforms[0] sets both top and bottom; only one of them can be given",
        ),
        ({"drawn": [{"image": IMAGE_TEXT, "options": {"opacity": 2}}]}, "transforms[0].opacity must be a number"),
    ],
)
def test_options_that_are_not_valid(ours: Worker, arguments: dict[str, Any], message: str) -> None:
    thrown = ours.run("output", **{"image": IMAGE_TEXT, "output": PNG, **arguments})["thrown"]
    assert (thrown["name"], thrown["code"]) == ("Error", 9401)
    assert thrown["message"].startswith(f"IMAGES_TRANSFORM_ERROR 9401: {message}")


def test_a_picture_whose_stream_fails(ours: Worker) -> None:
    """The runtime ends the form where its stream failed, and tells nobody why."""
    answer = ours.run("failing", image=IMAGE_TEXT)
    cut_short = "Bad request to the Images binding: the form is cut short: its last boundary is missing"
    for use, operation in (("info", "INFO"), ("drawn", "TRANSFORM")):
        message = f"IMAGES_{operation}_ERROR 9523: {cut_short}"
        assert answer[use]["thrown"] == {"name": "Error", "code": 9523, "message": message}
    assert answer["upload"]["thrown"]["message"] == "ReadableStream received over RPC disconnected prematurely."
    assert answer["kept"] is None


@pytest.mark.parametrize("text", ["!!!!", "QUJ", "QUI=QUI="])
def test_what_is_no_base64(ours: Worker, text: str) -> None:
    """The runtime decodes it, and ends the form where that fails."""
    thrown = ours.run("info", image=base64_of(text.encode()), options={"encoding": "base64"})["thrown"]
    assert (thrown["name"], thrown["code"]) == ("Error", 9523)
    assert "the form is cut short" in thrown["message"]


FORM: Final = "multipart/form-data; boundary=B"
PART: Final = '--B\r\ncontent-disposition: form-data; name="{}"\r\n\r\n{}\r\n'


@pytest.mark.parametrize(
    ("path", "kind", "body", "problem"),
    [
        ("/info", FORM, "hello", "the form is malformed"),
        ("/info", FORM, PART.format("image", "x"), "the form is cut short: its last boundary is missing"),
        ("/info", "text/plain", "x", "the content-type is not multipart/form-data with a boundary"),
        ("/info", FORM, PART.format("picture", "x") + "--B--\r\n", "there is no field 'picture' here"),
        ("/transform", FORM, "--B--\r\n", 'one field "image" or "text_input" is needed, and there are 0'),
        (
            "/transform",
            FORM,
            PART.format("image", "x") + PART.format("transforms", "{") + "--B--\r\n",
            'the field "transforms" is no JSON',
        ),
    ],
)
def test_malformed_forms(ours: Worker, simulated_raw: Worker, path: str, kind: str, body: str, problem: str) -> None:
    """Status and number are those of Miniflare's service, unless it breaks off: then its status is 500."""
    answer = ours.run("raw", path=path, type=kind, body=body)
    assert (answer["status"], answer["error"]) == (400, "err=9523")
    assert answer["text"].startswith(f"ERROR 9523: Bad request to the Images binding: {problem}")
    theirs = simulated_raw.run("raw", path=path, type=kind, body=body)
    assert (theirs["status"], theirs["error"]) in ((400, "err=9523"), (500, None))
