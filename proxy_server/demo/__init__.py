"""The demo: the main job from end to end, on real input, with the time and the round trips of every step.

It starts a proxy server in a process of its own, and is its client over a link that is as slow as a real one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import anyio
import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from capnweb_py.remote import Env, connect_env, start_remote_proxy_session
from proxy_server.demo.wire import Link, linked

__all__ = ["main"]

# A public-domain U.S. Navy photograph; see the README beside it.
PHOTOGRAPH: Final = Path(__file__).with_name("grace_hopper.jpg")

# How long a byte takes one way, in seconds: a server in the same country, or a near region of a cloud.
ONE_WAY: Final = 0.010

BINDINGS: Final = {
    "GREETER": {"type": "service", "target": "proxy_server.demo.greeter:Greeter"},
    "IMAGES": {"type": "images"},
}


_COLUMNS: Final = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)


@attrs.frozen
class _Step:
    """What a step has shown."""

    title: str
    outcome: str
    seconds: float
    round_trips: int


class _Show:
    """Runs steps, and keeps what each has shown.

    A step has a title, is run with the bindings, and tells its outcome in a few words.
    """

    def __init__(self, link: Link, env: Env, progress: Progress) -> None:
        self._link = link
        self._env = env
        self._progress = progress
        self.steps: list[_Step] = []

    async def run(self, title: str, step: Callable[[Env], Awaitable[str]]) -> None:
        task = self._progress.tasks[0].id
        self._progress.update(task, description=title)
        trips, begin = self._link.round_trips, time.perf_counter()
        outcome = await step(self._env)
        seconds = time.perf_counter() - begin
        self.steps.append(_Step(title, outcome, seconds, self._link.round_trips - trips))
        self._progress.advance(task)


def main(output: Path | None = None) -> int:
    """Run the demo, and print what it has shown.

    Args:
        output: where the pictures are written; a new temporary directory by default.

    Returns:
        the exit code.
    """
    directory = output or Path(tempfile.mkdtemp(prefix="capnweb-demo-"))
    directory.mkdir(parents=True, exist_ok=True)
    console = Console()
    with Progress(*_COLUMNS, console=console, transient=True) as progress:
        steps, pictures = anyio.run(_demonstrate, directory, progress)
    console.print(_table_of(steps))
    for picture in pictures:
        console.print(f"  {picture} ({picture.stat().st_size / 1000:.1f} kB)", soft_wrap=True, highlight=False)
    return 0


async def _demonstrate(directory: Path, progress: Progress) -> tuple[list[_Step], list[Path]]:
    progress.add_task("starting the proxy server", total=len(_STEPS) + len(_FORMATS))
    photograph = PHOTOGRAPH.read_bytes()
    pictures: list[Path] = []
    async with _proxied() as (link, connection_string), connect_env(connection_string) as env:
        show = _Show(link, env, progress)
        for title, step in _STEPS:
            await show.run(title, step)
        for name, mime in _FORMATS.items():
            path = directory / f"grace_hopper.{name.lower()}"
            await show.run(f"a thumbnail in {name}, pipelined", partial(_thumbnail, photograph, mime, path))
            pictures.append(path)
    return show.steps, pictures


@asynccontextmanager
async def _proxied() -> AsyncIterator[tuple[Link, str]]:
    """A proxy server in a process of its own, and the connection string that leads to it over a link."""
    async with await start_remote_proxy_session(BINDINGS) as session:
        parts = urlsplit(session.connection_string)
        assert parts.port is not None, "the server prints the port that it listens on"
        async with linked(parts.port, ONE_WAY) as link:
            yield link, urlunsplit(parts._replace(netloc=f"127.0.0.1:{link.port}"))


async def _greet(env: Env) -> str:
    greeting: str = await env.GREETER.hello("World")
    return greeting


async def _count_awaiting_each(env: Env) -> str:
    counter = await env.GREETER.make_counter()
    await counter.increment(5)
    await counter.increment(5)
    return f"the counter stands at {await counter.value}"


async def _count_pipelined(env: Env) -> str:
    counter = env.GREETER.make_counter()
    # Nobody waits for these two: what is asked of the counter next is asked after them.
    counter.increment(5).dispose()
    counter.increment(5).dispose()
    return f"the counter stands at {await counter.value}"


async def _call_back(env: Env) -> str:
    numbers: list[int] = []
    outcome: str = await env.GREETER.count_down(3, numbers.append)
    return f"called back with {', '.join(map(str, numbers))}: {outcome}"


async def _look(env: Env) -> str:
    info = await env.IMAGES.info(PHOTOGRAPH.read_bytes())
    return f"{info.format}, {info.width} x {info.height}, {info.file_size / 1000:.1f} kB"


async def _thumbnail_awaiting_each(env: Env) -> str:
    """The thumbnail as code without promises would make it: each step waits for the one before."""
    images = env.IMAGES.rpc
    badge = await images.input(PHOTOGRAPH.read_bytes())
    badge = await badge.transform(_BADGE)
    picture = await images.input(PHOTOGRAPH.read_bytes())
    picture = await picture.transform(_THUMBNAIL)
    picture = await picture.draw(badge, _CORNER)
    result = await picture.output({"format": "image/webp"})
    return f"{len(await result.image()) / 1000:.1f} kB of {await result.contentType()}"


async def _thumbnail(photograph: bytes, mime: str, path: Path, env: Env) -> str:
    badge = env.IMAGES.input(photograph).transform(**_BADGE)
    picture = env.IMAGES.input(photograph).transform(**_THUMBNAIL).draw(badge, **_CORNER)
    result = await picture.output(format=mime)
    await anyio.Path(path).write_bytes(result.data)
    return f"{len(result.data) / 1000:.1f} kB of {result.content_type}"


_THUMBNAIL: Final[dict[str, Any]] = {"width": 256, "height": 256, "fit": "cover", "gravity": "top"}
_BADGE: Final[dict[str, Any]] = {"width": 72, "height": 72, "fit": "cover", "border": {"color": "white", "width": 3}}
_CORNER: Final[dict[str, Any]] = {"right": 8, "bottom": 8, "opacity": 0.9}

_STEPS: Final[tuple[tuple[str, Callable[[Env], Awaitable[str]]], ...]] = (
    ("a service, its session opened", _greet),
    ("the service again", _greet),
    ("a counter, each call awaited", _count_awaiting_each),
    ("a counter, pipelined", _count_pipelined),
    ("a callback from the server", _call_back),
    ("looking at a photograph", _look),
    ("a thumbnail, each step awaited", _thumbnail_awaiting_each),
)
_FORMATS: Final = {"WebP": "image/webp", "AVIF": "image/avif"}


def _table_of(steps: list[_Step]) -> Table:
    table = Table(title=f"Through a proxy server, over a link of {2000 * ONE_WAY:.0f} ms there and back")
    table.add_column("step")
    table.add_column("round trips", justify="right")
    table.add_column("time", justify="right")
    table.add_column("what came of it", style="green")
    for step in steps:
        table.add_row(step.title, str(step.round_trips), f"{1000 * step.seconds:.0f} ms", step.outcome)
    return table
