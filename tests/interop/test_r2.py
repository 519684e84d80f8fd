"""R2 from a real workerd: the same script with our proxy behind env.BUCKET, and with Miniflare's own simulator.

What a Worker does is in r2_worker.mjs, by the name of its scenario. The two answers are compared as they are; where
ours is another on purpose, DIFFERENCES says what is there and why.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import ANY

import attrs
import pytest
from buckets import s3_server
from proxying import serving

from .node import HERE
from .runtime import Worker, workerd

SCRIPT: Final = "r2_worker.mjs"

# Those that the simulator does not know how to answer, or not all of our stores, have tests of their own.
OURS: Final = {"storageClass", "manyDeletes", "ssec", "longestKeys"}
SCENARIOS: Final = [
    name
    for name in re.findall(r"^  async (\w+)\(bucket", (HERE / SCRIPT).read_text(), re.MULTILINE)
    if name not in OURS
]

MIB: Final = 1024 * 1024

OUR_STORES: Final = ("files", "objects", "overlay")
CONFIG: Final = """
[server]
state_dir = "{folder}/state"
[bindings.files]
type = "r2_bucket"
[bindings.overlay]
type = "r2_bucket"
access = "overlay"
[bindings.objects]
type = "r2_bucket"
store = "s3://interop"
[bindings.objects.store_options]
{options}
"""

WRONG_KEY: Final = "The provided encryption parameters did not match the ones used originally. (10003)"

_TOO_LARGE: Final = "createMultipartUpload: Your metadata headers exceed the maximum allowed metadata size. (10012)"

# What we answer, and what the simulator does.
DIFFERENCES: Final[dict[str, dict[str, tuple[Any, Any]]]] = {
    # The simulator fails on a range that begins where the object ends.
    "ranges": {
        ".result.results.13.1.thrown.message": (
            "get: The requested range is not satisfiable (10039)",
            "get: Unspecified error (0)",
        )
    },
    # The simulator checks the metadata of a put only.
    "metadataLimits": {
        ".result.upload.thrown": ({"class": "Error", "name": "Error", "message": _TOO_LARGE}, None),
        ".result.upload.value": (None, "made"),
    },
    # The simulator makes an empty object of no parts; S3 refuses them.
    "uploadOptions": {
        ".result.empty.thrown": (
            {
                "class": "Error",
                "name": "Error",
                "message": "completeMultipartUpload: A multipart upload is completed with at least one part (10029)",
            },
            None,
        ),
        ".result.empty.value": (None, ANY),
    },
    # Documented as optional ("include"); the simulator says that there is none where it was not asked.
    "include": {
        ".result.httpMetadata.0.customMetadata": (None, {}),
        ".result.httpMetadata.1.customMetadata": (None, {}),
        ".result.customMetadata.0.httpMetadata": (None, {}),
        ".result.customMetadata.1.httpMetadata": (None, {}),
    },
    "deepPages": {".result.include.0.httpMetadata": (None, {})},
    "listedObjects": {
        ".result.without.thrown": (
            {
                "class": "TypeError",
                "name": "TypeError",
                "message": "HTTP metadata unknown for key `a`. Did you forget to add 'httpMetadata' to `include` when "
                "listing?",
            },
            None,
        ),
        ".result.without.value": (None, []),
    },
    "nothingIncluded": {
        ".result.implicit.0.customMetadata": (None, {}),
        ".result.implicit.0.httpMetadata": (None, {}),
        ".result.explicit.0.customMetadata": (None, {}),
        ".result.explicit.0.httpMetadata": (None, {}),
    },
}


@pytest.fixture(scope="module")
def worker(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A Worker with buckets behind our proxy, in a folder, in an object store, and as an overlay of an empty one; and
    with one that is Miniflare's own."""
    config: Path = tmp_path_factory.mktemp("r2") / "capnweb.toml"
    with s3_server() as s3:
        s3.make_bucket("interop")
        options = "".join(f'{name} = "{value}"\n' for name, value in s3.options.items())
        config.write_text(CONFIG.format(folder=config.parent, options=options))
        with serving(config) as server:
            remote = {name: {"id": name, "remoteProxyConnectionString": server.url} for name in OUR_STORES}
            with workerd(node, SCRIPT, r2Buckets={**remote, "simulated": "bucket"}) as running:
                yield running


@attrs.frozen
class Bucket:
    """A bucket of the Worker."""

    worker: Worker
    name: str

    def run(self, scenario: str) -> Any:
        return self.worker.run(scenario, bucket=self.name)

    def attempt(self, scenario: str, **values: Any) -> Any:
        return self.worker.attempt(scenario, bucket=self.name, **values)


@pytest.fixture(params=OUR_STORES)
def ours(request: pytest.FixtureRequest, worker: Worker) -> Bucket:
    return Bucket(worker, request.param)


@pytest.fixture(scope="module")
def simulated(worker: Worker) -> Callable[..., Any]:
    """Runs a scenario with the simulator, once for all of our stores."""
    return functools.cache(Bucket(worker, "simulated").attempt)


def differences(ours: Any, theirs: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two answers differ: the places, and what each has there."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys: Any = {**ours, **theirs}
        pairs = [(key, ours.get(key), theirs.get(key)) for key in keys]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(index, *pair) for index, pair in enumerate(zip(ours, theirs, strict=True))]
    else:
        # The simulator knows no storage classes.
        same = ours == theirs or (path.endswith(".storageClass") and (ours, theirs) == ("Standard", ""))
        return {} if same else {path: (ours, theirs)}
    found: dict[str, tuple[Any, Any]] = {}
    for key, one, other in pairs:
        found |= differences(one, other, f"{path}.{key}")
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_as_the_simulator(scenario: str, ours: Bucket, simulated: Callable[..., Any]) -> None:
    # An object store takes what is larger than 8 MiB in pieces.
    values = {"size": 9 * MIB} if scenario == "large" else {}
    found = differences(ours.attempt(scenario, **values), simulated(scenario, **values))
    assert found == DIFFERENCES.get(scenario, {})


def test_the_longest_keys(ours: Bucket, simulated: Callable[..., Any]) -> None:
    answer = ours.attempt("longestKeys")
    if ours.name == "objects":
        assert "too long for the store behind this bucket (10020)" in answer["thrown"]["message"]
    else:
        assert answer == simulated("longestKeys")


def test_storage_classes(ours: Bucket) -> None:
    answer = ours.run("storageClass")
    assert (answer["put"], answer["head"]) == ("InfrequentAccess", "InfrequentAccess")
    assert answer["bad"]["thrown"]["message"].startswith("put: The storage class is one of")


def test_a_thousand_keys_are_deleted_at_a_time_and_no_more(ours: Bucket) -> None:
    answer = ours.run("manyDeletes")
    assert "thrown" not in answer["thousand"]
    assert answer["more"]["thrown"]["message"].endswith("at most 1000 keys at a time, not 1001 (10029)")


def test_objects_are_encrypted_with_keys_of_their_writers(ours: Bucket) -> None:
    """The simulator takes such keys and encrypts nothing."""
    answer = ours.run("ssec")
    md5 = base64.b64encode(hashlib.md5(bytes(range(32)), usedforsecurity=False).digest()).decode()
    stored = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to"
    errors = {name: (each["thrown"]["class"], each["thrown"]["message"]) for name, each in answer["errors"].items()}
    assert (answer["md5s"], answer["whole"], answer["end"]) == ([md5] * 3, md5, "aaend")
    assert (answer["read"], answer["withBytes"], answer["unmet"]) == ({"value": "content"}, {"value": "ent"}, False)
    assert answer["without"]["thrown"]["message"] == f"get: {stored} retrieve the object. (10029)"
    assert answer["wrong"]["thrown"]["message"] == f"get: {WRONG_KEY}"
    assert errors == {
        "plain": ("Error", "get: The encryption parameters are not applicable to this object. (10029)"),
        "partWithout": ("Error", f"uploadPart: {stored} retrieve the object. (10029)"),
        "partWrong": ("Error", f"uploadPart: {WRONG_KEY}"),
        "upperCase": ("Error", "SSE-C Key has invalid format"),
        "short": ("Error", "SSE-C Key must be 32 bytes in length"),
        "shortBytes": ("Error", "SSE-C Key must be 32 bytes in length"),
    }
