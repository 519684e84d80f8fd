"""A real workerd as a process: a script of this folder under npm miniflare, with whatever bindings a test gives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs
import httpx2

from .node import HERE

__all__ = ["DEADLINE", "Worker", "cloudflare_proxy", "cloudflare_tunnel", "workerd"]

# How long, in seconds, one scenario may take, and a process that is told to stop.
DEADLINE: Final = 60

# The Worker that Wrangler deploys to serve remote bindings.
_PROXY_WORKER: Final = "node_modules/wrangler/wrangler-dist/ProxyServerWorker.js"

# The compatibility date of that Worker as Wrangler deploys it: from 2026-03-17 on, messages of WebSockets are Blobs to
# a Worker.
_DEPLOYED: Final = "2025-04-28"


@attrs.frozen
class Worker:
    """A running Worker."""

    url: str

    def run(self, scenario: str, **arguments: Any) -> Any:
        """Run a scenario of the script; returns its result. One that throws fails the test."""
        answer = self.attempt(scenario, **arguments)
        assert "result" in answer, answer["thrown"]
        return answer["result"]

    def attempt(self, scenario: str, **arguments: Any) -> dict[str, Any]:
        """Run a scenario of the script, which answers {"result": ...} or {"thrown": ...} to a POST of its arguments."""
        answer: dict[str, Any] = httpx2.post(self.url + scenario, json=arguments, timeout=DEADLINE).json()
        return answer


@contextmanager
def workerd(node: str, script: str, **options: Any) -> Iterator[Worker]:
    """Run a script in a workerd. Its process group ends with the block.

    Args:
        node: the node program.
        script: a module of this folder.
        options: of Miniflare. A connection string may stand under any "remoteProxyConnectionString" in them.
    """
    process = subprocess.Popen(
        [node, "runtime.mjs", json.dumps({"script": script, **options})],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Worker(json.loads(process.stdout.readline())["url"])
        process.stdin.close()
        assert process.wait(DEADLINE) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdin.close()
        process.stdout.close()
        process.wait()


@contextmanager
def cloudflare_proxy(node: str, **options: Any) -> Iterator[str]:
    """Run the proxy Worker that npm `wrangler` ships, with these bindings. Yields its connection string."""
    with workerd(node, _PROXY_WORKER, raw=True, **options) as worker:
        yield worker.url


@contextmanager
def cloudflare_tunnel(node: str) -> Iterator[str]:
    """Run the proxy Worker of the newer Wrangler, which has the TCP tunnel. Yields its connection string.

    Its binding "DB" is a service of workerd's that leads to any address, as a VPC binding does.
    """
    extract = subprocess.run([node, "tunnel_proxy.mjs"], cwd=HERE, check=True, stdout=subprocess.PIPE, text=True)
    anywhere = {"network": {"allow": ["public", "private"]}}
    options: dict[str, Any] = {"serviceBindings": {"DB": anywhere}, "compatibilityDate": _DEPLOYED}
    with workerd(node, extract.stdout.strip(), wrangler="wrangler-tunnel", **options) as worker:
        yield worker.url
