"""The remote path: a Worker in a real workerd uses KV, R2, D1 and Images that are behind a proxy of ours, and behind
the proxy Worker of npm `wrangler` under Miniflare, with Miniflare's own local stores.

Both are asked in turn, each workload within seconds of the other. What runs workerd is that of the interop tests.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import attrs

from .children import ChildFailed, child
from .sides import installed_node, require
from .tables import Table, figure, print_table, span, times

__all__ = ["INTEROP", "compare_remote", "our_proxy", "picture", "remote_bindings", "run", "workerd"]

_ROOT: Final = Path(__file__).parent.parent
INTEROP: Final = _ROOT / "tests" / "interop"
_PROXY_WORKER: Final = "node_modules/wrangler/wrangler-dist/ProxyServerWorker.js"
_WORKER: Final = "../../benchmarks/node/remote_worker.mjs"

OURS: Final = "our proxy"
CLOUDFLARES: Final = "Cloudflare's proxy Worker"

# How often each workload runs in a round, and with --quick.
_COUNTS: Final = {
    "KV get": (300, 100),
    "KV put": (300, 100),
    "R2 get 1 MiB": (30, 10),
    "R2 put 1 MiB": (30, 10),
    "D1 query": (300, 100),
    "image thumbnail": (15, 5),
}

# A picture of this many pixels each way, as a camera would make it.
_PICTURE_SIZE: Final = 2000

_BINDINGS: Final = {
    "KV": {"type": "kv_namespace"},
    "R2": {"type": "r2_bucket"},
    "DB": {"type": "d1"},
    "IMAGES": {"type": "images"},
}


def compare_remote(
    rounds: int, quick: bool, where: Mapping[str, Any], output: Path, tell: Callable[[str], None]
) -> None:
    """Run both, print the table, and save the figures.

    Raises:
        Missing: if Node or the package pyvips is not there.
        ChildFailed: if one of the processes fails.
    """
    require("pyvips", "the picture of the benchmark of remote bindings")
    node, jpeg = installed_node(INTEROP), picture()
    figures: dict[str, dict[str, list[float]]] = {name: {OURS: [], CLOUDFLARES: []} for name in _COUNTS}
    with ExitStack() as stack:
        proxies = {
            OURS: stack.enter_context(our_proxy()).url,
            CLOUDFLARES: stack.enter_context(workerd(node, CLOUDFLARES, _local_bindings())),
        }
        workers = {
            name: stack.enter_context(workerd(node, f"the Worker of {name}", remote_bindings(url)))
            for name, url in proxies.items()
        }
        for url in workers.values():
            run(url, "prepare", 1, b"")
        for number in range(-1, rounds):  # the first round only warms up
            tell(f"round {number + 1} of {rounds}")
            for workload, counts in _COUNTS.items():
                for name, url in workers.items() if number % 2 else reversed(workers.items()):
                    rate = run(url, workload, counts[quick], jpeg)
                    if number >= 0:
                        figures[workload][name].append(rate)
    print_table(_table(figures))
    saved = {"finished": datetime.now(UTC).isoformat(timespec="seconds"), "machine": where, "a second": figures}
    output.write_text(json.dumps(saved, indent=2) + "\n")


def _table(figures: Mapping[str, Mapping[str, list[float]]]) -> Table:
    rows: list[tuple[str, ...]] = []
    for workload, by_proxy in figures.items():
        ours, theirs = by_proxy[OURS], by_proxy[CLOUDFLARES]
        ratio, ratios = median(ours) / median(theirs), [one / other for one, other in zip(ours, theirs, strict=True)]
        rows.append((workload, figure(median(ours)), figure(median(theirs)), times(ratio), span(ratios)))
    header = ("from a real workerd, a second", OURS, CLOUDFLARES, "ratio", "by round")
    return Table("one at a time, each through a proxy", header, rows, left=1)


def run(url: str, workload: str, count: int, picture: bytes) -> float:
    """Have a Worker do something. Returns how many times a second it did."""
    target = f"{url}{urllib.parse.quote(workload)}?count={count}"
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(target, picture, timeout=120) as response:
            response.read()
    except urllib.error.HTTPError as error:
        raise ChildFailed(error.read().decode()) from None
    return count / (time.perf_counter() - started)


@attrs.frozen
class Proxy:
    """A proxy server that runs: its connection string, and its process."""

    url: str
    pid: int


@contextmanager
def our_proxy() -> Iterator[Proxy]:
    """Run ours, with bindings over embedded stores."""
    with tempfile.TemporaryDirectory() as folder:
        command = (sys.executable, "-m", "proxy_server", "serve", "-", "--port", "0")
        with child(command, OURS, {}) as process:
            answer = process.ask(json.dumps({"server": {"state_dir": folder}, "bindings": _BINDINGS}))
            yield Proxy(_url(answer), process.pid)


@contextmanager
def workerd(node: str, name: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Run a Worker. Yields its URL."""
    with child((node, str(INTEROP / "runtime.mjs"), json.dumps(options)), name, {}) as process:
        yield _url(process.read())


def _url(answer: Mapping[str, Any]) -> str:
    if "url" not in answer:
        raise ChildFailed(str(answer["error"]))
    return str(answer["url"])


def _local_bindings() -> dict[str, Any]:
    stores = {"kvNamespaces": ["KV"], "r2Buckets": ["R2"], "d1Databases": ["DB"], "images": {"binding": "IMAGES"}}
    return {"script": _PROXY_WORKER, "raw": True, **stores}


def remote_bindings(url: str) -> dict[str, Any]:
    """The options of a Worker whose bindings are behind a proxy."""

    def remote(name: str) -> dict[str, Any]:
        return {name: {"id": name, "remoteProxyConnectionString": url}}

    return {
        "script": _WORKER,
        "modulesRoot": str(_ROOT),
        "kvNamespaces": remote("KV"),
        "r2Buckets": remote("R2"),
        "d1Databases": remote("DB"),
        "images": {"binding": "IMAGES", "remoteProxyConnectionString": url},
    }


def picture() -> bytes:
    """A JPEG as a camera would make it."""
    import pyvips

    size = _PICTURE_SIZE
    bands = [pyvips.Image.perlin(size, size, seed=seed, uchar=True) for seed in range(3)]
    jpeg: bytes = bands[0].bandjoin(bands[1:]).copy(interpretation="srgb").jpegsave_buffer(Q=85)
    return jpeg
